#include "base/bell.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "base/check.h"

namespace devwire {

Bell::~Bell() {
  if (fd_ >= 0) close(fd_);
}

int Bell::Open() {
  fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd_ < 0 ? errno : 0;
}

void Bell::Arm() { is_armed_.exchange(true, std::memory_order_acq_rel); }

void Bell::Disarm() {
  is_armed_.store(false, std::memory_order_relaxed);
  uint64_t rings = 0;
  // Nobody may have rung.
  if (read(fd_, &rings, sizeof(rings)) < 0) CHECK_EQ(errno, EAGAIN);
}

void Bell::Wake() {
  const uint64_t one = 1;
  CHECK_EQ(write(fd_, &one, sizeof(one)), ssize_t{sizeof(one)});
}

}  // namespace devwire
