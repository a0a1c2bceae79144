// Loss recovery: what an ACK means while something is lost, SACKed or sent
// again, and what the timers do about it.
//
// Recovery in one picture: pipe is what is thought to be in the network,
//
//   pipe = flight_size - SACKed - lost and not sent again
//
// and text is sent while pipe < cwnd; in fast recovery, as much as PRR lets
// out. A SACKed segment shrinks pipe, which is RFC 3042's limited transmit.
//
// With SACK, RACK finds losses (rack.h). Without, each duplicate ACK stands for
// one SMSS delivered, the third one finds a loss, and a partial acknowledgment
// the next.
//
// Source: RFC 5681 3.2, 6582, 6675, 8985, 9937, 5682, 3522.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {
namespace {

// The head of the queue being SACKed, how long an ACK that explains it may
// take: Linux's tcp_check_sack_reneging().
constexpr Duration kRenegingWait = 10_ms;

}  // namespace

void Connection::OnDisturbedAck(const Segment& seg, AckNews* news,
                                Instant now) {
  TakeSackBlocks(seg, news);
  CountDelivered(news);
  CheckProbe(news, now);
  if (IsSpurious(*news)) UndoRecovery(now);
  if (news->arrival.overtaken) NoteReordering(*news->arrival.overtaken);
  DetectLoss(news, now);
  switch (recovery_) {
    case Recovery::kOpen: {
      // RFC 6582 3.2, step 1: no second recovery for one window of data.
      const bool is_third = !tcb_.sack_permitted &&
                            duplicate_acks_ == kDupThresh &&
                            news->is_duplicate && SeqGt(tcb_.snd_una, recover_);
      if (is_third) retransmit_queue_.MarkFirstLost();
      const bool finds_loss = news->lost > 0 || is_third;
      if (finds_loss && IsOnlyProbeLost()) {
        OnProbeLost();
      } else if (finds_loss) {
        EnterFastRecovery(*news, now);
      } else if (news->advance > 0) {
        duplicate_acks_ = 0;
        duplicate_ack_bytes_ = 0;
        GrowWindow(*news, news->advance, now);
      }
      break;
    }
    case Recovery::kFastRecovery:
      ContinueFastRecovery(news, now);
      break;
    case Recovery::kLoss:
      ContinueLossRecovery(*news, now);
      break;
  }
}

void Connection::TakeSackBlocks(const Segment& seg, AckNews* news) {
  const uint8_t blocks = seg.options.sack_block_count;
  if (!tcb_.sack_permitted || blocks == 0) return;
  counts_.sack_blocks_in += blocks;
  const SackScoreboard::News sack =
      scoreboard_.Update(seg.options,
                         {.ack = seg.ack,
                          .snd_una = tcb_.snd_una,
                          .snd_nxt = tcb_.snd_nxt,
                          .max_snd_wnd = tcb_.max_snd_wnd},
                         &retransmit_queue_, &rack_, &news->arrival);
  counts_.sack_blocks_refused += sack.refused_blocks;
  news->dsack = sack.dsack;
  if (sack.dsack) NoteDsack(*sack.dsack);
  if (sack.sacked_bytes > 0 && news->advance == 0) ++counts_.duplicate_acks_in;
}

