#include "sockets/preload/netlink_calls.h"

#include "sockets/preload/call.h"

namespace devwire::preload {
namespace {

msghdr MessageOf(const iovec* one, void* name, socklen_t name_size) {
  msghdr message = {};
  message.msg_name = name;
  message.msg_namelen = name_size;
  message.msg_iov = const_cast<iovec*>(one);
  message.msg_iovlen = 1;
  return message;
}

// As the kernel leaves errno: untouched by what succeeded.
ssize_t Result(ssize_t result) {
  return result >= 0 ? AnswerSize(result) : result;
}

}  // namespace

ssize_t NetlinkSendMessage(Shim& shim, int fd, const msghdr& message,
                           int flags) {
  return Result(shim.netlink().Send(fd, message, flags));
}

ssize_t NetlinkReceiveMessage(Shim& shim, int fd, msghdr* message, int flags) {
  return Result(shim.netlink().Receive(fd, message, flags));
}

ssize_t NetlinkSend(Shim& shim, int fd, const void* data, size_t size,
                    int flags, const sockaddr* to, socklen_t to_size) {
  const iovec one = One(data, size);
  return NetlinkSendMessage(
      shim, fd, MessageOf(&one, const_cast<sockaddr*>(to), to_size), flags);
}

ssize_t NetlinkReceive(Shim& shim, int fd, void* data, size_t size, int flags,
                       sockaddr* from, socklen_t* from_size) {
  const iovec one = One(data, size);
  const bool wants_name = from != nullptr && from_size != nullptr;
  msghdr message = MessageOf(&one, from, wants_name ? *from_size : 0);
  const ssize_t result = NetlinkReceiveMessage(shim, fd, &message, flags);
  if (result >= 0 && wants_name) *from_size = message.msg_namelen;
  return result;
}

}  // namespace devwire::preload
