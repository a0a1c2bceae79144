#include "transport/tcp/retransmit_queue.h"

#include <algorithm>

#include "base/check.h"

namespace devwire {

inline void RetransmitQueue::PopFront() {
  const SentSegment& first = ring_.front();
  if (!(first.is_lost | first.is_sacked | first.was_retransmitted)) [[likely]] {
    // In flight for the first time: no sum and no list has it.
  } else if (first.is_lost) {
    lost_bytes_ -= first.len;
  } else if (first.is_sacked) {
    sacked_bytes_ -= first.len;
    --sacked_segments_;
  } else if (first.was_retransmitted) {
    Unlink(first, first_number_);
  }
  ring_.PopFront();
  ++first_number_;
}

RetransmitQueue::Acked RetransmitQueue::AckTo(SeqNum snd_una, Rack* rack,
                                              Rack::Arrival* arrival) {
  Acked acked;
  const bool was_calm = is_calm();
  const SentSegment* newest = nullptr;  // Popped, but not overwritten.
  while (!ring_.empty()) {
    SentSegment& first = ring_.front();
    if (SeqLe(snd_una, first.seq)) break;
    if (first.was_retransmitted) {
      acked.again_xmit_ts =
          std::max(acked.again_xmit_ts, std::optional(first.xmit_ts));
    } else if (!acked.first_xmit_ts) {
      acked.first_xmit_ts = first.xmit_ts;
    }
    if (SeqLt(snd_una, first.end())) {  // It cuts this one.
      SeqLen cut = snd_una - first.seq;
      if (first.is_lost) lost_bytes_ -= cut;
      if (first.is_sacked) sacked_bytes_ -= cut;
      first.seq = snd_una;
      first.len -= cut;
      first.has_syn = false;
      break;
    }
    if (!was_calm && !first.is_sacked && arrival != nullptr) {
      arrival->Count(first);
      if (rack != nullptr) rack->OnDelivered(first, arrival);
    }
    newest = &first;
    PopFront();
    ++acked.segments;
  }
  if (was_calm && newest != nullptr && arrival != nullptr) {
    arrival->Count(*newest);
    arrival->segments = acked.segments;
    if (rack != nullptr) rack->OnDeliveredInOrder(*newest, arrival->now);
  }
  lost_hint_ -= std::min<size_t>(lost_hint_, acked.segments);
  original_hint_ -= std::min<size_t>(original_hint_, acked.segments);
  return acked;
}

// Segments are mostly of one size: a guess by division is mostly right.
size_t RetransmitQueue::FirstAtOrAfter(SeqNum seq) const {
  if (ring_.empty() || SeqLe(seq, ring_.front().seq)) return 0;
  size_t low = 0;  // Begins before `seq`.
  size_t high = ring_.size();
  const size_t guess = (seq - ring_.front().seq) / ring_.front().len;
  if (guess < high) {
    if (ring_[guess].seq == seq) return guess;
    (SeqLt(ring_[guess].seq, seq) ? low : high) = guess;
  }
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (SeqLt(ring_[middle].seq, seq) ? low : high) = middle;
  }
  return high;
}

uint32_t RetransmitQueue::MarkSacked(SeqNum left, SeqNum right, Rack* rack,
                                     Rack::Arrival* arrival) {
  const size_t start = FirstAtOrAfter(left);
  uint32_t bytes = 0;
  size_t i = start;
  while (i < ring_.size()) {
    SentSegment& sent = ring_[i];
    ++sack_steps_;
    if (sent.is_sacked) {
      const size_t next = IndexOf(sent.next);
      // Halves the way for the next time.
      if (next < ring_.size() && ring_[next].is_sacked) {
        sent.next = ring_[next].next;
      }
      i = next;
      continue;
    }
    if (SeqGt(sent.end(), right)) break;
    arrival->Count(sent);
    rack->OnDelivered(sent, arrival);
    if (sent.is_lost) {
      lost_bytes_ -= sent.len;
      sent.is_lost = false;
    } else if (sent.was_retransmitted) {
      Unlink(sent, NumberOf(i));
    }
    sent.is_sacked = true;
    sent.next = NumberOf(++i);
    ++sacked_segments_;
    bytes += sent.len;
  }
  if (start < i) ring_[start].next = NumberOf(i);
  sacked_bytes_ += bytes;
  return bytes;
}

void RetransmitQueue::ForgetSacked() {
  for (size_t i = 0; i < ring_.size(); ++i) {
    if (!ring_[i].is_sacked) continue;
    ring_[i].is_sacked = false;
    // Behind those sent later, which at most delays its being called lost.
    if (ring_[i].was_retransmitted) LinkNewest(i);
  }
  sacked_bytes_ = 0;
  sacked_segments_ = 0;
  original_hint_ = 0;
}

