// User calls: RFC 9293 3.10.1 to 3.10.6.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {

void Connection::OpenActive(Instant) {
  CHECK(state_ == State::kClosed && events_ == 0) << "opened twice";
  SetState(State::kSynSent);  // PollTransmit: <SEQ=ISS><CTL=SYN>.
}

void Connection::HoldHandshake(bool is_held) {
  is_held_ = is_held;
  UpdatePrediction();
}

uint64_t Connection::Send(uint64_t bytes) {
  if (close_requested_ || state_ == State::kClosed) return 0;
  // Linux's tcp_rate_check_app_limited(): up to now nothing held text back.
  if (unsent_bytes() < smss_ && retransmit_queue_.lost_bytes() == 0 &&
      pipe() < congestion_->cwnd()) {
    rate_.OnAppLimited(pipe());
  }
  uint64_t used = queued_offset_ - acked_offset_;
  uint64_t room = options_.send_queue_limit_bytes -
                  std::min(used, options_.send_queue_limit_bytes);
  uint64_t taken = std::min(bytes, room);
  queued_offset_ += taken;
  if (taken < bytes) send_was_short_ = user_waits_ = true;
  return taken;
}

// All that came was read, and the peer pushed it: nothing may follow until it
// hears of that. Unless we are one who answers: the answer takes the ACK along.
// As Linux's tcp_cleanup_rbuf() and its pingpong mode.
bool Connection::IsPushReadUp() const {
  return was_pushed_ && ready_.empty() && !is_answering_ &&
         timers_.IsSet(Timer::kDelayedAck);
}

size_t Connection::Receive(std::span<Frag> out, uint64_t max_bytes) {
  size_t count = 0;
  while (count < out.size() && max_bytes > 0 && !ready_.empty()) {
    Frag& first = ready_.front();
    Frag& taken = out[count++];
    taken = first;
    if (first.length > max_bytes) {  // Split; the rest stays first.
      taken.length = static_cast<uint32_t>(max_bytes);
      first.offset += taken.length;
      first.length -= taken.length;
      front_is_split_ = true;
    } else {
      ready_.PopFront();
      front_is_split_ = false;
    }
    max_bytes -= taken.length;
    readable_bytes_ -= taken.length;
    window_.OnRead(taken.length);
    tuner_.OnRead(taken.length);
  }
  if (count > 0 && CanReceiveText(state_) &&
      (window_.IsUpdateDue(tcb_.rcv_nxt) || IsPushReadUp())) {
    ack_is_due_ = true;
  }
  return count;
}

void Connection::OnReleased(uint64_t bytes, uint32_t slots) {
  window_.Release(bytes, slots);
  if (CanReceiveText(state_) && window_.IsUpdateDue(tcb_.rcv_nxt)) {
    ack_is_due_ = true;
  }
}

bool Connection::GiveUpOutOfOrder() {
  if (reassembly_.empty()) return false;
  reassembly_.GiveUpHighest();
  ++counts_.given_up_frags;
  UpdatePrediction();
  return true;
}

void Connection::SetReceiveLimits(const ReceiveLimits& limits) {
  window_.SetLimits(
      {.byte_budget = std::max<uint64_t>(limits.byte_budget, 1),
       .slot_quota = std::min(limits.slot_quota, options_.max_slot_quota)});
  if (CanReceiveText(state_) && window_.IsUpdateDue(tcb_.rcv_nxt)) {
    ack_is_due_ = true;
  }
}

void Connection::Close(Instant) {
  if (close_requested_) return;
  switch (state_) {
    case State::kClosed:
      return;
    case State::kListen:
    case State::kSynSent:
      EnterClosed(TcpError::kNone);
      return;
    case State::kSynReceived:  // Queued until ESTABLISHED.
      close_requested_ = true;
      return;
    case State::kEstablished:
      close_requested_ = true;
      SetState(State::kFinWait1);
      return;
    case State::kCloseWait:
      close_requested_ = true;
      SetState(State::kLastAck);
      return;
    case State::kFinWait1:
    case State::kFinWait2:
    case State::kClosing:
    case State::kLastAck:
    case State::kTimeWait:
      return;
  }
}

