// The C ABI: files and pipes to sockets, and sockets to pipes. sendfile,
// splice. Devwire sends copies: there is no page of the kernel's to hand on.
#include <algorithm>
#include <climits>

#include "sockets/preload/call.h"
#include "sockets/preload/transfer.h"
#include "sockets/preload/user_memory.h"

namespace devwire::preload {
namespace {

constexpr size_t kChunkBytes = 64 << 10;
constexpr size_t kMostBytes = INT_MAX & ~size_t{4095};  // MAX_RW_COUNT

// From `position` of the file on, which moves with what was sent.
int64_t SendFile(Taken& to, int out, int in, off_t* position, size_t size) {
  size = std::min(size, kMostBytes);
  char bytes[kChunkBytes];
  int64_t total = 0;
  while (static_cast<size_t>(total) < size) {
    const size_t wanted =
        std::min(size - static_cast<size_t>(total), sizeof(bytes));
    const ssize_t got = pread(in, bytes, wanted, *position);
    if (got < 0 && total == 0) return -errno;
    if (got <= 0) break;
    const iovec one = One(bytes, static_cast<size_t>(got));
    const int64_t sent = Send(*to.shim, out, *to.socket, {&one, 1}, 0);
    if (sent < 0 && total == 0) return sent;
    if (sent <= 0) break;
    *position += sent;
    total += sent;
    if (sent < got) break;
  }
  return total;
}

int64_t SendFileFromOffset(Taken& to, int out, int in, off_t* offset,
                           size_t size) {
  off_t position = lseek(in, 0, SEEK_CUR);
  if (position < 0) return errno == EBADF ? -EBADF : -EINVAL;
  if (offset != nullptr) {
    if (!CopyIn(&position, offset, sizeof(position))) return -EFAULT;
    if (position < 0) return -EINVAL;
  }
  const int64_t result = SendFile(to, out, in, &position, size);
  if (offset == nullptr) {
    lseek(in, position, SEEK_SET);
  } else if (!CopyOut(offset, &position, sizeof(position))) {
    return -EFAULT;
  }
  return result;
}

bool IsPipe(int fd) { return real().fcntl(fd, F_GETPIPE_SZ) > 0; }

// Nothing leaves the pipe that the socket did not take: a copy of the pipe's
// beginning (tee(2)) is sent, then as much is read.
int64_t PipeToSocket(Taken& to, int in, int out, size_t size, unsigned flags) {
  int copy[2];
  if (pipe2(copy, O_CLOEXEC) != 0) return -errno;
  char bytes[kChunkBytes];
  int64_t total = 0, result = 0;
  const int send_flags = (flags & SPLICE_F_MORE) != 0 ? MSG_MORE : 0;
  while (static_cast<size_t>(total) < size) {
    const size_t wanted =
        std::min(size - static_cast<size_t>(total), sizeof(bytes));
    // What is there is enough once something has moved.
    const unsigned wait = total > 0 ? SPLICE_F_NONBLOCK : 0u;
    result = tee(in, copy[1], wanted, (flags & SPLICE_F_NONBLOCK) | wait);
    if (result < 0) result = -errno;
    if (result <= 0) break;
    const ssize_t got =
        real().read(copy[0], bytes, static_cast<size_t>(result));
    const iovec one = One(bytes, static_cast<size_t>(got));
    result = Send(*to.shim, out, *to.socket, {&one, 1}, send_flags);
    if (result <= 0) break;
    total += result;
    const bool is_all = result == got;
    for (int64_t left = result; left > 0;) {
      const ssize_t read = real().read(in, bytes, static_cast<size_t>(left));
      if (read <= 0) break;
      left -= read;
    }
    if (!is_all) break;
  }
  real().close(copy[0]);
  real().close(copy[1]);
  return total > 0 ? total : result;
}

// A pipe that polls as writable takes PIPE_BUF bytes at once: pipe(7). They are
// peeked at, and received when they lie in the pipe.
int64_t SocketToPipe(Taken& from, int in, int out, size_t size,
                     unsigned flags) {
  char bytes[PIPE_BUF];
  int64_t total = 0;
  const bool waits = (flags & SPLICE_F_NONBLOCK) == 0 && !IsNonblocking(out, 0);
  while (static_cast<size_t>(total) < size) {
    pollfd room = {out, POLLOUT, 0};
    const int ready = real().poll(&room, 1, total == 0 && waits ? -1 : 0);
    if (ready < 0) return -errno;
    if (ready == 0) return total > 0 ? total : -EAGAIN;
    const iovec one =
        One(bytes, std::min(size - static_cast<size_t>(total), sizeof(bytes)));
    const int receive_flags = MSG_PEEK | (total > 0 ? MSG_DONTWAIT : 0);
    const int64_t got =
        Receive(*from.shim, in, *from.socket, {&one, 1}, receive_flags);
    if (got <= 0) return total > 0 ? total : got;
    const ssize_t put = real().write(out, bytes, static_cast<size_t>(got));
    if (put < 0) return total > 0 ? total : -errno;
    const iovec taken = One(bytes, static_cast<size_t>(put));
    total += Receive(*from.shim, in, *from.socket, {&taken, 1}, MSG_DONTWAIT);
  }
  return total;
}

}  // namespace
}  // namespace devwire::preload

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

ssize_t sendfile(int out, int in, off_t* offset, size_t size) noexcept {
  Taken taken(out);
  if (taken.is_parents(out)) return Answer(-EOWNERDEAD);
  if (!taken) return real().sendfile(out, in, offset, size);
  return AnswerSize(SendFileFromOffset(taken, out, in, offset, size));
}
ssize_t sendfile64(int out, int in, off_t* offset, size_t size) noexcept {
  return sendfile(out, in, offset, size);
}

ssize_t splice(int in, off_t* in_offset, int out, off_t* out_offset,
               size_t size, unsigned flags) {
  Taken from(in), to(out);
  if (from.is_parents(in) || to.is_parents(out)) return Answer(-EOWNERDEAD);
  if (!from && !to) {
    return real().splice(in, in_offset, out, out_offset, size, flags);
  }
  if (size == 0) return 0;
  if (!IsPipe(from ? out : in)) return Answer(-EINVAL);
  // An offset of the pipe's, or of the socket's: do_splice() of Linux.
  if ((from ? out_offset : in_offset) != nullptr) return Answer(-ESPIPE);
  if ((from ? in_offset : out_offset) != nullptr) return Answer(-EINVAL);
  return AnswerSize(from ? SocketToPipe(from, in, out, size, flags)
                         : PipeToSocket(to, in, out, size, flags));
}

}  // extern "C"
