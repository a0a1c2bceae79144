#include "sockets/preload/call.h"

#include <sys/time.h>

namespace devwire::preload {

bool IsNonblocking(int fd, int flags) {
  return (flags & MSG_DONTWAIT) != 0 ||
         (real().fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

Patience::Patience(int fd, int option) {
  timeval t = {};
  socklen_t size = sizeof(t);
  if (real().getsockopt(fd, SOL_SOCKET, option, &t, &size) != 0) return;
  const int64_t ns = t.tv_sec * int64_t{1'000'000'000} + t.tv_usec * 1000;
  if (ns > 0) until_ = clock_.Now() + Duration::Nanoseconds(ns);
}

std::optional<Duration> Patience::left() const {
  if (!until_) return std::nullopt;
  return *until_ - clock_.Now();
}

}  // namespace devwire::preload
