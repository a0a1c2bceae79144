#include "sockets/preload/devmem_transfer.h"

#include <signal.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "sockets/preload/devmem_uapi.h"
#include "sockets/preload/user_memory.h"

namespace devwire::preload {
namespace {

// The most that one call moves: MAX_RW_COUNT of Linux.
constexpr uint64_t kMostBytes = 0x7ffff000;

}  // namespace

int64_t ReceiveDevmem(Shim& shim, int fd, TakenSocket& socket, msghdr* message,
                      int flags) {
  DevmemReceiver::Call call(*message, flags);
  const size_t target =
      (flags & MSG_WAITALL) != 0
          ? call.wanted()
          : std::min<size_t>(socket.low_water(), call.wanted());
  int64_t result = Blocking(shim, fd, socket, SO_RCVTIMEO, flags,
                            [&] { return socket.ReceiveDevmem(call, target); });
  if (call.total() > 0) result = static_cast<int64_t>(call.total());
  if (result < 0) return result;
  message->msg_controllen = call.control_bytes();
  message->msg_flags = 0;
  return result;
}

int64_t ReceiveErrorQueue(Shim& shim, TakenSocket& socket, msghdr* message) {
  const std::lock_guard lock(shim.mutex);
  const auto notification = socket.TakeNotification();
  if (!notification.has_value()) return -EAGAIN;
  PutNotification(*notification, !shim.config().stack.address.is_v4(), message);
  return 0;
}

int64_t ParseSendControl(const msghdr& message, SendControl* out) {
  const auto* const buffer = static_cast<const char*>(message.msg_control);
  const size_t size = buffer == nullptr ? 0 : message.msg_controllen;
  size_t at = 0;
  while (size - at >= sizeof(cmsghdr)) {
    cmsghdr header;
    memcpy(&header, buffer + at, sizeof(header));
    if (header.cmsg_len < sizeof(header) || header.cmsg_len > size - at) {
      return -EINVAL;
    }
    const char* const data = buffer + at + CMSG_LEN(0);
    at += std::min(CMSG_ALIGN(header.cmsg_len), size - at);
    if (header.cmsg_level != SOL_SOCKET) continue;
    switch (header.cmsg_type) {
      case kScmDevmemDmabuf:
        if (header.cmsg_len != CMSG_LEN(sizeof(uint32_t))) return -EINVAL;
        memcpy(&out->dmabuf_id, data, sizeof(out->dmabuf_id));
        break;
      // Of no use here; Linux takes them on a TCP socket.
      case SCM_RIGHTS:
      case SCM_CREDENTIALS:
      case SO_MARK:
      case SO_PRIORITY:
      case SO_TIMESTAMPING:
      case SCM_TXTIME:
        break;
      default:
        return -EINVAL;
    }
  }
  return 0;
}

namespace {

// The parts of the dmabuf that the iovs name. 0, or -EFAULT: one is outside.
int64_t ToSpans(const msghdr& message, uint64_t dmabuf_bytes,
                std::vector<DeviceSpan>* out) {
  uint64_t left = kMostBytes;
  for (size_t i = 0; i < message.msg_iovlen; ++i) {
    const auto offset = reinterpret_cast<uint64_t>(message.msg_iov[i].iov_base);
    const uint64_t length =
        std::min<uint64_t>(message.msg_iov[i].iov_len, left);
    if (length == 0) continue;
    if (offset > dmabuf_bytes || length > dmabuf_bytes - offset) return -EFAULT;
    out->push_back({offset, static_cast<uint32_t>(length)});
    left -= length;
  }
  return 0;
}

}  // namespace

int64_t SendDevmem(Shim& shim, int fd, TakenSocket& socket,
                   const msghdr& message, uint32_t dmabuf_id, int flags) {
  size_t wanted = 0;
  for (size_t i = 0; i < message.msg_iovlen; ++i) {
    wanted += message.msg_iov[i].iov_len;
  }
  std::vector<DeviceSpan> spans;
  std::shared_ptr<const DevmemBinding> binding;
  uint32_t number = 0;
  {
    const std::lock_guard lock(shim.mutex);
    // Only MSG_ZEROCOPY has someone to tell that the memory is free again.
    if ((flags & MSG_ZEROCOPY) == 0 || !socket.is_zerocopy()) return -EINVAL;
    if (wanted == 0) return 0;
    binding = shim.devmem().FindSend(dmabuf_id);
    if (binding == nullptr) return -EINVAL;
    if (int64_t e = ToSpans(message, binding->bytes, &spans); e != 0) return e;
    number = socket.BeginZeroCopy();
  }
  int64_t sent = 0;
  int64_t result = 0;
  std::span<const DeviceSpan> rest = spans;
  while (!rest.empty() && result >= 0) {
    const auto part =
        rest.first(std::min<size_t>(rest.size(), Stream::kMaxSpansPerSend));
    result = Blocking(shim, fd, socket, SO_SNDTIMEO, flags, [&] {
      return socket.SendDevmem(*binding, part, number);
    });
    if (result < 0) break;
    sent += result;
    rest = rest.subspan(part.size());
  }
  {
    const std::lock_guard lock(shim.mutex);
    socket.EndZeroCopy(number);
  }
  if (sent > 0) return sent;
  if (result == -EPIPE && (flags & MSG_NOSIGNAL) == 0) raise(SIGPIPE);
  return result;
}

int64_t DontNeed(Shim& shim, TakenSocket& socket, const void* tokens,
                 socklen_t size) {
  DmabufToken copy[kMaxDontneedTokens];
  if (size < sizeof(int)) return -EINVAL;  // Of any option: sock_setsockopt().
  if (!CopyIn(copy, tokens, sizeof(int))) return -EFAULT;
  if (size % sizeof(DmabufToken) != 0 || size > sizeof(copy)) return -EINVAL;
  if (!CopyIn(copy, tokens, size)) return -EFAULT;
  const std::lock_guard lock(shim.mutex);
  const int64_t released =
      socket.DontNeed(std::span(copy).first(size / sizeof(DmabufToken)));
  shim.Push();
  return released;
}

}  // namespace devwire::preload
