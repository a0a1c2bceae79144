// Where time comes from. The data path never asks: the engine reads its Clock
// once per poll and hands `now` down.
#ifndef BASE_CLOCK_H_
#define BASE_CLOCK_H_

#include "base/time.h"

namespace devwire {

class Clock {
 public:
  virtual ~Clock() = default;
  // Never goes back. Callable from any thread.
  virtual Instant Now() const = 0;
};

// CLOCK_MONOTONIC, clock_gettime(2): about 20 ns, no system call.
class MonotonicClock final : public Clock {
 public:
  Instant Now() const override;
};

// Nanoseconds since 1970, CLOCK_REALTIME: for time stamps that people read,
// never for deadlines.
int64_t UnixNanoseconds();

// A clock that stands still until it is moved; for tests and the simulator.
class ManualClock final : public Clock {
 public:
  Instant Now() const override { return now_; }
  void Advance(Duration d) { now_ += d; }
  void Set(Instant t) { now_ = t; }

 private:
  Instant now_ = Instant::FromNanoseconds(1'000'000'000);
};

}  // namespace devwire

#endif  // BASE_CLOCK_H_
