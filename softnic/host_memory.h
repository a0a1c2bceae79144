// The application's memory as the device core reaches it.
//
// In one process it is simply there. From a device process it is read and
// written with process_vm_readv(2) and process_vm_writev(2), many pieces a
// call: what is to be written is staged and leaves with Flush, which the core
// calls before it publishes the completions that announce it.
//
// Threads: those of the device core. Cost: no allocation after construction.
#ifndef SOFTNIC_HOST_MEMORY_H_
#define SOFTNIC_HOST_MEMORY_H_

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace softnic {

class HostMemory {
 public:
  static constexpr int kMaxPieces = 512;  // below IOV_MAX, 1024
  static constexpr size_t kStageBytes = size_t{1} << 20;

  // `application` 0: this process.
  explicit HostMemory(pid_t application);
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  bool is_local() const { return application_ == 0; }

  // Where to put `bytes` <= kStageBytes bytes that Flush writes to `remote`.
  // Flushes when the stage is full.
  std::byte* StageWrite(uint64_t remote, uint32_t bytes);
  // False: a piece of memory was not there (the application unmapped it).
  bool Flush();

  // Reads `count` pieces into their places. False as above.
  bool Read(const iovec* local, const iovec* remote, int count);

 private:
  const pid_t application_;
  std::unique_ptr<std::byte[]> stage_;
  size_t used_ = 0;
  int count_ = 0;
  bool failed_ = false;
  iovec local_[kMaxPieces];
  iovec remote_[kMaxPieces];
};

}  // namespace softnic

#endif  // SOFTNIC_HOST_MEMORY_H_