// DeliveredData, RFC 9937 6.2.
void Connection::CountDelivered(AckNews* news) {
  if (tcb_.sack_permitted) {
    news->delivered =
        news->advance + retransmit_queue_.sacked_bytes() - news->sacked_before;
    return;
  }
  if (news->is_duplicate) {
    ++counts_.duplicate_acks_in;
    // After a timeout everything is being sent again: they prove nothing, but
    // for the first one after F-RTO's new text.
    if (recovery_ == Recovery::kLoss && frto_ != FRto::kSecondAck) return;
    if (duplicate_acks_ < UINT8_MAX) ++duplicate_acks_;
    // Duplicates cost their sender nothing: all of them together deliver no
    // more than was in flight, and let no more out.
    news->delivered = recovery_ == Recovery::kFastRecovery
                          ? std::min(smss_, prr_.undelivered())
                          : smss_;
    duplicate_ack_bytes_ =
        std::min(duplicate_ack_bytes_ + news->delivered, flight_size());
    return;
  }
  // What it acknowledges beyond the first segment, duplicates told before.
  const uint32_t told =
      std::min(duplicate_ack_bytes_,
               news->advance - std::min<uint32_t>(news->advance, smss_));
  duplicate_ack_bytes_ = std::min(duplicate_ack_bytes_ - told, flight_size());
  news->delivered = news->advance - told;
}

// RFC 8985 7.4.2.
void Connection::CheckProbe(AckNews* news, Instant now) {
  const bool was_pending = tlp_.is_pending();
  if (tlp_.OnAck({.ack = tcb_.snd_una,
                  .dsack = news->dsack,
                  .is_duplicate_without_sack = news->is_duplicate})) {
    // As a fast recovery that is over at once. By now FlightSize says nothing
    // of what was in flight then; cwnd does, as in Linux.
    ++counts_.tlp_repairs;
    congestion_->OnLoss(congestion_->cwnd(), now);
    congestion_->OnRecovered(flight_size(), now);
  } else if (was_pending && !tlp_.is_pending()) {
    news->dsack.reset();  // It spoke of the probe, and of nothing else.
  }
}

// Whether it proves that what was sent again had arrived. RFC 3522 3.2, and by
// DSACK. Not when the peer reports congestion: RFC 4015 3.1 (9).
bool Connection::IsSpurious(const AckNews& news) {
  bool is_spurious = news.dsack && undo_.OnDsack(*news.dsack, tcb_.snd_una);
  if (recovery_ != Recovery::kOpen && news.advance > 0) {
    is_spurious |= undo_.OnAdvance(news.arrival.echo_ms);
  }
  return is_spurious && !news.has_ece;
}

void Connection::UndoRecovery(Instant now) {
  ++counts_.spurious_recoveries;
  if (recovery_ != Recovery::kOpen) {
    recovery_ = Recovery::kOpen;
    LeaveRtoRecovery(now);
    frto_ = FRto::kOff;
    retransmit_queue_.UnmarkLost();
    rack_.OnRecoveryEnded();
    rack_.OnUndo();
    recover_ = tcb_.snd_una;  // RFC 5682 2.1 (3b).
    duplicate_acks_ = 0;
    duplicate_ack_bytes_ = 0;
  }
  congestion_->OnUndo(flight_size(), now);
  undo_.Disarm();
}

// RFC 8985 6.2, steps 4 and 5.
void Connection::DetectLoss(AckNews* news, Instant now) {
  if (!tcb_.sack_permitted || retransmit_queue_.empty()) return;
  rack_.UpdateReorderingWindow(
      {.snd_una = tcb_.snd_una,
       .snd_nxt = tcb_.snd_nxt,
       .has_dsack = news->dsack.has_value(),
       .is_in_recovery = recovery_ != Recovery::kOpen,
       .segs_sacked = retransmit_queue_.sacked_segments(),
       .rtt_min = rtt_.rtt_min(),
       .srtt = rtt_.srtt().value_or(Duration())});
  const RetransmitQueue::Lost lost =
      retransmit_queue_.MarkOverdueLost(rack_, now);
  news->lost = lost.bytes;
  if (retransmit_queue_.front().is_sacked) {
    // The ACK should cover it: it reneged, or another ACK is on its way.
    const Duration srtt = rtt_.srtt().value_or(Duration());
    rto_deadline_ =
        std::min(rto_deadline_, now + std::max(srtt / 2, kRenegingWait));
  }
  if (lost.next < rto_deadline_) {
    SetRetransmitTimer(RetransmitTimer::kReordering, lost.next);
  } else if (retransmit_timer_is_ != RetransmitTimer::kProbe || !MayProbe()) {
    SetRetransmitTimer(RetransmitTimer::kRto, rto_deadline_);
  }
}

