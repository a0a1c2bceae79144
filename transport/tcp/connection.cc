#include "transport/tcp/connection.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace devwire {

Connection::Connection(const Options& options, FragSink& sink)
    : sink_(sink),
      nodelay_(options.nodelay),
      smss_(options.mss),
      window_({.limits = options.receive,
               .slot_bytes = options.slot_bytes,
               .slot_reserve = options.slot_reserve,
               .mss = options.mss,
               .use_scaling = options.use_window_scale,
               .tuned_bytes = options.receive_initial_bytes}),
      tuner_(options.receive_initial_bytes, options.mss),
      ready_(options.max_slot_quota),
      reassembly_(options.max_slot_quota, sink),
      retransmit_queue_(options.max_segments_in_flight),
      rack_(options.iss),
      congestion_(options.congestion()),
      ecn_(options.ecn, congestion_->echoes_every_mark()),
      rtt_(options.rtt),
      snd_mss_{.path = std::min(options.mss, options.path_mss)},
      options_(options) {
  user_timeout_ = options.user_timeout;
  CHECK_GT(options.mss, 0);
  CHECK_LE(options.receive.slot_quota, options.max_slot_quota);
  tcb_.iss = tcb_.snd_una = tcb_.snd_nxt = options.iss;
  recover_ = small_end_ = cwnd_limited_to_ = options.iss;
}

Connection::~Connection() { DiscardReceived(); }

void Connection::SetState(State next) {
  DCHECK(IsStateEdge(state_, next))
      << StateName(state_) << " to " << StateName(next);
  state_ = next;
  is_plain_ = false;  // Until the input that did it is over.
}

Verdict Connection::Drop(const Segment& seg, DropReason reason) {
  for (size_t i = 0; i < seg.text_count; ++i) sink_.Discard(seg.text[i]);
  return {reason};
}

Verdict Connection::OnSegment(const Segment& seg, Instant now) {
  ++counts_.segments_in;
  if (IsPredicted(seg)) [[likely]]
    return ArrivePredicted(seg, now);
  Verdict verdict = ArriveUnpredicted(seg, now);
  UpdatePrediction();
  return verdict;
}

Verdict Connection::ArriveUnpredicted(const Segment& seg, Instant now) {
  switch (state_) {
    case State::kClosed:
      return Drop(seg, DropReason::kClosed);
    case State::kListen:
      return ArriveInListen(seg, now);
    case State::kSynSent:
      return ArriveInSynSent(seg, now);
    case State::kSynReceived:
    case State::kEstablished:
    case State::kFinWait1:
    case State::kFinWait2:
    case State::kCloseWait:
    case State::kClosing:
    case State::kLastAck:
    case State::kTimeWait:
      return ArriveInSynchronized(seg, now);
  }
  return Verdict::kAccepted;
}

// To be called after whatever may have changed one of these.
void Connection::UpdatePrediction() {
  // In FIN-WAIT-2 our own direction is done: a plain receiver.
  const bool is_open = (state_ == State::kEstablished && !close_requested_) ||
                       state_ == State::kFinWait2;
  is_plain_ = is_open && reassembly_.empty() && !fin_seq_ &&
              !receive_is_shut_down_ && !reset_owed_ && !is_held_ &&
              !override_is_due_ && !keepalive_probe_is_due_ &&
              !loss_probe_is_due_;
}

// Whether every step of RFC 9293 3.10.7.4 has its plain outcome: the next text
// in order or none, an ACK of what is in flight, no other flag, no hole, room
// to keep it. Van Jacobson's header prediction.
inline bool Connection::IsPredicted(const Segment& seg) const {
  if (!is_plain_ || ecn_.IsNews(seg.ecn)) return false;
  if ((seg.flags & ~kPsh) != kAck || seg.seq != tcb_.rcv_nxt) return false;
  if (seg.ack - tcb_.snd_una > flight_size()) return false;
  if (tcb_.snd_ts_ok) {
    if (!seg.options.timestamps) return false;
    uint32_t ahead = seg.options.timestamps->val - tcb_.ts_recent;
    if (static_cast<int32_t>(ahead) < 0) return false;
  }
  return seg.payload_bytes == 0 ||
         (!seg.text_dropped &&
          seg.payload_bytes <= window_.rcv_wnd(tcb_.rcv_nxt) &&
          window_.HasRoomInOrder(seg.text_count, 0));
}

inline Verdict Connection::ArrivePredicted(const Segment& seg, Instant now) {
  UpdateTsRecent(seg, now);
  last_arrival_ = now;
  // A segment with text is no duplicate ACK; without news it is none at all.
  if (seg.payload_bytes == 0 || seg.ack != tcb_.snd_una ||
      seg.options.sack_block_count != 0 ||
      uint32_t{seg.wnd} << tcb_.snd_wind_shift != tcb_.snd_wnd) {
    (void)ProcessAck(seg, now);
    if (seg.payload_bytes == 0) return Verdict::kAccepted;
  } else {
    tcb_.snd_wl1 = seg.seq;
  }
  NoteTextArrival(seg, now);
  ++counts_.data_segments_in;
  Deliver(seg.text[0]);
  if (seg.text_count > 1) [[unlikely]]
    Deliver(seg.text[1]);
  NoteFullSegment(seg);
  TuneWindow(seg, now);
  ScheduleAck(now);
  return Verdict::kAccepted;
}

