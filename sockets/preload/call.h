// What every intercepted call needs: whose the descriptor is, how to answer,
// how to wait.
//
// Threads:  any.
#ifndef SOCKETS_PRELOAD_CALL_H_
#define SOCKETS_PRELOAD_CALL_H_

#include <errno.h>

#include <memory>
#include <mutex>

#include "sockets/preload/real_libc.h"
#include "sockets/preload/shim.h"

namespace devwire::preload {

// The answer of a system call: `result`, or -1 and errno.
inline int Answer(int64_t result) {
  if (result >= 0) return static_cast<int>(result);
  errno = static_cast<int>(-result);
  return -1;
}
inline ssize_t AnswerSize(int64_t result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

// The taken socket of `fd`, and the shim.
struct Taken {
  explicit Taken(int fd) : shim(Shim::Get()) {
    if (shim != nullptr) socket = shim->Find(fd);
  }
  explicit operator bool() const { return socket != nullptr; }
  // Not ours, though it looks like it: see Shim::IsParents.
  bool is_parents(int fd) const {
    return shim != nullptr && shim->IsParents(fd);
  }
  Shim* const shim;
  std::shared_ptr<TakenSocket> socket;
};

inline iovec One(const void* data, size_t size) {
  return {const_cast<void*>(data), size};
}

// A TCP socket of the kernel's.
bool IsTcp(int fd);

bool IsNonblocking(int fd, int flags);

// Milliseconds of SO_RCVTIMEO or SO_SNDTIMEO; -1: none. They lie on the
// descriptor itself, which is a socket.
int TimeoutOf(int fd, int option);

// Calls `step` (with the lock) until it is not -EAGAIN; sleeps in between.
template <typename F>
int64_t Blocking(Shim& shim, int fd, short events, int flags, F&& step) {
  while (true) {
    int64_t result;
    {
      const std::lock_guard lock(shim.mutex);
      result = step();
      shim.Push();
    }
    if (result != -EAGAIN || IsNonblocking(fd, flags)) return result;
    pollfd wait = {fd, events, 0};
    const int option = events == POLLIN ? SO_RCVTIMEO : SO_SNDTIMEO;
    const int woken = real().poll(&wait, 1, TimeoutOf(fd, option));
    if (woken < 0) return -errno;
    if (woken == 0) return -EAGAIN;
  }
}

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_CALL_H_
