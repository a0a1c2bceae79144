#include "base/clock.h"

#include <time.h>

namespace devwire {

Instant MonotonicClock::Now() const {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return Instant::FromNanoseconds(int64_t{ts.tv_sec} * 1'000'000'000 +
                                  ts.tv_nsec);
}

int64_t UnixNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

}  // namespace devwire
