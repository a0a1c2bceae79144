// When each stream wants to be called next.
//
// A binary heap of deadlines, one per stream, with the position of each stream
// remembered. A deadline that moves later is not moved in the heap: the entry
// expires early, is looked at and put back. As nearly every segment pushes its
// stream's deadline out, the usual Set() is two loads and a store.
//
// Threads: none of its own. Cost: Set O(1) when later, else O(log n); no
// allocation after construction.
#ifndef TRANSPORT_ENGINE_TIMER_HEAP_H_
#define TRANSPORT_ENGINE_TIMER_HEAP_H_

#include <cstdint>
#include <vector>

#include "base/time.h"

namespace devwire {

class TimerHeap {
 public:
  explicit TimerHeap(uint32_t max_timers);

  // Timer `id` < max_timers is due at `deadline`; Never() stops it.
  void Set(uint32_t id, Instant deadline);
  // A timer that is due at `now`, stopped; false when none is.
  bool PopDue(Instant now, uint32_t* id);
  // No timer is due before this. May be early, never late.
  Instant NextDeadline() const {
    return heap_.empty() ? Instant::Never() : heap_[0].at;
  }

 private:
  static constexpr uint32_t kNotQueued = UINT32_MAX;
  struct Entry {
    Instant at;  // <= deadlines_[id]
    uint32_t id;
  };
  void SiftUp(uint32_t position);
  void SiftDown(uint32_t position);
  void RemoveTop();
  void Place(uint32_t position, Entry entry) {
    heap_[position] = entry;
    positions_[entry.id] = position;
  }

  std::vector<Entry> heap_;          // Reserved for max_timers.
  std::vector<Instant> deadlines_;   // By id: what Set() said.
  std::vector<uint32_t> positions_;  // By id: index in heap_, or kNotQueued.
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_TIMER_HEAP_H_
