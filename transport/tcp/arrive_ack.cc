// The ACK field of an arrival in the synchronized states: RFC 9293 3.10.7.4,
// fifth step, ESTABLISHED; RFC 5961 5. What else an ACK means while something
// is lost or SACKed is in recovery.cc.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {

Connection::AckResult Connection::ProcessAck(const Segment& seg, Instant now) {
  if (SeqLt(seg.ack, tcb_.snd_una)) {
    // RFC 5961 5.2: older than any window we were ever offered explains.
    if (tcb_.snd_una - seg.ack > tcb_.max_snd_wnd) return AckResult::kTooOld;
    // Overtaken on the way; what it says of the rest may be news. As Linux.
    if (tcb_.sack_permitted && seg.options.sack_block_count > 0) {
      AckNews news = NewsOf(seg, now);
      OnDisturbedAck(seg, &news, now);
      if (news.arrival.newest) TakeRateSample(news, now);
    }
    return AckResult::kOld;
  }
  if (SeqGt(seg.ack, snd_max())) return AckResult::kUnsent;

  // RFC 9293 3.8.6.1: a peer that answers window probes is alive.
  unanswered_probes_ = 0;
  if (tcb_.snd_wnd == 0) retries_ = 0;  // Text sent before it shrank, likewise.
  const bool is_disturbed = IsDisturbed(seg);
  const bool is_advance = seg.ack != tcb_.snd_una;
  AckNews news = NewsOf(seg, now);
  if (is_advance) {
    AdvanceSndUna(seg, now, &news);
  } else {
    news.is_duplicate = IsDuplicateAck(seg);
  }
  if (is_disturbed || news.is_duplicate) [[unlikely]] {
    if (!news.acks_syn) OnDisturbedAck(seg, &news, now);
  } else if (news.advance > 0 && !news.acks_syn) {
    duplicate_acks_ = 0;
    duplicate_ack_bytes_ = 0;
    GrowWindow(news, news.advance, now);
  }
  if (news.arrival.newest && !news.acks_syn) TakeRateSample(news, now);
  UpdateSndWnd(seg, is_advance);
  return AckResult::kUseful;
}

inline void Connection::TakeRateSample(const AckNews& news, Instant now) {
  const uint32_t bytes =
      news.delivered > 0 ? news.delivered : static_cast<uint32_t>(news.advance);
  if (news.has_ece) counts_.delivered_ce += news.arrival.segments;
  RateSample sample =
      rate_.OnDelivered(now, bytes, news.arrival.newest, rtt_.rtt_min());
  sample.rtt = news.rtt;
  sample.newly_lost = news.lost;
  sample.pipe = pipe();
  congestion_->OnRateSample(sample);
}

inline Connection::AckNews Connection::NewsOf(const Segment& seg,
                                              Instant now) const {
  AckNews news{.arrival = {.now = now},
               .flight_before = flight_size(),
               .sacked_before = retransmit_queue_.sacked_bytes(),
               .has_ece = ecn_.is_on() && (seg.flags & kEce) != 0};
  if (!retransmit_queue_.is_calm()) [[unlikely]] {
    news.arrival.rtt_min = rtt_.rtt_min();
    if (tcb_.snd_ts_ok && seg.options.timestamps) {
      news.arrival.echo_ms = seg.options.timestamps->ecr - options_.ts_offset;
    }
  }
  return news;
}

// RFC 5681 2, "duplicate acknowledgment", (a) to (e); SEG.ACK is SND.UNA. One
// with SACK blocks says more than that, and is none: recovery.cc.
bool Connection::IsDuplicateAck(const Segment& seg) const {
  return flight_size() > 0 && seg.len() == 0 && !seg.options_cut &&
         (seg.options.sack_block_count == 0 || !tcb_.sack_permitted) &&
         uint32_t{seg.wnd} << tcb_.snd_wind_shift == tcb_.snd_wnd;
}

inline void Connection::UpdateSndWnd(const Segment& seg, bool is_advance) {
  // SND.WL1 < SEG.SEQ or (SND.WL1 = SEG.SEQ and SND.WL2 =< SEG.ACK), or it
  // moved SND.UNA: acknowledgments only grow, so it was sent after all that we
  // have seen, also where its text is old. Were its window left out, SND.UNA
  // would carry the right edge beyond what was offered. As Linux.
  if (!is_advance) {
    if (SeqLt(seg.seq, tcb_.snd_wl1)) return;
    if (seg.seq == tcb_.snd_wl1 && SeqLt(seg.ack, tcb_.snd_wl2)) return;
  }
  const bool was_closed = tcb_.snd_wnd == 0;
  tcb_.snd_wnd = uint32_t{seg.wnd} << tcb_.snd_wind_shift;
  tcb_.snd_wl1 = seg.seq;
  tcb_.snd_wl2 = seg.ack;
  tcb_.max_snd_wnd = std::max(tcb_.max_snd_wnd, tcb_.snd_wnd);
  if (tcb_.snd_wnd != 0) persist_backoffs_ = 0;
  // What waited for it has its time from now on.
  if (was_closed && tcb_.snd_wnd != 0 && flight_size() == 0) {
    timers_.Stop(Timer::kUser);
  }
}