void Connection::EnterFastRecovery(const AckNews& news, Instant now) {
  ++counts_.fast_recoveries;
  recovery_ = Recovery::kFastRecovery;
  recover_ = tcb_.snd_nxt;
  tlp_.Reset();
  undo_.Start(tcb_.snd_una);
  // FlightSize without what limited transmit sent (RFC 5681 3.2, step 2), but
  // with the part of cwnd that is too small for a segment: it was not unused.
  uint32_t in_use = news.flight_before;
  if (congestion_->cwnd() < in_use + smss_) in_use = congestion_->cwnd();
  congestion_->OnLoss(in_use, now);
  // What duplicate ACKs told before this one is out of RecoverFS as if SACKed.
  uint32_t gone = news.sacked_before;
  if (!tcb_.sack_permitted) {
    gone = duplicate_ack_bytes_ - std::min(duplicate_ack_bytes_, smss_);
    retransmit_queue_.MarkFirstLost();
  }
  prr_.Start(news.flight_before - std::min(gone, news.flight_before),
             congestion_->ssthresh());
  prr_.OnAck({.delivered = news.delivered, .pipe = pipe(), .smss = smss_});
}

void Connection::ContinueFastRecovery(AckNews* news, Instant now) {
  if (SeqGe(tcb_.snd_una, recover_)) {  // Full acknowledgment.
    recovery_ = Recovery::kOpen;
    duplicate_acks_ = 0;
    duplicate_ack_bytes_ = 0;
    // One less than SND.NXT then, so that the very next segment's loss is
    // repaired too: nothing was sent twice that could mislead us.
    recover_ = recover_ - 1;
    rack_.OnRecoveryEnded();
    undo_.OnRecoveryEnded(tcb_.snd_nxt);
    congestion_->OnRecovered(flight_size(), now);
    return;
  }
  if (!tcb_.sack_permitted && news->advance > 0) {
    // Partial acknowledgment: the next hole. RFC 6582 3.2, step 3.
    retransmit_queue_.MarkFirstLost();
    news->lost = retransmit_queue_.lost_bytes();
  }
  prr_.OnAck({.delivered = news->delivered,
              .pipe = pipe(),
              .is_safe = news->advance > 0 && news->lost == 0,
              .smss = smss_});
}

// The retransmission timer fired.
void Connection::EnterLossRecovery(Instant now) {
  // RFC 5682 2.1 and 3.1, step 1: F-RTO judges the first timeout, and its
  // repetitions, but none within a recovery.
  const bool is_repeated = recovery_ == Recovery::kLoss && retries_ > 1;
  const bool is_judged =
      recovery_ == Recovery::kOpen || (is_repeated && frto_ == FRto::kFirstAck);
  if (recovery_ == Recovery::kOpen) {
    undo_.Start(tcb_.snd_una);
  } else if (!is_repeated) {
    undo_.Disarm();  // Two reasons at once: neither can be taken back alone.
  }
  tlp_.Reset();
  loss_probe_is_due_ = false;
  congestion_->OnTimeout(flight_size(), retries_ == 1, now);
  recovery_ = Recovery::kLoss;
  recover_ = tcb_.snd_nxt;
  duplicate_acks_ = 0;
  duplicate_ack_bytes_ = 0;
  frto_ = is_judged ? FRto::kFirstAck : FRto::kOff;
  frto_end_ = retransmit_queue_.front().end();
  if (!tcb_.sack_permitted) {
    retransmit_queue_.MarkAllLost();
  } else if (retransmit_queue_.front().is_sacked) {
    // It has to be sent again, so the peer threw it away. RFC 2018 8. Else
    // SACK marks stay over a timeout: RFC 6675 5.1, as Linux.
    ++counts_.reneged;
    retransmit_queue_.ForgetSacked();
    scoreboard_.Forget();
    retransmit_queue_.MarkAllLost();
  } else {
    retransmit_queue_.MarkLostOnTimeout(rack_, now);
  }
}

