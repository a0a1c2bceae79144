// The C ABI: a connection begins and ends, and who its ends are. socket, bind,
// listen, connect, accept, shutdown, getsockname, getpeername.
#include <linux/netlink.h>
#include <netinet/in.h>

#include "sockets/preload/call.h"
#include "sockets/preload/option_effects.h"
#include "sockets/preload/sockaddr.h"
#include "sockets/preload/take.h"
#include "sockets/preload/user_memory.h"

namespace devwire::preload {
namespace {

// What a socket is that is not TCP's, in words.
const char* KindOf(int domain, int type) {
  if (domain == AF_UNIX) return "a UNIX socket";
  if (domain == AF_NETLINK) return "a netlink socket";
  if (domain != AF_INET && domain != AF_INET6) return "of another family";
  return (type & 0xf) == SOCK_DGRAM ? "a datagram socket" : "not of TCP";
}

// A socket of this family can have, or reach, such an address: IPv4 through
// IPv6 only when it is not IPV6_V6ONLY. (The kernel has the errno otherwise.)
bool Suits(const KernelSocket& kernel, const IpAddress& ip) {
  return kernel.family() == AF_INET || !ip.is_v4() ||
         kernel.options().Int(IPPROTO_IPV6, IPV6_V6ONLY, 0) == 0;
}

// "Any address" of this socket includes the device's.
bool AnyIsOurs(const Shim& shim, const KernelSocket& kernel) {
  const IpAddress& own = shim.config().stack.address;
  if (kernel.family() == AF_INET) return own.is_v4();
  return Suits(kernel, own);
}

// SO_BINDTODEVICE names an interface of the kernel's, and not the one that
// stands for ours (Shim::IsOurInterface).
bool IsOfADevice(Shim& shim, const KernelSocket& kernel) {
  const SocketOptions set = kernel.options();
  const auto* const device = set.Find(SOL_SOCKET, SO_BINDTODEVICE);
  if (device == nullptr || device->value.empty() || device->value[0] == 0) {
    return false;
  }
  return !shim.IsOurInterface(device->value.c_str());
}

bool IsUnspecified(const sockaddr* address, socklen_t size) {
  sa_family_t family = AF_MAX;
  return size >= sizeof(family) && CopyIn(&family, address, sizeof(family)) &&
         family == AF_UNSPEC;
}

int64_t ConnectTaken(Taken& taken, int fd, const sockaddr* address,
                     socklen_t size) {
  if (size < sizeof(sa_family_t)) return -EINVAL;
  if (IsUnspecified(address, size)) {  // Ends the association: connect(2).
    const std::lock_guard lock(taken.shim->mutex);
    return GiveBack(*taken.shim, *taken.socket);
  }
  if (taken.socket->is_listener()) return -EISCONN;
  return ConnectAgain(taken, fd);
}

int64_t ShutDownTaken(Taken& taken, int how) {
  const std::lock_guard lock(taken.shim->mutex);
  TakenSocket& socket = *taken.socket;
  if (how < SHUT_RD || how > SHUT_RDWR) return -EINVAL;
  // inet_shutdown() of Linux: these two are disconnected.
  if (socket.is_listener() && how == SHUT_WR) return 0;
  if (socket.is_listener() || socket.is_connecting()) {
    return GiveBack(*taken.shim, socket);
  }
  const int64_t result = socket.Shutdown(how);
  taken.shim->Push();
  return result;
}

}  // namespace
}  // namespace devwire::preload

using namespace devwire::preload;  // NOLINT: this file is the C ABI
using devwire::Duration;
using devwire::Endpoint;
using devwire::IpAddress;

