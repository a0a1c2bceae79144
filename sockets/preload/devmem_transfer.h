// sendmsg(2), recvmsg(2) and setsockopt(2) of Linux's devmem TCP, for a taken
// socket. docs/sockets.md has the table.
//
// Threads:  any; they wait without the lock.
#ifndef SOCKETS_PRELOAD_DEVMEM_TRANSFER_H_
#define SOCKETS_PRELOAD_DEVMEM_TRANSFER_H_

#include "sockets/preload/call.h"

namespace devwire::preload {

// From a stream into device memory, whatever the flags but MSG_OOB and
// MSG_ERRQUEUE. Fills msg_controllen and msg_flags unless it fails. Bytes, 0 at
// the end of the stream, or a negative errno.
int64_t ReceiveDevmem(Shim& shim, int fd, TakenSocket& socket, msghdr* message,
                      int flags);

// MSG_ERRQUEUE: 0 and a notification, or -EAGAIN. Never waits.
int64_t ReceiveErrorQueue(Shim& shim, TakenSocket& socket, msghdr* message);

// The control messages of a sendmsg(2) and what they ask for.
struct SendControl {
  uint32_t dmabuf_id = 0;  // SCM_DEVMEM_DMABUF; 0: the bytes lie in the iovs
};
// 0 or -EINVAL.
int64_t ParseSendControl(const msghdr& message, SendControl* out);

// Sends from the dmabuf: each iov_base is an offset in it. The bytes sent, or
// a negative errno.
int64_t SendDevmem(Shim& shim, int fd, TakenSocket& socket,
                   const msghdr& message, uint32_t dmabuf_id, int flags);

// SO_DEVMEM_DONTNEED. The frags given back, or a negative errno.
int64_t DontNeed(Shim& shim, TakenSocket& socket, const void* tokens,
                 socklen_t size);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_DEVMEM_TRANSFER_H_
