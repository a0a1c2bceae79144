// The device's side of a completion queue: it writes entries, the front end
// reads them. Entries become visible to the front end with Publish, after the
// bytes that they announce.
//
// Threads: those of the device core. Cost: one cache line per entry.
#ifndef SOFTNIC_COMPLETION_QUEUE_H_
#define SOFTNIC_COMPLETION_QUEUE_H_

#include "softnic/arena.h"
#include "softnic/queue_layout.h"

namespace softnic {

class CompletionQueue {
 public:
  CompletionQueue(uint32_t number, uint32_t context, const CqLayout& layout,
                  const Arena& arena)
      : number_(number),
        context_(context),
        head_(arena.At<CqHead>(layout.head_at)),
        slots_(arena.At<Cqe>(layout.slots_at)),
        mask_(layout.depth - 1),
        capacity_(layout.depth - 1) {}

  uint32_t number() const { return number_; }
  uint32_t context() const { return context_; }  // who gets its events
  bool has_overrun() const { return has_overrun_; }

  // False: it is full, the entry is lost and the queue is in error for good;
  // every queue pair that uses it is too.
  [[nodiscard]] bool Push(const Cqe& entry) {
    if (produced_ - head_->consumed.load(std::memory_order_acquire) >=
        capacity_) {
      has_overrun_ = true;
    }
    if (has_overrun_) return false;
    slots_[produced_++ & mask_] = entry;
    return true;
  }
  void Publish() {
    if (published_ == produced_) return;
    published_ = produced_;
    head_->produced.store(produced_, std::memory_order_release);
  }

  // Queue pairs that complete here; a queue in use cannot be destroyed.
  uint32_t users = 0;

 private:
  const uint32_t number_;
  const uint32_t context_;
  CqHead* const head_;
  Cqe* const slots_;
  const uint32_t mask_;
  const uint32_t capacity_;
  uint32_t produced_ = 0;
  uint32_t published_ = 0;
  bool has_overrun_ = false;
};

}  // namespace softnic

#endif  // SOFTNIC_COMPLETION_QUEUE_H_
