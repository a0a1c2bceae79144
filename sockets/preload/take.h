// A socket changes hands: from the kernel to Devwire, and back.
//
// Threads:  any. Each answers as a system call does: a negative errno, or >= 0.
#ifndef SOCKETS_PRELOAD_TAKE_H_
#define SOCKETS_PRELOAD_TAKE_H_

#include <cstdint>
#include <memory>

#include "sockets/preload/call.h"

namespace devwire::preload {

// bind(2), when the name is the device's address, or any: -EADDRINUSE, -EINVAL
// (it is bound). A socket bound to any is bound in the kernel as well.
int64_t BindCandidate(Shim& shim, int fd, KernelSocket& kernel,
                      const Endpoint& name);

// bind(2) of the kernel's. A negative errno is set as errno as well.
int64_t BindInKernel(int fd, const KernelSocket& kernel, const Endpoint& name);

// connect(2): waits unless O_NONBLOCK.
int64_t TakeConnection(Shim& shim, int fd,
                       const std::shared_ptr<KernelSocket>& kernel,
                       const Endpoint& remote);
// connect(2) again.
int64_t ConnectAgain(Taken& taken, int fd);

int64_t TakeListener(Shim& shim, int fd,
                     const std::shared_ptr<KernelSocket>& kernel,
                     Endpoint local, int backlog);

// accept4(2): the new descriptor; `remote` is its peer.
int64_t AcceptOne(Taken& taken, int fd, int flags, Endpoint* remote);

// The kernel's again, as new: a connection that failed, or was disconnected, a
// listener that was shut down. What it had with its peer ends with a reset.
int64_t GiveBack(Shim& shim, TakenSocket& socket);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_TAKE_H_
