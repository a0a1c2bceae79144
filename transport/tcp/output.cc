// What to send next. The only file that builds segments, except
// ResetForUnknown.
//
// Source: RFC 9293 3.7.4 (Nagle), 3.8.6.2.1 (the sender's silly
// window), 3.8.6.1 (window probes); RFC 5681 3.1, 4.1; RFC 7323 3.2; RFC 2018
// 4; RFC 2883 4.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {
namespace {

// RFC 2018 3: what fits into 40 bytes of options, beside timestamps or not.
constexpr size_t kSackBlocksBesideTimestamps = 3;
constexpr uint32_t kFRtoSegments = 2;  // RFC 5682 2.1 (2b).

}  // namespace

bool Connection::PollOwed(Instant now, const TxLimits& limits, TxSegment* out) {
  if (now >= NextDeadline()) OnDeadline(now);
  if (reset_owed_) return PollReset(out);
  if (state_ <= State::kListen) {
    counts_.sender_time.Enter(Phase::kIdle, now);
    return false;
  }
  if (is_held_) return false;
  if (state_ <= State::kSynReceived) {
    if (PollSyn(now, out)) return true;
    if (state_ == State::kSynSent) return false;
  } else {
    if (ecn_.has_prior_ack() && PollPriorAck(now, out)) return true;
    if (loss_probe_is_due_ && PollProbe(now, limits, out)) return true;
    if (retransmit_queue_.lost_bytes() > 0) {  // Before any new text.
      if (PollLost(now, limits, out)) return true;
    } else if ((unsent_bytes() > 0 || fin_is_due()) &&
               PollNewText(now, limits, out)) {
      return true;
    }
    if (override_is_due_ && PollWindowProbe(now, out)) return true;
  }
  if (keepalive_probe_is_due_) {
    PollKeepAlive(now, out);
    return true;
  }
  if (!ack_is_due_ && duplicate_acks_owed_ == 0) return false;
  // The first ACK after RCV.NXT advanced is no duplicate.
  const bool is_duplicate = tcb_.last_ack_sent == tcb_.rcv_nxt;
  if (is_duplicate && duplicate_acks_owed_ > 0) --duplicate_acks_owed_;
  Fill(tcb_.snd_nxt, kAck, now, out);
  if (dsack_ || !reassembly_.empty()) FillSackBlocks(out);
  ++counts_.acks_without_data_out;
  return true;
}

// Everything but payload and the options of a SYN.
inline void Connection::Fill(SeqNum seq, uint8_t flags, Instant now,
                             TxSegment* out) {
  *out = TxSegment();
  out->seq = seq;
  out->flags = flags;
  ++counts_.segments_out;
  if (tcb_.snd_ts_ok) {
    out->options.timestamps = {TicksAt(now), tcb_.ts_recent};
  }
  if ((flags & kAck) == 0) return;
  FillAck(tcb_.rcv_nxt, ecn_.AckFlags(), out);
  ack_is_due_ = was_pushed_ = false;
  timers_.Stop(Timer::kDelayedAck);
}

inline void Connection::FillAck(SeqNum ack, uint8_t ecn_flags, TxSegment* out) {
  out->flags |= kAck | ecn_flags;
  out->ack = ack;
  out->wnd = window_.Advertise(ack, (out->flags & kSyn) != 0);
  tcb_.last_ack_sent = ack;
}

// DCTCP: text up to here was marked otherwise than what followed.
bool Connection::PollPriorAck(Instant now, TxSegment* out) {
  SeqNum ack;
  uint8_t ecn_flags = 0;
  if (!ecn_.TakePriorAck(&ack, &ecn_flags)) return false;
  // Acknowledged since, by a segment with text.
  if (SeqLe(ack, tcb_.last_ack_sent)) return false;
  Fill(tcb_.snd_nxt, 0, now, out);
  FillAck(ack, ecn_flags, out);
  ack_is_due_ = true;  // What followed is still owed one.
  ++counts_.acks_without_data_out;
  return true;
}

// In all segments before the end of urgent data. MUST-62: it points behind.
inline void Connection::FillUrgent(TxSegment* out) const {
  if (out->stream_offset >= send_urgent_end_) [[likely]]
    return;
  out->flags |= kUrg;
  out->urgent_pointer = static_cast<uint16_t>(
      std::min<uint64_t>(send_urgent_end_ - out->stream_offset, UINT16_MAX));
}

