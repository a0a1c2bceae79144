// The ACK field of an arrival in the synchronized states: RFC 9293 3.10.7.4,
// fifth step, ESTABLISHED; RFC 5961 5; loss recovery of RFC 5681 3.2 and 6582.
//
// Recovery in one picture: pipe is what is thought to be in the network,
//
//   pipe = flight_size - lost and not sent again - duplicate ACKs * SMSS
//
// and text is sent while pipe < cwnd. Each duplicate ACK shrinks pipe, which
// is RFC 5681's "inflating cwnd" and RFC 3042's limited transmit.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {
namespace {

constexpr uint8_t kDuplicateAckThreshold = 3;  // RFC 5681 3.2.

}  // namespace

Connection::AckResult Connection::ProcessAck(const Segment& seg, Instant now) {
  if (SeqLt(seg.ack, tcb_.snd_una)) {
    // RFC 5961 5.2: older than any window we were ever offered explains.
    if (tcb_.snd_una - seg.ack > tcb_.max_snd_wnd) return AckResult::kTooOld;
    return AckResult::kOld;
  }
  if (SeqGt(seg.ack, snd_max())) return AckResult::kUnsent;

  const bool is_persisting = flight_size() == 0 && unsent_bytes() > 0;
  // RFC 9293 3.8.6.1: a peer that answers window probes is alive.
  if (is_persisting || tcb_.snd_wnd == 0) retries_ = 0;

  if (seg.ack != tcb_.snd_una) {
    AdvanceSndUna(seg, now);
  } else if (IsDuplicateAck(seg)) {
    OnDuplicateAck(now);
  }
  UpdateSndWnd(seg);
  return AckResult::kUseful;
}

// RFC 5681 2, "duplicate acknowledgment", (a) to (e); SEG.ACK is SND.UNA. With
// SACK the blocks tell more: an ACK of something new out of order counts though
// its window changed, one of a duplicate only (RFC 2883) does not.
bool Connection::IsDuplicateAck(const Segment& seg) const {
  if (flight_size() == 0 || seg.len() != 0) return false;
  const TcpOptions& options = seg.options;
  if (!tcb_.sack_permitted || options.sack_block_count == 0) {
    return uint32_t{seg.wnd} << tcb_.snd_wind_shift == tcb_.snd_wnd;
  }
  for (size_t i = 0; i < options.sack_block_count; ++i) {
    if (InOpenClosed(tcb_.snd_una, options.sack_blocks[i].right,
                     tcb_.snd_nxt)) {
      return true;
    }
  }
  return false;
}

inline void Connection::UpdateSndWnd(const Segment& seg) {
  // SND.WL1 < SEG.SEQ or (SND.WL1 = SEG.SEQ and SND.WL2 =< SEG.ACK).
  if (SeqLt(seg.seq, tcb_.snd_wl1)) return;
  if (seg.seq == tcb_.snd_wl1 && SeqLt(seg.ack, tcb_.snd_wl2)) return;
  tcb_.snd_wnd = uint32_t{seg.wnd} << tcb_.snd_wind_shift;
  tcb_.snd_wl1 = seg.seq;
  tcb_.snd_wl2 = seg.ack;
  tcb_.max_snd_wnd = std::max(tcb_.max_snd_wnd, tcb_.snd_wnd);
  if (tcb_.snd_wnd != 0) persist_backoffs_ = 0;
}

void Connection::AdvanceSndUna(const Segment& seg, Instant now) {
  if (probe_is_out_ && seg.ack == snd_max()) {
    // The peer had room for the probe after all: it counts as sent.
    probe_is_out_ = false;
    tcb_.snd_nxt += 1;
    sent_offset_ += 1;
    retransmit_queue_.Append(
        {.seq = tcb_.snd_nxt - 1, .len = 1, .was_retransmitted = true});
  }
  const uint32_t flight_before = flight_size();
  const bool acks_syn = retransmit_queue_.front().has_syn;
  const RetransmitQueue::Acked acked = retransmit_queue_.AckTo(seg.ack);
  counts_.segments_acked += acked.segments;
  const SeqLen advance = seg.ack - tcb_.snd_una;
  tcb_.snd_una = seg.ack;
  retries_ = 0;

  const uint64_t acked_offset =
      seg.ack == tcb_.snd_nxt ? sent_offset_ : OffsetOf(seg.ack);
  if (acked_offset != acked_offset_) {
    acked_offset_ = acked_offset;
    Raise(Event::Kind::kAcked);
    uint64_t used = queued_offset_ - acked_offset_;
    if (send_was_short_ && 4 * used <= 3 * options_.send_queue_limit_bytes) {
      send_was_short_ = false;
      Raise(Event::Kind::kWritable);
    }
  }
  const std::optional<Duration> rtt = RttSample(acked, seg);
  if (rtt) rtt_.OnSample(*rtt);
  // The SYN is no data: no congestion window grows by it.
  if (!acks_syn) OnNewAck(seg, advance, flight_before, rtt, now);
  if (tcb_.snd_una == tcb_.snd_nxt) {
    timers_.Stop(Timer::kRetransmit);
    timers_.Stop(Timer::kUser);
  } else {
    RestartRetransmitTimer(now);  // RFC 6298 (5.3).
    if (user_timeout_) {
      timers_.Set(Timer::kUser, now + *user_timeout_);
    }
  }
}

