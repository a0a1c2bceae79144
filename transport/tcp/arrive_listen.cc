// SEGMENT ARRIVES in LISTEN. RFC 9293 3.10.7.2, steps in the RFC's order. The
// listener itself is the engine's; a Connection is made for each SYN.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {
namespace {

constexpr uint8_t kMaxWindowShift = 14;  // RFC 7323 2.3.

}  // namespace

Verdict Connection::OpenPassive(const Segment& syn, Instant now) {
  CHECK(state_ == State::kClosed && events_ == 0) << "opened twice";
  SetState(State::kListen);
  is_passive_ = true;
  Verdict verdict = OnSegment(syn, now);
  if (state_ == State::kListen) EnterClosed(TcpError::kNone);
  return verdict;
}

// RFC 4987 3.6. No RTT sample: nobody noted when the SYN-ACK left, and its
// timestamp carried something else.
Verdict Connection::OpenByCookie(const Segment& syn, const Segment& ack,
                                 Instant now) {
  CHECK_EQ(ack.ack, tcb_.iss + 1);
  (void)OpenPassive(syn, now);
  CHECK_EQ(state_, State::kSynReceived);
  (void)window_.Advertise(tcb_.rcv_nxt, /*is_syn=*/true);  // As it was then.
  tcb_.snd_nxt = tcb_.snd_una = ack.ack;
  SetState(State::kEstablished);
  EnterEstablished(now);
  return OnSegment(ack, now);
}

Verdict Connection::ArriveInListen(const Segment& seg, Instant now) {
  DCHECK_EQ(state_, State::kListen);

  // First, check for a RST.
  if (seg.has_rst()) return Drop(seg, DropReason::kListenReset);

  // Second, check for an ACK: <SEQ=SEG.ACK><CTL=RST>.
  if (seg.has_ack()) {
    reset_owed_ = OwedReset{.seq = seg.ack, .ack = SeqNum(), .flags = kRst};
    return Drop(seg, DropReason::kListenAck);
  }

  // Third, check for a SYN.
  if (seg.has_syn()) {
    AdoptSyn(seg, now);
    SetState(State::kSynReceived);  // PollTransmit: <CTL=SYN,ACK>.
    if (seg.has_text_or_fin()) {
      // Not queued as the RFC suggests; the peer sends it again.
      return Drop(seg, DropReason::kTextOnSyn);
    }
    return Verdict::kAccepted;
  }

  // Fourth, other data or control.
  return Drop(seg, DropReason::kListenWithoutSyn);
}

// What both kinds of open take from the peer's SYN.
void Connection::AdoptSyn(const Segment& seg, Instant now) {
  const uint32_t offered =
      state_ == State::kSynSent ? window_.rcv_wnd(tcb_.rcv_nxt) : 0;
  tcb_.irs = seg.seq;
  tcb_.rcv_nxt = seg.seq + 1;
  tcb_.last_ack_sent = tcb_.rcv_nxt;
  window_.Start(tcb_.rcv_nxt, offered);
  tcb_.snd_wnd = seg.wnd;  // A SYN's window is never scaled. RFC 7323 2.2.
  tcb_.max_snd_wnd = std::max(tcb_.max_snd_wnd, tcb_.snd_wnd);
  tcb_.snd_wl1 = seg.seq;
  tcb_.snd_wl2 = seg.has_ack() ? seg.ack : tcb_.iss;

  const TcpOptions& peer = seg.options;
  if (options_.use_window_scale && peer.window_scale) {
    tcb_.snd_wind_shift = std::min(*peer.window_scale, kMaxWindowShift);
    window_.EnableScaling();
    peer_scales_ = true;
    tcb_.rcv_wind_shift = window_.shift();
  }
  if (options_.use_timestamps && peer.timestamps) {
    tcb_.snd_ts_ok = true;
    tcb_.ts_recent = peer.timestamps->val;
    tcb_.ts_recent_age = now;
  }
  tcb_.sack_permitted = options_.use_sack && peer.sack_permitted;
  snd_mss_.peer = peer.mss.value_or(options_.default_mss);
  smss_ = EffectiveSndMss();
  congestion_->OnEstablished(
      {.now = now,
       .smss = smss_,
       .initial_window_segments = options_.initial_window_segments});
  round_end_ = tcb_.iss;
  if (seg.has_ack()) {
    ecn_.OnSynAck(seg.flags);
  } else {
    ecn_.OnSyn(seg.flags);
  }
}

}  // namespace devwire
