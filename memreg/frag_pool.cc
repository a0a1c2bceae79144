#include "memreg/frag_pool.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "base/check.h"

namespace devwire {
namespace {

// A token: | pool 16 | piece 24 | generation 24 |. A piece's state:
// | generation 24, right-aligned in 31 | lent 1 | stream 32 |.
constexpr int kGenerationBits = 24;
constexpr uint32_t kGenerationMask = (1u << kGenerationBits) - 1;
constexpr uint32_t kMaxPieces = FragPool::kMaxSlots;
constexpr uint64_t kLentBit = uint64_t{1} << 32;

uint32_t GenerationOf(uint64_t state) {
  return static_cast<uint32_t>(state >> 33);
}
bool IsLent(uint64_t state) { return (state & kLentBit) != 0; }
StreamId StreamOf(uint64_t state) {
  return StreamId{static_cast<uint32_t>(state)};
}
uint64_t MakeState(uint32_t generation, StreamId stream) {
  return (uint64_t{generation} << 33) | kLentBit |
         static_cast<uint32_t>(stream);
}
FragToken MakeToken(PoolId pool, uint32_t piece, uint32_t generation) {
  return FragToken{(uint64_t{static_cast<uint16_t>(pool)} << 48) |
                   (uint64_t{piece} << kGenerationBits) | generation};
}
// Generations run from 1 and skip 0, so that no token is zero.
uint32_t NextGeneration(uint32_t generation) {
  const uint32_t next = (generation + 1) & kGenerationMask;
  return next == 0 ? 1 : next;
}
// Was `then` given out before `now`? Within half the range, as for sequence
// numbers.
bool IsEarlier(uint32_t then, uint32_t now) {
  const uint32_t behind = (now - then) & kGenerationMask;
  return behind != 0 && behind < kGenerationMask / 2 && then != 0;
}

}  // namespace

FragPool::FragPool(const Options& options)
    : options_(options),
      slots_(options.slot_count),
      free_head_(kNone),
      free_tail_(kNone),
      drained_head_(kNone),
      returned_(kNone) {
  CHECK(options.slot_count > 0 && options.slot_count <= kMaxPieces);
  CHECK(options.slot_bytes > 0);
  for (uint32_t i = 0; i < options.slot_count; ++i) {
    PushFree(slots_[i], SlotIndex{i});
  }

  piece_count_ = options.max_lent_pieces != 0 ? options.max_lent_pieces
                                              : 2 * options.slot_count;
  if (piece_count_ > kMaxPieces) piece_count_ = kMaxPieces;
  pieces_ = std::make_unique<Piece[]>(piece_count_);
  free_piece_head_ = kNone;
  for (uint32_t i = piece_count_; i-- > 0;) {
    pieces_[i].next = free_piece_head_;
    free_piece_head_ = i;
  }
}

FragPool::~FragPool() {
  Returned scratch[64];
  while (Drain(scratch, 64) != 0) {
  }
  CHECK_EQ(owners_.free, options_.slot_count)
      << "pool " << static_cast<int>(options_.id)
      << " destroyed with slots in use: " << OwnersString();
}

PoolId FragPool::PoolOf(FragToken token) {
  return PoolId{static_cast<uint16_t>(token.value >> 48)};
}

void FragPool::Discard(const Frag& frag) {
  if (frag.length == 0) return;
  DCHECK(frag.pool == options_.id);
  Slot& slot = slots_[static_cast<uint32_t>(frag.slot)];
  CHECK(slot.owner == Owner::kReassembly);
  CHECK_LE(frag.length, slot.pending_bytes);
  slot.pending_bytes -= frag.length;
  SettleSlot(slot, frag.slot);
}

std::optional<FragToken> FragPool::Lend(const Frag& frag, StreamId stream) {
  DCHECK(frag.pool == options_.id);
  Slot& slot = slots_[static_cast<uint32_t>(frag.slot)];
  CHECK(slot.owner == Owner::kReassembly);
  CHECK(frag.length > 0 && frag.length <= slot.pending_bytes);
  if (free_piece_head_ == kNone) return std::nullopt;

  const uint32_t index = free_piece_head_;
  Piece& piece = pieces_[index];
  free_piece_head_ = piece.next;
  piece.slot = frag.slot;
  piece.bytes = frag.length;
  const uint32_t generation =
      NextGeneration(GenerationOf(piece.state.load(std::memory_order_relaxed)));
  // Release: a thread that learns the token some other way still sees a whole
  // piece.
  piece.state.store(MakeState(generation, stream), std::memory_order_release);

  slot.pending_bytes -= frag.length;
  ++slot.lent_pieces;
  CHECK_NE(slot.lent_pieces, 0u);  // 65,535 pieces of one slot.
  SettleSlot(slot, frag.slot);
  return MakeToken(options_.id, index, generation);
}

ReturnResult FragPool::Return(FragToken token, StreamId stream) {
  const uint32_t index =
      static_cast<uint32_t>(token.value >> kGenerationBits) & (kMaxPieces - 1);
  const uint32_t generation =
      static_cast<uint32_t>(token.value) & kGenerationMask;
  if (PoolOf(token) != options_.id || index >= piece_count_) {
    return ReturnResult::kUnknown;
  }
  Piece& piece = pieces_[index];
  uint64_t state = piece.state.load(std::memory_order_acquire);
  do {
    const uint32_t current = GenerationOf(state);
    if (generation != current || current == 0) {
      return IsEarlier(generation, current) ? ReturnResult::kStale
                                            : ReturnResult::kUnknown;
    }
    if (!IsLent(state)) return ReturnResult::kStale;
    if (StreamOf(state) != stream) return ReturnResult::kForeignStream;
  } while (!piece.state.compare_exchange_weak(state, state & ~kLentBit,
                                              std::memory_order_acq_rel,
                                              std::memory_order_acquire));
  PushReturned(index);
  return ReturnResult::kReturned;
}

void FragPool::PushReturned(uint32_t index) {
  // Only the thread that cleared the lent bit is here for this piece, and the
  // owner takes the whole stack at once: no ABA.
  uint32_t head = returned_.load(std::memory_order_relaxed);
  do {
    pieces_[index].next = head;
  } while (!returned_.compare_exchange_weak(
      head, index, std::memory_order_release, std::memory_order_relaxed));
}

size_t FragPool::Drain(Returned* out, size_t max) {
  size_t count = 0;
  while (count < max) {
    if (drained_head_ == kNone) {
      if (returned_.load(std::memory_order_relaxed) == kNone) break;
      drained_head_ = returned_.exchange(kNone, std::memory_order_acquire);
    }
    const uint32_t index = drained_head_;
    Piece& piece = pieces_[index];
    drained_head_ = piece.next;
    out[count].stream = StreamOf(piece.state.load(std::memory_order_relaxed));
    out[count].bytes = piece.bytes;
    out[count].slot_freed = FinishPiece(index);
    ++count;
  }
  return count;
}

uint32_t FragPool::ReleaseAll(StreamId stream) {
  uint32_t released = 0;
  for (uint32_t i = 0; i < piece_count_; ++i) {
    std::atomic<uint64_t>& state = pieces_[i].state;
    uint64_t seen = state.load(std::memory_order_relaxed);
    if (!IsLent(seen) || StreamOf(seen) != stream) continue;
    // Another thread may return this very token now: one of us wins.
    if (state.compare_exchange_strong(seen, seen & ~kLentBit,
                                      std::memory_order_acq_rel,
                                      std::memory_order_relaxed)) {
      FinishPiece(i);
      ++released;
    }
  }
  return released;
}

// The piece is back: its entry is free again. True when the slot is, too.
bool FragPool::FinishPiece(uint32_t index) {
  Piece& piece = pieces_[index];
  piece.next = free_piece_head_;
  free_piece_head_ = index;
  Slot& slot = slots_[static_cast<uint32_t>(piece.slot)];
  DCHECK(slot.lent_pieces > 0);
  --slot.lent_pieces;
  SettleSlot(slot, piece.slot);
  return slot.owner == Owner::kFree;
}

// Moves a slot on when its last byte was lent or discarded, or its last piece
// came back.
void FragPool::SettleSlot(Slot& slot, SlotIndex index) {
  if (slot.pending_bytes > 0) return;
  if (slot.owner == Owner::kReassembly) {
    --owners_.reassembly;
    ++owners_.application;
    slot.owner = Owner::kApplication;
  }
  if (slot.lent_pieces == 0) {
    DCHECK(slot.owner == Owner::kApplication);
    --owners_.application;
    PushFree(slot, index);
  }
}

void FragPool::CheckInvariants() const {
  Owners seen;
  uint32_t lent_by_slots = 0;
  for (const Slot& slot : slots_) {
    lent_by_slots += slot.lent_pieces;
    switch (slot.owner) {
      case Owner::kFree:
        ++seen.free;
        CHECK_EQ(slot.pending_bytes, 0u);
        CHECK_EQ(slot.lent_pieces, 0u);
        break;
      case Owner::kPosted:
        ++seen.posted;
        CHECK_EQ(slot.lent_pieces, 0u);
        break;
      case Owner::kReassembly:
        ++seen.reassembly;
        CHECK(slot.pending_bytes > 0);
        break;
      case Owner::kApplication:
        ++seen.application;
        CHECK(slot.lent_pieces > 0);
        CHECK_EQ(slot.pending_bytes, 0u);
        break;
    }
  }
  CHECK_EQ(seen.free, owners_.free);
  CHECK_EQ(seen.posted, owners_.posted);
  CHECK_EQ(seen.reassembly, owners_.reassembly);
  CHECK_EQ(seen.application, owners_.application);
  CHECK_EQ(seen.free + seen.posted + seen.reassembly + seen.application,
           options_.slot_count);

  uint32_t free_list = 0;
  for (uint32_t i = free_head_; i != kNone; i = slots_[i].next_free) {
    CHECK(slots_[i].owner == Owner::kFree);
    ++free_list;
    CHECK_LE(free_list, options_.slot_count);
  }
  CHECK_EQ(free_list, owners_.free);

  // Every piece is on the free list, or counted by a slot: lent, or returned
  // and not drained yet.
  uint32_t free_pieces = 0;
  for (uint32_t i = free_piece_head_; i != kNone; i = pieces_[i].next) {
    CHECK(!IsLent(pieces_[i].state.load(std::memory_order_relaxed)));
    ++free_pieces;
    CHECK_LE(free_pieces, piece_count_);
  }
  CHECK_EQ(free_pieces + lent_by_slots, piece_count_);
}

std::string FragPool::OwnersString() const {
  return absl::StrFormat("free %u posted %u reassembly %u application %u",
                         owners_.free, owners_.posted, owners_.reassembly,
                         owners_.application);
}

}  // namespace devwire
