// CheckInvariants(): what is true between any two calls.
#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {

void Connection::CheckInvariants() const {
  if (state_ == State::kClosed) {
    CHECK(NextDeadline() == Instant::Never());
    CHECK(reassembly_.empty() && retransmit_queue_.empty());
    CHECK(!ack_is_due_ && duplicate_acks_owed_ == 0);
    return;
  }
  CheckSendInvariants();
  CheckReceiveInvariants();
}

void Connection::CheckSendInvariants() const {
  CHECK(SeqLe(tcb_.snd_una, tcb_.snd_nxt));
  retransmit_queue_.CheckInvariants(tcb_.snd_una, tcb_.snd_nxt);
  CHECK_LE(acked_offset_, sent_offset_);
  CHECK_LE(sent_offset_, queued_offset_);
  CHECK_EQ(timers_.IsSet(Timer::kRetransmit), flight_size() > 0);
  CHECK(!timers_.IsSet(Timer::kPersist) || flight_size() == 0);
  CHECK(!probe_is_out_ || flight_size() == 0);
  CHECK_LE(duplicate_ack_bytes_, flight_size());
  CHECK(!fin_sent_ || (close_requested_ && unsent_bytes() == 0));
  if (state_ == State::kFinWait2 || state_ == State::kTimeWait) {
    CHECK(fin_sent_ && flight_size() == 0);
  }
  if (state_ >= State::kEstablished && flight_size() == 0) {
    CHECK_EQ(acked_offset_, sent_offset_);
  }
  if (recovery_ == Recovery::kFastRecovery) {
    CHECK(SeqLt(tcb_.snd_una, recover_));
  }
}

void Connection::CheckReceiveInvariants() const {
  reassembly_.CheckInvariants(tcb_.rcv_nxt);
  uint64_t readable = 0;
  for (size_t i = 0; i < ready_.size(); ++i) {
    CHECK_GT(ready_[i].length, 0u);
    readable += ready_[i].length;
  }
  CHECK_EQ(readable, readable_bytes_);
  CHECK_EQ(readable_bytes_, window_.unread_bytes());
  CHECK_LE(readable_bytes_, window_.held_bytes());
  CHECK_LE(ready_.size(), window_.held_slots());
  CHECK(SeqLe(tcb_.last_ack_sent, tcb_.rcv_nxt));
  if (fin_received_) {
    CHECK(!CanReceiveText(state_));
    CHECK_EQ(tcb_.rcv_nxt, *fin_seq_ + 1);
    CHECK(reassembly_.empty());
  }
}

}  // namespace devwire
