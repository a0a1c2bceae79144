// SEGMENT ARRIVES in SYN-RECEIVED and the synchronized states. RFC 9293
// 3.10.7.4, steps in the RFC's order, with the tests of RFC 7323 5 (PAWS) and
// RFC 5961 3 to 5 in their places.
#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {
namespace {

// TS.Recent older than this proves nothing. RFC 7323 5.5.
constexpr Duration kTsRecentValidity = 24 * 86'400'000'000'000_ns;

}  // namespace

Verdict Connection::ArriveInSynchronized(const Segment& seg, Instant now) {
  // First, check the sequence number; before it PAWS, RFC 7323 5.3 R1.
  if (FailsPaws(seg, now)) {
    return ArriveUnacceptable(seg, DropReason::kPaws, now);
  }
  if (!IsAcceptable(seg)) {
    return ArriveUnacceptable(seg, DropReason::kOutsideWindow, now);
  }
  // Second, check the RST bit.
  if (seg.has_rst()) return ArriveReset(seg, now);

  // Third, security: not implemented, see docs/rfc_coverage.md.

  // Fourth, check the SYN bit.
  if (seg.has_syn()) return ArriveSyn(seg, now);

  return ArriveFromFifthStep(seg, now);
}

// The table of RFC 9293 3.4, "segment acceptability". A segment at the edge of
// a closed window passes: its text is dropped further down, its ACK counts
// (3.10.7.4, the "special allowance"). So does a bare ACK at the edge of an
// open one, as in Linux's tcp_sequence(): when both sides have filled the
// other's window and lost the text, every ACK bears such a number, and dropping
// them all would be the end of the connection.
bool Connection::IsAcceptable(const Segment& seg) const {
  const uint32_t wnd = window_.rcv_wnd(tcb_.rcv_nxt);
  const SeqLen len = seg.len();
  if (seg.seq == tcb_.rcv_nxt) return true;
  if (wnd == 0) return false;
  const SeqNum end = tcb_.rcv_nxt + wnd;
  if (InClosedOpen(tcb_.rcv_nxt, seg.seq, end)) return true;
  if (len == 0) return seg.seq == end;
  return InClosedOpen(tcb_.rcv_nxt, seg.seq + (len - 1), end);
}

bool Connection::FailsPaws(const Segment& seg, Instant now) const {
  // Segments without the option are taken, as Linux does and against the
  // SHOULD of RFC 7323 3.2: middleboxes strip it.
  if (!tcb_.snd_ts_ok || !seg.options.timestamps || seg.has_rst()) return false;
  uint32_t ahead = seg.options.timestamps->val - tcb_.ts_recent;
  return static_cast<int32_t>(ahead) < 0 &&
         now - tcb_.ts_recent_age <= kTsRecentValidity;
}

// <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, and the segment is dropped.
Verdict Connection::ArriveUnacceptable(const Segment& seg, DropReason reason,
                                       Instant now) {
  if (seg.has_rst()) return Drop(seg, DropReason::kResetOutsideWindow);
  if (state_ == State::kSynReceived && seg.has_syn() && seg.seq == tcb_.irs) {
    return ArriveSynAgain(seg, now);
  }
  if (state_ == State::kTimeWait && seg.has_fin()) {
    // The peer's FIN again (it lies left of the window): the eighth step.
    timers_.Set(Timer::kTimeWait, now + options_.time_wait);
  }
  if (seg.len() == 0 || seg.has_syn()) {
    // Two confused ends could answer each other's bare ACKs forever. As Linux.
    ChallengeAck(now);
    return Drop(seg, reason);
  }
  ack_is_due_ = true;
  const SeqNum end = seg.text_seq() + seg.payload_bytes;
  if (reason == DropReason::kOutsideWindow && SeqLe(end, tcb_.rcv_nxt)) {
    counts_.duplicate_bytes += seg.payload_bytes;
    NoteDuplicate(seg.text_seq(), end);
    reason = DropReason::kDuplicateText;
  }
  return Drop(seg, reason);
}

