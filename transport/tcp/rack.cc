#include "transport/tcp/rack.h"

#include <algorithm>

namespace devwire {
namespace {

// RFC 8985 6.2, step 4: an inflated window outlives so many recoveries.
constexpr uint8_t kReoWndPersist = 16;
// TLP.max_ack_delay: Linux's (its least RTO).
constexpr Duration kMaxAckDelay = 200_ms;
// What timers and polls may be late by, so that no ACK on its way is called
// overdue; Linux's two ticks.
constexpr Duration kProbeMargin = 2_ms;
// RFC 8985 7.2, without an RTT sample.
constexpr Duration kProbeTimeoutWithoutSrtt = 1_s;

}  // namespace

void Rack::OnDelivered(const SentSegment& segment, Arrival* ack) {
  // Step 3: an original that comes after a later one was overtaken.
  if (SeqGt(segment.end(), fack_)) {
    fack_ = segment.end();
  } else if (SeqLt(segment.end(), fack_) && !segment.was_retransmitted) {
    reordering_seen_ = true;
    ack->overtaken =
        ack->overtaken ? SeqMin(*ack->overtaken, segment.seq) : segment.seq;
  }
  // Step 2: of a segment sent twice, this may be the ACK of the first one.
  const Duration rtt = ack->now - segment.xmit_ts;
  if (segment.was_retransmitted) {
    if (ack->echo_ms &&
        static_cast<int32_t>(*ack->echo_ms - MillisecondsOf(segment.xmit_ts)) <
            0) {
      return;
    }
    if (rtt < ack->rtt_min) return;
  }
  // The RFC takes them in order of transmission: the last one's RTT stays.
  if (rtt <= ack->rtt) rtt_ = ack->rtt = rtt;
  if (IsSentAfter(segment.xmit_ts, segment.end(), xmit_ts_, end_seq_)) {
    xmit_ts_ = segment.xmit_ts;
    end_seq_ = segment.end();
    is_again_ = segment.was_retransmitted;
  }
}

void Rack::UpdateReorderingWindow(const Round& round) {
  if (dsack_round_ && SeqGe(round.snd_una, *dsack_round_)) dsack_round_.reset();
  if (round.has_dsack && !dsack_round_) {
    dsack_round_ = round.snd_nxt;
    if (reo_wnd_mult_ < UINT8_MAX) ++reo_wnd_mult_;
    reo_wnd_persist_ = kReoWndPersist;
    // Overtaken and sent again at once, it never came as step 3 has to see it;
    // without a window every later one would fare the same. In a recovery it
    // may have been the timeout that was wrong.
    if (!round.is_in_recovery) reordering_seen_ = true;
  }
  if (!reordering_seen_ &&
      (round.is_in_recovery || round.segs_sacked >= kDupThresh)) {
    reo_wnd_ = Duration();
    return;
  }
  const Duration rtt_min = std::min(round.rtt_min, rtt_);
  reo_wnd_ = std::min(reo_wnd_mult_ * rtt_min / 4, round.srtt);
}

void Rack::OnRecoveryEnded() {
  if (reo_wnd_persist_ > 0) --reo_wnd_persist_;
  if (reo_wnd_persist_ == 0) reo_wnd_mult_ = 1;
}

Duration Tlp::ProbeTimeout(std::optional<Duration> srtt, bool is_one_segment) {
  if (!srtt) return kProbeTimeoutWithoutSrtt;
  return 2 * *srtt + (is_one_segment ? kMaxAckDelay : kProbeMargin);
}

void Tlp::OnProbeSent(SeqNum snd_nxt, bool is_retrans) {
  end_seq_ = snd_nxt;
  is_retrans_ = is_retrans;
  has_rtt_sample_ = false;
}

bool Tlp::OnAck(const Ack& ack) {
  if (!end_seq_ || SeqLt(ack.ack, *end_seq_)) return false;
  const SeqNum end_seq = *end_seq_;
  if (!is_retrans_) {  // New text, delivered.
    end_seq_.reset();
  } else if (ack.dsack && ack.dsack->right == end_seq) {
    end_seq_.reset();  // Case 1: both arrived.
  } else if (SeqGt(ack.ack, end_seq)) {
    end_seq_.reset();
    return true;
  } else if (ack.is_duplicate_without_sack) {
    end_seq_.reset();  // Case 2: both arrived.
  }
  return false;
}

}  // namespace devwire
