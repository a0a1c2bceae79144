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

inline constexpr uint32_t kNoChannel = 0xffffffff;

struct CqSpec {
  uint32_t context = 0;
  uint32_t channel = kNoChannel;
  CqLayout layout;
};

class CompletionQueue {
 public:
  CompletionQueue(uint32_t number, const CqSpec& spec, const Arena& arena)
      : number_(number),
        spec_(spec),
        head_(arena.At<CqHead>(spec.layout.head_at)),
        slots_(arena.At<Cqe>(spec.layout.slots_at)),
        mask_(spec.layout.depth - 1),
        capacity_(spec.layout.depth - 1) {}

  uint32_t number() const { return number_; }
  // Who gets its asynchronous events, and who its completion events.
  uint32_t context() const { return spec_.context; }
  uint32_t channel() const { return spec_.channel; }
  bool has_overrun() const { return has_overrun_; }
  bool is_armed() const {
    return head_->arm.load(std::memory_order_acquire) != CqArm::kNo;
  }

  // False: it is full, the entry is lost and the queue is in error for good;
  // every queue pair that uses it is too.
  [[nodiscard]] bool Push(const Cqe& entry) {
    if (produced_ - head_->consumed.load(std::memory_order_acquire) >=
        capacity_) {
      has_overrun_ = true;
    }
    if (has_overrun_) return false;
    slots_[produced_++ & mask_] = entry;
    has_error_ |= entry.status != IBV_WC_SUCCESS;
    return true;
  }
  // True: its channel is owed an event.
  [[nodiscard]] bool Publish() {
    if (published_ == produced_) return false;
    published_ = produced_;
    head_->produced.store(produced_, std::memory_order_release);
    const bool had_error = has_error_;
    has_error_ = false;
    return spec_.channel != kNoChannel && Disarm(had_error);
  }

  // Queue pairs that complete here; a queue in use cannot be destroyed.
  uint32_t users = 0;

 private:
  // True: it was armed for what has just been published.
  bool Disarm(bool had_error) {
    // Either we see that it is armed, or who armed it sees the entries when it
    // polls once more: both read and write `arm`, one after the other.
    CqArm arm = CqArm::kNo;
    if (head_->arm.compare_exchange_strong(arm, CqArm::kNo)) return false;
    if (arm == CqArm::kError && !had_error) return false;
    head_->arm.store(CqArm::kNo);
    return true;
  }

  const uint32_t number_;
  const CqSpec spec_;
  CqHead* const head_;
  Cqe* const slots_;
  const uint32_t mask_;
  const uint32_t capacity_;
  uint32_t produced_ = 0;
  uint32_t published_ = 0;
  bool has_overrun_ = false;
  bool has_error_ = false;  // among the entries not published yet
};

}  // namespace softnic

#endif  // SOFTNIC_COMPLETION_QUEUE_H_