// On bare ACKs only: a segment with text keeps its header's length, for the
// peer's split's sake as for ours (docs/wire.md).
void Connection::FillSackBlocks(TxSegment* out) {
  if (!tcb_.sack_permitted) return;
  auto& blocks = out->options.sack_blocks;
  size_t room = tcb_.snd_ts_ok ? kSackBlocksBesideTimestamps : blocks.size();
  size_t count = 0;
  if (dsack_) {
    blocks[count++] = *dsack_;
    dsack_.reset();
  }
  count += reassembly_.SackBlocks(
      std::span<SackBlock>(blocks).subspan(count, room - count));
  out->options.sack_block_count = static_cast<uint8_t>(count);
  counts_.sack_blocks_out += count;
}

// <SEQ=SND.NXT-1><ACK=RCV.NXT><CTL=ACK>: not acceptable, so it must be
// answered. Without the octet of garbage that it could carry: SHLD-12.
void Connection::PollKeepAlive(Instant now, TxSegment* out) {
  keepalive_probe_is_due_ = false;
  UpdatePrediction();
  ++counts_.keepalive_probes;
  Fill(tcb_.snd_nxt - 1, kAck, now, out);
}

bool Connection::PollReset(TxSegment* out) {
  *out = TxSegment();
  out->seq = reset_owed_->seq;
  out->flags = reset_owed_->flags;
  if ((out->flags & kAck) != 0) out->ack = reset_owed_->ack;
  reset_owed_.reset();
  UpdatePrediction();
  ++counts_.segments_out;
  return true;
}

// The SYN or SYN-ACK, for the first time or again.
bool Connection::PollSyn(Instant now, TxSegment* out) {
  const bool is_first = tcb_.snd_nxt == tcb_.iss;
  if (!is_first && retransmit_queue_.NextLost() == nullptr) return false;
  const bool is_answer = state_ == State::kSynReceived;
  const uint8_t ecn_flags =
      is_answer ? ecn_.SynAckFlags() : ecn_.SynFlags(!is_first);
  Fill(tcb_.iss, (is_answer ? kSyn | kAck : kSyn) | ecn_flags, now, out);
  if (is_first) {
    RecordSent(tcb_.iss, 0, kSyn, now);
  } else {
    out->retransmission = true;
    retransmit_queue_.OnRetransmitted(now, 1, NoteRetransmitted(0, now));
  }
  out->options.mss = options_.mss;
  if (is_answer) {  // Only what the peer offered too.
    if (tcb_.sack_permitted) out->options.sack_permitted = true;
    if (peer_scales_) out->options.window_scale = window_.shift();
    return true;
  }
  out->wnd = window_.Advertise(tcb_.rcv_nxt, true);
  out->options.sack_permitted = options_.use_sack;
  if (options_.use_window_scale) {
    out->options.window_scale = window_.wanted_shift();
  }
  if (options_.use_timestamps) out->options.timestamps = {TicksAt(now), 0};
  return true;
}

// Something is lost.
bool Connection::PollLost(Instant now, const TxLimits& limits, TxSegment* out) {
  if (frto_ == FRto::kSecondAck) {
    // RFC 5682 2.1 (2b): new text instead, up to two segments. When there is
    // none that may go, conventional recovery.
    const bool may_send =
        unsent_bytes() > 0 && tcb_.snd_nxt - recover_ < kFRtoSegments * smss_;
    if (may_send && PollNewText(now, {.source = limits.source}, out)) {
      return true;
    }
    if (pipe() > 0) return false;
    frto_ = FRto::kOff;
  }
  counts_.sender_time.Enter(Phase::kBusy, now);
  SentSegment lost = *retransmit_queue_.NextLost();
  if (lost.payload_bytes() > smss_) [[unlikely]] {
    if (snd_mss_.probe_end == lost.end()) OnProbeLost();
    // ACKs of what is in flight make room for its pieces.
    if (retransmit_queue_.free_records() == 0 && pipe() > 0) return false;
    if (retransmit_queue_.Recut(smss_)) {
      lost = *retransmit_queue_.NextLost();
    } else {  // No record will be free: its beginning alone.
      lost.len = smss_;
      lost.has_fin = false;
    }
  }
  // With nothing in flight no ACK would come to let it out.
  if (pipe() > 0 && lost.payload_bytes() > cwnd_room()) return false;
  size_t records = 1;
  // What was joined may be more than the path carries: not for ever.
  if (lost.payload_bytes() < smss_ && retries_ < kBlackHoleTimeouts) {
    records = JoinLost(limits, &lost);
  }
  const RateMark mark = FillRetransmission(lost, now, out);
  retransmit_queue_.OnRetransmitted(now, records, mark);
  // What F-RTO must not take for text that was sent once.
  frto_end_ = SeqMax(frto_end_, lost.end());
  return true;
}

