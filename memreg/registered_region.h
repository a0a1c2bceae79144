// Memory that the NIC may reach: a dmabuf (RegisteredRegion), or host memory
// of our own (HostArena).
//
// Threads:  made and destroyed on the set-up path; read-only in between.
// Lifetime: borrows the pd. Outlives every queue pair that has a work request
//           with its lkey.
// Errors:   a Status with what was tried, errno in words, and the next step.
#ifndef MEMREG_REGISTERED_REGION_H_
#define MEMREG_REGISTERED_REGION_H_

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "memreg/dmabuf.h"

namespace devwire {

// ibv_dereg_mr(3), for unique_ptr. A failure other than that of the whole
// device is a bug of ours: something still uses the region.
struct MrDelete {
  void operator()(ibv_mr* mr) const;
};
using UniqueMr = std::unique_ptr<ibv_mr, MrDelete>;

// One ibv_reg_dmabuf_mr(3). The addresses that the NIC is given (iova) are
// chosen by us and can never be mapped in a process, so that an access by the
// CPU faults instead of reading payload.
class RegisteredRegion {
 public:
  struct Options {
    uint64_t offset = 0;  // Of the region within the dmabuf.
    size_t bytes = 0;     // 0: to the end.
    // IBV_ACCESS_RELAXED_ORDERING; only where proven: some platforms answer
    // receives with protection errors.
    bool relaxed_ordering = false;
  };

  // InvalidArgument: outside the dmabuf. Unimplemented: the provider or the
  // kernel has no dmabuf registration. FailedPrecondition: refused.
  static absl::StatusOr<RegisteredRegion> Register(ibv_pd* pd,
                                                   const DmaBuf& dmabuf,
                                                   const Options& options);

  uint64_t iova() const { return iova_; }
  size_t bytes() const { return bytes_; }
  uint32_t lkey() const { return mr_->lkey; }
  uint64_t offset() const { return offset_; }  // Of its start in the dmabuf.
  // Does [addr, addr + length) lie in it?
  bool Contains(uint64_t addr, uint64_t length) const {
    return addr >= iova_ && length <= bytes_ && addr - iova_ <= bytes_ - length;
  }

 private:
  RegisteredRegion(UniqueMr mr, uint64_t iova, size_t bytes, uint64_t offset)
      : mr_(std::move(mr)), iova_(iova), bytes_(bytes), offset_(offset) {}

  UniqueMr mr_;
  uint64_t iova_;
  size_t bytes_;
  uint64_t offset_;
};

// Host memory for headers, host pools and host send buffers: mapped,
// pre-faulted, huge pages where there are some, absent from forked children
// (MADV_DONTFORK: a child that wrote to it would move our pages away from the
// NIC), registered with ibv_reg_mr(3).
class HostArena {
 public:
  // `bytes` > 0 is rounded up to whole pages.
  static absl::StatusOr<HostArena> Create(ibv_pd* pd, size_t bytes);

  std::byte* data() const { return memory_.get(); }
  size_t bytes() const { return memory_.get_deleter().bytes; }
  uint64_t addr() const { return reinterpret_cast<uint64_t>(data()); }
  uint32_t lkey() const { return mr_->lkey; }

 private:
  struct Unmap {
    size_t bytes = 0;
    void operator()(std::byte* p) const;
  };
  using Memory = std::unique_ptr<std::byte, Unmap>;

  HostArena(Memory memory, UniqueMr mr)
      : memory_(std::move(memory)), mr_(std::move(mr)) {}

  Memory memory_;
  UniqueMr mr_;
};

}  // namespace devwire

#endif  // MEMREG_REGISTERED_REGION_H_
