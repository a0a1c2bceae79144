// Errors of this API: an absl::Status that says what happened and what to do
// next, and the errno that a POSIX caller would have seen. The only table
// between TCP's errors and errno.
//
//   not connected in time      DeadlineExceeded    ETIMEDOUT
//   refused by the peer        Unavailable         ECONNREFUSED
//   reset by the peer          Aborted             ECONNRESET
//   the peer vanished          DeadlineExceeded    ETIMEDOUT
//   no route, no ARP answer    Unavailable         ENETUNREACH, EHOSTUNREACH
//   port in use                AlreadyExists       EADDRINUSE
//   cancelled                  Cancelled           ECANCELED
//   closed, stack closed       FailedPrecondition  EBADF, ESHUTDOWN
//   in a forked child          FailedPrecondition  EOWNERDEAD
//
// Threads: pure functions. Cost: allocates; never on the data path.
#ifndef SOCKETS_ERRNO_MAP_H_
#define SOCKETS_ERRNO_MAP_H_

#include "base/errno_status.h"  // ErrnoStatus, ErrnoOf(status)
#include "transport/tcp/error.h"

namespace devwire {

// How a connection that ended with `error` is reported to POSIX callers.
int ErrnoOf(TcpError error);

}  // namespace devwire

#endif  // SOCKETS_ERRNO_MAP_H_
