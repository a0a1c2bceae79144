// Frags that arrived ahead of a hole, ordered by sequence number, bounded.
//
//   rcv_nxt      range 0          range 1
//     |   hole  [frag frag frag)  [frag)
//
// Nothing overlaps: what comes twice is trimmed, through the FragSink, before
// it is kept, so every kept frag is the only one of its slot. Ranges are the
// maximal runs of adjacent frags; they are what SACK reports.
//
// Source:   RFC 9293 3.10.7.4, seventh step; RFC 2018 sections 3 and 4; RFC
//           2883 for duplicates.
// Threads:  none of its own.
// Cost:     memory once, in the constructor. An arrival at the end: O(1); in
//           the middle: O(frags after it), bounded by the capacity.
#ifndef TRANSPORT_TCP_REASSEMBLY_H_
#define TRANSPORT_TCP_REASSEMBLY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "base/raw_array.h"
#include "memreg/frag.h"
#include "transport/seq.h"
#include "transport/tcp/segment.h"
#include "transport/wire/tcp_options.h"

namespace devwire {

// The text of one arrival: where in the stream, and which frags. Owns them
// until they are moved on or trimmed away.
struct Text {
  SeqNum seq;
  uint32_t bytes = 0;
  uint8_t count = 0;
  std::array<Frag, kMaxTextFrags> frags;

  SeqNum end() const { return seq + bytes; }
  bool empty() const { return bytes == 0; }
  // Gives the first or last n bytes to `sink`; n <= bytes.
  void TrimFront(uint32_t n, FragSink& sink);
  void TrimBack(uint32_t n, FragSink& sink);
  void DiscardAll(FragSink& sink) { TrimBack(bytes, sink); }
};

class Reassembly {
 public:
  // More holes than this at once: text that would make another is refused.
  static constexpr size_t kMaxRanges = 128;

  // Keeps at most `capacity` frags.
  Reassembly(size_t capacity, FragSink& sink);
  ~Reassembly() { Clear(); }
  Reassembly(const Reassembly&) = delete;
  Reassembly& operator=(const Reassembly&) = delete;

  bool empty() const { return size_ == 0; }
  size_t frags() const { return size_; }  // == slots held.
  uint64_t bytes() const { return bytes_; }

  enum class Result : uint8_t {
    kKept,       // Some of it, at least.
    kDuplicate,  // Every byte was here; all went to the sink.
    kRefused,    // No room, or too many holes; all went to the sink.
  };
  // Takes text that starts after rcv_nxt. `duplicate` becomes the part that
  // was here already, if any (for DSACK), else left == right.
  Result Insert(Text text, SackBlock* duplicate);

  // The first frag, if it starts at or before rcv_nxt: removes it. Bytes
  // before rcv_nxt go to the sink; a frag wholly before it too. False when
  // there is a hole at rcv_nxt.
  bool TakeNext(SeqNum rcv_nxt, Frag* out);

  // Where the highest frag starts. Not when empty.
  SeqNum highest() const { return at(size_ - 1).seq; }

  // Gives up the frag with the highest sequence number. Not when empty.
  // RFC 2018 section 8 allows it: SACK is advice.
  void GiveUpHighest();

  // Everything to the sink.
  void Clear();

  // RFC 2018 section 4: the range of the latest arrival first, then ranges
  // most recently reported. Returns how many of `out` it filled.
  size_t SackBlocks(std::span<SackBlock> out) const;
  // The range that holds `seq`; null if none does.
  const SackBlock* RangeOf(SeqNum seq) const;

  void CheckInvariants(SeqNum rcv_nxt) const;

 private:
  struct Piece {
    SeqNum seq;
    Frag frag;
    SeqNum end() const { return seq + frag.length; }
  };
  static constexpr size_t kRecent = 4;

  Piece& at(size_t i) { return *ring_.at((head_ + i) & mask_); }
  const Piece& at(size_t i) const { return *ring_.at((head_ + i) & mask_); }
  size_t FirstRangeEndingAfter(SeqNum seq) const;
  size_t FirstPieceAtOrAfter(SeqNum seq) const;
  void RemovePieces(size_t first, size_t count);
  void InsertPieces(const Text& text);
  void ReplaceRanges(size_t first, size_t last, SackBlock with);
  void EraseRanges(size_t first, size_t last);
  void Remember(SeqNum seq, const SackBlock& range);

  FragSink& sink_;
  static_assert(std::is_trivially_copyable_v<Piece>);  // Assigned, not made.
  RawArray<Piece> ring_;
  size_t mask_;
  size_t capacity_;
  size_t head_ = 0;
  size_t size_ = 0;
  uint64_t bytes_ = 0;
  std::vector<SackBlock> ranges_;  // Ascending; kMaxRanges, in use:
  size_t range_count_ = 0;
  std::array<SeqNum, kRecent> recent_;  // A point in each range, newest first.
  size_t recent_count_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_REASSEMBLY_H_
