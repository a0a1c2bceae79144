// Event counters: one writer, any number of readers on other threads.
//
// A room keeps its counters in one struct that starts on a cache line of its
// own (alignas(kCacheLine)), so that a reader never slows the writer of
// another struct.
#ifndef BASE_COUNTER_H_
#define BASE_COUNTER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace devwire {

inline constexpr size_t kCacheLine = 64;

class Counter {
 public:
  // Only from the owning thread: a plain load and store, no locked instruction.
  void Add(uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n,
                 std::memory_order_relaxed);
  }
  // From any thread.
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace devwire

#endif  // BASE_COUNTER_H_
