// The C ABI: data. read, write, and what a compiler makes of them.
#include <limits.h>
#include <stdlib.h>

#include <algorithm>

#include "sockets/preload/call.h"
#include "sockets/preload/netlink_calls.h"
#include "sockets/preload/transfer.h"
#include "sockets/preload/user_memory.h"

namespace devwire::preload {
namespace {

// The most that Linux moves in one call: MAX_RW_COUNT.
constexpr size_t kMostBytes = INT_MAX & ~size_t{4095};

int64_t ReceiveOne(Taken& taken, int fd, void* data, size_t size, int flags) {
  const bool writes = (flags & MSG_TRUNC) == 0;
  if (size > SSIZE_MAX || (writes && IsPlainlyBad(data, size))) return -EFAULT;
  const iovec one = One(data, std::min(size, kMostBytes));
  return Receive(*taken.shim, fd, *taken.socket, {&one, 1}, flags);
}

int64_t SendOne(Taken& taken, int fd, const void* data, size_t size,
                int flags) {
  if (size > SSIZE_MAX || IsPlainlyBad(data, size)) return -EFAULT;
  const iovec one = One(data, std::min(size, kMostBytes));
  return Send(*taken.shim, fd, *taken.socket, {&one, 1}, flags);
}

int64_t ReceiveVector(Taken& taken, int fd, const iovec* v, int count) {
  if (int64_t e = CheckVector(v, count, EINVAL); e != 0) return e;
  const std::span<const iovec> out(v, static_cast<size_t>(count));
  if (SizeOf(out) == 0) return 0;  // As read(2).
  return Receive(*taken.shim, fd, *taken.socket, out, 0);
}

int64_t SendVector(Taken& taken, int fd, const iovec* v, int count) {
  if (int64_t e = CheckVector(v, count, EINVAL); e != 0) return e;
  return Send(*taken.shim, fd, *taken.socket, {v, static_cast<size_t>(count)},
              0);
}

}  // namespace
}  // namespace devwire::preload

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

ssize_t recvfrom(int fd, void* data, size_t size, int flags, sockaddr* address,
                 socklen_t* address_size) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (IsNetlink(taken.shim, fd)) {
    return NetlinkReceive(*taken.shim, fd, data, size, flags, address,
                          address_size);
  }
  if (!taken) {
    return real().recvfrom(fd, data, size, flags, address, address_size);
  }
  const int64_t result = ReceiveOne(taken, fd, data, size, flags);
  // A stream's bytes come from nobody in particular.
  if (result >= 0 && address != nullptr) {
    const socklen_t none = 0;
    if (!CopyOut(address_size, &none, sizeof(none))) return Answer(-EFAULT);
  }
  return AnswerSize(result);
}
ssize_t recv(int fd, void* data, size_t size, int flags) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (IsNetlink(taken.shim, fd)) {
    return NetlinkReceive(*taken.shim, fd, data, size, flags, nullptr, nullptr);
  }
  if (!taken) return real().recv(fd, data, size, flags);
  return AnswerSize(ReceiveOne(taken, fd, data, size, flags));
}
ssize_t read(int fd, void* data, size_t size) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (IsNetlink(taken.shim, fd)) {
    return NetlinkReceive(*taken.shim, fd, data, size, 0, nullptr, nullptr);
  }
  if (!taken) return real().read(fd, data, size);
  // sock_read_iter() of Linux: nothing asked for, nothing done.
  if (size == 0) return 0;
  return AnswerSize(ReceiveOne(taken, fd, data, size, 0));
}
ssize_t readv(int fd, const iovec* v, int count) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().readv(fd, v, count);
  return AnswerSize(ReceiveVector(taken, fd, v, count));
}
// With an offset of -1 as readv; a socket has no other.
ssize_t preadv2(int fd, const iovec* v, int count, off_t offset, int flags) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().preadv2(fd, v, count, offset, flags);
  if (offset != -1) return Answer(offset < 0 ? -EINVAL : -ESPIPE);
  if (flags != 0) return Answer(-EOPNOTSUPP);
  return AnswerSize(ReceiveVector(taken, fd, v, count));
}
ssize_t preadv64v2(int fd, const iovec* v, int count, off_t offset, int flags) {
  return preadv2(fd, v, count, offset, flags);
}

ssize_t sendto(int fd, const void* data, size_t size, int flags,
               const sockaddr* address, socklen_t address_size) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (IsNetlink(taken.shim, fd)) {
    return NetlinkSend(*taken.shim, fd, data, size, flags, address,
                       address_size);
  }
  if (!taken) {
    return real().sendto(fd, data, size, flags, address, address_size);
  }
  return AnswerSize(SendOne(taken, fd, data, size, flags));
}
ssize_t send(int fd, const void* data, size_t size, int flags) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (IsNetlink(taken.shim, fd)) {
    return NetlinkSend(*taken.shim, fd, data, size, flags, nullptr, 0);
  }
  if (!taken) return real().send(fd, data, size, flags);
  return AnswerSize(SendOne(taken, fd, data, size, flags));
}
ssize_t write(int fd, const void* data, size_t size) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (IsNetlink(taken.shim, fd)) {
    return NetlinkSend(*taken.shim, fd, data, size, 0, nullptr, 0);
  }
  if (!taken) return real().write(fd, data, size);
  return AnswerSize(SendOne(taken, fd, data, size, 0));
}
ssize_t writev(int fd, const iovec* v, int count) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().writev(fd, v, count);
  return AnswerSize(SendVector(taken, fd, v, count));
}
ssize_t pwritev2(int fd, const iovec* v, int count, off_t offset, int flags) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().pwritev2(fd, v, count, offset, flags);
  if (offset != -1) return Answer(offset < 0 ? -EINVAL : -ESPIPE);
  if (flags != 0) return Answer(-EOPNOTSUPP);
  return AnswerSize(SendVector(taken, fd, v, count));
}
ssize_t pwritev64v2(int fd, const iovec* v, int count, off_t offset,
                    int flags) {
  return pwritev2(fd, v, count, offset, flags);
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
