// A first-in first-out ring of fixed capacity. The memory is taken once, in
// the constructor; pushes and pops never allocate. Slots that were never pushed
// to were never touched.
//
//   head_                tail_          indices only grow; the slot of index
//    |                    |             i is i & mask_
//    v                    v
//   [ oldest ... newest ) [ free ... )
//
// Threads: none of its own. A full ring refuses: the caller counts that.
#ifndef BASE_RING_H_
#define BASE_RING_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/raw_array.h"

namespace devwire {

template <typename T>
class Ring {
 public:
  // Holds at least min_capacity elements (rounded up to a power of two).
  explicit Ring(size_t min_capacity)
      : slots_(std::bit_ceil(min_capacity == 0 ? 1 : min_capacity)),
        mask_(slots_.size() - 1) {}
  Ring(Ring&& other) noexcept
      : slots_(std::move(other.slots_)),
        mask_(other.mask_),
        head_(std::exchange(other.head_, 0)),
        tail_(std::exchange(other.tail_, 0)) {}
  Ring& operator=(Ring&&) = delete;
  ~Ring() { Clear(); }

  size_t size() const { return tail_ - head_; }
  size_t capacity() const { return slots_.size(); }
  bool empty() const { return head_ == tail_; }
  bool full() const { return size() == capacity(); }

  // False, and nothing is stored, when full.
  [[nodiscard]] bool Push(T value) {
    if (full()) return false;
    std::construct_at(slots_.at(tail_++ & mask_), std::move(value));
    return true;
  }
  T& front() { return (*this)[0]; }
  const T& front() const { return (*this)[0]; }
  T& back() { return (*this)[size() - 1]; }
  // The i-th oldest element, i < size().
  T& operator[](size_t i) {
    DCHECK_LT(i, size());
    return *slots_.at((head_ + i) & mask_);
  }
  const T& operator[](size_t i) const {
    DCHECK_LT(i, size());
    return *slots_.at((head_ + i) & mask_);
  }
  void PopFront() {
    DCHECK(!empty());
    std::destroy_at(slots_.at(head_++ & mask_));
  }
  void PopBack() {
    DCHECK(!empty());
    std::destroy_at(slots_.at(--tail_ & mask_));
  }
  void Clear() {
    while (!empty()) PopFront();
  }

 private:
  RawArray<T> slots_;
  size_t mask_;
  size_t head_ = 0;
  size_t tail_ = 0;
};

}  // namespace devwire

#endif  // BASE_RING_H_