void RetransmitQueue::MarkLost(size_t index) {
  SentSegment& sent = ring_[index];
  if (sent.was_retransmitted) Unlink(sent, NumberOf(index));
  sent.is_lost = true;
  lost_bytes_ += sent.len;
  lost_hint_ = std::min(lost_hint_, index);
}

RetransmitQueue::Lost RetransmitQueue::MarkOverdueLost(const Rack& rack,
                                                       Instant now) {
  Lost lost;
  // Both sequences are in order of transmission: what follows one that is not
  // due is not due either.
  const auto is_due = [&](const SentSegment& sent) {
    if (!rack.IsOvertaken(sent)) return false;
    const Instant when = rack.LossTime(sent);
    if (when <= now) return true;
    lost.next = std::min(lost.next, when);
    return false;
  };
  for (; original_hint_ < ring_.size(); ++original_hint_) {
    const SentSegment& sent = ring_[original_hint_];
    if (!sent.is_in_flight() || sent.was_retransmitted) continue;
    if (!is_due(sent)) break;
    lost.bytes += sent.len;
    MarkLost(original_hint_);
  }
  while (again_count_ > 0) {
    const size_t oldest = IndexOf(again_oldest_);
    if (!is_due(ring_[oldest])) break;
    lost.bytes += ring_[oldest].len;
    MarkLost(oldest);
  }
  return lost;
}

void RetransmitQueue::MarkLostOnTimeout(const Rack& rack, Instant now) {
  for (size_t i = 0; i < ring_.size(); ++i) {
    if (!ring_[i].is_in_flight()) continue;
    if (i == 0 || rack.LossTime(ring_[i]) <= now) MarkLost(i);
  }
  lost_hint_ = 0;
}

void RetransmitQueue::MarkAllLost() {
  for (size_t i = 0; i < ring_.size(); ++i) {
    if (ring_[i].is_in_flight()) MarkLost(i);
  }
  lost_hint_ = 0;
}

void RetransmitQueue::MarkFirstLost() {
  if (ring_.front().is_in_flight()) MarkLost(0);
}

void RetransmitQueue::UnmarkLost() {
  for (size_t i = lost_hint_; i < ring_.size() && lost_bytes_ > 0; ++i) {
    SentSegment& sent = ring_[i];
    if (!sent.is_lost) continue;
    sent.is_lost = false;
    lost_bytes_ -= sent.len;
    if (sent.was_retransmitted) LinkNewest(i);
  }
  original_hint_ = 0;
}

// First every run of records that are too long becomes one, then as many pieces
// as there is room for. Numbers change: the links are made anew.
bool RetransmitQueue::Recut(uint32_t most_text) {
  const auto is_long = [&](const SentSegment& sent) {
    return sent.payload_bytes() > most_text && !sent.is_sacked;
  };
  size_t kept = 0;
  for (size_t i = 0; i < ring_.size(); ++i) {
    const SentSegment sent = ring_[i];
    if (kept > 0 && is_long(sent) && is_long(ring_[kept - 1])) {
      ring_[kept - 1].len += sent.len;
      ring_[kept - 1].has_fin = sent.has_fin;
    } else {
      ring_[kept++] = sent;
    }
  }
  while (ring_.size() > kept) ring_.PopBack();

  size_t room = free_records();
  size_t cut = 0;          // Of the first `cut` records all pieces have room,
  size_t last_pieces = 1;  // and of the next one so many.
  const auto pieces_of = [&](const SentSegment& sent) -> size_t {
    return is_long(sent) ? (sent.payload_bytes() + most_text - 1) / most_text
                         : 1;
  };
  for (; cut < kept; ++cut) {
    const size_t more = pieces_of(ring_[cut]) - 1;
    if (more > room) {
      last_pieces = room + 1;
      room = 0;
      break;
    }
    room -= more;
  }
  for (size_t i = free_records() - room; i > 0; --i) {
    CHECK(ring_.Push(SentSegment()));
  }
  // From the newest: what a record becomes never lies left of it.
  size_t to = ring_.size();
  for (size_t i = kept; i-- > 0;) {
    const SentSegment sent = ring_[i];
    size_t pieces = i < cut ? pieces_of(sent) : 1;
    if (i == cut) pieces = last_pieces;
    for (size_t k = pieces; k-- > 0;) {
      SentSegment& piece = ring_[--to] = sent;
      if (!is_long(sent)) continue;
      const auto skip = static_cast<uint32_t>(k) * most_text;
      const bool is_last = k + 1 == pieces;
      piece.seq = sent.seq + skip;
      piece.len = is_last ? sent.len - skip : most_text;
      piece.has_fin = sent.has_fin && is_last;
      piece.is_lost = true;
    }
  }
  DCHECK_EQ(to, 0u);
  Relink();
  return lost_bytes_ > 0 && NextLost()->payload_bytes() <= most_text;
}

