// A dmabuf: memory of a device, as a file descriptor that a NIC can register.
//
// Source:   Linux Documentation/driver-api/dma-buf.rst. A memfd stands in for
//           one on machines without a GPU; softnic alone accepts it.
// Threads:  none of its own.
// Lifetime: closes the descriptor; a registration keeps its own reference.
#ifndef MEMREG_DMABUF_H_
#define MEMREG_DMABUF_H_

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace devwire {

class DmaBuf {
 public:
  DmaBuf() = default;
  // Takes over `fd`. `origin` names its maker, for messages: "memfd", "hip".
  DmaBuf(int fd, size_t bytes, std::string origin)
      : fd_(fd), bytes_(bytes), origin_(std::move(origin)) {}
  DmaBuf(DmaBuf&& other) noexcept { *this = std::move(other); }
  DmaBuf& operator=(DmaBuf&& other) noexcept;
  ~DmaBuf() { Close(); }

  // A further descriptor of the same memory. Unavailable when there are no
  // descriptors left.
  absl::StatusOr<DmaBuf> Duplicate() const;

  int fd() const { return fd_; }  // -1: none
  size_t bytes() const { return bytes_; }
  const std::string& origin() const { return origin_; }

 private:
  void Close();

  int fd_ = -1;
  size_t bytes_ = 0;
  std::string origin_;
};

}  // namespace devwire

#endif  // MEMREG_DMABUF_H_
