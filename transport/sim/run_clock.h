// The clock of a run with engines in it.
#ifndef TRANSPORT_SIM_RUN_CLOCK_H_
#define TRANSPORT_SIM_RUN_CLOCK_H_

#include "base/clock.h"
#include "base/time.h"

namespace devwire {

// Stands still while a run lasts; moves by itself while engines that failed
// are destroyed, because they wait for their NIC.
class RunClock final : public Clock {
 public:
  Instant Now() const override {
    if (is_over) now_ += 1_ms;
    return now_;
  }
  void Set(Instant t) { now_ = t; }
  bool is_over = false;

 private:
  mutable Instant now_ = Instant::FromNanoseconds(1'000'000'000);
};

}  // namespace devwire

#endif  // TRANSPORT_SIM_RUN_CLOCK_H_