// Small segments are sent again as one: a peer has a slot, or a buffer, for
// each, and an overhead. Returns how many. RFC 9293 3.8.1, repacketization.
size_t Connection::JoinLost(const TxLimits& limits, SentSegment* lost) const {
  const SentSegment first = *lost;
  const uint32_t most = std::min(smss_, cwnd_room());
  size_t records = retransmit_queue_.ExtendLost(most, lost);
  if (records == 1 || limits.source == nullptr) return records;
  const uint32_t fits = limits.source->GatherableBytes(
      OffsetOf(first.text_seq()), lost->payload_bytes());
  if (fits < lost->payload_bytes()) {
    *lost = first;
    records = retransmit_queue_.ExtendLost(fits, lost);
  }
  return records;
}

RateMark Connection::FillRetransmission(const SentSegment& sent, Instant now,
                                        TxSegment* out) {
  const uint32_t payload = sent.payload_bytes();
  DCHECK_LE(payload, smss_);
  const uint64_t offset = OffsetOf(sent.text_seq());
  const bool is_last = offset + payload == queued_offset_;
  uint8_t flags = kAck;
  if (is_last && payload > 0) flags |= kPsh;
  if (sent.has_fin) flags |= kFin;
  Fill(sent.seq, flags, now, out);
  out->payload_bytes = payload;
  out->stream_offset = offset;
  FillUrgent(out);
  out->retransmission = true;
  counts_.bytes_retransmitted += payload;
  counts_.bytes_sent += payload;
  counts_.data_segments_out += payload > 0 ? 1 : 0;
  last_send_ = now;
  return NoteRetransmitted(sent.len, now);
}

// A tail loss probe: new text if there is some and the window allows it, else
// the last segment again. RFC 8985 7.3. One segment beyond cwnd is allowed.
bool Connection::PollProbe(Instant now, const TxLimits& limits,
                           TxSegment* out) {
  loss_probe_is_due_ = false;
  UpdatePrediction();
  if (!MayProbe() || retransmit_queue_.empty()) return false;
  if (retransmit_queue_.back().payload_bytes() > smss_) return false;
  ++counts_.tlp_probes;
  uint32_t bytes =
      static_cast<uint32_t>(std::min<uint64_t>(unsent_bytes(), smss_));
  const bool fits = tcb_.snd_wnd >= flight_size() + bytes;
  if (bytes > 0 && fits && !retransmit_queue_.full()) {
    if (limits.source != nullptr) {
      bytes = limits.source->GatherableBytes(sent_offset_, bytes);
    }
    FillNewText(bytes, close_requested_ && bytes == unsent_bytes(), now, out);
    tlp_.OnProbeSent(tcb_.snd_nxt, false);
  } else {
    const RateMark mark =
        FillRetransmission(retransmit_queue_.back(), now, out);
    retransmit_queue_.OnLastRetransmitted(now, mark);
    tlp_.OnProbeSent(tcb_.snd_nxt, true);
  }
  // Not another one before the RTO.
  SetRetransmitTimer(RetransmitTimer::kRto, rto_deadline_);
  return true;
}

