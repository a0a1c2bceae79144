// What every intercepted call needs: whose the descriptor is, how to answer,
// how to wait.
//
// Threads:  any.
#ifndef SOCKETS_PRELOAD_CALL_H_
#define SOCKETS_PRELOAD_CALL_H_

#include <errno.h>
#include <sys/socket.h>

#include <memory>
#include <mutex>
#include <optional>

#include "base/clock.h"
#include "base/time.h"
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

bool IsNonblocking(int fd, int flags);

// SO_RCVTIMEO or SO_SNDTIMEO of `fd`: how long a call may still wait. They lie
// on the descriptor itself, which is a socket.
class Patience {
 public:
  Patience(int fd, int option);
  // Empty: forever.
  std::optional<Duration> left() const;

 private:
  const MonotonicClock clock_;
  std::optional<Instant> until_;
};

// Calls `step` (with the lock) until it is not -EAGAIN; sleeps in between,
// unless O_NONBLOCK or MSG_DONTWAIT, at most as `timeout_option` says.
template <typename F>
int64_t Blocking(Shim& shim, int fd, TakenSocket& socket, int timeout_option,
                 int flags, F&& step) {
  std::optional<Patience> patience;
  while (true) {
    int64_t result;
    uint32_t seen;
    {
      const std::lock_guard lock(shim.mutex);
      seen = socket.waiting().value();
      result = step();
      shim.Push();
    }
    if (result != -EAGAIN) return result;
    if (!patience) {
      if (IsNonblocking(fd, flags)) return result;
      patience.emplace(fd, timeout_option);
    }
    const int error = socket.waiting().Wait(seen, patience->left());
    if (error != 0) return error == ETIMEDOUT ? -EAGAIN : -error;
  }
}

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_CALL_H_
