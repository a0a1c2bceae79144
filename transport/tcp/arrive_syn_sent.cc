// SEGMENT ARRIVES in SYN-SENT. RFC 9293 3.10.7.3, steps in the RFC's order.
#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {

Verdict Connection::ArriveInSynSent(const Segment& seg, Instant now) {
  DCHECK_EQ(state_, State::kSynSent);

  // First, check the ACK bit. Acceptable means ISS < SEG.ACK <= SND.NXT.
  if (seg.has_ack() && !InOpenClosed(tcb_.iss, seg.ack, tcb_.snd_nxt)) {
    if (!seg.has_rst()) {  // <SEQ=SEG.ACK><CTL=RST>
      reset_owed_ = OwedReset{.seq = seg.ack, .ack = SeqNum(), .flags = kRst};
      // The reset ends what the peer had of an earlier connection, RFC 9293
      // 3.5.1: our SYN follows it, once, and does not wait for its timer. Linux
      // does the same.
      if (options_.syn_retries > 0 && !retransmit_queue_.empty() &&
          !retransmit_queue_.front().was_retransmitted) {
        retransmit_queue_.MarkFirstLost();
      }
    }
    return Drop(seg, DropReason::kAckOutsideSynSent);
  }

  // Second, check the RST bit. Only a reset that acknowledges our SYN counts.
  if (seg.has_rst()) {
    if (!seg.has_ack()) return Drop(seg, DropReason::kResetWithoutAck);
    // The RFC reports "connection reset"; Linux applications expect
    // ECONNREFUSED here, so we report that.
    EnterClosed(TcpError::kRefused);
    return Drop(seg, DropReason::kNone);
  }

  // Third, security: not implemented, see docs/rfc_coverage.md.

  // Fourth, check the SYN bit.
  if (seg.has_syn()) {
    AdoptSyn(seg, now);
    if (seg.has_ack()) {
      AdvanceSndUna(seg, now);
      SetState(State::kEstablished);
      EnterEstablished(now);
      ack_is_due_ = true;  // <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>
      if (seg.has_text_or_fin()) return ArriveFromSixthStep(seg, now);
      return Drop(seg, DropReason::kNone);
    }
    SetState(State::kSynReceived);  // Simultaneous open. MUST-10.
    // Our SYN goes again, now as <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>.
    if (!retransmit_queue_.empty()) retransmit_queue_.MarkFirstLost();
    // Text on this SYN is not queued as the RFC suggests; the peer sends it
    // again. Listed in docs/rfc_coverage.md.
    return Drop(seg, seg.has_text_or_fin() ? DropReason::kTextOnSyn
                                           : DropReason::kNone);
  }

  // Fifth, neither SYN nor RST.
  return Drop(seg, DropReason::kNotSynNorRst);
}

// The handshake is complete; state_ is ESTABLISHED.
void Connection::EnterEstablished(Instant now) {
  DCHECK_EQ(state_, State::kEstablished);
  if (syn_retransmissions_ > 0) rtt_.OnSynRetransmitted();
  if (syn_retransmissions_ > 1) {  // RFC 6928 2: the network is in trouble.
    congestion_->OnEstablished(
        {.now = now, .smss = smss_, .initial_window_segments = 1});
  }
  LeaveRtoRecovery(now);
  quick_acks_left_ = kQuickAcks;
  last_send_ = last_arrival_ = now;
  tuner_.Start(now, tcb_.rcv_nxt, window_.rcv_wnd(tcb_.rcv_nxt),
               rtt_.srtt().value_or(Duration()));
  Raise(Event::Kind::kConnected);
  SetKeepAlive(options_.keepalive, now);
  // A CLOSE given before this takes effect now. RFC 9293 3.10.4.
  if (close_requested_) SetState(State::kFinWait1);
}

}  // namespace devwire
