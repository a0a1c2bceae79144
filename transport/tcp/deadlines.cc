// What happens when time passes: RFC 9293 3.10.8, RFC 6298 5.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {
namespace {

constexpr uint8_t kMaxPersistBackoffs =
    16;                     // The RTO's maximum ends it before.
constexpr uint8_t kR1 = 3;  // Retransmissions: RFC 9293 3.8.3, SHLD-10.

}  // namespace

void Connection::OnDeadline(Instant now) {
  if (timers_.TakeExpired(Timer::kDelayedAck, now)) {
    ack_is_due_ = true;
    is_answering_ = false;  // There was no answer to take it along.
  }
  timers_.TakeExpired(Timer::kPacing, now);  // PollTransmit sees to the rest.
  if (timers_.TakeExpired(Timer::kUser, now)) {
    EnterClosed(TcpError::kTimedOut);
    return;
  }
  if (timers_.TakeExpired(Timer::kTimeWait, now)) {
    EnterClosed(TcpError::kNone);
    return;
  }
  if (timers_.TakeExpired(Timer::kRetransmit, now)) OnRetransmitDeadline(now);
  if (timers_.TakeExpired(Timer::kPersist, now)) OnPersistTimer(now);
  if (timers_.TakeExpired(Timer::kKeepAlive, now)) OnKeepAliveTimer(now);
}

void Connection::RestartRetransmitTimer(Instant now) {
  rto_deadline_ = now + rtt_.rto();
  SetRetransmitTimer(RetransmitTimer::kRto, rto_deadline_);
  if (MayProbe()) SetProbeTimer(now);
}

// RFC 8985 7.2. A probe comes before the RTO, if only by nothing.
void Connection::SetProbeTimer(Instant now) {
  const Duration timeout =
      Tlp::ProbeTimeout(rtt_.srtt(), retransmit_queue_.size() == 1);
  SetRetransmitTimer(RetransmitTimer::kProbe,
                     std::min(now + timeout, rto_deadline_));
}

void Connection::OnRetransmitDeadline(Instant now) {
  switch (retransmit_timer_is_) {
    case RetransmitTimer::kRto:
      return OnRetransmitTimer(now);
    case RetransmitTimer::kReordering:
      return OnReorderingTimer(now);
    case RetransmitTimer::kProbe:
      return OnProbeTimer(now);
  }
}

// RFC 8985 6.2, step 5: the reordering window has passed for some.
void Connection::OnReorderingTimer(Instant now) {
  AckNews news{.arrival = {.now = now},
               .flight_before = flight_size(),
               .sacked_before = retransmit_queue_.sacked_bytes()};
  DetectLoss(&news, now);  // Sets the timer for what comes next.
  if (news.lost == 0 || recovery_ != Recovery::kOpen) return;
  if (IsOnlyProbeLost()) {
    OnProbeLost();
  } else {
    EnterFastRecovery(news, now);
  }
}

// RFC 8985 7.3.
void Connection::OnProbeTimer(Instant now) {
  rto_deadline_ = now + rtt_.rto();
  SetRetransmitTimer(RetransmitTimer::kRto, rto_deadline_);
  if (!MayProbe() || !tlp_.CanProbe()) return;
  loss_probe_is_due_ = true;
  is_plain_ = false;
}

// R2, RFC 9293 3.8.3: so many retransmissions, and no answer.
int Connection::RetryLimit() const {
  if (state_ <= State::kSynReceived) {
    return is_passive_ ? options_.synack_retries : options_.syn_retries;
  }
  return IsOrphan() ? std::min(options_.data_retries, options_.orphan_retries)
                    : options_.data_retries;
}

void Connection::OnRetransmitTimer(Instant now) {
  DCHECK(!retransmit_queue_.empty());
  ++counts_.timeouts;
  if (retries_++ == 0) ++counts_.rto_recoveries;
  if (!rto_since_) rto_since_ = now;
  const bool is_syn = retransmit_queue_.front().has_syn;
  if (retries_ > RetryLimit()) {
    EnterClosed(TcpError::kTimedOut);
    return;
  }
  if (retries_ == kR1) Raise(Event::Kind::kStalled);
  rtt_.OnTimeout();
  if (is_syn) {
    if (syn_retransmissions_ < UINT8_MAX) ++syn_retransmissions_;
    retransmit_queue_.MarkAllLost();
  } else {
    EnterLossRecovery(now);
  }
  NoteTimeoutForPath(now);
  RestartRetransmitTimer(now);  // RFC 6298 (5.6).
}

// RFC 9293 3.8.6.1 and 3.8.6.2.1: probe, or send what fits.
void Connection::OnPersistTimer(Instant now) {
  if (flight_size() > 0 || unsent_bytes() == 0) return;
  // Reset whenever the peer answers: only silence ends the connection.
  if (tcb_.snd_wnd == 0 && ++unanswered_probes_ > RetryLimit()) {
    EnterClosed(TcpError::kTimedOut);
    return;
  }
  // RFC 6429 4: a peer may answer like that for ever, but nobody waits for it.
  // As Linux: not before the longest pause between two probes was reached.
  if (IsOrphan() && persist_backoffs_ >= RetryLimit() &&
      PersistWait() >= options_.rtt.rto_max) {
    Abort(TcpError::kTimedOut);
    return;
  }
  override_is_due_ = true;
  is_plain_ = false;
  if (persist_backoffs_ < kMaxPersistBackoffs) ++persist_backoffs_;
  SetPersistTimer(now);
}

void Connection::SetPersistTimer(Instant now) {
  if (tcb_.snd_wnd != 0) {  // A cork, or a window below half of its best.
    timers_.Set(Timer::kPersist, now + options_.cork_time);
    return;
  }
  timers_.Set(Timer::kPersist,
              now + std::min(PersistWait(), options_.rtt.rto_max));
  // tcp(7), TCP_USER_TIMEOUT: also text that a closed window keeps here,
  // whether or not the peer answers. Without one MUST-37 holds: it may go on
  // for ever.
  if (user_timeout_ && !timers_.IsSet(Timer::kUser)) {
    timers_.Set(Timer::kUser, now + *user_timeout_);
  }
}

// The first probe after the RTO, then exponentially. SHLD-30, MUST-36.
Duration Connection::PersistWait() const {
  Duration wait = rtt_.rto();
  for (int i = 0; i < persist_backoffs_ && wait < options_.rtt.rto_max; ++i) {
    wait = 2 * wait;
  }
  return wait;
}

}  // namespace devwire
