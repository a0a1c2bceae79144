// Segments that the path does not carry: what ICMP says of it (RFC 1191, RFC
// 8201, by way of the engine), and what is done where ICMP is lost.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"
#include "transport/tcp/mss.h"

namespace devwire {
namespace {

// What is tried first then: Linux's tcp_base_mss. RFC 4821 7.2 asks for 1024
// bytes and no less than the family's default.
constexpr uint32_t kBlackHoleMss = 1024;
// A search that has come so near is over: Linux's tcp_probe_threshold.
constexpr uint32_t kSearchEnd = 8;
// Enough for three duplicate ACKs, and one more.
constexpr uint32_t kSegmentsBehindProbe = 4;

}  // namespace

// Segments in flight that are too long were dropped, and not for congestion:
// they go again at once, in pieces, and cwnd stays. RFC 1191 6.5, RFC 8201 5.4.
void Connection::OnPathMss(uint32_t mss) {
  snd_mss_.path = std::min<uint32_t>(mss, options_.mss);
  ApplyPathMss();
}

// RFC 9293 3.7.1, Eff.snd.MSS: payload of a full segment.
uint32_t Connection::EffectiveSndMss() const {
  return snd_mss_.least() - (tcb_.snd_ts_ok ? kTimestampsBytes : 0);
}

void Connection::ApplyPathMss() {
  if (state_ <= State::kSynSent) return;  // The peer's MSS is not known.
  const uint32_t before = smss_;
  smss_ = EffectiveSndMss();
  tso_bytes_ = 0;  // Whole segments of another size.
  if (smss_ >= before) return;
  snd_mss_.probe_end.reset();
  retransmit_queue_.Recut(smss_);
}

// RFC 4821 7.7: full segments seem to die, so much smaller ones are sent. How
// large they may be is searched for from below.
void Connection::NoteTimeoutForPath(Instant now) {
  if (retries_ < kBlackHoleTimeouts || smss_ <= options_.default_mss) return;
  if (retransmit_queue_.front().payload_bytes() <= options_.default_mss) return;
  SndMss& m = snd_mss_;
  const uint32_t dead = m.least();
  m.is_searching = true;
  m.low = std::max<uint32_t>(std::min(dead / 2, kBlackHoleMss),
                             options_.default_mss);
  m.high = dead - 1;
  m.starts_high = false;
  m.probe_end.reset();
  m.search_again = now + options_.path_search_time;
  ++counts_.black_holes;
  ApplyPathMss();
}

// While a search goes on, before new text is sent. True: a probe was.
bool Connection::StepPathSearch(Instant now, const TxLimits& limits,
                                TxSegment* out) {
  SndMss& m = snd_mss_;
  if (m.probe_end) {
    if (SeqLt(tcb_.snd_una, *m.probe_end)) return false;
    m.low = m.probe;  // It got through.
    m.probe_end.reset();
    ApplyPathMss();
  }
  if (now >= m.search_again) {
    m.high = m.allowed();
    m.starts_high = true;
    m.search_again = now + options_.path_search_time;
  }
  if (m.low >= m.allowed()) {  // No hole, or no more.
    m.is_searching = false;
    m.low = UINT32_MAX;
    m.search_again = Instant::Never();
    ApplyPathMss();
    return false;
  }
  m.high = std::min(m.high, m.allowed());
  if (m.high < m.low + kSearchEnd && !m.starts_high) return false;
  return PollPathProbe(now, limits, out);
}

// One segment that is longer than the others, with so much text behind it that
// its loss shows at once. RFC 4821 7.4 and 7.5.
bool Connection::PollPathProbe(Instant now, const TxLimits& limits,
                               TxSegment* out) {
  SndMss& m = snd_mss_;
  const uint32_t probe =
      m.starts_high ? m.high : m.low + (m.high - m.low + 1) / 2;
  const uint32_t text = probe - (tcb_.snd_ts_ok ? kTimestampsBytes : 0);
  const uint32_t needed = text + kSegmentsBehindProbe * smss_;
  const uint32_t flight = flight_size();
  const uint32_t wnd_room = tcb_.snd_wnd > flight ? tcb_.snd_wnd - flight : 0;
  if (recovery_ != Recovery::kOpen || !retransmit_queue_.is_calm() ||
      unsent_bytes() < needed || wnd_room < needed || cwnd_room() < needed ||
      sent_offset_ < send_urgent_end_ || retransmit_queue_.full() ||
      (limits.source != nullptr &&
       limits.source->GatherableBytes(sent_offset_, text) < text)) {
    return false;
  }
  m.starts_high = false;
  m.probe = probe;
  m.probe_end = tcb_.snd_nxt + text;
  ++counts_.path_probes;
  const uint32_t others = smss_;
  smss_ = text;  // One segment, one record.
  FillNewText(text, /*with_fin=*/false, now, out);
  smss_ = others;
  return true;
}

// The probe was found lost, and nothing else: for its length, not because of
// congestion (RFC 4821 7.5), so it goes again in pieces and that is all.
bool Connection::IsOnlyProbeLost() {
  const SentSegment* lost = retransmit_queue_.NextLost();
  return snd_mss_.probe_end && lost != nullptr &&
         lost->end() == *snd_mss_.probe_end &&
         lost->len == retransmit_queue_.lost_bytes();
}

void Connection::OnProbeLost() {
  snd_mss_.high = snd_mss_.probe - 1;
  snd_mss_.probe_end.reset();
  (void)retransmit_queue_.Recut(smss_);
}

}  // namespace devwire
