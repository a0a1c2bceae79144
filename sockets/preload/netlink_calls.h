// Calls on sockets of generic netlink, which have a look at what passes
// (NetlinkSockets).
//
// Threads:  any.
#ifndef SOCKETS_PRELOAD_NETLINK_CALLS_H_
#define SOCKETS_PRELOAD_NETLINK_CALLS_H_

#include "sockets/preload/shim.h"

namespace devwire::preload {

// `shim` may be null. A look at a counter, where there are none.
inline bool IsNetlink(Shim* shim, int fd) {
  return shim != nullptr && shim->IsNetlink(fd);
}

// sendto(2), recvfrom(2), sendmsg(2) and recvmsg(2) on one.
ssize_t NetlinkSend(Shim& shim, int fd, const void* data, size_t size,
                    int flags, const sockaddr* to, socklen_t to_size);
ssize_t NetlinkReceive(Shim& shim, int fd, void* data, size_t size, int flags,
                       sockaddr* from, socklen_t* from_size);
ssize_t NetlinkSendMessage(Shim& shim, int fd, const msghdr& message,
                           int flags);
ssize_t NetlinkReceiveMessage(Shim& shim, int fd, msghdr* message, int flags);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_NETLINK_CALLS_H_
