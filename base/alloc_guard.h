// Catches heap allocations where there must be none. Link //base:alloc_guard
// into a test or a bench (it replaces operator new and malloc's C++ callers);
// production binaries do not link it.
#ifndef BASE_ALLOC_GUARD_H_
#define BASE_ALLOC_GUARD_H_

#include <cstdint>

namespace devwire {

// While one lives, an allocation with operator new on this thread aborts the
// process and says so.
class AllocFreeze {
 public:
  AllocFreeze();
  ~AllocFreeze();
  AllocFreeze(const AllocFreeze&) = delete;
  AllocFreeze& operator=(const AllocFreeze&) = delete;
};

// Calls of operator new on this thread since it started.
uint64_t AllocationsOnThisThread();

}  // namespace devwire

#endif  // BASE_ALLOC_GUARD_H_
