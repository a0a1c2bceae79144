// The timers of one connection: deadlines, no clock.
//
// Threads:  none of its own. Cost: a few instructions, no allocation.
#ifndef TRANSPORT_TCP_TIMERS_H_
#define TRANSPORT_TCP_TIMERS_H_

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/time.h"

namespace devwire {

enum class Timer : uint8_t {
  kRetransmit,  // RFC 6298 5.
  kPersist,     // Zero-window probes and the silly-window override.
  kDelayedAck,  // RFC 9293 3.8.6.3.
  kTimeWait,    // 2 MSL; also the limit on an orphan's FIN-WAIT-2.
  kUser,        // The user timeout, RFC 9293 3.8.3.
  kKeepAlive,   // RFC 9293 3.8.4.
  kPacing,      // The next burst of text may leave.
};
inline constexpr size_t kTimerCount = 7;

class TimerTable {
 public:
  TimerTable() { deadlines_.fill(Instant::Never()); }

  void Set(Timer timer, Instant deadline) { at(timer) = deadline; }
  void Stop(Timer timer) { at(timer) = Instant::Never(); }
  void StopAll() { deadlines_.fill(Instant::Never()); }
  bool IsSet(Timer timer) const { return Deadline(timer) != Instant::Never(); }
  Instant Deadline(Timer timer) const {
    return deadlines_[static_cast<size_t>(timer)];
  }
  // The earliest; Never() when all are stopped.
  Instant NextDeadline() const {
    Instant next = deadlines_[0];
    for (size_t i = 1; i < kTimerCount; ++i) {
      next = std::min(next, deadlines_[i]);
    }
    return next;
  }
  // Whether `timer` is due; if so, stops it.
  bool TakeExpired(Timer timer, Instant now) {
    if (now < at(timer)) return false;
    Stop(timer);
    return true;
  }

 private:
  Instant& at(Timer timer) { return deadlines_[static_cast<size_t>(timer)]; }
  std::array<Instant, kTimerCount> deadlines_;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_TIMERS_H_
