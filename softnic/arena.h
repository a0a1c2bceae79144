// The memory that the front end (the ibv_* calls) and the device core share:
// work queues, completion queues, counters. Private memory when both are in one
// process, a memfd when the device runs in a process of its own; positions are
// offsets, so that both sides may map it where they like.
//
// Threads:  Allocate and Free by the front end alone, under its lock; At from
//           anywhere.
// Lifetime: what is allocated stays until it is freed; the memory goes back to
//           the system then.
// Cost:     set-up path. Address space is reserved, pages come with use.
#ifndef SOFTNIC_ARENA_H_
#define SOFTNIC_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/check.h"

namespace softnic {

class Arena {
 public:
  static constexpr uint64_t kBytes = uint64_t{1} << 31;

  // All three are null when the system refuses, with errno set.
  static std::unique_ptr<Arena> CreatePrivate();
  static std::unique_ptr<Arena> CreateShared();
  static std::unique_ptr<Arena> Attach(int fd);  // fd is borrowed
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // `bytes` of zeros at the returned offset, on a page of their own; 0: full.
  uint64_t Allocate(uint64_t bytes);
  // `bytes` as in Allocate.
  void Free(uint64_t at, uint64_t bytes);

  template <typename T>
  T* At(uint64_t at) const {
    DCHECK_LT(at, kBytes);
    return reinterpret_cast<T*>(base_ + at);
  }
  int fd() const { return fd_; }  // -1: private

 private:
  Arena(std::byte* base, int fd) : base_(base), fd_(fd) {}
  static std::unique_ptr<Arena> Map(int fd, bool owns_fd);

  std::byte* base_;
  int fd_;
  bool owns_fd_ = false;
  uint64_t next_;                                   // never used from here on
  std::map<uint64_t, std::vector<uint64_t>> free_;  // by rounded size
};

}  // namespace softnic

#endif  // SOFTNIC_ARENA_H_
