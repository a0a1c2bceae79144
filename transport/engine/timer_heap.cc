#include "transport/engine/timer_heap.h"

#include "base/check.h"

namespace devwire {

TimerHeap::TimerHeap(uint32_t max_timers)
    : deadlines_(max_timers, Instant::Never()),
      positions_(max_timers, kNotQueued) {
  heap_.reserve(max_timers);
}

void TimerHeap::Set(uint32_t id, Instant deadline) {
  DCHECK_LT(id, deadlines_.size());
  deadlines_[id] = deadline;
  const uint32_t position = positions_[id];
  if (position == kNotQueued) {
    if (deadline == Instant::Never()) return;
    heap_.push_back({deadline, id});
    positions_[id] = static_cast<uint32_t>(heap_.size() - 1);
    SiftUp(positions_[id]);
  } else if (deadline < heap_[position].at) {
    heap_[position].at = deadline;
    SiftUp(position);
  }
}

bool TimerHeap::PopDue(Instant now, uint32_t* id) {
  while (!heap_.empty() && heap_[0].at <= now) {
    const uint32_t top = heap_[0].id;
    const Instant deadline = deadlines_[top];
    if (deadline <= now) {
      RemoveTop();
      deadlines_[top] = Instant::Never();
      *id = top;
      return true;
    }
    if (deadline == Instant::Never()) {
      RemoveTop();
    } else {
      heap_[0].at = deadline;
      SiftDown(0);
    }
  }
  return false;
}

void TimerHeap::RemoveTop() {
  positions_[heap_[0].id] = kNotQueued;
  const Entry last = heap_.back();
  heap_.pop_back();
  if (heap_.empty()) return;
  Place(0, last);
  SiftDown(0);
}

void TimerHeap::SiftUp(uint32_t position) {
  const Entry entry = heap_[position];
  while (position > 0) {
    const uint32_t parent = (position - 1) / 2;
    if (heap_[parent].at <= entry.at) break;
    Place(position, heap_[parent]);
    position = parent;
  }
  Place(position, entry);
}

void TimerHeap::SiftDown(uint32_t position) {
  const Entry entry = heap_[position];
  const uint32_t size = static_cast<uint32_t>(heap_.size());
  while (true) {
    uint32_t child = 2 * position + 1;
    if (child >= size) break;
    if (child + 1 < size && heap_[child + 1].at < heap_[child].at) ++child;
    if (entry.at <= heap_[child].at) break;
    Place(position, heap_[child]);
    position = child;
  }
  Place(position, entry);
}

}  // namespace devwire
