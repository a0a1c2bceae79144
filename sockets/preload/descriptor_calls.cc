// The C ABI: descriptors. close, close_range, dup, fcntl, ioctl, epoll_ctl.
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdarg.h>

#include <algorithm>

#include "sockets/preload/call.h"
#include "sockets/preload/netlink_calls.h"
#include "sockets/preload/user_memory.h"

namespace devwire::preload {
namespace {

// The last descriptor is gone. SO_LINGER: waits without the lock until the peer
// has everything, or a signal comes, which is not told: tcp_close() of Linux.
void EndSocket(Shim& shim, TakenSocket& socket) {
  const std::optional<Duration> linger = socket.kernel()->options().Linger();
  if (linger && *linger > Duration() && !socket.is_listener()) {
    constexpr Duration kLook = 1_ms;  // No event says that it is through.
    const MonotonicClock clock;
    const Instant until = clock.Now() + *linger;
    while (clock.Now() < until) {
      uint32_t seen;
      {
        const std::lock_guard lock(shim.mutex);
        seen = socket.waiting().value();
        socket.CloseSend();
        shim.Push();
        if (socket.IsThrough() || socket.BytesReadable() > 0) break;
      }
      if (socket.waiting().Wait(seen, kLook) == EINTR) break;
    }
  }
  const std::lock_guard lock(shim.mutex);
  const bool resets = linger && *linger == Duration();
  socket.Close(resets ? linger : std::nullopt);
  shim.Push();
}

// Leaves errno as it was, unless the call says otherwise.
class ErrnoGuard {
 public:
  ~ErrnoGuard() { errno = kept_; }
  // What the system call answered.
  int Of(int result) {
    if (result < 0) kept_ = errno;
    return result;
  }

 private:
  int kept_ = errno;
};

// `fd` is not there any more, or another's.
void Drop(Shim& shim, int fd) {
  if (shim.is_in_child()) return shim.ForgetInChild(fd);
  shim.account().Closed(fd);
  if (const auto last = shim.table.Remove(fd)) EndSocket(shim, *last);
}

// Null: `fd` is none of ours, or the call is not this process's.
Shim* ShimOf(int fd) {
  Shim* const shim = Shim::Get();
  if (shim == nullptr || shim->table.state(fd) == FdTable::State::kOther ||
      shim->IsAnothersCall()) {
    return nullptr;
  }
  return shim;
}

// The same of a socket of generic netlink, whose end ends bindings.
void DropNetlink(int fd) {
  Shim* const shim = Shim::Get();
  if (IsNetlink(shim, fd) && !shim->IsAnothersCall()) shim->netlink().Close(fd);
}

// `copy` is another descriptor of `fd`, or an error.
int WithNetlink(int copy, int fd) {
  Shim* const shim = Shim::Get();
  if (copy >= 0 && IsNetlink(shim, fd) && !shim->IsAnothersCall()) {
    shim->netlink().Alias(copy, fd);
  }
  return copy;
}

int64_t Ioctl(Taken& taken, int fd, unsigned long request, void* argument) {
  TakenSocket& socket = *taken.socket;
  if (request == FIOCLEX || request == FIONCLEX) {
    taken.shim->table.SetClosesOnExec(fd, request == FIOCLEX);
    return 0;
  }
  uint64_t answer = 0;
  {
    const std::lock_guard lock(taken.shim->mutex);
    if (request == SIOCATMARK) {
      answer = socket.IsAtMark() ? 1 : 0;
    } else if (socket.is_listener()) {
      return -EINVAL;
    } else if (request == FIONREAD) {
      answer = socket.TellBytesReadable();
    } else if (request == SIOCOUTQNSD) {
      answer = socket.BytesNeverSent();
    } else {
      answer = socket.BytesUnsent();
    }
  }
  const int out = static_cast<int>(std::min<uint64_t>(answer, INT32_MAX));
  return CopyOut(argument, &out, sizeof(out)) ? 0 : -EFAULT;
}

bool IsOurIoctl(unsigned long request) {
  return request == FIOCLEX || request == FIONCLEX || request == FIONREAD ||
         request == TIOCOUTQ || request == SIOCATMARK || request == SIOCOUTQNSD;
}

// Of a taken socket: see FdTable.
int64_t FcntlTaken(Taken& taken, int fd, int command, void* argument) {
  FdTable& table = taken.shim->table;
  const auto value = reinterpret_cast<intptr_t>(argument);
  if (command == F_GETFD) return table.ClosesOnExec(fd) ? FD_CLOEXEC : 0;
  if (command == F_SETFD) {
    table.SetClosesOnExec(fd, (value & FD_CLOEXEC) != 0);
    return 0;
  }
  const int copy = real().fcntl(fd, F_DUPFD_CLOEXEC, argument);
  if (copy < 0) return -errno;
  table.Alias(copy, fd, command == F_DUPFD_CLOEXEC);
  return copy;
}

int Fcntl(int fd, int command, void* argument) {
  const bool is_ours = command == F_GETFD || command == F_SETFD ||
                       command == F_DUPFD || command == F_DUPFD_CLOEXEC;
  Shim* const shim = is_ours ? ShimOf(fd) : nullptr;
  if (shim == nullptr) {
    const int result = real().fcntl(fd, command, argument);
    const bool copies = command == F_DUPFD || command == F_DUPFD_CLOEXEC;
    return copies ? WithNetlink(result, fd) : result;
  }
  if (Taken taken(fd); taken) {
    return Answer(FcntlTaken(taken, fd, command, argument));
  }
  const int result = real().fcntl(fd, command, argument);
  if (result >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC)) {
    shim->table.Alias(result, fd, false);
  }
  return result;
}

}  // namespace
}  // namespace devwire::preload

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

