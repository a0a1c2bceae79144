#include "sockets/preload/wait_word.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

namespace devwire::preload {

void WaitWord::Wake() {
  word_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  const int saved = errno;
  syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
  errno = saved;
}

int WaitWord::Wait(uint32_t seen, std::optional<Duration> timeout) {
  timespec relative = {};
  if (timeout) {
    if (*timeout <= Duration()) return ETIMEDOUT;
    relative.tv_sec = timeout->nanoseconds() / 1'000'000'000;
    relative.tv_nsec = timeout->nanoseconds() % 1'000'000'000;
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  const long result = syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, seen,
                              timeout ? &relative : nullptr, nullptr, 0);
  const int error = result == 0 ? 0 : errno;
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  return error == EAGAIN ? 0 : error;
}

}  // namespace devwire::preload
