#include "sockets/preload/take.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <utility>

#include "sockets/errno_map.h"
#include "sockets/preload/option_effects.h"
#include "sockets/preload/sockaddr.h"

namespace devwire::preload {
namespace {

// How often another port is tried when the kernel has what we chose.
constexpr int kPortTries = 64;

// Hands the socket to the application's descriptors.
int64_t Adopt(Shim& shim, const std::shared_ptr<TakenSocket>& socket, int fd,
              int made) {
  ApplyTimeouts(socket->kernel()->options(), made);
  if (int64_t e = shim.Follow(*socket, fd, false); e != 0) {
    real().close(made);
    return e;
  }
  return shim.table.Replace(socket->kernel(), socket, made);
}

// What Linux says of an address that is no host's.
int64_t ErrnoOfConnect(const absl::Status& status, const Endpoint& remote) {
  const int error = ErrnoOf(status);
  // The port, or all ports, have a connection to it: inet_hash_connect().
  if (error == EADDRINUSE) return -EADDRNOTAVAIL;
  if (error != EADDRNOTAVAIL) return -error;
  return remote.port == Port{} ? -ECONNREFUSED : -ENETUNREACH;
}

}  // namespace

int64_t BindInKernel(int fd, const KernelSocket& kernel, const Endpoint& name) {
  sockaddr_storage storage = {};
  socklen_t size = sizeof(storage);
  auto* const address = reinterpret_cast<sockaddr*>(&storage);
  FromEndpoint(name, kernel.family(), address, &size);
  return real().bind(fd, address, size) == 0 ? 0 : -errno;
}

int64_t BindCandidate(Shim& shim, int fd, KernelSocket& kernel,
                      const Endpoint& name) {
  if (kernel.bound() || kernel.is_bound_elsewhere()) return -EINVAL;
  const SocketOptions options = kernel.options();
  const bool reuses_address = options.Int(SOL_SOCKET, SO_REUSEADDR, 0) != 0;
  const bool reuses_port = options.Int(SOL_SOCKET, SO_REUSEPORT, 0) != 0;
  for (int i = 0; i < kPortTries; ++i) {
    auto claim = shim.ports.Claim(name.port, reuses_address, reuses_port);
    if (claim == nullptr) return -EADDRINUSE;
    const Endpoint bound = {name.ip, claim->port};
    const int64_t result = IsAny(name.ip) ? BindInKernel(fd, kernel, bound) : 0;
    if (result == 0) {
      kernel.Bind(bound, std::move(claim));
      return 0;
    }
    if (result != -EADDRINUSE || name.port != Port{}) return result;
  }
  return -EADDRINUSE;
}

int64_t TakeConnection(Shim& shim, int fd,
                       const std::shared_ptr<KernelSocket>& kernel,
                       const Endpoint& remote) {
  std::shared_ptr<TakenSocket> socket;
  {
    const std::lock_guard lock(shim.mutex);
    Stack* const stack = shim.OpenStack();
    if (stack == nullptr) return -ENETDOWN;
    const SocketOptions set = kernel->options();
    ConnectOptions options;
    options.knobs = KnobsOf(set, shim.option_defaults());
    if (const auto bound = kernel->bound()) options.local_port = bound->port;
    const auto binding = shim.BindingFor(Direction::kConnect, remote);
    if (binding != nullptr) options.memory = binding->pool;
    auto stream = stack->StartConnect(remote, options);
    if (!stream.ok()) return ErrnoOfConnect(stream.status(), remote);
    ApplyOptions(set, shim.option_defaults(), **stream);
    int made = -1;
    if (int64_t e =
            TakenSocket::Make(*std::move(stream), kernel, &socket, &made);
        e != 0) {
      return e;
    }
    socket->SetBinding(binding);
    if (int64_t e = Adopt(shim, socket, fd, made); e != 0) return e;
    shim.Push();
  }
  // Also when the answer is there already: as connect(2) of Linux.
  if (IsNonblocking(fd, 0)) return -EINPROGRESS;
  Taken taken(fd);
  if (!taken) return -EBADF;  // Closed meanwhile.
  const int64_t result = ConnectAgain(taken, fd);
  return result == -EALREADY ? -EINPROGRESS : result;
}

int64_t ConnectAgain(Taken& taken, int fd) {
  TakenSocket& socket = *taken.socket;
  Shim& shim = *taken.shim;
  const int64_t result = Blocking(shim, fd, socket, SO_SNDTIMEO, 0, [&] {
    const int64_t r = socket.ConnectAgain();
    return r == -EALREADY ? -EAGAIN : r;
  });
  if (result == -EAGAIN) return -EALREADY;
  if (!socket.is_refused()) return result;
  const std::lock_guard lock(shim.mutex);
  (void)GiveBack(shim, socket);
  return result;
}

int64_t TakeListener(Shim& shim, int fd,
                     const std::shared_ptr<KernelSocket>& kernel,
                     Endpoint local, int backlog) {
  const std::lock_guard lock(shim.mutex);
  Stack* const stack = shim.OpenStack();
  if (stack == nullptr) return -ENETDOWN;
  local.ip = shim.config().stack.address;
  const SocketOptions set = kernel->options();
  ListenOptions options;
  constexpr int kMost = 4096;  // Linux's net.core.somaxconn.
  options.backlog = static_cast<uint32_t>(
      backlog < 0 ? kMost : std::clamp(backlog, 1, kMost));
  options.knobs = KnobsOf(set, shim.option_defaults());
  options.reuse_port = set.Int(SOL_SOCKET, SO_REUSEPORT, 0) != 0;
  auto binding = shim.BindingFor(Direction::kListen, local);
  if (binding != nullptr) options.memory = binding->pool;
  auto listener = stack->Listen(local, options);
  if (!listener.ok()) return -ErrnoOf(listener.status());
  (void)(*listener)->SetDeferAccept(DeferAcceptOf(set));
  if (!kernel->bound()) {  // listen(2) has chosen a port.
    const Port port = (*listener)->local().port;
    kernel->Bind({IpAddress(), port}, shim.ports.Claim(port, false, false));
  }
  if (const auto claim = kernel->claim()) claim->is_listening = true;
  std::shared_ptr<TakenSocket> socket;
  int made = -1;
  if (int64_t e =
          TakenSocket::Make(*std::move(listener), kernel, &socket, &made);
      e != 0) {
    return e;
  }
  socket->SetBinding(std::move(binding));
  return Adopt(shim, socket, fd, made);
}

int64_t AcceptOne(Taken& taken, int fd, int flags, Endpoint* remote) {
  if (!taken.socket->is_listener()) return -EINVAL;
  if ((flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) != 0) return -EINVAL;
  Shim& shim = *taken.shim;
  TakenSocket& listener = *taken.socket;
  return Blocking(shim, fd, listener, SO_RCVTIMEO, 0, [&]() -> int64_t {
    std::unique_ptr<Stream> stream;
    if (int64_t e = listener.Accept(&stream); e != 0) return e;
    auto kernel = listener.kernel()->Accepted(shim.ports);
    ApplyOptions(kernel->options(), shim.option_defaults(), *stream);
    std::shared_ptr<TakenSocket> socket;
    int made = -1;
    if (int64_t e =
            TakenSocket::Make(std::move(stream), kernel, &socket, &made);
        e != 0) {
      return e;
    }
    socket->SetBinding(listener.binding());
    (void)socket->ConnectAgain();
    ApplyTimeouts(kernel->options(), made);
    if ((flags & SOCK_NONBLOCK) != 0) real().fcntl(made, F_SETFL, O_NONBLOCK);
    *remote = socket->remote();
    int64_t e = shim.Follow(*socket, made, true);
    if (e == 0) {
      e = shim.table.Insert(made, std::move(kernel), std::move(socket),
                            (flags & SOCK_CLOEXEC) != 0);
    }
    if (e == 0) return made;
    real().close(made);
    return e;
  });
}

int64_t GiveBack(Shim& shim, TakenSocket& socket) {
  const int64_t made = socket.kernel()->MakeAgain();
  if (made < 0) return made;
  if (const auto claim = socket.kernel()->claim()) claim->is_listening = false;
  // Its descriptors first: what waits on the old ones wakes up and asks again.
  const int64_t result =
      shim.table.Replace(socket.kernel(), nullptr, static_cast<int>(made));
  socket.Close(Duration());
  shim.Push();
  return result;
}

}  // namespace devwire::preload
