// Bytes to and from a taken socket, as recvmsg(2) and sendmsg(2) have it.
//
// Threads:  any; they wait without the lock.
#ifndef SOCKETS_PRELOAD_TRANSFER_H_
#define SOCKETS_PRELOAD_TRANSFER_H_

#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "sockets/preload/call.h"

namespace devwire::preload {

uint64_t SizeOf(std::span<const iovec> vector);

// 0, or what a system call says of such an array: -EINVAL, -EFAULT, and
// `too_many` for more than UIO_MAXIOV.
int64_t CheckVector(const iovec* v, int64_t count, int too_many);

// Bytes received, 0 at the end of the stream, or a negative errno.
int64_t Receive(Shim& shim, int fd, TakenSocket& socket,
                std::span<const iovec> out, int flags);

// Bytes sent, all of them if it may wait, or a negative errno. Raises SIGPIPE.
int64_t Send(Shim& shim, int fd, TakenSocket& socket,
             std::span<const iovec> bytes, int flags);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_TRANSFER_H_
