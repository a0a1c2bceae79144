// A frag: where, in memory the NIC wrote, some bytes of a stream lie.
//
// Plain data. This is all that TCP knows of payload: it queues, splits, trims
// and drops frags, and never sees the bytes. Terms follow Linux's devmem TCP.
#ifndef MEMREG_FRAG_H_
#define MEMREG_FRAG_H_

#include <compare>
#include <cstdint>

namespace devwire {

// Names one FragPool of an engine: the host pools first, then one per bound
// device region.
enum class PoolId : uint16_t {};

// Names one slot of a FragPool.
enum class SlotIndex : uint32_t {};

// `length` bytes of a stream, at `offset` bytes from the start of the slot.
struct Frag {
  SlotIndex slot{};
  uint32_t offset = 0;
  uint32_t length = 0;
  PoolId pool{};

  friend bool operator==(const Frag&, const Frag&) = default;
};
static_assert(sizeof(Frag) == 16);

// The receipt for one lent piece of a slot, to be given back exactly once.
// Opaque: {pool, piece index, generation}. Never zero for a token that was
// lent.
struct FragToken {
  uint64_t value = 0;
  friend auto operator<=>(FragToken, FragToken) = default;
};

// Where frags go that nobody will read: duplicates, out-of-window bytes, what
// a closed stream still held. Every byte of a received slot is either lent to
// the application or discarded, exactly once.
class FragSink {
 public:
  virtual void Discard(const Frag& frag) = 0;

 protected:
  ~FragSink() = default;
};

}  // namespace devwire

#endif  // MEMREG_FRAG_H_
