// The C ABI: setsockopt and getsockopt.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cstring>

#include "sockets/errno_map.h"
#include "sockets/preload/call.h"

namespace devwire::preload {
namespace {

int64_t SetOption(Taken& taken, int level, int option, const void* value,
                  socklen_t size) {
  Stream* const stream = taken.socket->stream();
  if (level != IPPROTO_TCP) return -ENOPROTOOPT;
  if (stream == nullptr) return 0;
  if (size < sizeof(int)) return -EINVAL;
  int on = 0;
  memcpy(&on, value, sizeof(on));
  const std::lock_guard lock(taken.shim->mutex);
  switch (option) {
    case TCP_NODELAY:
      return -ErrnoOf(stream->SetNoDelay(on != 0));
    case TCP_CORK:
      return -ErrnoOf(stream->SetCork(on != 0));
    case TCP_QUICKACK:
      return -ErrnoOf(stream->SetQuickAck(on != 0));
    default:
      return -ENOPROTOOPT;
  }
}

int64_t GetOption(Taken& taken, int level, int option, void* value,
                  socklen_t* size) {
  const std::lock_guard lock(taken.shim->mutex);
  const auto give = [&](const void* from, socklen_t bytes) {
    *size = std::min(*size, bytes);
    memcpy(value, from, *size);
    return int64_t{0};
  };
  int answer = 0;
  if (level == SOL_SOCKET && option == SO_ERROR) {
    answer = taken.socket->TakeError();
  } else if (level == SOL_SOCKET && option == SO_DOMAIN) {
    answer = taken.shim->config().stack.address.is_v4() ? AF_INET : AF_INET6;
  } else if (level == SOL_SOCKET && option == SO_PROTOCOL) {
    answer = IPPROTO_TCP;
  } else if (level == SOL_SOCKET && option == SO_TYPE) {
    answer = SOCK_STREAM;
  } else if (level == SOL_SOCKET && option == SO_ACCEPTCONN) {
    answer = taken.socket->is_listener();
  } else if (level == IPPROTO_TCP && option == TCP_INFO &&
             taken.socket->stream() != nullptr) {
    const auto info = taken.socket->stream()->tcp_info();
    if (!info.ok()) return -ErrnoOf(info.status());
    return give(&*info, sizeof(*info));
  } else {
    return -ENOPROTOOPT;
  }
  return give(&answer, sizeof(answer));
}

}  // namespace
}  // namespace devwire::preload

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

int setsockopt(int fd, int level, int option, const void* value,
               socklen_t size) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().setsockopt(fd, level, option, value, size);
  if (level != SOL_SOCKET) {
    return Answer(SetOption(taken, level, option, value, size));
  }
  // The descriptor is a socket and keeps them; but its buffers are not the
  // stream's, they decide on readiness (ReadyFd).
  if (option == SO_SNDBUF || option == SO_RCVBUF) return 0;
  const int result = real().setsockopt(fd, level, option, value, size);
  if (result == 0 && option == SO_KEEPALIVE) {
    const std::lock_guard lock(taken.shim->mutex);
    taken.socket->SetKeepAlive(fd);
  }
  return result;
}
int getsockopt(int fd, int level, int option, void* value, socklen_t* size) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().getsockopt(fd, level, option, value, size);
  const int64_t result = GetOption(taken, level, option, value, size);
  if (result != -ENOPROTOOPT || level != SOL_SOCKET) return Answer(result);
  return real().getsockopt(fd, level, option, value, size);
}
}  // extern "C"
