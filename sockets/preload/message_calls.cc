// The C ABI: messages. recvmsg, sendmsg, and many at once.
#include <limits.h>
#include <time.h>

#include <cstring>

#include "sockets/preload/call.h"
#include "sockets/preload/devmem_transfer.h"
#include "sockets/preload/netlink_calls.h"
#include "sockets/preload/transfer.h"
#include "sockets/preload/user_memory.h"

namespace devwire::preload {
namespace {

int64_t ReceiveMessage(Taken& taken, int fd, msghdr* message, int flags) {
  msghdr m;
  if (!CopyIn(&m, message, sizeof(m))) return -EFAULT;
  const auto count = static_cast<int64_t>(m.msg_iovlen);
  if (int64_t e = CheckVector(m.msg_iov, count, EMSGSIZE); e != 0) return e;
  int64_t result;
  if ((flags & MSG_ERRQUEUE) != 0) {
    result = ReceiveErrorQueue(*taken.shim, *taken.socket, &m);
  } else if (taken.socket->is_devmem() && (flags & MSG_OOB) == 0) {
    result = ReceiveDevmem(*taken.shim, fd, *taken.socket, &m, flags);
  } else {
    result = Receive(*taken.shim, fd, *taken.socket, {m.msg_iov, m.msg_iovlen},
                     flags);
    m.msg_controllen = 0;
    m.msg_flags = (flags & MSG_OOB) != 0 && result > 0 ? MSG_OOB : 0;
  }
  if (result < 0) return result;
  // A stream's bytes come from nobody in particular.
  if (message->msg_name != nullptr) message->msg_namelen = 0;
  message->msg_controllen = m.msg_controllen;
  message->msg_flags = m.msg_flags | (flags & MSG_CMSG_CLOEXEC);
  return result;
}

int64_t SendMessage(Taken& taken, int fd, const msghdr* message, int flags) {
  msghdr m;
  if (!CopyIn(&m, message, sizeof(m))) return -EFAULT;
  const auto count = static_cast<int64_t>(m.msg_iovlen);
  SendControl control;
  if (m.msg_control != nullptr && m.msg_controllen > 0) {
    if (int64_t e = ParseSendControl(m, &control); e != 0) return e;
  }
  // Its iovs hold no addresses.
  if (control.dmabuf_id != 0 && count >= 0 && count <= UIO_MAXIOV) {
    return SendDevmem(*taken.shim, fd, *taken.socket, m, control.dmabuf_id,
                      flags);
  }
  if (int64_t e = CheckVector(m.msg_iov, count, EMSGSIZE); e != 0) return e;
  return Send(*taken.shim, fd, *taken.socket, {m.msg_iov, m.msg_iovlen}, flags);
}

// The deadline is looked at between messages, as recvmmsg(2) says (BUGS).
int64_t ReceiveMessages(Taken& taken, int fd, mmsghdr* messages, unsigned count,
                        int flags, const timespec* timeout) {
  std::optional<Instant> until;
  const MonotonicClock clock;
  if (timeout != nullptr) {
    timespec t;
    if (!CopyIn(&t, timeout, sizeof(t))) return -EFAULT;
    if (t.tv_sec < 0 || t.tv_nsec < 0 || t.tv_nsec >= 1'000'000'000) {
      return -EINVAL;
    }
    until = clock.Now() + Duration::Nanoseconds(
                              t.tv_sec * int64_t{1'000'000'000} + t.tv_nsec);
  }
  if (count > UIO_MAXIOV) count = UIO_MAXIOV;
  for (unsigned i = 0; i < count; ++i) {
    const int64_t got = ReceiveMessage(taken, fd, &messages[i].msg_hdr,
                                       flags & ~MSG_WAITFORONE);
    if (got < 0) return i > 0 ? i : got;
    messages[i].msg_len = static_cast<unsigned>(got);
    if ((flags & MSG_WAITFORONE) != 0) flags |= MSG_DONTWAIT;
    if (until && clock.Now() >= *until) return i + 1;
  }
  return count;
}

int64_t SendMessages(Taken& taken, int fd, mmsghdr* messages, unsigned count,
                     int flags) {
  if (count > UIO_MAXIOV) count = UIO_MAXIOV;
  for (unsigned i = 0; i < count; ++i) {
    const int64_t sent = SendMessage(taken, fd, &messages[i].msg_hdr, flags);
    if (sent < 0) return i > 0 ? i : sent;
    messages[i].msg_len = static_cast<unsigned>(sent);
  }
  return count;
}

}  // namespace
}  // namespace devwire::preload

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (IsNetlink(taken.shim, fd)) {
    return NetlinkReceiveMessage(*taken.shim, fd, message, flags);
  }
  if (!taken) return real().recvmsg(fd, message, flags);
  return AnswerSize(ReceiveMessage(taken, fd, message, flags));
}
int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags,
             timespec* timeout) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().recvmmsg(fd, messages, count, flags, timeout);
  return Answer(ReceiveMessages(taken, fd, messages, count, flags, timeout));
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (IsNetlink(taken.shim, fd)) {
    return NetlinkSendMessage(*taken.shim, fd, *message, flags);
  }
  if (!taken) return real().sendmsg(fd, message, flags);
  return AnswerSize(SendMessage(taken, fd, message, flags));
}
int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().sendmmsg(fd, messages, count, flags);
  return Answer(SendMessages(taken, fd, messages, count, flags));
}

}  // extern "C"
