#include "softnic/host_memory.h"

#include "base/check.h"

namespace softnic {
namespace {

size_t Total(const iovec* pieces, int count) {
  size_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += pieces[i].iov_len;
  return bytes;
}

}  // namespace

HostMemory::HostMemory(pid_t application)
    : application_(application),
      stage_(application == 0 ? nullptr : new std::byte[kStageBytes]) {}

std::byte* HostMemory::StageWrite(uint64_t remote, uint32_t bytes) {
  DCHECK(!is_local());
  DCHECK_LE(bytes, kStageBytes);
  if (count_ == kMaxPieces || used_ + bytes > kStageBytes) {
    failed_ |= !Flush();
  }
  std::byte* at = stage_.get() + used_;
  local_[count_] = {at, bytes};
  remote_[count_++] = {reinterpret_cast<void*>(remote), bytes};
  used_ += bytes;
  return at;
}

bool HostMemory::Flush() {
  bool ok = !failed_;
  if (count_ > 0) {
    const ssize_t n =
        process_vm_writev(application_, local_, static_cast<size_t>(count_),
                          remote_, static_cast<size_t>(count_), 0);
    ok &= n == static_cast<ssize_t>(used_);
  }
  used_ = 0;
  count_ = 0;
  failed_ = false;
  return ok;
}

bool HostMemory::Read(const iovec* local, const iovec* remote, int count) {
  if (count == 0) return true;
  const ssize_t n =
      process_vm_readv(application_, local, static_cast<size_t>(count), remote,
                       static_cast<size_t>(count), 0);
  return n == static_cast<ssize_t>(Total(local, count));
}

}  // namespace softnic
