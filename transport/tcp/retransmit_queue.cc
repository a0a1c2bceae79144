#include "transport/tcp/retransmit_queue.h"

#include <algorithm>

#include "base/check.h"

namespace devwire {

RetransmitQueue::Acked RetransmitQueue::AckTo(SeqNum snd_una) {
  Acked acked;
  while (!ring_.empty()) {
    SentSegment& first = ring_.front();
    if (SeqLe(snd_una, first.seq)) break;
    if (first.was_retransmitted) {
      acked.any_retransmitted = true;
    } else if (!acked.first_xmit_ts) {
      acked.first_xmit_ts = first.xmit_ts;
    }
    if (SeqLt(snd_una, first.end())) {  // It cuts this one.
      SeqLen cut = snd_una - first.seq;
      if (first.is_lost) lost_bytes_ -= cut;
      first.seq = snd_una;
      first.len -= cut;
      first.has_syn = false;
      break;
    }
    if (first.is_lost) lost_bytes_ -= first.len;
    ring_.PopFront();
    ++acked.segments;
  }
  lost_hint_ -= std::min<size_t>(lost_hint_, acked.segments);
  return acked;
}

void RetransmitQueue::MarkFirstLost() {
  SentSegment& first = ring_.front();
  lost_hint_ = 0;
  if (first.is_lost) return;
  first.is_lost = true;
  lost_bytes_ += first.len;
}

void RetransmitQueue::MarkAllLost() {
  lost_hint_ = 0;
  lost_bytes_ = 0;
  for (size_t i = 0; i < ring_.size(); ++i) {
    ring_[i].is_lost = true;
    lost_bytes_ += ring_[i].len;
  }
}

const SentSegment* RetransmitQueue::NextLost() {
  if (lost_bytes_ == 0) return nullptr;
  while (!ring_[lost_hint_].is_lost) ++lost_hint_;
  return &ring_[lost_hint_];
}

void RetransmitQueue::OnRetransmitted(Instant now) {
  SentSegment& sent = ring_[lost_hint_];
  DCHECK(sent.is_lost);
  sent.is_lost = false;
  sent.was_retransmitted = true;
  sent.xmit_ts = now;
  lost_bytes_ -= sent.len;
}

void RetransmitQueue::Clear() {
  ring_.Clear();
  lost_bytes_ = 0;
  lost_hint_ = 0;
}

void RetransmitQueue::CheckInvariants(SeqNum snd_una, SeqNum snd_nxt) const {
  SeqNum at = snd_una;
  uint32_t lost = 0;
  for (size_t i = 0; i < ring_.size(); ++i) {
    const SentSegment& sent = ring_[i];
    CHECK_EQ(sent.seq, at) << "record " << i;
    CHECK_GT(sent.len, 0u);
    if (sent.is_lost) {
      CHECK_GE(i, lost_hint_);
      lost += sent.len;
    }
    at = sent.end();
  }
  CHECK_EQ(at, snd_nxt);
  CHECK_EQ(lost, lost_bytes_);
}

}  // namespace devwire
