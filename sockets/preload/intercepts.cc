// The C ABI: each function does for a taken socket what socket(7), tcp(7) and
// the call's own man page say, and passes every other descriptor to libc.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "sockets/errno_map.h"
#include "sockets/preload/real_libc.h"
#include "sockets/preload/shim.h"
#include "sockets/preload/sockaddr.h"

namespace devwire::preload {
namespace {

int Answer(int64_t result) {
  if (result >= 0) return static_cast<int>(result);
  errno = static_cast<int>(-result);
  return -1;
}
ssize_t AnswerSize(int64_t result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

bool IsTcp(int fd) {
  int protocol = 0;
  socklen_t size = sizeof(protocol);
  return real().getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) ==
             0 &&
         protocol == IPPROTO_TCP;
}

// -- waiting ------------------------------------------------------------------

bool IsNonblocking(int fd, int flags) {
  return (flags & MSG_DONTWAIT) != 0 ||
         (real().fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

// Milliseconds of SO_RCVTIMEO or SO_SNDTIMEO; -1: none. They lie on the
// descriptor itself, which is a socket.
int TimeoutOf(int fd, int option) {
  timeval t = {};
  socklen_t size = sizeof(t);
  if (real().getsockopt(fd, SOL_SOCKET, option, &t, &size) != 0) return -1;
  const int64_t ms = t.tv_sec * int64_t{1000} + (t.tv_usec + 999) / 1000;
  return ms == 0 ? -1 : static_cast<int>(std::min<int64_t>(ms, INT32_MAX));
}

// Calls `step` (with the lock) until it is not -EAGAIN; sleeps in between.
template <typename F>
int64_t Blocking(Shim& shim, int fd, short events, int flags, F&& step) {
  while (true) {
    int64_t result;
    {
      const std::lock_guard lock(shim.mutex);
      result = step();
      shim.Push();
    }
    if (result != -EAGAIN || IsNonblocking(fd, flags)) return result;
    pollfd wait = {fd, events, 0};
    const int option = events == POLLIN ? SO_RCVTIMEO : SO_SNDTIMEO;
    const int woken = real().poll(&wait, 1, TimeoutOf(fd, option));
    if (woken < 0) return -errno;
    if (woken == 0) return -EAGAIN;
  }
}

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

// SO_LINGER lies on the descriptor itself.
std::optional<devwire::Duration> LingerOf(int fd) {
  linger l = {};
  socklen_t size = sizeof(l);
  if (real().getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &size) != 0 ||
      l.l_onoff == 0) {
    return std::nullopt;
  }
  return devwire::Duration::Nanoseconds(l.l_linger * int64_t{1'000'000'000});
}

// The taken socket of `fd`, and the shim.
struct Taken {
  explicit Taken(int fd) : shim(Shim::Get()) {
    if (shim != nullptr) socket = shim->Find(fd);
  }
  explicit operator bool() const { return socket != nullptr; }
  // Not ours, though it looks like it: see Shim::IsParents.
  bool is_parents(int fd) const {
    return shim != nullptr && shim->IsParents(fd);
  }
  Shim* const shim;
  std::shared_ptr<TakenSocket> socket;
};

iovec One(const void* data, size_t size) {
  return {const_cast<void*>(data), size};
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
using devwire::Endpoint;
using devwire::Port;

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

int close(int fd) {
  const Taken taken(fd);
  if (taken.shim != nullptr) taken.shim->Unbind(fd);
  if (!taken) {
    if (taken.shim != nullptr) taken.shim->ForgetInChild(fd);
    return real().close(fd);
  }
  {
    const std::lock_guard lock(taken.shim->mutex);
    if (const auto last = taken.shim->Remove(fd); last != nullptr) {
      last->Close(LingerOf(fd));
      taken.shim->Push();
    }
  }
  return real().close(fd);
}

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().recvmsg(fd, message, flags);
  message->msg_namelen = 0;
  message->msg_controllen = 0;
  message->msg_flags = 0;
  return AnswerSize(Receive(*taken.shim, fd, *taken.socket,
                            {message->msg_iov, message->msg_iovlen}, flags));
}
ssize_t recvfrom(int fd, void* data, size_t size, int flags, sockaddr* address,
                 socklen_t* address_size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) {
    return real().recvfrom(fd, data, size, flags, address, address_size);
  }
  if (address_size != nullptr) *address_size = 0;
  const iovec one = One(data, size);
  return AnswerSize(Receive(*taken.shim, fd, *taken.socket, {&one, 1}, flags));
}
ssize_t recv(int fd, void* data, size_t size, int flags) {
  return recvfrom(fd, data, size, flags, nullptr, nullptr);
}
ssize_t read(int fd, void* data, size_t size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().read(fd, data, size);
  const iovec one = One(data, size);
  return AnswerSize(Receive(*taken.shim, fd, *taken.socket, {&one, 1}, 0));
}
ssize_t readv(int fd, const iovec* v, int count) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().readv(fd, v, count);
  return AnswerSize(Receive(*taken.shim, fd, *taken.socket,
                            {v, static_cast<size_t>(count)}, 0));
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().sendmsg(fd, message, flags);
  return AnswerSize(Send(*taken.shim, fd, *taken.socket,
                         {message->msg_iov, message->msg_iovlen}, flags));
}
ssize_t sendto(int fd, const void* data, size_t size, int flags,
               const sockaddr* address, socklen_t address_size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken)
    return real().sendto(fd, data, size, flags, address, address_size);
  const iovec one = One(data, size);
  return AnswerSize(Send(*taken.shim, fd, *taken.socket, {&one, 1}, flags));
}
ssize_t send(int fd, const void* data, size_t size, int flags) {
  return sendto(fd, data, size, flags, nullptr, 0);
}
ssize_t write(int fd, const void* data, size_t size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().write(fd, data, size);
  const iovec one = One(data, size);
  return AnswerSize(Send(*taken.shim, fd, *taken.socket, {&one, 1}, 0));
}
ssize_t writev(int fd, const iovec* v, int count) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().writev(fd, v, count);
  return AnswerSize(
      Send(*taken.shim, fd, *taken.socket, {v, static_cast<size_t>(count)}, 0));
}

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

int dup(int fd) {
  const Taken taken(fd);
  const int copy = real().dup(fd);
  if (taken && copy >= 0) taken.shim->Alias(copy, fd);
  return copy;
}
int dup3(int fd, int to, int flags) {
  const Taken taken(fd);
  if (taken.shim == nullptr || fd == to) return real().dup3(fd, to, flags);
  // What was there is closed without a word from the kernel's side.
  if (const Taken old(to); old) close(to);
  taken.shim->ForgetInChild(to);
  taken.shim->Unbind(to);
  const int copy = real().dup3(fd, to, flags);
  if (taken && copy >= 0) taken.shim->Alias(copy, fd);
  return copy;
}
int dup2(int fd, int to) {
  return fd == to ? real().dup2(fd, to) : dup3(fd, to, 0);
}

int fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  const int result = real().fcntl(fd, command, argument);
  if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0) {
    if (const Taken taken(fd); taken) taken.shim->Alias(result, fd);
  }
  return result;
}
int fcntl64(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  return fcntl(fd, command, argument);
}

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  const Taken taken(fd);
  if (!taken || (request != FIONREAD && request != TIOCOUTQ)) {
    return real().ioctl(fd, request, argument);
  }
  if (taken.socket->is_listener()) return Answer(-EINVAL);
  const std::lock_guard lock(taken.shim->mutex);
  const uint64_t bytes = request == FIONREAD ? taken.socket->BytesReadable()
                                             : taken.socket->BytesUnsent();
  const int answer = static_cast<int>(std::min<uint64_t>(bytes, INT32_MAX));
  memcpy(argument, &answer, sizeof(answer));
  return 0;
}

