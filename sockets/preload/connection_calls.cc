// The C ABI: a connection begins and ends, and who its ends are. bind, listen,
// connect, accept, shutdown, getsockname, getpeername.
#include <netinet/in.h>

#include <algorithm>

#include "sockets/errno_map.h"
#include "sockets/preload/call.h"
#include "sockets/preload/sockaddr.h"

namespace devwire::preload {
namespace {

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
  if (shim == nullptr || !shim->config().take_listen || !IsTcp(fd)) {
    return real().listen(fd, backlog);
  }
  std::optional<Endpoint> local = shim->BoundTo(fd);
  if (!local) {
    sockaddr_storage storage = {};
    socklen_t size = sizeof(storage);
    auto* const address = reinterpret_cast<sockaddr*>(&storage);
    if (real().getsockname(fd, address, &size) == 0) {
      local = ToEndpoint(address, size);
    }
    if (!local || !IsAny(local->ip)) return real().listen(fd, backlog);
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
  if (taken.shim == nullptr || !taken.shim->config().take_connect || !remote ||
      !taken.shim->IsReachable(remote->ip) || !IsTcp(fd)) {
    return real().connect(fd, address, size);
  }
  return Answer(TakeConnection(*taken.shim, fd, *remote));
}

int accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().accept4(fd, address, size, flags);
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