void Connection::EnterClosed(TcpError error) {
  SetState(State::kClosed);
  timers_.StopAll();
  reassembly_.Clear();
  retransmit_queue_.Clear();
  tcb_.snd_una = tcb_.snd_nxt;
  probe_is_out_ = override_is_due_ = ack_is_due_ = false;
  keepalive_probe_is_due_ = false;
  loss_probe_is_due_ = false;
  duplicate_acks_owed_ = 0;
  is_held_ = false;
  error_ = error;
  if (error != TcpError::kNone) Raise(Event::Kind::kError);
  Raise(Event::Kind::kClosed);
}

std::optional<Event> Connection::PollEvent() {
  if (events_ == 0) return std::nullopt;
  int lowest = std::countr_zero(events_);
  events_ &= static_cast<uint16_t>(events_ - 1);
  return Event{static_cast<Event::Kind>(lowest)};
}

// What is in flight, in segments, as Linux counts it.
void Connection::FillFlight(Stats* s) const {
  const RetransmitQueue& queue = retransmit_queue_;
  s->in_flight = static_cast<uint32_t>(queue.size());
  s->sacked = tcb_.sack_permitted ? queue.sacked_segments()
                                  : duplicate_ack_bytes_ / smss_;
  s->sent_again = queue.segments_in_flight_again();
  for (size_t i = 0; i < queue.size(); ++i) {
    s->lost += queue[i].is_lost ? 1 : 0;
  }
  // A probe is sent again, and not because it is thought lost.
  if (recovery_ != Recovery::kOpen) s->lost += s->sent_again;
  s->delivered_segments = counts_.segments_acked + s->sacked;
}

Connection::Stats Connection::stats() const {
  Stats s = counts_;
  s.bytes_acked = acked_offset_;
  s.srtt = rtt_.srtt().value_or(Duration());
  s.rttvar = rtt_.rttvar();
  s.rtt_min = rtt_.srtt() ? rtt_.rtt_min() : Duration();
  s.rto = rtt_.rto();
  s.backoffs = static_cast<uint32_t>(rtt_.backoffs());
  s.cwnd = recovery_ == Recovery::kFastRecovery ? pipe() + prr_.snd_cnt()
                                                : congestion_->cwnd();
  s.ssthresh = congestion_->ssthresh();
  s.flight_size = flight_size();
  s.smss = smss_;
  s.snd_wnd = tcb_.snd_wnd;
  s.rcv_wnd = window_.rcv_wnd(tcb_.rcv_nxt);
  s.rcv_ssthresh = window_.budget();
  s.snd_wind_shift = tcb_.snd_wind_shift;
  s.rcv_wind_shift = window_.shift();
  s.timestamps = tcb_.snd_ts_ok;
  s.sack = tcb_.sack_permitted;
  s.ecn = ecn_.is_on();
  s.pacing_rate =
      options_.use_pacing ? congestion_->pacing_rate(rtt_.srtt()) : UINT64_MAX;
  s.unsent_bytes = unsent_bytes();
  s.out_of_order_bytes = reassembly_.bytes();
  s.held_bytes = window_.held_bytes();
  s.held_slots = window_.held_slots();
  using CaState = Stats::CaState;
  s.ca_state = recovery_ == Recovery::kLoss                 ? CaState::kLoss
               : recovery_ == Recovery::kFastRecovery       ? CaState::kRecovery
               : cwr_end_ && SeqLt(tcb_.snd_una, *cwr_end_) ? CaState::kCwr
               : duplicate_acks_ > 0 || retransmit_queue_.sacked_segments() > 0
                   ? CaState::kDisorder
                   : CaState::kOpen;
  s.retries = retries_;
  s.probes = unanswered_probes_;
  FillFlight(&s);
  s.rto_since = rto_since_.value_or(Instant());
  s.delivery_rate = rate_.latest().bytes_per_second();
  s.delivery_rate_is_app_limited = rate_.latest().is_app_limited;
  s.ect_was_seen = ecn_.has_seen_ect();
  s.last_text_sent = last_send_;
  s.last_text_taken = last_text_arrival_;
  s.last_ack_arrival = last_arrival_;
  s.delayed_ack_time = options_.delayed_ack_time;
  s.window_scale = peer_scales_;
  s.advmss = options_.mss;
  s.rcv_mss = rcv_mss_;
  s.rcv_rtt = tuner_.rtt();
  s.rcv_space = tuner_.space();
  return s;
}

}  // namespace devwire
