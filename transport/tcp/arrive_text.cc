// Segment text: RFC 9293 3.10.7.4, seventh step. Frags are queued, trimmed or
// given to the FragSink; when to acknowledge is RFC 5681 4.2.
#include <algorithm>

#include "base/check.h"
#include "transport/tcp/connection.h"

namespace devwire {
namespace {

// Duplicate ACKs owed at a time: one burst of the engine's.
constexpr uint8_t kMaxDuplicateAcksOwed = 64;

}  // namespace

// The longest; or a shorter one that comes twice in a row and ends no burst:
// the path, or the peer's route, has changed. As Linux's tcp_measure_rcv_mss().
void Connection::EstimateFullSegment(const Segment& seg) {
  constexpr uint32_t kLeast = 536;
  const uint32_t bytes = std::min<uint32_t>(seg.payload_bytes, options_.mss);
  const bool is_repeated = bytes == other_text_bytes_ && !seg.has_psh();
  other_text_bytes_ = bytes;
  if (bytes > rcv_mss_ || (is_repeated && bytes >= kLeast)) rcv_mss_ = bytes;
}

DropReason Connection::ArriveText(const Segment& seg, Instant now) {
  Text text{.seq = seg.text_seq(),
            .bytes = seg.payload_bytes,
            .count = seg.text_count,
            .frags = seg.text};
  if (seg.text_dropped) {
    // The pool is at its reserve. The ACK tells the peer what is missing and,
    // perhaps, that the window is closed.
    counts_.dropped_at_reserve_bytes += seg.payload_bytes;
    ack_is_due_ = true;
    return DropReason::kPoolReserve;
  }
  if (!CanReceiveText(state_)) {  // After the peer's FIN: ignored.
    text.DiscardAll(sink_);
    ack_is_due_ = true;
    return DropReason::kTextAfterFin;
  }
  if (receive_is_shut_down_ && close_requested_ &&
      SeqGt(text.end(), tcb_.rcv_nxt)) {
    // Nobody is left to read it. RFC 9293 3.6.1; RFC 2525 2.17.
    text.DiscardAll(sink_);
    Abort(TcpError::kAborted);
    return DropReason::kTextAfterClose;
  }

  // Trim to the window, and to what lies before a FIN.
  if (SeqLt(text.seq, tcb_.rcv_nxt)) {
    uint32_t known = std::min(tcb_.rcv_nxt - text.seq, text.bytes);
    counts_.duplicate_bytes += known;
    NoteDuplicate(text.seq, text.seq + known);
    ack_is_due_ = true;
    text.TrimFront(known, sink_);
    if (text.empty()) return DropReason::kDuplicateText;
  }
  // RFC 3168 6.1.5: outside of the window anybody could have sent it. A window
  // probe, at its edge, counts: 6.1.6.
  if (SeqLe(text.seq, SeqMax(window_.edge(), tcb_.rcv_nxt))) {
    if (seg.ecn == kEcnCe && ecn_.is_on()) ++counts_.ce_segments_in;
    if (ecn_.OnText(seg.ecn, seg.flags, tcb_.rcv_nxt, tcb_.last_ack_sent)) {
      ack_is_due_ = true;
    }
  }
  SeqNum end = SeqMax(window_.edge(), tcb_.rcv_nxt);
  DropReason reason = DropReason::kOutsideWindow;
  if (fin_seq_ && SeqLt(*fin_seq_, end)) {
    end = *fin_seq_;
    reason = DropReason::kTextAfterFin;
  }
  if (SeqGt(text.end(), end)) {
    text.TrimBack(std::min(text.end() - end, text.bytes), sink_);
    ack_is_due_ = true;
    if (text.empty()) return reason;
  }
  if (receive_is_shut_down_) {  // Acknowledged as if read.
    if (text.seq == tcb_.rcv_nxt) tcb_.rcv_nxt += text.bytes;
    text.DiscardAll(sink_);
    ack_is_due_ = true;
    return DropReason::kTextUnread;
  }
  NoteFullSegment(seg);
  NoteTextArrival(seg, now);
  ++counts_.data_segments_in;
  if (text.seq != tcb_.rcv_nxt) return TakeOutOfOrder(text);
  const DropReason taken = TakeInOrder(text, now);
  TuneWindow(seg, now);
  return taken;
}

void Connection::EndTuningRound(const Segment& seg, Instant now) {
  WindowTuner::Round round{.now = now,
                           .rcv_nxt = tcb_.rcv_nxt,
                           .rcv_wnd = window_.rcv_wnd(tcb_.rcv_nxt),
                           .has_timestamps = tcb_.snd_ts_ok};
  // Before less than a full segment the peer may have waited for more to send.
  if (tcb_.snd_ts_ok && seg.options.timestamps &&
      seg.payload_bytes >= rcv_mss_) {
    const uint32_t ms = TicksAt(seg.arrival) - seg.options.timestamps->ecr;
    if (ms <= INT32_MAX) round.echo_ms = ms;
  }
  if (tuner_.EndRound(round)) window_.SetTunedBytes(tuner_.window_bytes());
}

DropReason Connection::TakeInOrder(Text text, Instant now) {
  while (!window_.HasRoomInOrder(text.count, reassembly_.frags())) {
    if (reassembly_.empty()) return RefuseForSlots(text);
    reassembly_.GiveUpHighest();
    ++counts_.given_up_frags;
  }
  if (reassembly_.empty()) {
    for (size_t i = 0; i < text.count; ++i) Deliver(text.frags[i]);
    ScheduleAck(now);
    return DropReason::kNone;
  }
  // It fills a hole, in part at least: acknowledged at once. RFC 5681 4.2.
  ack_is_due_ = true;
  if (const SackBlock* known = reassembly_.RangeOf(text.end() - 1)) {
    NoteDuplicate(SeqMax(known->left, text.seq), text.end());
  }
  for (size_t i = 0; i < text.count; ++i) Deliver(text.frags[i]);
  Frag next;
  while (reassembly_.TakeNext(tcb_.rcv_nxt, &next)) Deliver(next);
  return DropReason::kNone;
}

DropReason Connection::TakeOutOfOrder(const Text& text) {
  ++counts_.out_of_order_segments;
  // One duplicate ACK for each such segment, also when a burst of them came in
  // one poll: the peer counts them. RFC 5681 4.2.
  if (duplicate_acks_owed_ < kMaxDuplicateAcksOwed) ++duplicate_acks_owed_;
  const SackBlock* known = reassembly_.RangeOf(text.seq);
  const bool is_duplicate = known != nullptr && SeqLe(text.end(), known->right);
  while (!is_duplicate &&
         !window_.HasRoomOutOfOrder(text.count, reassembly_.frags())) {
    if (reassembly_.empty() || SeqLt(reassembly_.highest(), text.seq)) {
      return RefuseForSlots(text);
    }
    reassembly_.GiveUpHighest();
    ++counts_.given_up_frags;
  }
  SackBlock duplicate;
  Reassembly::Result result = reassembly_.Insert(text, &duplicate);
  if (duplicate.left != duplicate.right) {
    counts_.duplicate_bytes += duplicate.right - duplicate.left;
    NoteDuplicate(duplicate.left, duplicate.right);
  }
  switch (result) {
    case Reassembly::Result::kKept:
      for (size_t i = 0; i < text.count; ++i) {
        window_.Measure(text.bytes / text.count);
      }
      return DropReason::kNone;
    case Reassembly::Result::kDuplicate:
      return DropReason::kDuplicateText;
    case Reassembly::Result::kRefused:
      return DropReason::kTooManyHoles;
  }
  return DropReason::kNone;
}

// The window promised more than the slots can hold: dropped unacknowledged.
DropReason Connection::RefuseForSlots(Text text) {
  counts_.dropped_for_slots_bytes += text.bytes;
  window_.OnRefused(text.bytes / text.count);
  text.DiscardAll(sink_);
  ack_is_due_ = true;
  return DropReason::kOutOfSlots;
}

// For the next ACK's DSACK. RFC 2883 4: each duplicate is reported once.
void Connection::NoteDuplicate(SeqNum left, SeqNum right) {
  if (tcb_.sack_permitted && left != right) dsack_ = {left, right};
}

void Connection::DiscardReceived() {
  while (!ready_.empty()) {
    sink_.Discard(ready_.front());
    ready_.PopFront();
  }
  window_.OnRead(readable_bytes_);
  readable_bytes_ = 0;
  front_is_split_ = false;  // Of a front that is gone.
  reassembly_.Clear();
}

}  // namespace devwire
