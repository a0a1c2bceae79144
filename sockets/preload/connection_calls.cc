// The C ABI: a connection begins and ends, and who its ends are. bind, listen,
// connect, accept, shutdown, getsockname, getpeername.
#include <netinet/in.h>

#include <algorithm>

#include "sockets/errno_map.h"
#include "sockets/preload/call.h"
#include "sockets/preload/sockaddr.h"

namespace devwire::preload {
namespace {

// What a socket is that is not TCP's, in words.
const char* KindOf(int domain, int type) {
  if (domain == AF_UNIX) return "a UNIX socket";
  if (domain == AF_NETLINK) return "a netlink socket";
  if (domain != AF_INET && domain != AF_INET6) return "of another family";
  return (type & 0xf) == SOCK_DGRAM ? "a datagram socket" : "not of TCP";
}

int64_t TakeConnection(Shim& shim, int fd, const Endpoint& remote) {
  std::shared_ptr<TakenSocket> socket;
  {
    const std::lock_guard lock(shim.mutex);
    Stack* const stack = shim.OpenStack();
    if (stack == nullptr) return -ENETDOWN;
    ConnectOptions options;
    if (const auto bound = shim.BoundTo(fd); bound && bound->port != Port{}) {
      options.local_port = bound->port;
    }
    auto stream = stack->StartConnect(remote, options);
    if (!stream.ok()) return -ErrnoOf(stream.status());
    int made = -1;
    if (int64_t e = TakenSocket::Make(*std::move(stream), &socket, &made);
        e != 0) {
      return e;
    }
    if (int64_t e = shim.Adopt(socket, made, fd); e != 0) return e;
    shim.Push();
  }
  // Also when the answer is there already: as connect(2) of Linux.
  if (IsNonblocking(fd, 0)) return -EINPROGRESS;
  const int64_t result = Blocking(shim, fd, POLLOUT, 0, [&] {
    const int64_t r = socket->ConnectResult();
    return r == -EINPROGRESS ? -EAGAIN : r;
  });
  if (result == -EAGAIN) return -EINPROGRESS;
  return result == 0 ? socket->ConnectAgain() : result;
}

int64_t TakeListener(Shim& shim, int fd, Endpoint local, int backlog) {
  const std::lock_guard lock(shim.mutex);
  Stack* const stack = shim.OpenStack();
  if (stack == nullptr) return -ENETDOWN;
  local.ip = shim.config().stack.address;
  auto listener = stack->Listen(
      local, {.backlog = static_cast<uint32_t>(std::clamp(backlog, 1, 4096))});
  if (!listener.ok()) return -ErrnoOf(listener.status());
  std::shared_ptr<TakenSocket> socket;
  int made = -1;
  if (int64_t e = TakenSocket::Make(*std::move(listener), &socket, &made);
      e != 0) {
    return e;
  }
  return shim.Adopt(std::move(socket), made, fd);
}

int64_t Accept(Taken& taken, int fd, sockaddr* address, socklen_t* size,
               int flags) {
  if (!taken.socket->is_listener()) return -EINVAL;
  Shim& shim = *taken.shim;
  return Blocking(shim, fd, POLLIN, 0, [&]() -> int64_t {
    std::unique_ptr<Stream> stream;
    if (int64_t e = taken.socket->Accept(&stream); e != 0) return e;
    std::shared_ptr<TakenSocket> socket;
    int made = -1;
    if (int64_t e = TakenSocket::Make(std::move(stream), &socket, &made);
        e != 0) {
      return e;
    }
    (void)socket->ConnectAgain();
    real().fcntl(made, F_SETFD, (flags & SOCK_CLOEXEC) != 0 ? FD_CLOEXEC : 0);
    real().fcntl(made, F_SETFL, (flags & SOCK_NONBLOCK) != 0 ? O_NONBLOCK : 0);
    FromEndpoint(socket->remote(), address, size);
    if (int64_t e = shim.Adopt(std::move(socket), made, std::nullopt); e != 0) {
      return e;
    }
    return made;
  });
}
}  // namespace
}  // namespace devwire::preload

using namespace devwire::preload;  // NOLINT: this file is the C ABI
using devwire::Endpoint;