void Connection::AdvanceSndUna(const Segment& seg, Instant now) {
  AckNews news = NewsOf(seg, now);
  AdvanceSndUna(seg, now, &news);
}

void Connection::AdvanceSndUna(const Segment& seg, Instant now, AckNews* news) {
  if (probe_is_out_ && seg.ack == snd_max()) {
    // The peer had room for the probe after all: it counts as sent.
    probe_is_out_ = false;
    tcb_.snd_nxt += 1;
    sent_offset_ += 1;
  } else {
    // The SYN is no data: no congestion window grows by it.
    news->acks_syn = retransmit_queue_.front().has_syn;
  }
  const RetransmitQueue::Acked acked = retransmit_queue_.AckTo(
      seg.ack, tcb_.sack_permitted ? &rack_ : nullptr, &news->arrival);
  counts_.segments_acked += acked.segments;
  news->advance = seg.ack - tcb_.snd_una;
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
      OnSendRoom(now);
      Raise(Event::Kind::kWritable);
    }
  }
  news->rtt = RttSample(acked, seg);
  if (news->rtt) {
    rtt_.OnSample(*news->rtt, now);
    tlp_.OnRttSample();
  }
  if (tcb_.snd_una == tcb_.snd_nxt) {
    timers_.Stop(Timer::kRetransmit);
    timers_.Stop(Timer::kUser);
    if (unsent_bytes() == 0) counts_.sender_time.Enter(Phase::kIdle, now);
  } else {
    RestartRetransmitTimer(now);  // RFC 6298 (5.3).
    if (user_timeout_) {
      timers_.Set(Timer::kUser, now + *user_timeout_);
    }
  }
}

// Karn's rule, RFC 6298 3: time what was sent once; else ask the timestamp. One
// from before the last retransmission tells little: the first copy may have
// come in time, and its ACK be lost.
inline std::optional<Duration> Connection::RttSample(
    const RetransmitQueue::Acked& acked, const Segment& seg) const {
  if (!acked.again_xmit_ts && acked.first_xmit_ts) {
    return seg.arrival - *acked.first_xmit_ts;
  }
  if (!tcb_.snd_ts_ok || !seg.options.timestamps) return std::nullopt;
  const uint32_t echo = seg.options.timestamps->ecr;
  if (acked.again_xmit_ts &&
      static_cast<int32_t>(echo - TicksAt(*acked.again_xmit_ts)) < 0) {
    return std::nullopt;
  }
  uint32_t ms = TicksAt(seg.arrival) - echo;
  // An echo from the future, or older than any retransmission: not ours.
  if (ms > static_cast<uint32_t>(options_.rtt.rto_max.milliseconds())) {
    return std::nullopt;
  }
  return std::max<int64_t>(ms, 1) * 1_ms;
}

// `bytes` were delivered outside of fast recovery.
void Connection::GrowWindow(const AckNews& news, uint32_t bytes, Instant now) {
  const bool ends_round = SeqGe(tcb_.snd_una, round_end_);
  if (ends_round) {
    round_end_ = tcb_.snd_nxt;
    ForgetLongAgo();
  }
  const bool is_cwnd_limited =
      cwnd_is_limiting_ && SeqLe(tcb_.snd_una, cwnd_limited_to_);
  if (!is_cwnd_limited) cwnd_is_limiting_ = false;
  congestion_->OnAck(
      {.now = now,
       .acked_bytes = bytes,
       .flight_size = news.flight_before,
       .rtt = news.rtt,
       .srtt = rtt_.srtt(),
       .is_cwnd_limited = is_cwnd_limited || recovery_ == Recovery::kLoss,
       .ends_round = ends_round,
       .has_ece = news.has_ece});
  if (news.has_ece) OnEce(news.flight_before, now);
}

// Once per round trip, so that no event of 2 GiB ago seems to lie ahead.
void Connection::ForgetLongAgo() {
  small_end_ = SeqMax(small_end_, tcb_.snd_una);
  if (recovery_ == Recovery::kOpen) {
    recover_ = SeqMax(recover_, tcb_.snd_una - 1);
  }
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
  cwr_end_ = tcb_.snd_nxt;
  ++counts_.ecn_reductions;
}

}  // namespace devwire