extern "C" {

int socket(int domain, int type, int protocol) {
  const int fd = real().socket(domain, type, protocol);
  Shim* const shim = fd < 0 ? nullptr : Shim::Get();
  if (shim == nullptr) return fd;
  if ((domain != AF_INET && domain != AF_INET6) ||
      (type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) != SOCK_STREAM ||
      (protocol != 0 && protocol != IPPROTO_TCP)) {
    shim->account().Passed(fd, KindOf(domain, type));
    if (domain == AF_NETLINK && protocol == NETLINK_GENERIC) {
      shim->netlink().Add(fd);
    }
    return fd;
  }
  shim->account().Made(fd);
  (void)shim->table.Insert(fd, std::make_shared<KernelSocket>(domain), nullptr,
                           (type & SOCK_CLOEXEC) != 0);
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
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (taken) return Answer(-EINVAL);  // It has a name.
  Shim* const shim = taken.shim;
  const auto kernel = shim == nullptr ? nullptr : shim->FindCandidate(fd);
  if (kernel == nullptr) return real().bind(fd, address, size);
  const auto name = ToEndpoint(address, size, kernel->family());
  const bool is_any = name && IsAny(name->ip) && AnyIsOurs(*shim, *kernel);
  const bool is_ours = name && name->ip == shim->config().stack.address &&
                       Suits(*kernel, name->ip);
  if (!is_any && !is_ours) {
    const int result = real().bind(fd, address, size);
    if (result == 0) kernel->BindElsewhere();
    return result;
  }
  return Answer(BindCandidate(*shim, fd, *kernel, *name));
}

int listen(int fd, int backlog) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (taken) return taken.socket->is_listener() ? 0 : Answer(-EINVAL);
  Shim* const shim = taken.shim;
  const auto kernel = shim == nullptr ? nullptr : shim->FindCandidate(fd);
  if (kernel == nullptr) return real().listen(fd, backlog);
  std::optional<Endpoint> local = kernel->bound();
  if (!local && !kernel->is_bound_elsewhere()) {  // Or by another process.
    sockaddr_storage storage = {};
    socklen_t size = sizeof(storage);
    auto* const address = reinterpret_cast<sockaddr*>(&storage);
    if (real().getsockname(fd, address, &size) == 0) {
      local = ToEndpoint(address, size, kernel->family());
    }
  }
  const Endpoint name = local.value_or(Endpoint());
  if (!local) {
    shim->account().Passed(fd, "bound to an address of the kernel's");
  } else if (IsOfADevice(*shim, *kernel)) {
    shim->account().Passed(fd, "bound to a device of the kernel's");
  } else if (HasLacking(kernel->options())) {
    shim->account().Passed(fd, "an option was set that Devwire lacks");
  } else if (IsAny(name.ip) && !AnyIsOurs(*shim, *kernel)) {
    shim->account().Passed(fd, "of another family than the device's address");
  } else if (shim->Takes(fd, Direction::kListen, name)) {
    return Answer(TakeListener(*shim, fd, kernel, name, backlog));
  }
  // What we only noted is the kernel's to refuse.
  if (local && !IsAny(name.ip) && kernel->bound() &&
      BindInKernel(fd, *kernel, name) != 0) {
    return -1;
  }
  const int result = real().listen(fd, backlog);
  if (result == 0) shim->table.Forget(*kernel);
  return result;
}

int connect(int fd, const sockaddr* address, socklen_t size) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (taken) return Answer(ConnectTaken(taken, fd, address, size));
  Shim* const shim = taken.shim;
  const auto kernel = shim == nullptr ? nullptr : shim->FindCandidate(fd);
  if (kernel == nullptr) return real().connect(fd, address, size);
  const auto remote = ToEndpoint(address, size, kernel->family());
  const char* why = nullptr;
  if (!remote || !Suits(*kernel, remote->ip)) {
    why = "no address of its family";
  } else if (kernel->is_bound_elsewhere()) {
    why = "bound to an address of the kernel's";
  } else if (IsOfADevice(*shim, *kernel)) {
    why = "bound to a device of the kernel's";
  } else if (HasLacking(kernel->options())) {
    why = "an option was set that Devwire lacks";
  }
  if (why == nullptr && shim->Takes(fd, Direction::kConnect, *remote)) {
    return Answer(TakeConnection(*shim, fd, kernel, *remote));
  }
  if (why != nullptr) shim->account().Passed(fd, why);
  const int result = real().connect(fd, address, size);
  if (result == 0 || errno == EINPROGRESS) shim->table.Forget(*kernel);
  return result;
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
  Endpoint remote;
  const int64_t made = AcceptOne(taken, fd, flags, &remote);
  if (made < 0 || address == nullptr) return Answer(made);
  const int64_t result =
      FromEndpoint(remote, taken.socket->kernel()->family(), address, size);
  if (result == 0) return static_cast<int>(made);
  if (const auto last = taken.shim->table.Remove(static_cast<int>(made))) {
    const std::lock_guard lock(taken.shim->mutex);
    last->Close(Duration());
  }
  real().close(static_cast<int>(made));
  return Answer(result);
}
int accept(int fd, sockaddr* address, socklen_t* size) {
  return accept4(fd, address, size, 0);
}

int shutdown(int fd, int how) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().shutdown(fd, how);
  return Answer(ShutDownTaken(taken, how));
}

int getsockname(int fd, sockaddr* address, socklen_t* size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  const auto kernel =
      taken.shim == nullptr ? nullptr : taken.shim->table.FindKernel(fd);
  std::optional<Endpoint> name;
  if (taken && !taken.socket->is_listener()) name = taken.socket->local();
  if (!name && kernel != nullptr) name = kernel->bound();
  if (!name) return real().getsockname(fd, address, size);
  return Answer(FromEndpoint(*name, kernel->family(), address, size));
}
int getpeername(int fd, sockaddr* address, socklen_t* size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().getpeername(fd, address, size);
  {
    const std::lock_guard lock(taken.shim->mutex);
    if (!taken.socket->HasPeer()) return Answer(-ENOTCONN);
  }
  return Answer(FromEndpoint(taken.socket->remote(),
                             taken.socket->kernel()->family(), address, size));
}

}  // extern "C"