extern "C" {

int socket(int domain, int type, int protocol) {
  const int fd = real().socket(domain, type, protocol);
  Shim* const shim = fd < 0 ? nullptr : Shim::Get();
  if (shim == nullptr) return fd;
  if (IsTcp(fd)) {
    shim->account().Made(fd);
  } else {
    shim->account().Passed(fd, KindOf(domain, type));
  }
  return fd;
}
int socketpair(int domain, int type, int protocol, int ends[2]) {
  const int result = real().socketpair(domain, type, protocol, ends);
  Shim* const shim = result < 0 ? nullptr : Shim::Get();
  if (shim == nullptr) return result;
  for (int i = 0; i < 2; ++i) {
    shim->account().Passed(ends[i], KindOf(domain, type));
  }
  return result;
}

int bind(int fd, const sockaddr* address, socklen_t size) {
  Shim* const shim = Shim::Get();
  const auto local = ToEndpoint(address, size);
  if (shim == nullptr || !local || local->ip != shim->config().stack.address ||
      !IsTcp(fd)) {
    return real().bind(fd, address, size);
  }
  shim->Bind(fd, *local);
  return 0;
}

int listen(int fd, int backlog) {
  const Taken taken(fd);
  if (taken) return taken.socket->is_listener() ? 0 : Answer(-EINVAL);
  Shim* const shim = taken.shim;
  if (shim == nullptr || !IsTcp(fd)) return real().listen(fd, backlog);
  sockaddr_storage storage = {};
  socklen_t size = sizeof(storage);
  auto* const address = reinterpret_cast<sockaddr*>(&storage);
  if (getsockname(fd, address, &size) != 0) return -1;
  const std::optional<Endpoint> local = ToEndpoint(address, size);
  if (!local || !shim->Takes(fd, Direction::kListen, *local)) {
    // What we only noted is the kernel's to refuse.
    if (shim->BoundTo(fd) && real().bind(fd, address, size) != 0) return -1;
    return real().listen(fd, backlog);
  }
  return Answer(TakeListener(*shim, fd, *local, backlog));
}

int connect(int fd, const sockaddr* address, socklen_t size) {
  const Taken taken(fd);
  if (taken) {
    const std::lock_guard lock(taken.shim->mutex);
    if (taken.socket->is_listener()) return Answer(-EISCONN);
    return Answer(taken.socket->ConnectAgain());
  }
  const auto remote = ToEndpoint(address, size);
  if (taken.shim == nullptr || !remote || !IsTcp(fd) ||
      !taken.shim->Takes(fd, Direction::kConnect, *remote)) {
    return real().connect(fd, address, size);
  }
  return Answer(TakeConnection(*taken.shim, fd, *remote));
}

int accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) {
    const int accepted = real().accept4(fd, address, size, flags);
    if (accepted >= 0 && taken.shim != nullptr) {
      taken.shim->account().Passed(accepted, "accepted by the kernel");
    }
    return accepted;
  }
  return Answer(Accept(taken, fd, address, size, flags));
}
int accept(int fd, sockaddr* address, socklen_t* size) {
  return accept4(fd, address, size, 0);
}

int shutdown(int fd, int how) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().shutdown(fd, how);
  const std::lock_guard lock(taken.shim->mutex);
  const int64_t result = taken.socket->Shutdown(how);
  taken.shim->Push();
  return Answer(result);
}

int getsockname(int fd, sockaddr* address, socklen_t* size) {
  const Taken taken(fd);
  if (taken) return FromEndpoint(taken.socket->local(), address, size), 0;
  if (taken.shim != nullptr) {
    if (const auto bound = taken.shim->BoundTo(fd)) {
      return FromEndpoint(*bound, address, size), 0;
    }
  }
  return real().getsockname(fd, address, size);
}
int getpeername(int fd, sockaddr* address, socklen_t* size) {
  const Taken taken(fd);
  if (!taken) return real().getpeername(fd, address, size);
  if (taken.socket->is_listener()) return Answer(-ENOTCONN);
  return FromEndpoint(taken.socket->remote(), address, size), 0;
}
}  // extern "C"