ssize_t sendfile(int out, int in, off_t* offset, size_t size) {
  const Taken taken(out);
  if (!taken) return real().sendfile(out, in, offset, size);
  char bytes[64 << 10];
  const size_t wanted = std::min(size, sizeof(bytes));
  const ssize_t got = offset != nullptr ? pread(in, bytes, wanted, *offset)
                                        : real().read(in, bytes, wanted);
  if (got <= 0) return got;
  const iovec one = One(bytes, static_cast<size_t>(got));
  const int64_t sent = Send(*taken.shim, out, *taken.socket, {&one, 1}, 0);
  const int64_t unsent = got - std::max<int64_t>(sent, 0);
  if (offset != nullptr) {
    *offset += got - unsent;
  } else if (unsent > 0) {
    lseek(in, -unsent, SEEK_CUR);
  }
  return AnswerSize(sent);
}
ssize_t sendfile64(int out, int in, off_t* offset, size_t size) {
  return sendfile(out, in, offset, size);
}

// What a compiler makes of the calls above when it knows the buffer's size
// (_FORTIFY_SOURCE). The check is libc's; ours would be the same.
ssize_t __read_chk(int fd, void* data, size_t size, size_t room) {
  if (size > room) abort();
  return read(fd, data, size);
}
ssize_t __recv_chk(int fd, void* data, size_t size, size_t room, int flags) {
  if (size > room) abort();
  return recv(fd, data, size, flags);
}
ssize_t __recvfrom_chk(int fd, void* data, size_t size, size_t room, int flags,
                       sockaddr* address, socklen_t* address_size) {
  if (size > room) abort();
  return recvfrom(fd, data, size, flags, address, address_size);
}

}  // extern "C"
