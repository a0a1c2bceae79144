// The C ABI: descriptors. close, dup, fcntl, ioctl.
#include <netinet/in.h>
#include <stdarg.h>

#include <algorithm>
#include <cstring>

#include "sockets/preload/call.h"

namespace devwire::preload {
namespace {

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

}  // namespace
}  // namespace devwire::preload

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

int close(int fd) {
  const Taken taken(fd);
  if (taken.shim != nullptr) {
    taken.shim->Unbind(fd);
    taken.shim->account().Closed(fd);
  }
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
  return Answer(real().close(fd) == 0 ? 0 : -errno);
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
}  // extern "C"