// Karn's rule, RFC 6298 3: time what was sent once; else ask the timestamp.
inline std::optional<Duration> Connection::RttSample(
    const RetransmitQueue::Acked& acked, const Segment& seg) const {
  if (!acked.any_retransmitted && acked.first_xmit_ts) {
    return seg.arrival - *acked.first_xmit_ts;
  }
  if (!tcb_.snd_ts_ok || !seg.options.timestamps) return std::nullopt;
  uint32_t ms = TicksAt(seg.arrival) - seg.options.timestamps->ecr;
  // An echo from the future, or older than any retransmission: not ours.
  if (ms > static_cast<uint32_t>(options_.rtt.rto_max.milliseconds())) {
    return std::nullopt;
  }
  return std::max<int64_t>(ms, 1) * 1_ms;
}

// SND.UNA moved by `acked`.
inline void Connection::OnNewAck(const Segment& seg, uint32_t acked,
                                 uint32_t flight_before,
                                 std::optional<Duration> rtt, Instant now) {
  const bool ends_round = SeqGe(seg.ack, round_end_);
  if (ends_round) round_end_ = tcb_.snd_nxt;
  const bool has_ece = ecn_.is_on() && (seg.flags & kEce) != 0;
  const bool is_cwnd_limited =
      cwnd_is_limiting_ && SeqLe(seg.ack, cwnd_limited_to_);
  if (!is_cwnd_limited) cwnd_is_limiting_ = false;
  switch (recovery_) {
    case Recovery::kFastRecovery:
      if (SeqGe(seg.ack, recover_)) {  // Full acknowledgment.
        recovery_ = Recovery::kOpen;
        duplicate_acks_ = 0;
        duplicate_ack_bytes_ = 0;
        // One less than SND.NXT then, so that the very next segment's loss is
        // repaired too: nothing was sent twice that could mislead us.
        recover_ = recover_ - 1;
        congestion_->OnRecovered(flight_size(), now);
        return;
      }
      // Partial acknowledgment: the next hole. RFC 6582 3.2, step 3. What it
      // acknowledges beyond the first segment had left the network before.
      duplicate_ack_bytes_ -=
          std::min(duplicate_ack_bytes_, acked - std::min(acked, smss_));
      duplicate_ack_bytes_ = std::min(duplicate_ack_bytes_, flight_size());
      retransmit_queue_.MarkFirstLost();
      return;
    case Recovery::kLoss:
      if (SeqGe(seg.ack, recover_)) recovery_ = Recovery::kOpen;
      break;
    case Recovery::kOpen:
      break;
  }
  const bool is_after_loss = recovery_ == Recovery::kLoss;
  duplicate_acks_ = 0;
  duplicate_ack_bytes_ = 0;
  congestion_->OnAck({.now = now,
                      .acked_bytes = acked,
                      .flight_size = flight_before,
                      .rtt = rtt,
                      .srtt = rtt_.srtt(),
                      .is_cwnd_limited = is_cwnd_limited || is_after_loss,
                      .ends_round = ends_round,
                      .has_ece = has_ece});
  if (has_ece) OnEce(flight_before, now);
}

// The network marked what this ACK acknowledges. RFC 3168 6.1.2; after a
// timeout the window is as small as can be anyway.
void Connection::OnEce(uint32_t flight_before, Instant now) {
  ++counts_.ece_acks_in;
  if (recovery_ != Recovery::kOpen) return;
  if (!ecn_.IsCongestion(acked_offset_, congestion_->reductions())) return;
  if (congestion_->cwnd() <= smss_) {
    // Less than one segment per round trip: one per RTO.
    pacer_.HoldUntil(now + rtt_.rto());
  }
  congestion_->OnEce(flight_before, now);
  ++counts_.ecn_reductions;
}

void Connection::OnDuplicateAck(Instant now) {
  ++counts_.duplicate_acks_in;
  if (duplicate_acks_ < UINT8_MAX) ++duplicate_acks_;
  // After a timeout everything is being sent again: duplicates prove nothing.
  if (recovery_ == Recovery::kLoss) return;
  duplicate_ack_bytes_ = std::min(duplicate_ack_bytes_ + smss_, flight_size());
  if (recovery_ != Recovery::kOpen) return;
  if (duplicate_acks_ != kDuplicateAckThreshold) return;
  // RFC 6582 3.2, step 1: no second recovery for one window of data.
  if (!SeqGt(tcb_.snd_una, recover_)) return;
  ++counts_.fast_recoveries;
  recovery_ = Recovery::kFastRecovery;
  recover_ = tcb_.snd_nxt;
  congestion_->OnLoss(flight_size(), now);
  retransmit_queue_.MarkFirstLost();
}

}  // namespace devwire