void Connection::ContinueLossRecovery(const AckNews& news, Instant now) {
  StepFRto(news, now);
  if (recovery_ == Recovery::kOpen) return;
  if (SeqGe(tcb_.snd_una, recover_)) {
    recovery_ = Recovery::kOpen;
    LeaveRtoRecovery(now);
    frto_ = FRto::kOff;
    duplicate_acks_ = 0;
    duplicate_ack_bytes_ = 0;
    rack_.OnRecoveryEnded();
    undo_.OnRecoveryEnded(tcb_.snd_nxt);
  }
  if (news.advance == 0 || news.delivered == 0) return;
  GrowWindow(news, news.delivered, now);
}

// RFC 5682 2.1 (without SACK) and 3.1, steps 2 and 3. Between the two ACKs new
// text is sent (PollOwed): the second one shows whether it overtook what was
// sent before the timeout.
void Connection::StepFRto(const AckNews& news, Instant now) {
  const bool has_sack = tcb_.sack_permitted;
  switch (frto_) {
    case FRto::kOff:
      return;
    case FRto::kFirstAck: {
      if (news.advance == 0) {
        if (news.is_duplicate && !has_sack) frto_ = FRto::kOff;
        return;
      }
      const bool can_send_new =
          unsent_bytes() > 0 && tcb_.snd_wnd > flight_size();
      // All that was in flight, or less than what was sent again: no evidence.
      const bool tells_nothing =
          SeqGe(tcb_.snd_una, recover_) || SeqLt(tcb_.snd_una, frto_end_);
      frto_ = tells_nothing || !can_send_new ? FRto::kOff : FRto::kSecondAck;
      return;
    }
    case FRto::kSecondAck: {
      if (news.delivered == 0 && !news.is_duplicate && !news.dsack) return;
      frto_ = FRto::kOff;
      const bool is_beyond = SeqGt(tcb_.snd_una, recover_) ||
                             (has_sack && SeqGt(rack_.fack(), recover_));
      const bool is_news = has_sack ? news.delivered > 0 : news.advance > 0;
      if (is_beyond || !is_news) return;
      ++counts_.spurious_timeouts;
      UndoRecovery(now);
      return;
    }
  }
}

RateMark Connection::NoteRetransmitted(uint32_t bytes, Instant now) {
  ++counts_.segments_retransmitted;
  undo_.OnRetransmitted(bytes, MillisecondsOf(now));
  if (recovery_ == Recovery::kFastRecovery) prr_.OnSent(bytes);
  return rate_.OnSent(now, /*is_idle=*/false);
}

// In segments, as Linux's tcp_check_sack_reordering(). For tcp_info alone: what
// follows from reordering is RACK's to say.
void Connection::NoteReordering(SeqNum overtaken) {
  constexpr uint32_t kMost = 300;  // Linux's tcp_max_reordering.
  const uint32_t bytes = rack_.fack() - overtaken;
  const uint32_t segments = std::min((bytes + smss_ - 1) / smss_, kMost);
  counts_.reordering = std::max(counts_.reordering, segments);
  ++counts_.reorderings_seen;
}

// As many segments as it speaks of came twice.
void Connection::NoteDsack(const SackBlock& dsack) {
  ++counts_.dsacks_in;
  const uint32_t bytes = dsack.right - dsack.left;
  counts_.dsack_segments += std::max(1u, (bytes + smss_ - 1) / smss_);
}

void Connection::LeaveRtoRecovery(Instant now) {
  if (!rto_since_) return;
  counts_.rto_time = counts_.rto_time + (now - *rto_since_);
  rto_since_.reset();
}

}  // namespace devwire