// SYN-RECEIVED, and the peer's SYN once more: left of the window, but news.
Verdict Connection::ArriveSynAgain(const Segment& seg, Instant now) {
  if (seg.has_ack() && InOpenClosed(tcb_.snd_una, seg.ack, tcb_.snd_nxt)) {
    // Simultaneous open: its SYN,ACK acknowledges ours. RFC 9293 Figure 7.
    ecn_.OnSynAck(seg.flags);
    AdvanceSndUna(seg, now);
    SetState(State::kEstablished);
    EnterEstablished(now);
    ack_is_due_ = true;
    return Drop(seg, seg.has_text_or_fin() ? DropReason::kTextOnSyn
                                           : DropReason::kNone);
  }
  // It has not seen our SYN-ACK. Send that again, sooner than the timer would;
  // an ACK would mean nothing to the peer. It may have stopped asking for ECN.
  if (!seg.has_ack()) ecn_.OnSyn(seg.flags);
  if (!retransmit_queue_.empty()) retransmit_queue_.MarkFirstLost();
  return Drop(seg, DropReason::kDuplicateText);
}

void Connection::ChallengeAck(Instant now) {
  if (last_challenge_ack_ &&
      now - *last_challenge_ack_ < options_.challenge_ack_interval) {
    return;
  }
  if (options_.challenge_budget != nullptr &&
      !options_.challenge_budget->Take(now)) {
    return;
  }
  last_challenge_ack_ = now;
  ++counts_.challenge_acks;
  ack_is_due_ = true;
}

// The segment lies in the window. RFC 5961 3.2, RFC 9293 3.10.7.4.
Verdict Connection::ArriveReset(const Segment& seg, Instant now) {
  if (seg.seq != tcb_.rcv_nxt) {
    ChallengeAck(now);
    return Drop(seg, DropReason::kResetChallenged);
  }
  switch (state_) {
    case State::kSynReceived:
      // Passive: the listener goes on without this one.
      EnterClosed(is_passive_ ? TcpError::kReset : TcpError::kRefused);
      break;
    case State::kEstablished:
    case State::kFinWait1:
    case State::kFinWait2:
    case State::kCloseWait:
      EnterClosed(TcpError::kReset);
      break;
    case State::kClosing:
    case State::kLastAck:
    case State::kTimeWait:
      EnterClosed(TcpError::kNone);
      break;
    case State::kClosed:
    case State::kListen:
    case State::kSynSent:
      break;  // Not here.
  }
  return Drop(seg, DropReason::kNone);
}

// RFC 5961 4.2: whatever its sequence number, a challenge ACK; a peer that
// really restarted answers it with a reset that counts.
Verdict Connection::ArriveSyn(const Segment& seg, Instant now) {
  ChallengeAck(now);
  return Drop(seg, DropReason::kSynChallenged);
}

// Fifth, check the ACK field.
Verdict Connection::ArriveFromFifthStep(const Segment& seg, Instant now) {
  if (!seg.has_ack()) return Drop(seg, DropReason::kWithoutAck);

  if (state_ == State::kSynReceived) {
    if (!InOpenClosed(tcb_.snd_una, seg.ack, tcb_.snd_nxt)) {
      reset_owed_ = OwedReset{.seq = seg.ack, .ack = SeqNum(), .flags = kRst};
      return Drop(seg, DropReason::kAckOfUnsent);
    }
    SetState(State::kEstablished);
    // The window is taken below, by the ESTABLISHED rule: the SYN's SND.WL1
    // lies before any segment that can come now.
    EnterEstablished(now);
  }

  switch (ProcessAck(seg, now)) {
    case AckResult::kUseful:
    case AckResult::kOld:  // Ignored; its text may count.
      last_arrival_ = now;
      break;
    case AckResult::kTooOld:
      ChallengeAck(now);
      return Drop(seg, DropReason::kAckTooOld);
    case AckResult::kUnsent:
      ChallengeAck(now);
      return Drop(seg, DropReason::kAckOfUnsent);
  }
  // RFC 7323 5.3 (R3) has this before the ACK is looked at; then a blind
  // segment just left of RCV.NXT would set TS.Recent, and PAWS end the
  // connection. As Linux.
  UpdateTsRecent(seg, now);
  if (fin_sent_ && tcb_.snd_una == tcb_.snd_nxt) {
    ArriveAckOfFin(now);
    if (state_ == State::kClosed) return Drop(seg, DropReason::kNone);
  }
  return ArriveFromSixthStep(seg, now);
}

