#include "sockets/preload/transfer.h"

#include <signal.h>

#include <vector>

namespace devwire::preload {

int64_t Receive(Shim& shim, int fd, TakenSocket& socket,
                std::span<const iovec> out, int flags) {
  if (socket.is_listener()) return -ENOTCONN;
  if ((flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)) != 0) return -EOPNOTSUPP;
  return Blocking(shim, fd, POLLIN, flags, [&] { return socket.Receive(out); });
}

int64_t Send(Shim& shim, int fd, TakenSocket& socket,
             std::span<const iovec> bytes, int flags) {
  if (socket.is_listener()) return -ENOTCONN;
  // A blocking send takes all of it; most take it at once.
  std::vector<iovec> rest;
  int64_t total = 0;
  while (true) {
    const int64_t sent =
        Blocking(shim, fd, POLLOUT, flags, [&] { return socket.Send(bytes); });
    if (sent < 0) {
      if (total > 0) return total;
      if (sent == -EPIPE && (flags & MSG_NOSIGNAL) == 0) raise(SIGPIPE);
      return sent;
    }
    total += sent;
    auto left = static_cast<size_t>(sent);
    while (!bytes.empty() && left >= bytes.front().iov_len) {
      left -= bytes.front().iov_len;
      bytes = bytes.subspan(1);
    }
    if (bytes.empty() || IsNonblocking(fd, flags)) return total;
    rest.assign(bytes.begin(), bytes.end());
    rest.front().iov_base =
        static_cast<std::byte*>(rest.front().iov_base) + left;
    rest.front().iov_len -= left;
    bytes = rest;
  }
}

}  // namespace devwire::preload
