#include "sockets/preload/call.h"

#include <netinet/in.h>

#include <algorithm>

namespace devwire::preload {

bool IsTcp(int fd) {
  int protocol = 0;
  socklen_t size = sizeof(protocol);
  return real().getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) ==
             0 &&
         protocol == IPPROTO_TCP;
}

bool IsNonblocking(int fd, int flags) {
  return (flags & MSG_DONTWAIT) != 0 ||
         (real().fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

int TimeoutOf(int fd, int option) {
  timeval t = {};
  socklen_t size = sizeof(t);
  if (real().getsockopt(fd, SOL_SOCKET, option, &t, &size) != 0) return -1;
  const int64_t ms = t.tv_sec * int64_t{1000} + (t.tv_usec + 999) / 1000;
  return ms == 0 ? -1 : static_cast<int>(std::min<int64_t>(ms, INT32_MAX));
}

}  // namespace devwire::preload