// How much new text the next segment takes: 0 for none now.
inline uint32_t Connection::NextTextBytes(const TxLimits& limits, Instant now) {
  const uint32_t flight = flight_size();
  const uint32_t wnd_room = tcb_.snd_wnd > flight ? tcb_.snd_wnd - flight : 0;
  const uint32_t cwnd_room = this->cwnd_room();
  const uint64_t unsent = unsent_bytes();
  if (cwnd_room <= std::min<uint64_t>(unsent, wnd_room)) {
    cwnd_is_limiting_ = true;
    cwnd_limited_to_ = tcb_.snd_nxt + cwnd_room;
  }
  uint32_t bytes = std::min(wnd_room, cwnd_room);
  bytes = static_cast<uint32_t>(std::min<uint64_t>(bytes, unsent));
  // A burst's length: what the NIC cuts, and what there are records for.
  if (limits.max_tso_payload != tso_payload_ || tso_bytes_ < smss_) {
    tso_payload_ = limits.max_tso_payload;
    uint32_t most = std::max(tso_payload_, smss_);
    tso_bytes_ = most - most % smss_;
  }
  bytes = std::min(bytes, tso_bytes_);
  // A NIC that cuts might repeat CWR on every piece.
  if (ecn_.IsCwrDue(congestion_->reductions())) bytes = std::min(bytes, smss_);
  bytes = PacedBytes(bytes, now);
  // The NIC would give each segment the same urgent pointer.
  if (sent_offset_ < send_urgent_end_) [[unlikely]]
    bytes = std::min(bytes, smss_);
  const size_t records = retransmit_queue_.free_records();
  if (bytes > records * smss_) [[unlikely]] {
    bytes = static_cast<uint32_t>(records) * smss_;
  }
  if (bytes == 0) return 0;
  bool is_gather_limited = false;
  if (limits.source != nullptr) {
    uint32_t fits = limits.source->GatherableBytes(sent_offset_, bytes);
    DCHECK_GT(fits, 0u);
    is_gather_limited = fits < bytes;
    bytes = fits;
  }
  if (bytes == smss_) return bytes;
  if (bytes > smss_ && bytes < unsent) return bytes - bytes % smss_;
  if (bytes > smss_) {  // All that is left: its tail is a small segment.
    uint32_t tail = bytes % smss_;
    return tail == 0 || IsSmallSendAllowed(tail, true) ? bytes : bytes - tail;
  }
  if (is_gather_limited) return bytes;
  return IsSmallSendAllowed(bytes, bytes == unsent) ? bytes : 0;
}

// How many of `bytes` may leave now. When none may, the pacing timer says when.
inline uint32_t Connection::PacedBytes(uint32_t bytes, Instant now) {
  if (pacer_.NeedsRate(now)) {
    const std::optional<Duration> srtt = rtt_.srtt();
    const bool is_paced =
        options_.use_pacing && srtt && *srtt >= Pacer::kInterval;
    pacer_.StartInterval(
        now, is_paced ? congestion_->pacing_rate(srtt) : UINT64_MAX, smss_);
  }
  if (bytes <= pacer_.left()) return bytes;
  bytes = pacer_.left() - pacer_.left() % smss_;
  if (bytes == 0) timers_.Set(Timer::kPacing, pacer_.next_burst());
  return bytes;
}

// RFC 9293 3.8.6.2.1 (2) to (4), for less than a full segment; Nagle's rule as
// Minshall and Linux have it: only a small segment in flight holds it back.
bool Connection::IsSmallSendAllowed(uint32_t bytes, bool is_all) const {
  if (override_is_due_) return true;
  if (is_all && close_requested_) return true;
  if (is_corked_) return false;
  const bool is_free = nodelay_ || !SeqLt(tcb_.snd_una, small_end_);
  if (is_all) return is_free;
  return is_free && flight_size() == 0 && 2 * bytes >= tcb_.max_snd_wnd;
}

inline bool Connection::PollNewText(Instant now, const TxLimits& limits,
                                    TxSegment* out) {
  if (snd_mss_.is_searching && StepPathSearch(now, limits, out)) [[unlikely]] {
    return true;
  }
  if (flight_size() == 0 && now - last_send_ > rtt_.rto()) {
    congestion_->OnIdle(now - last_send_, rtt_.rto());  // RFC 5681 4.1.
    last_send_ = now;  // Counted, whether or not text goes out now.
  }
  const uint32_t bytes = unsent_bytes() > 0 ? NextTextBytes(limits, now) : 0;
  const bool is_all = bytes == unsent_bytes();
  const bool with_fin = is_all && close_requested_ && !retransmit_queue_.full();
  if (bytes == 0 && !with_fin) {
    counts_.sender_time.Enter(
        IsWindowLimited() ? Phase::kReceiveWindow : Phase::kBusy, now);
    // Nothing in flight whose ACK would wake us: a timer must.
    if (flight_size() == 0 && !timers_.IsSet(Timer::kPersist) &&
        !timers_.IsSet(Timer::kPacing)) {
      SetPersistTimer(now);
    }
    return false;
  }
  FillNewText(bytes, with_fin, now, out);
  return true;
}