// Records were moved.
void RetransmitQueue::Relink() {
  lost_bytes_ = again_count_ = 0;
  lost_hint_ = original_hint_ = 0;
  for (size_t i = 0; i < ring_.size(); ++i) {
    SentSegment& sent = ring_[i];
    if (sent.is_lost) {
      lost_bytes_ += sent.len;
    } else if (sent.is_sacked) {
      sent.next = NumberOf(i + 1);
    } else if (sent.was_retransmitted) {
      // Not in order of time, which at most delays its being called lost.
      LinkNewest(i);
    }
  }
}

const SentSegment* RetransmitQueue::NextLost() {
  if (lost_bytes_ == 0) return nullptr;
  while (!ring_[lost_hint_].is_lost) ++lost_hint_;
  return &ring_[lost_hint_];
}

size_t RetransmitQueue::ExtendLost(uint32_t most, SentSegment* run) const {
  size_t i = lost_hint_ + 1;
  for (; i < ring_.size() && ring_[i].is_lost; ++i) {
    if (run->payload_bytes() + ring_[i].payload_bytes() > most) break;
    run->len += ring_[i].len;
    run->has_fin = ring_[i].has_fin;
  }
  return i - lost_hint_;
}

void RetransmitQueue::OnRetransmitted(Instant now, size_t records,
                                      const RateMark& mark) {
  for (size_t i = lost_hint_; i < lost_hint_ + records; ++i) {
    SentSegment& sent = ring_[i];
    DCHECK(sent.is_lost);
    sent.is_lost = false;
    lost_bytes_ -= sent.len;
    MarkSent(i, now, mark);
  }
}

void RetransmitQueue::OnLastRetransmitted(Instant now, const RateMark& mark) {
  const size_t last = ring_.size() - 1;
  DCHECK(ring_[last].is_in_flight());
  if (ring_[last].was_retransmitted) Unlink(ring_[last], NumberOf(last));
  MarkSent(last, now, mark);
}

void RetransmitQueue::MarkSent(size_t index, Instant now,
                               const RateMark& mark) {
  ring_[index].was_retransmitted = true;
  ring_[index].xmit_ts = now;
  ring_[index].mark = mark;
  LinkNewest(index);
}

void RetransmitQueue::LinkNewest(size_t index) {
  const uint32_t number = NumberOf(index);
  if (again_count_++ == 0) {
    again_oldest_ = number;
  } else {
    ring_[IndexOf(again_newest_)].next = number;
  }
  ring_[index].previous = again_newest_;
  again_newest_ = number;
}

void RetransmitQueue::Unlink(const SentSegment& segment, uint32_t number) {
  if (number == again_oldest_) {
    again_oldest_ = segment.next;
  } else {
    ring_[IndexOf(segment.previous)].next = segment.next;
  }
  if (number == again_newest_) {
    again_newest_ = segment.previous;
  } else {
    ring_[IndexOf(segment.next)].previous = segment.previous;
  }
  --again_count_;
}

void RetransmitQueue::Clear() {
  ring_.Clear();
  lost_bytes_ = sacked_bytes_ = sacked_segments_ = again_count_ = 0;
  lost_hint_ = original_hint_ = 0;
}

void RetransmitQueue::CheckInvariants(SeqNum snd_una, SeqNum snd_nxt) const {
  SeqNum at = snd_una;
  uint32_t lost = 0;
  uint32_t sacked = 0;
  uint32_t again = 0;
  for (size_t i = 0; i < ring_.size(); ++i) {
    const SentSegment& sent = ring_[i];
    CHECK_EQ(sent.seq, at) << "record " << i;
    CHECK_GT(sent.len, 0u);
    CHECK(!sent.is_lost || !sent.is_sacked) << "record " << i;
    if (sent.is_lost) {
      CHECK_GE(i, lost_hint_);
      lost += sent.len;
    } else if (sent.is_sacked) {
      CHECK_GT(IndexOf(sent.next), i);
      CHECK_LE(IndexOf(sent.next), ring_.size());
      sacked += sent.len;
    } else if (sent.was_retransmitted) {
      ++again;
    } else {
      CHECK_GE(i, original_hint_);
    }
    at = sent.end();
  }
  CHECK_EQ(at, snd_nxt);
  CHECK_EQ(lost, lost_bytes_);
  CHECK_EQ(sacked, sacked_bytes_);
  CHECK_EQ(again, again_count_);
  uint32_t number = again_oldest_;
  for (uint32_t i = 0; i < again; ++i) {
    const SentSegment& sent = ring_[IndexOf(number)];
    CHECK(sent.is_in_flight() && sent.was_retransmitted);
    if (i + 1 == again) CHECK_EQ(number, again_newest_);
    number = sent.next;
  }
}

}  // namespace devwire
