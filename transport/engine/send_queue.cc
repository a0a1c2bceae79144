#include "transport/engine/send_queue.h"

#include <algorithm>

#include "base/check.h"

namespace devwire {

bool SendQueue::IsFrom(uint32_t lkey) const {
  for (size_t i = 0; i < spans_.size(); ++i) {
    if (spans_[i].lkey == lkey) return true;
  }
  return false;
}

void SendQueue::Push(Span span) {
  CHECK(!spans_.full());
  span.start = end_;
  end_ += span.length;
  CHECK(spans_.Push(span));
}

void SendQueue::GrowNewest(uint32_t bytes) {
  CHECK(!spans_.empty());
  spans_.back().length += bytes;
  end_ += bytes;
}

size_t SendQueue::Find(uint64_t offset) const {
  DCHECK(offset >= start_ && offset < end_);
  const auto holds = [&](size_t i) {
    return spans_[i].start <= offset &&
           offset - spans_[i].start < spans_[i].length;
  };
  if (hint_ < spans_.size() && holds(hint_)) return hint_;
  if (hint_ + 1 < spans_.size() && holds(hint_ + 1)) return hint_ + 1;
  size_t low = 0;
  size_t high = spans_.size();
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    if (spans_[middle].start <= offset) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

uint32_t SendQueue::Gather(uint64_t offset, uint32_t length,
                           std::span<TxPiece> pieces, size_t* piece_count) {
  *piece_count = 0;
  if (length == 0) return 0;
  uint32_t covered = 0;
  size_t i = Find(offset);
  while (covered < length && *piece_count < pieces.size()) {
    const Span& span = spans_[i];
    const uint32_t skip = static_cast<uint32_t>(offset + covered - span.start);
    const uint32_t take = std::min(length - covered, span.length - skip);
    pieces[(*piece_count)++] = {span.addr + skip, take, span.lkey};
    covered += take;
    hint_ = i++;
  }
  return covered;
}

uint32_t SendQueue::GatherableBytes(uint64_t offset, uint32_t want) const {
  if (want == 0) return 0;
  const size_t first = Find(offset);
  uint64_t bytes = 0;
  const Span* device = nullptr;
  for (size_t n = 0; n < max_pieces_ && bytes < want; ++n) {
    if (first + n == spans_.size()) break;
    const Span& span = spans_[first + n];
    if (!span.is_host) {
      if (device != nullptr && span.lkey != device->lkey) break;
      device = &span;
    }
    bytes += span.start + span.length - std::max(offset, span.start);
  }
  return static_cast<uint32_t>(std::min<uint64_t>(bytes, want));
}

void SendQueue::Posted(uint64_t offset, uint32_t length, uint64_t ticket) {
  if (length == 0) return;
  // Gather() left the hint at the last span of this range.
  size_t i = Find(offset + length - 1);
  while (true) {
    spans_[i].ticket = ticket;
    if (spans_[i].start <= offset) break;
    --i;
  }
}

const SendQueue::Span* SendQueue::Done(uint64_t acked, uint64_t tx_completed,
                                       bool abandoned) const {
  if (spans_.empty()) return nullptr;
  const Span& span = spans_.front();
  if (!abandoned && acked < span.start + span.length) return nullptr;
  if (span.ticket > tx_completed) return nullptr;
  return &span;
}

void SendQueue::PopDone() {
  const Span& span = spans_.front();
  start_ = span.start + span.length;
  spans_.PopFront();
  if (hint_ > 0) --hint_;
}

}  // namespace devwire
