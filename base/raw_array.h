// Room for objects that are not there yet. A page of it is taken from the
// system when it is first written to, not before: capacity that is not used
// costs address space alone.
//
// Threads: none of its own. Whoever holds it makes and ends the objects.
#ifndef BASE_RAW_ARRAY_H_
#define BASE_RAW_ARRAY_H_

#include <cstddef>
#include <memory>
#include <utility>

namespace devwire {

template <typename T>
class RawArray {
 public:
  explicit RawArray(size_t size)
      : data_(std::allocator<T>().allocate(size)), size_(size) {}
  RawArray(RawArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  RawArray& operator=(RawArray&&) = delete;
  ~RawArray() {
    if (data_ != nullptr) std::allocator<T>().deallocate(data_, size_);
  }

  size_t size() const { return size_; }
  T* at(size_t i) { return data_ + i; }
  const T* at(size_t i) const { return data_ + i; }

 private:
  T* data_;
  const size_t size_;
};

}  // namespace devwire

#endif  // BASE_RAW_ARRAY_H_
