// Shares of a pool that streams use beside their own: the linear pool, and the
// host pool for device streams on the control queue. Nobody knows beforehand
// how many will; each may hold an equal share of it, with one share left for
// the next that comes. A stream that never gives a slot back stops there.
//
// Threads:  the engine's. Cost: O(1), no allocation.
#ifndef TRANSPORT_ENGINE_SLOT_SHARES_H_
#define TRANSPORT_ENGINE_SLOT_SHARES_H_

#include <algorithm>
#include <cstdint>

#include "base/check.h"

namespace devwire {

class SlotShares {
 public:
  // `slots` are shared out.
  explicit SlotShares(uint32_t slots = 0) : slots_(slots) {}

  // Whether a stream that holds `held` of them may take another.
  bool MayTake(uint32_t held) const {
    const uint32_t users = users_ + (held == 0 ? 1 : 0);
    return held < std::max(1u, slots_ / (users + 1));
  }
  void OnTaken(uint32_t* held) {
    if ((*held)++ == 0) ++users_;
  }
  void OnFreed(uint32_t* held, uint32_t slots) {
    if (slots == 0) return;
    CHECK_LE(slots, *held);
    *held -= slots;
    if (*held == 0) --users_;
  }
  // Streams that hold any.
  uint32_t users() const { return users_; }

 private:
  uint32_t slots_;
  uint32_t users_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_SLOT_SHARES_H_
