// The functions of libc that the shim stands in front of.
#ifndef SOCKETS_PRELOAD_REAL_LIBC_H_
#define SOCKETS_PRELOAD_REAL_LIBC_H_

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace devwire::preload {

// One name a line.
// clang-format off
#define DEVWIRE_REAL_LIBC(X) \
  X(accept4) \
  X(bind) \
  X(close) \
  X(close_range) \
  X(connect) \
  X(dup) \
  X(dup2) \
  X(dup3) \
  X(epoll_ctl) \
  X(fcntl) \
  X(getpeername) \
  X(getsockname) \
  X(getsockopt) \
  X(ioctl) \
  X(listen) \
  X(poll) \
  X(preadv2) \
  X(pwritev2) \
  X(read) \
  X(readv) \
  X(recv) \
  X(recvfrom) \
  X(recvmmsg) \
  X(recvmsg) \
  X(send) \
  X(sendfile) \
  X(sendmmsg) \
  X(sendmsg) \
  X(sendto) \
  X(setsockopt) \
  X(shutdown) \
  X(socket) \
  X(socketpair) \
  X(splice) \
  X(write) \
  X(writev)
// clang-format on

struct RealLibc {
#define DEVWIRE_MEMBER(name) decltype(&::name) name;
  DEVWIRE_REAL_LIBC(DEVWIRE_MEMBER)
#undef DEVWIRE_MEMBER
};

// Looked up at the first call, dlsym(3) RTLD_NEXT. Any thread.
const RealLibc& real();

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_REAL_LIBC_H_
