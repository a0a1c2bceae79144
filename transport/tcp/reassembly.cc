#include "transport/tcp/reassembly.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace devwire {

void Text::TrimFront(uint32_t n, FragSink& sink) {
  DCHECK_LE(n, bytes);
  seq += n;
  bytes -= n;
  while (n > 0) {
    Frag& first = frags[0];
    uint32_t cut = std::min(n, first.length);
    sink.Discard({first.slot, first.offset, cut, first.pool});
    first.offset += cut;
    first.length -= cut;
    n -= cut;
    if (first.length == 0) {
      std::copy(frags.begin() + 1, frags.end(), frags.begin());
      --count;
    }
  }
}

void Text::TrimBack(uint32_t n, FragSink& sink) {
  DCHECK_LE(n, bytes);
  bytes -= n;
  while (n > 0) {
    Frag& last = frags[count - 1];
    uint32_t cut = std::min(n, last.length);
    last.length -= cut;
    sink.Discard({last.slot, last.offset + last.length, cut, last.pool});
    n -= cut;
    if (last.length == 0) --count;
  }
}

Reassembly::Reassembly(size_t capacity, FragSink& sink)
    : sink_(sink),
      ring_(std::bit_ceil(std::max<size_t>(capacity, 1))),
      mask_(ring_.size() - 1),
      capacity_(capacity),
      ranges_(kMaxRanges) {}

// The first range whose right edge is after `seq`; range_count_ when none.
size_t Reassembly::FirstRangeEndingAfter(SeqNum seq) const {
  if (range_count_ == 0 || SeqLe(ranges_[range_count_ - 1].right, seq)) {
    return range_count_;
  }
  auto first = ranges_.begin();
  auto end = first + static_cast<std::ptrdiff_t>(range_count_);
  auto it = std::partition_point(first, end, [seq](const SackBlock& range) {
    return SeqLe(range.right, seq);
  });
  return static_cast<size_t>(it - first);
}

