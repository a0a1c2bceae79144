#include "sockets/preload/transfer.h"

#include <limits.h>
#include <signal.h>

#include <algorithm>
#include <vector>

#include "sockets/preload/devmem_transfer.h"
#include "sockets/preload/user_memory.h"

namespace devwire::preload {
namespace {

// What is left of a vector after its first bytes. A copy is made only then.
class Rest {
 public:
  explicit Rest(std::span<const iovec> all) : rest_(all) {}
  std::span<const iovec> get() const { return rest_; }

  void Drop(uint64_t bytes) {
    while (!rest_.empty() && bytes >= rest_.front().iov_len) {
      bytes -= rest_.front().iov_len;
      rest_ = rest_.subspan(1);
    }
    if (rest_.empty() || bytes == 0) return;
    std::vector<iovec> cut(rest_.begin(), rest_.end());
    cut.front().iov_base =
        static_cast<std::byte*>(cut.front().iov_base) + bytes;
    cut.front().iov_len -= bytes;
    copy_ = std::move(cut);
    rest_ = copy_;
  }

 private:
  std::span<const iovec> rest_;
  std::vector<iovec> copy_;
};

int64_t ReceiveUrgent(TakenSocket& socket, Shim& shim,
                      std::span<const iovec> out, int flags) {
  std::byte byte;
  int64_t got;
  {
    const std::lock_guard lock(shim.mutex);
    got = socket.ReceiveUrgent(&byte, (flags & MSG_PEEK) != 0);
  }
  if (got <= 0) return got;
  for (const iovec& v : out) {
    if (v.iov_len == 0) continue;
    if ((flags & MSG_TRUNC) == 0) *static_cast<std::byte*>(v.iov_base) = byte;
    return 1;
  }
  return 0;
}

}  // namespace

uint64_t SizeOf(std::span<const iovec> vector) {
  uint64_t bytes = 0;
  for (const iovec& v : vector) bytes += v.iov_len;
  return bytes;
}

int64_t CheckVector(const iovec* v, int64_t count, int too_many) {
  if (count < 0 || count > UIO_MAXIOV) return -too_many;
  if (IsPlainlyBad(v, static_cast<size_t>(count) * sizeof(*v))) return -EFAULT;
  uint64_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (v[i].iov_len > SSIZE_MAX) return -EINVAL;
    if (IsPlainlyBad(v[i].iov_base, v[i].iov_len)) return -EFAULT;
    total += v[i].iov_len;
  }
  return total > SSIZE_MAX ? -EINVAL : 0;
}

int64_t Receive(Shim& shim, int fd, TakenSocket& socket,
                std::span<const iovec> out, int flags) {
  msghdr message = {};
  message.msg_iov = const_cast<iovec*>(out.data());
  message.msg_iovlen = out.size();
  if ((flags & MSG_ERRQUEUE) != 0) {
    return ReceiveErrorQueue(shim, socket, &message);
  }
  if (socket.is_listener()) return -ENOTCONN;
  if ((flags & MSG_OOB) != 0) return ReceiveUrgent(socket, shim, out, flags);
  if (socket.is_devmem()) {
    return ReceiveDevmem(shim, fd, socket, &message, flags);
  }
  const Inbox::How how = {.peeks = (flags & MSG_PEEK) != 0,
                          .discards = (flags & MSG_TRUNC) != 0};
  const uint64_t size = SizeOf(out);
  uint64_t least = size;
  if ((flags & MSG_WAITALL) == 0) {
    least = std::min(size, socket.low_water());
  }
  Rest rest(out);
  int64_t total = 0;
  const int64_t result =
      Blocking(shim, fd, socket, SO_RCVTIMEO, flags, [&]() -> int64_t {
        const int64_t got = socket.Receive(rest.get(), how);
        if (got < 0) return got;
        // What was peeked at comes again: the whole of it, or nothing.
        total = how.peeks ? got : total + got;
        if (got == 0 || static_cast<uint64_t>(total) >= least ||
            socket.IsAtEnd()) {
          return total;
        }
        if (!how.peeks) rest.Drop(static_cast<uint64_t>(got));
        return -EAGAIN;
      });
  return total > 0 ? total : result;
}

int64_t Send(Shim& shim, int fd, TakenSocket& socket,
             std::span<const iovec> bytes, int flags) {
  int64_t result = -EPIPE;
  Rest rest(bytes);
  int64_t total = 0;
  // A blocking send takes all of it; most take it at once.
  if (!socket.is_listener()) {
    const TakenSocket::SendHow how = {.has_more = (flags & MSG_MORE) != 0,
                                      .is_urgent = (flags & MSG_OOB) != 0};
    result = Blocking(shim, fd, socket, SO_SNDTIMEO, flags, [&]() -> int64_t {
      const int64_t sent = socket.Send(rest.get(), how);
      if (sent < 0) return sent;
      total += sent;
      rest.Drop(static_cast<uint64_t>(sent));
      return rest.get().empty() || SizeOf(rest.get()) == 0 ? total : -EAGAIN;
    });
  }
  if (total > 0 && (flags & MSG_ZEROCOPY) != 0) {
    const std::lock_guard lock(shim.mutex);
    socket.AddCopiedZeroCopy();
  }
  if (total > 0) return total;
  if (result == -EPIPE && (flags & MSG_NOSIGNAL) == 0) raise(SIGPIPE);
  return result;
}

}  // namespace devwire::preload
