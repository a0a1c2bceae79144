#include "base/clock.h"

#include <time.h>

namespace devwire {

Instant MonotonicClock::Now() const {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return Instant::FromNanoseconds(int64_t{ts.tv_sec} * 1'000'000'000 +
                                  ts.tv_nsec);
}

}  // namespace devwire