size_t Reassembly::FirstPieceAtOrAfter(SeqNum seq) const {
  if (size_ == 0 || SeqLt(at(size_ - 1).seq, seq)) return size_;
  size_t low = 0;
  size_t high = size_;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (SeqLt(at(middle).seq, seq)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

void Reassembly::RemovePieces(size_t first, size_t count) {
  for (size_t i = first; i < first + count; ++i) {
    bytes_ -= at(i).frag.length;
    sink_.Discard(at(i).frag);
  }
  for (size_t i = first + count; i < size_; ++i) at(i - count) = at(i);
  size_ -= count;
}

void Reassembly::InsertPieces(const Text& text) {
  size_t index = FirstPieceAtOrAfter(text.seq);
  for (size_t i = size_; i > index; --i) at(i - 1 + text.count) = at(i - 1);
  SeqNum seq = text.seq;
  for (size_t i = 0; i < text.count; ++i) {
    at(index + i) = {seq, text.frags[i]};
    seq += text.frags[i].length;
  }
  size_ += text.count;
  bytes_ += text.bytes;
}

void Reassembly::EraseRanges(size_t first, size_t last) {
  auto begin = ranges_.begin();
  std::copy(begin + static_cast<std::ptrdiff_t>(last),
            begin + static_cast<std::ptrdiff_t>(range_count_),
            begin + static_cast<std::ptrdiff_t>(first));
  range_count_ -= last - first;
}

// Puts `with` in the place of ranges [first, last), which may be empty.
void Reassembly::ReplaceRanges(size_t first, size_t last, SackBlock with) {
  if (first == last) {
    for (size_t i = range_count_; i > first; --i) ranges_[i] = ranges_[i - 1];
    ++range_count_;
  } else {
    EraseRanges(first + 1, last);
  }
  ranges_[first] = with;
}

Reassembly::Result Reassembly::Insert(Text text, SackBlock* duplicate) {
  *duplicate = {text.seq, text.seq};
  size_t first = FirstRangeEndingAfter(text.seq);
  if (first < range_count_ && SeqLe(ranges_[first].left, text.seq)) {
    uint32_t known = ranges_[first].right - text.seq;
    *duplicate = {text.seq, text.seq + std::min(known, text.bytes)};
    if (known >= text.bytes) {
      text.DiscardAll(sink_);
      Remember(duplicate->left, ranges_[first]);
      return Result::kDuplicate;
    }
    text.TrimFront(known, sink_);
    ++first;
  }
  // Now ranges from `first` on lie after text.seq. Those up to `last` are
  // covered; the one at `last` may be reached.
  size_t last = first;
  while (last < range_count_ && SeqLe(ranges_[last].right, text.end())) ++last;
  if (last > first && duplicate->left == duplicate->right) {
    *duplicate = ranges_[first];
  }
  if (last < range_count_ && SeqLt(ranges_[last].left, text.end())) {
    uint32_t known = text.end() - ranges_[last].left;
    if (duplicate->left == duplicate->right) {
      *duplicate = {ranges_[last].left, text.end()};
    }
    text.TrimBack(known, sink_);
  }
  const bool joins_left = first > 0 && ranges_[first - 1].right == text.seq;
  const bool joins_right =
      last < range_count_ && ranges_[last].left == text.end();

  size_t covered_from = 0;
  size_t covered = 0;
  if (last > first) {
    covered_from = FirstPieceAtOrAfter(text.seq);
    covered = FirstPieceAtOrAfter(text.end()) - covered_from;
  }
  const bool adds_range = !joins_left && !joins_right && first == last;
  if (size_ - covered + text.count > capacity_ ||
      (adds_range && range_count_ == kMaxRanges)) {
    text.DiscardAll(sink_);
    return Result::kRefused;
  }
  if (covered > 0) RemovePieces(covered_from, covered);
  InsertPieces(text);
  SackBlock merged{joins_left ? ranges_[first - 1].left : text.seq,
                   joins_right ? ranges_[last].right : text.end()};
  ReplaceRanges(joins_left ? first - 1 : first, joins_right ? last + 1 : last,
                merged);
  Remember(text.seq, merged);
  return Result::kKept;
}

// The range that holds `seq` was touched: it is reported first from now on.
void Reassembly::Remember(SeqNum seq, const SackBlock& range) {
  std::array<SeqNum, kRecent> kept;
  size_t count = 0;
  kept[count++] = seq;
  for (size_t i = 0; i < recent_count_ && count < kRecent; ++i) {
    if (InClosedOpen(range.left, recent_[i], range.right)) continue;
    kept[count++] = recent_[i];
  }
  recent_ = kept;
  recent_count_ = count;
}

bool Reassembly::TakeNext(SeqNum rcv_nxt, Frag* out) {
  while (size_ > 0) {
    Piece piece = at(0);
    if (SeqLt(rcv_nxt, piece.seq)) return false;
    ++head_;
    --size_;
    bytes_ -= piece.frag.length;
    ranges_[0].left = piece.end();
    if (ranges_[0].left == ranges_[0].right) EraseRanges(0, 1);
    uint32_t known = rcv_nxt - piece.seq;
    if (known >= piece.frag.length) {
      sink_.Discard(piece.frag);
      continue;
    }
    if (known > 0) {
      sink_.Discard(
          {piece.frag.slot, piece.frag.offset, known, piece.frag.pool});
      piece.frag.offset += known;
      piece.frag.length -= known;
    }
    *out = piece.frag;
    return true;
  }
  return false;
}

void Reassembly::GiveUpHighest() {
  DCHECK(!empty());
  const Piece& piece = at(size_ - 1);
  SackBlock& range = ranges_[range_count_ - 1];
  // What is left of the range stays known by a point inside.
  for (size_t i = 0; i < recent_count_; ++i) {
    if (InClosedOpen(piece.seq, recent_[i], range.right)) {
      recent_[i] = range.left;
    }
  }
  range.right = piece.seq;
  if (range.left == range.right) --range_count_;
  bytes_ -= piece.frag.length;
  --size_;
  sink_.Discard(piece.frag);
}

void Reassembly::Clear() {
  for (size_t i = 0; i < size_; ++i) sink_.Discard(at(i).frag);
  size_ = 0;
  bytes_ = 0;
  range_count_ = 0;
  recent_count_ = 0;
}

const SackBlock* Reassembly::RangeOf(SeqNum seq) const {
  size_t i = FirstRangeEndingAfter(seq);
  if (i == range_count_ || SeqLt(seq, ranges_[i].left)) return nullptr;
  return &ranges_[i];
}

size_t Reassembly::SackBlocks(std::span<SackBlock> out) const {
  size_t count = 0;
  for (size_t i = 0; i < recent_count_ && count < out.size(); ++i) {
    const SackBlock* range = RangeOf(recent_[i]);
    if (range == nullptr) continue;  // Delivered, or given up.
    // What was one range may hold two points after a give-up and a return.
    bool is_repeat = false;
    for (size_t j = 0; j < count; ++j) is_repeat |= out[j] == *range;
    if (!is_repeat) out[count++] = *range;
  }
  return count;
}

void Reassembly::CheckInvariants(SeqNum rcv_nxt) const {
  CHECK_LE(size_, capacity_);
  CHECK_LE(range_count_, kMaxRanges);
  uint64_t bytes = 0;
  size_t range = 0;
  for (size_t i = 0; i < size_; ++i) {
    const Piece& piece = at(i);
    CHECK_GT(piece.frag.length, 0u);
    bytes += piece.frag.length;
    if (i == 0) {
      CHECK(SeqLt(rcv_nxt, piece.seq)) << "no hole before the first frag";
      CHECK_EQ(ranges_[0].left, piece.seq);
    } else if (at(i - 1).end() != piece.seq) {
      CHECK(SeqLt(at(i - 1).end(), piece.seq)) << "frags overlap";
      CHECK_EQ(ranges_[range].right, at(i - 1).end());
      CHECK_LT(++range, range_count_);
      CHECK_EQ(ranges_[range].left, piece.seq);
    }
  }
  if (size_ > 0) {
    CHECK_EQ(ranges_[range].right, at(size_ - 1).end());
    CHECK_EQ(range + 1, range_count_);
  } else {
    CHECK_EQ(range_count_, 0u);
  }
  CHECK_EQ(bytes, bytes_);
}

}  // namespace devwire
