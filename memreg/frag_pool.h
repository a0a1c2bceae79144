// FragPool: equal slots cut from one region, and who owns each of them.
//
//            Take              Receive(bytes)          Lend (last byte)
//   [free] --------> [posted] ---------------> [reassembly] ------>
//   [application]
//     ^                 |                          |                     |
//     +---- Free -------+------- Discard ----------+------- Return ------+
//
// A slot may be lent in pieces, because a short read splits a frag. It stays
// in reassembly until all its bytes are lent or discarded, then belongs to the
// application until every piece is back. `slot_bytes` is a parameter, not a
// page: 2048 for MTU 1500, 9216 for jumbo frames.
//
// Invariant: free + posted + reassembly + application == slot_count.
//
// Threads:  one owning thread (the engine's), except Return(), which any
//           thread may call at any time.
// Lifetime: outlives every token it lent; a Return after that is the caller's
//           bug. Destroying the pool with slots outside the free list is too.
// Cost:     O(1) and no allocation after construction.
#ifndef MEMREG_FRAG_POOL_H_
#define MEMREG_FRAG_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "memreg/frag.h"

namespace devwire {

// What a stream is called in token checks: unique within an engine for as long
// as a token of it may be out.
enum class StreamId : uint32_t {};

// The answer to a returned token. Everything but kReturned changes nothing.
enum class ReturnResult : uint8_t {
  kReturned,
  kUnknown,        // No such piece: forged, or of another pool.
  kStale,          // Was returned before (double), or its stream let it go.
  kForeignStream,  // Lent, but to another stream.
};

class FragPool final : public FragSink {
 public:
  // A token has 24 bits for the piece.
  static constexpr uint32_t kMaxSlots = 1u << 24;

  struct Options {
    PoolId id{};
    uint32_t slot_count = 0;  // 1 to kMaxSlots
    uint32_t slot_bytes = 0;  // > 0
    // Pieces lent at any time; at the limit Lend() answers nothing and the
    // bytes stay readable. Zero means two per slot.
    uint32_t max_lent_pieces = 0;
  };

  struct Owners {
    uint32_t free = 0;
    uint32_t posted = 0;
    uint32_t reassembly = 0;
    uint32_t application = 0;
  };

  explicit FragPool(const Options& options);
  ~FragPool();
  FragPool(const FragPool&) = delete;
  FragPool& operator=(const FragPool&) = delete;

  PoolId id() const { return options_.id; }
  uint32_t slot_bytes() const { return options_.slot_bytes; }
  uint32_t slot_count() const { return options_.slot_count; }
  const Owners& owners() const { return owners_; }
  uint32_t free_slots() const { return owners_.free; }

  // free -> posted. Empty when the free list is: the caller counts that.
  std::optional<SlotIndex> Take();
  // posted -> free: the receive was flushed, or the frame had no text.
  void Free(SlotIndex slot);
  // posted -> reassembly, with `bytes` > 0 bytes of text to be lent or
  // discarded.
  void Receive(SlotIndex slot, uint32_t bytes);

  // FragSink: these bytes of a slot in reassembly will not be read.
  void Discard(const Frag& frag) override;

  // Lends these bytes to `stream`. Empty, and nothing changed, when
  // max_lent_pieces are out.
  std::optional<FragToken> Lend(const Frag& frag, StreamId stream);

  // The pool that lent this token, for a holder of several pools. Says nothing
  // of whether the token is good.
  static PoolId PoolOf(FragToken token);

  // Gives one piece back. Any thread; lock-free. The slot reaches the free
  // list at the owner's next Drain().
  ReturnResult Return(FragToken token, StreamId stream);

  // One piece that came back, as Drain reports it.
  struct Returned {
    StreamId stream{};
    uint32_t bytes = 0;
    bool slot_freed = false;  // It was the slot's last piece.
  };
  // Takes in up to `max` pieces returned so far, filling `out`, which holds
  // at least `max`. Returns how many. Owning thread only.
  size_t Drain(Returned* out, size_t max);

  // Takes back every piece that `stream` still holds; later returns of its
  // tokens answer kStale. O(max_lent_pieces): for a stream that closes without
  // keeping its frags. Returns the pieces taken back.
  uint32_t ReleaseAll(StreamId stream);

  // Recounts every slot and piece; CHECKs on a mismatch. O(slots); tests.
  void CheckInvariants() const;
  // "free 120 posted 8 reassembly 0 application 0", for messages.
  std::string OwnersString() const;

 private:
  enum class Owner : uint8_t { kFree, kPosted, kReassembly, kApplication };
  struct Slot {
    uint32_t next_free = 0;
    uint32_t pending_bytes = 0;  // Neither lent nor discarded yet.
    uint16_t lent_pieces = 0;
    Owner owner = Owner::kFree;
  };
  // state: {generation, lent:1, stream:32}; the only field that a returning
  // thread changes, apart from next_returned.
  struct Piece {
    std::atomic<uint64_t> state{0};
    SlotIndex slot{};
    uint32_t bytes = 0;
    uint32_t next = 0;  // In the free list, or in the stack of returned ones.
  };

  static constexpr uint32_t kNone = UINT32_MAX;  // The end of a list.

  void SettleSlot(Slot& slot, SlotIndex index);
  void PushFree(Slot& slot, SlotIndex index);
  void PushReturned(uint32_t piece);
  bool FinishPiece(uint32_t piece);

  const Options options_;
  Owners owners_;
  std::vector<Slot> slots_;
  // First in, first out: every slot takes its turn, and one that was just given
  // back is written again as late as can be.
  uint32_t free_head_;
  uint32_t free_tail_;
  std::unique_ptr<Piece[]> pieces_;
  uint32_t piece_count_;
  uint32_t free_piece_head_;
  uint32_t drained_head_;           // Taken from returned_, not handled yet.
  std::atomic<uint32_t> returned_;  // Treiber stack: many push, one takes all.
};

// The per-frame ones, in line.

inline std::optional<SlotIndex> FragPool::Take() {
  if (free_head_ == kNone) return std::nullopt;
  const uint32_t index = free_head_;
  Slot& slot = slots_[index];
  DCHECK(slot.owner == Owner::kFree);
  free_head_ = slot.next_free;
  if (free_head_ == kNone) free_tail_ = kNone;
  slot.owner = Owner::kPosted;
  --owners_.free;
  ++owners_.posted;
  return SlotIndex{index};
}

inline void FragPool::Free(SlotIndex index) {
  Slot& slot = slots_[static_cast<uint32_t>(index)];
  CHECK(slot.owner == Owner::kPosted);
  --owners_.posted;
  PushFree(slot, index);
}

inline void FragPool::Receive(SlotIndex index, uint32_t bytes) {
  Slot& slot = slots_[static_cast<uint32_t>(index)];
  CHECK(slot.owner == Owner::kPosted);
  CHECK(bytes > 0 && bytes <= options_.slot_bytes);
  slot.owner = Owner::kReassembly;
  slot.pending_bytes = bytes;
  --owners_.posted;
  ++owners_.reassembly;
}

inline void FragPool::PushFree(Slot& slot, SlotIndex index) {
  slot.owner = Owner::kFree;
  slot.next_free = kNone;
  (free_tail_ == kNone ? free_head_ : slots_[free_tail_].next_free) =
      static_cast<uint32_t>(index);
  free_tail_ = static_cast<uint32_t>(index);
  ++owners_.free;
}

}  // namespace devwire

#endif  // MEMREG_FRAG_POOL_H_
