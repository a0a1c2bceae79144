#include "softnic/mr_table.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace softnic {

MrTable::~MrTable() {
  for (const auto& mr : slots_) {
    if (mr != nullptr && mr->mapping != nullptr) {
      munmap(mr->mapping, mr->mapping_bytes);
    }
  }
}

int MrTable::MapDmabuf(int fd, Mr* mr) {
  const MrSpec& spec = mr->spec;
  // dma-buf and memfd both tell their size by seeking to the end.
  const off_t size = lseek(fd, 0, SEEK_END);
  if (size < 0) return errno == EBADF ? EBADF : EINVAL;
  if (spec.length == 0 || spec.fd_offset > static_cast<uint64_t>(size) ||
      spec.length > static_cast<uint64_t>(size) - spec.fd_offset) {
    return EINVAL;
  }
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t skip = spec.fd_offset % page;
  const int protection = (spec.access & IBV_ACCESS_LOCAL_WRITE) != 0
                             ? PROT_READ | PROT_WRITE
                             : PROT_READ;
  mr->mapping_bytes = spec.length + skip;
  void* at = mmap(nullptr, mr->mapping_bytes, protection, MAP_SHARED, fd,
                  static_cast<off_t>(spec.fd_offset - skip));
  if (at == MAP_FAILED) return errno == ENOMEM ? ENOMEM : EINVAL;
  mr->mapping = at;
  mr->base = static_cast<std::byte*>(at) + skip;
  return 0;
}

int MrTable::Add(const MrSpec& spec, int fd, uint32_t* lkey) {
  if (free_.empty() && slots_.size() == kMaxMrs) return ENOMEM;
  auto mr = std::make_unique<Mr>();
  mr->spec = spec;
  if (spec.is_dmabuf) {
    if (const int error = MapDmabuf(fd, mr.get()); error != 0) return error;
    mr->region = next_region_++;
  } else if (host_is_local_) {
    mr->base = reinterpret_cast<std::byte*>(spec.host_addr);
  }
  uint32_t index = static_cast<uint32_t>(slots_.size());
  if (free_.empty()) {
    slots_.emplace_back();
    generations_.push_back(0);
  } else {
    index = free_.back();
    free_.pop_back();
  }
  // The generation begins at 1, so that no key is 0, and changes with every
  // use of the slot, so that a stale key is found out.
  if (++generations_[index] == 0) generations_[index] = 1;
  mr->lkey = index << kGenerationBits | generations_[index];
  *lkey = mr->lkey;
  slots_[index] = std::move(mr);
  return 0;
}

int MrTable::Remove(uint32_t lkey) {
  Mr* mr = Find(lkey);
  if (mr == nullptr) return EINVAL;
  if (mr->mapping != nullptr) munmap(mr->mapping, mr->mapping_bytes);
  const uint32_t index = lkey >> kGenerationBits;
  slots_[index] = nullptr;
  free_.push_back(index);
  return 0;
}

}  // namespace softnic