void Connection::ArriveAckOfFin(Instant now) {
  switch (state_) {
    case State::kFinWait1:
      SetState(State::kFinWait2);
      // Nobody will read what comes; do not wait forever. As Linux.
      if (receive_is_shut_down_) {
        timers_.Set(Timer::kTimeWait, now + options_.fin_wait_2);
      }
      break;
    case State::kClosing:
      EnterTimeWait(now);
      break;
    case State::kLastAck:
      EnterClosed(TcpError::kNone);
      break;
    case State::kFinWait2:
    case State::kTimeWait:
    case State::kClosed:
    case State::kListen:
    case State::kSynSent:
    case State::kSynReceived:
    case State::kEstablished:
    case State::kCloseWait:
      break;
  }
}

Verdict Connection::ArriveFromSixthStep(const Segment& seg, Instant now) {
  // Sixth, check the URG bit.
  if (seg.has_urg()) ArriveUrgent(seg);

  // Seventh, process the segment text.
  DropReason reason = DropReason::kNone;
  if (seg.payload_bytes != 0) reason = ArriveText(seg, now);
  if (state_ == State::kClosed) return {reason};

  // Eighth, check the FIN bit. It may come before bytes that it follows, and
  // one byte beyond the window's edge: it takes no memory.
  if (seg.has_fin() && !fin_seq_) {
    SeqNum fin_seq = seg.text_seq() + seg.payload_bytes;
    if (SeqLe(tcb_.rcv_nxt, fin_seq) &&
        SeqLe(fin_seq, SeqMax(window_.edge(), tcb_.rcv_nxt))) {
      fin_seq_ = fin_seq;
    }
  }
  if (seg.has_fin()) ack_is_due_ = true;
  if (fin_seq_ && !fin_received_ && *fin_seq_ == tcb_.rcv_nxt) ArriveFin(now);
  return {reason};
}

// RCV.UP <- max(RCV.UP, SEG.UP), and the user is told. The pointer names the
// octet behind the urgent ones: MUST-62, RFC 6093 4.
void Connection::ArriveUrgent(const Segment& seg) {
  if (!CanReceiveText(state_)) return;
  const SeqNum up = seg.text_seq() + seg.urgent_pointer;
  const int64_t end = static_cast<int64_t>(counts_.bytes_received) +
                      SeqDistance(up, tcb_.rcv_nxt);
  if (end <= static_cast<int64_t>(urgent_end_)) return;
  urgent_end_ = static_cast<uint64_t>(end);
  if (urgent_bytes() > 0) Raise(Event::Kind::kUrgent);
}

void Connection::ArriveFin(Instant now) {
  fin_received_ = true;
  tcb_.rcv_nxt += 1;
  ack_is_due_ = true;
  reassembly_.Clear();  // A peer that sent text after its FIN.
  Raise(Event::Kind::kPeerClosed);
  switch (state_) {
    case State::kEstablished:
      SetState(State::kCloseWait);
      break;
    case State::kFinWait1:
      SetState(State::kClosing);
      break;
    case State::kFinWait2:
      EnterTimeWait(now);
      break;
    case State::kCloseWait:
    case State::kClosing:
    case State::kLastAck:
    case State::kTimeWait:
    case State::kClosed:
    case State::kListen:
    case State::kSynSent:
    case State::kSynReceived:
      break;
  }
}

void Connection::EnterTimeWait(Instant now) {
  SetState(State::kTimeWait);
  timers_.StopAll();
  keepalive_probe_is_due_ = false;
  timers_.Set(Timer::kTimeWait, now + options_.time_wait);
}

}  // namespace devwire