// PSH: the last that is queued, RFC 9293 3.9.1.2 MUST-61, and the last that
// cwnd lets go: the receiver need not wait for more before it acknowledges.
void Connection::FillNewText(uint32_t bytes, bool with_fin, Instant now,
                             TxSegment* out) {
  uint8_t flags = kAck;
  const bool is_last =
      bytes == unsent_bytes() || cwnd_room() < uint64_t{bytes} + smss_;
  if (is_last && bytes > 0) flags |= kPsh;
  is_answering_ |= now - last_text_arrival_ < options_.delayed_ack_time;
  if (with_fin) flags |= kFin;
  Fill(tcb_.snd_nxt, flags, now, out);
  out->payload_bytes = bytes;
  out->stream_offset = sent_offset_;
  FillUrgent(out);
  if (bytes > smss_) {
    out->tso_mss = static_cast<uint16_t>(smss_);
    counts_.segments_out += (bytes - 1) / smss_;
  }
  if (bytes != smss_ && bytes % smss_ != 0) small_end_ = tcb_.snd_nxt + bytes;
  if (ecn_.is_on() && bytes > 0) {
    out->ecn = kEcnEct0;  // New text alone. RFC 3168 6.1.4 to 6.1.6.
    const uint32_t reductions = congestion_->reductions();
    if (ecn_.IsCwrDue(reductions)) {
      out->flags |= kCwr;
      ecn_.OnCwrSent(out->stream_offset, reductions);
    }
  }
  pacer_.OnSent(bytes);
  RecordSent(tcb_.snd_nxt, bytes, flags, now);
}

// Accounts for what is sent the first time: one record per segment.
inline void Connection::RecordSent(SeqNum seq, uint32_t payload, uint8_t flags,
                                   Instant now) {
  if (!timers_.IsSet(Timer::kRetransmit)) RestartRetransmitTimer(now);
  if (user_timeout_ && !timers_.IsSet(Timer::kUser)) {
    timers_.Set(Timer::kUser, now + *user_timeout_);
  }
  timers_.Stop(Timer::kPersist);
  probe_is_out_ = false;
  if (override_is_due_) {
    override_is_due_ = false;
    UpdatePrediction();
  }
  last_send_ = now;
  counts_.bytes_sent += payload;
  sent_offset_ += payload;
  if ((flags & kFin) != 0) fin_sent_ = true;
  const bool has_fin = (flags & kFin) != 0;
  const bool has_syn = (flags & kSyn) != 0;
  const uint32_t sent_payload = payload;
  const RateMark mark = rate_.OnSent(now, retransmit_queue_.empty());
  do {
    uint32_t bytes = std::min(payload, smss_);
    payload -= bytes;
    counts_.data_segments_out += bytes > 0 ? 1 : 0;
    SentSegment sent{.seq = seq,
                     .len = bytes,
                     .xmit_ts = now,
                     .has_syn = has_syn,
                     .has_fin = has_fin && payload == 0,
                     .is_app_limited = rate_.is_app_limited(),
                     .mark = mark};
    sent.len += (sent.has_syn ? 1u : 0u) + (sent.has_fin ? 1u : 0u);
    retransmit_queue_.Append(sent);
    seq += sent.len;
  } while (payload > 0);
  tcb_.snd_nxt = seq;
  if (recovery_ == Recovery::kFastRecovery) [[unlikely]] {
    prr_.OnSent(sent_payload);
  }
  if (MayProbe()) SetProbeTimer(now);
  if (!has_syn) {
    counts_.sender_time.Enter(
        NeedsSendRoom() ? Phase::kSendBuffer : Phase::kBusy, now);
  }
}

// One byte beyond a closed window. RFC 9293 3.8.6.1. It counts as sent only
// once the peer acknowledges it.
bool Connection::PollWindowProbe(Instant now, TxSegment* out) {
  override_is_due_ = false;
  UpdatePrediction();
  if (unsent_bytes() == 0 || flight_size() > 0 || tcb_.snd_wnd != 0) {
    return false;
  }
  Fill(tcb_.snd_nxt, kAck, now, out);
  out->payload_bytes = 1;
  out->stream_offset = sent_offset_;
  FillUrgent(out);
  probe_is_out_ = true;
  ++counts_.window_probes;
  counts_.bytes_sent += 1;
  return true;
}

}  // namespace devwire
