// What a blocking call sleeps on until its socket may be asked again.
//
// A signal ends the sleep as it ends that of a socket call of the kernel's:
// with a timeout always (EINTR), without one only when its handler was
// installed without SA_RESTART. signal(7), futex(2)
//
// Threads:  any.
// Cost:     Wake() is one atomic when nobody sleeps.
#ifndef SOCKETS_PRELOAD_WAIT_WORD_H_
#define SOCKETS_PRELOAD_WAIT_WORD_H_

#include <atomic>
#include <cstdint>
#include <optional>

#include "base/time.h"

namespace devwire::preload {

class WaitWord {
 public:
  uint32_t value() const { return word_.load(std::memory_order_acquire); }
  // Something changed: wakes everybody.
  void Wake();
  // Sleeps until value() is not `seen`. 0, EINTR or ETIMEDOUT.
  int Wait(uint32_t seen, std::optional<Duration> timeout);

 private:
  std::atomic<uint32_t> word_{0};
  std::atomic<uint32_t> sleepers_{0};
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_WAIT_WORD_H_
