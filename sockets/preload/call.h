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

// errno as the application had it when it called. A call that succeeds leaves
// it alone, and there are programs that count on it: OpenSSL's BIO_read looks
// at errno when recv(2) answers 0.
inline thread_local int errno_before = 0;
// Calls within calls, as those of the verbs library on descriptors of its own.
inline thread_local int call_depth = 0;

// The answer of a system call: `result`, or -1 and errno.
inline ssize_t AnswerSize(int64_t result) {
  errno = result >= 0 ? errno_before : static_cast<int>(-result);
  return result >= 0 ? result : -1;
}
inline int Answer(int64_t result) {
  return static_cast<int>(AnswerSize(result));
}

// The taken socket of `fd`, and the shim.
struct Taken {
  explicit Taken(int fd) : shim(Enter()) {
    if (shim != nullptr) socket = shim->Find(fd);
  }
  ~Taken() { --call_depth; }
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;

  explicit operator bool() const { return socket != nullptr; }
  // Not ours, though it looks like it: see Shim::IsParents.
  bool is_parents(int fd) const {
    return shim != nullptr && shim->IsParents(fd);
  }
  Shim* const shim;
  std::shared_ptr<TakenSocket> socket;

 private:
  static Shim* Enter() {
    if (call_depth++ == 0) errno_before = errno;
    return Shim::Get();
  }
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