void Connection::ShutdownReceive(Instant now) {
  if (receive_is_shut_down_) return;
  receive_is_shut_down_ = true;
  UpdatePrediction();
  uint64_t bytes = readable_bytes_;
  // The slot of a frag that was split is freed by the application's part.
  uint32_t slots =
      static_cast<uint32_t>(ready_.size()) - (front_is_split_ ? 1u : 0u);
  DiscardReceived();
  window_.Release(bytes, slots);
  if (state_ == State::kFinWait2) {
    timers_.Set(Timer::kTimeWait, now + options_.fin_wait_2);
  }
}

void Connection::SetUserTimeout(std::optional<Duration> timeout, Instant now) {
  const bool waits = timers_.IsSet(Timer::kRetransmit) ||
                     (timers_.IsSet(Timer::kPersist) && tcb_.snd_wnd == 0);
  if (!timeout) {
    timers_.Stop(Timer::kUser);
  } else if (timers_.IsSet(Timer::kUser)) {  // It counts since it was set.
    timers_.Set(Timer::kUser,
                timers_.Deadline(Timer::kUser) - *user_timeout_ + *timeout);
  } else if (waits) {
    timers_.Set(Timer::kUser, now + *timeout);
  }
  user_timeout_ = timeout;
}

bool Connection::MayBeReopenedBy(const Segment& syn) const {
  constexpr uint8_t kOpening = kSyn | kAck | kRst | kFin;
  if (state_ != State::kTimeWait || (syn.flags & kOpening) != kSyn) {
    return false;
  }
  // Beyond the last sequence number seen: that of its FIN.
  const bool is_beyond = SeqGe(syn.seq, tcb_.rcv_nxt);
  if (!options_.use_timestamps || !syn.options.timestamps) return is_beyond;
  if (!tcb_.snd_ts_ok) return true;
  const auto ahead =
      static_cast<int32_t>(syn.options.timestamps->val - tcb_.ts_recent);
  return ahead > 0 || (ahead == 0 && is_beyond);
}

// A second after the peer's last segment our timestamps are later than any it
// has seen, in its own ticks too. As Linux's tcp_tw_reuse.
bool Connection::MayBeReopened(Instant now) const {
  constexpr Duration kLongEnough = 1_s;
  return state_ == State::kTimeWait && tcb_.snd_ts_ok &&
         now - tcb_.ts_recent_age >= kLongEnough;
}

void Connection::EndTimeWait() {
  CHECK(state_ == State::kTimeWait);
  EnterClosed(TcpError::kNone);
}

void Connection::Abort(TcpError reason) {
  if (!ready_.empty()) fin_received_ = false;  // No end of what was not read.
  switch (state_) {
    case State::kClosed:
      DiscardReceived();
      return;
    case State::kSynReceived:
    case State::kEstablished:
    case State::kFinWait1:
    case State::kFinWait2:
    case State::kCloseWait:
      // <SEQ=SND.NXT><CTL=RST>, with the ACK that Linux adds.
      if (tcb_.snd_nxt != tcb_.iss) {
        reset_owed_ = OwedReset{
            .seq = tcb_.snd_nxt, .ack = tcb_.rcv_nxt, .flags = kRst | kAck};
      }
      break;
    case State::kClosing:
    case State::kLastAck:
      // Entered at CLOSE, before the text queued then was sent; without its
      // FIN the peer waits. As Linux's tcp_disconnect does.
      if (!fin_sent_) {
        reset_owed_ = OwedReset{
            .seq = tcb_.snd_nxt, .ack = tcb_.rcv_nxt, .flags = kRst | kAck};
      }
      break;
    case State::kListen:
    case State::kSynSent:
    case State::kTimeWait:
      break;
  }
  DiscardReceived();
  EnterClosed(reason);
}

}  // namespace devwire
