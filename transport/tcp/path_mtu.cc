// Segments that the path does not carry: what ICMP says of it (RFC 1191, RFC
// 8201, by way of the engine), and what is done where ICMP is lost.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"
#include "transport/tcp/mss.h"

namespace devwire {
namespace {

// Timeouts in a row after which full segments may be dying on the path: Linux's
// tcp_retries1, at which tcp_mtu_probing = 1 begins.
constexpr uint8_t kBlackHoleTimeouts = 3;
// What is tried first then: Linux's tcp_base_mss. RFC 4821 7.2 asks for 1024
// bytes and no less than the family's default.
constexpr uint32_t kBlackHoleMss = 1024;

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
  if (smss_ < before) retransmit_queue_.Recut(smss_);
}

// RFC 4821 in its simplest form: no probes, only the way down. When the path
// was dead for another reason, or has grown, the old size comes back later.
void Connection::NoteTimeoutForPath(Instant now) {
  if (retries_ < kBlackHoleTimeouts || smss_ <= options_.default_mss) return;
  if (retransmit_queue_.front().payload_bytes() <= options_.default_mss) return;
  const uint32_t half = std::min(snd_mss_.black_hole, snd_mss_.path) / 2;
  snd_mss_.black_hole =
      std::max<uint32_t>(std::min(half, kBlackHoleMss), options_.default_mss);
  snd_mss_.black_hole_until = now + options_.black_hole_time;
  ++counts_.black_holes;
  ApplyPathMss();
}

void Connection::LeaveBlackHole() {
  snd_mss_.black_hole_until = Instant::Never();
  snd_mss_.black_hole = UINT32_MAX;
  ApplyPathMss();
}

}  // namespace devwire
