#include "memreg/dmabuf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace devwire {

DmaBuf& DmaBuf::operator=(DmaBuf&& other) noexcept {
  if (this == &other) return *this;
  Close();
  fd_ = std::exchange(other.fd_, -1);
  bytes_ = std::exchange(other.bytes_, 0);
  origin_ = std::move(other.origin_);
  return *this;
}

void DmaBuf::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

absl::StatusOr<DmaBuf> DmaBuf::Duplicate() const {
  const int copy = fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    return absl::UnavailableError(
        absl::StrFormat("cannot duplicate the descriptor of a %s buffer: %s; "
                        "see ulimit -n",
                        origin_, strerrordesc_np(errno)));
  }
  return DmaBuf(copy, bytes_, origin_);
}

}  // namespace devwire
