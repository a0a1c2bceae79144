// The memory regions of one device: what a key stands for, and whether an SGE
// may be executed.
//
// A host region is the application's own memory: reached by its address when
// the core runs inside the application, else only by process_vm_readv(2) and
// process_vm_writev(2). A dmabuf region is mapped here, wherever the system
// puts it; its iova is a name only and never mapped.
//
// Threads:  those of the device core.
// Cost:     Resolve is an array access and a few compares; the rest is set-up.
#ifndef SOFTNIC_MR_TABLE_H_
#define SOFTNIC_MR_TABLE_H_

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "softnic/port.h"

namespace softnic {

struct MrSpec {
  uint32_t pd = 0;
  uint64_t iova = 0;  // what an SGE's addr counts from
  uint64_t length = 0;
  uint32_t access = 0;     // ibv_access_flags
  uint64_t host_addr = 0;  // host region: where it begins
  uint64_t fd_offset = 0;  // dmabuf region: where it begins in the fd
  bool is_dmabuf = false;
};

struct Mr {
  MrSpec spec;
  uint32_t lkey = 0;
  uint32_t region = kNoRegion;  // dmabuf: its name on the port
  std::byte* base = nullptr;    // byte at iova; null: not mapped here
  void* mapping = nullptr;      // dmabuf: what to unmap
  size_t mapping_bytes = 0;
  bool is_revoked = false;  // by fault: every access fails
};

// An SGE that passed every check.
struct ResolvedSge {
  const Mr* mr = nullptr;
  std::byte* local = nullptr;  // null: at `remote` in the application
  uint64_t remote = 0;
  uint32_t length = 0;
};

class MrTable {
 public:
  static constexpr uint32_t kMaxMrs = 1u << 16;

  // `host_is_local`: the application's addresses are valid here.
  explicit MrTable(bool host_is_local) : host_is_local_(host_is_local) {}
  ~MrTable();
  MrTable(const MrTable&) = delete;
  MrTable& operator=(const MrTable&) = delete;

  // Makes a region. dmabuf: maps the fd, which is borrowed. 0, or an errno:
  // EBADF, EINVAL (out of the fd's range, or it cannot be mapped), ENOMEM.
  int Add(const MrSpec& spec, int fd, uint32_t* lkey);
  // 0 or EINVAL. The caller makes sure that nothing reads it any more.
  int Remove(uint32_t lkey);

  // Null: no such key.
  Mr* Find(uint32_t lkey) {
    const uint32_t index = lkey >> kGenerationBits;
    if (index >= slots_.size() || slots_[index] == nullptr) return nullptr;
    Mr* mr = slots_[index].get();
    return mr->lkey == lkey ? mr : nullptr;
  }

  // False: the key is unknown, of another protection domain, or revoked; the
  // range leaves the region; or it may not be written and `writes`.
  bool Resolve(const ibv_sge& sge, uint32_t pd, bool writes, ResolvedSge* out) {
    const Mr* mr = Find(sge.lkey);
    if (mr == nullptr || mr->spec.pd != pd || mr->is_revoked) return false;
    if (writes && (mr->spec.access & IBV_ACCESS_LOCAL_WRITE) == 0) return false;
    const uint64_t at = sge.addr - mr->spec.iova;
    if (at > mr->spec.length || sge.length > mr->spec.length - at) return false;
    out->mr = mr;
    out->length = sge.length;
    out->local = mr->base == nullptr ? nullptr : mr->base + at;
    out->remote = mr->spec.host_addr + at;
    return true;
  }

 private:
  static constexpr uint32_t kGenerationBits = 8;

  int MapDmabuf(int fd, Mr* mr);

  const bool host_is_local_;
  std::vector<std::unique_ptr<Mr>> slots_;
  std::vector<uint8_t> generations_;
  std::vector<uint32_t> free_;
  uint32_t next_region_ = 0;  // names of regions are never used twice
};

}  // namespace softnic

#endif  // SOFTNIC_MR_TABLE_H_