int close(int fd) {
  DropNetlink(fd);
  Shim* const shim = ShimOf(fd);
  if (shim == nullptr) return real().close(fd);
  ErrnoGuard guard;
  // First the number: it may be another's as soon as it is closed.
  if (shim->is_in_child()) {
    shim->ForgetInChild(fd);
    return guard.Of(real().close(fd));
  }
  shim->account().Closed(fd);
  const auto last = shim->table.Remove(fd);
  const int result = guard.Of(real().close(fd));
  if (last != nullptr) EndSocket(*shim, *last);
  return result;
}

int close_range(unsigned first, unsigned last, int flags) noexcept {
  Shim* const shim = Shim::Get();
  ErrnoGuard guard;
  const int result = guard.Of(real().close_range(first, last, flags));
  if (result != 0 || shim == nullptr || shim->IsAnothersCall()) return result;
  if ((flags & static_cast<int>(CLOSE_RANGE_CLOEXEC)) == 0 &&
      !shim->is_in_child()) {
    shim->netlink().CloseBetween(first, last);
  }
  for (const int fd : shim->table.Between(first, last)) {
    if ((flags & static_cast<int>(CLOSE_RANGE_CLOEXEC)) != 0) {
      shim->table.SetClosesOnExec(fd, true);
    } else {
      Drop(*shim, fd);
    }
  }
  return result;
}
void closefrom(int first) noexcept {
  close_range(static_cast<unsigned>(std::max(first, 0)), ~0u, 0);
}

int dup(int fd) noexcept {
  Shim* const shim = ShimOf(fd);
  if (shim == nullptr) return WithNetlink(real().dup(fd), fd);
  return Fcntl(fd, F_DUPFD, nullptr);
}
int dup3(int fd, int to, int flags) noexcept {
  Shim* const shim = Shim::Get();
  if (shim == nullptr || fd == to ||
      (shim->table.state(fd) == FdTable::State::kOther &&
       shim->table.state(to) == FdTable::State::kOther) ||
      shim->IsAnothersCall()) {
    const int copy = real().dup3(fd, to, flags);
    if (copy >= 0 && fd != to) DropNetlink(to);
    return WithNetlink(copy, fd);
  }
  const bool is_taken = shim->table.state(fd) == FdTable::State::kTaken;
  ErrnoGuard guard;
  const int copy =
      guard.Of(real().dup3(fd, to, is_taken ? flags | O_CLOEXEC : flags));
  if (copy < 0) return copy;
  // What was there is closed without a word from the kernel's side.
  Drop(*shim, to);
  DropNetlink(to);
  shim->table.Alias(copy, fd, (flags & O_CLOEXEC) != 0);
  return copy;
}
int dup2(int fd, int to) noexcept {
  return fd == to ? real().dup2(fd, to) : dup3(fd, to, 0);
}

int fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  return Fcntl(fd, command, argument);
}
int fcntl64(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  return Fcntl(fd, command, argument);
}

int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  if (!IsOurIoctl(request)) return real().ioctl(fd, request, argument);
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().ioctl(fd, request, argument);
  return Answer(Ioctl(taken, fd, request, argument));
}

int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  Shim* const shim = ShimOf(fd);
  const int result = real().epoll_ctl(epoll, operation, fd, event);
  if (result == 0 && shim != nullptr && !shim->is_in_child()) {
    shim->table.OnEpollControl(epoll, operation, fd, event);
  }
  return result;
}

}  // extern "C"
