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

#define DEVWIRE_REAL_LIBC(X)                                                \
  X(socket)                                                                 \
  X(socketpair)                                                             \
  X(bind)                                                                   \
  X(listen)                                                                 \
  X(accept4)                                                                \
  X(connect)                                                                \
  X(shutdown)                                                               \
  X(close) X(read) X(write) X(readv) X(writev) X(send) X(sendto) X(sendmsg) \
      X(recv) X(recvfrom) X(recvmsg) X(getsockopt) X(setsockopt)            \
          X(getsockname) X(getpeername) X(fcntl) X(ioctl) X(dup) X(dup2)    \
              X(dup3) X(sendfile) X(poll) X(epoll_ctl)

struct RealLibc {
#define DEVWIRE_MEMBER(name) decltype(&::name) name;
  DEVWIRE_REAL_LIBC(DEVWIRE_MEMBER)
#undef DEVWIRE_MEMBER
};

// Looked up at the first call, dlsym(3) RTLD_NEXT. Any thread.
const RealLibc& real();

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_REAL_LIBC_H_
