// How long a sender was busy, and of that, how long it was neither the network
// nor congestion control that held it back: tcp_info's busy_time, rwnd_limited
// and sndbuf_limited.
//
//   kIdle           nothing unsent, nothing unacknowledged
//   kBusy           text or a FIN is one of these
//   kReceiveWindow  cwnd would let the next segment out, the peer's window not
//   kSendBuffer     all is sent, cwnd would let out more, and the user has more
//                   but no room to queue it
//
// Source:   Linux's tcp_chrono_start() and tcp_chrono_stop(), of which the last
//           two count as busy as well.
// Threads:  none of its own; belongs to one Connection.
// Cost:     one comparison where nothing changes.
#ifndef TRANSPORT_TCP_SENDER_TIME_H_
#define TRANSPORT_TCP_SENDER_TIME_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/time.h"

namespace devwire {

class SenderTime {
 public:
  enum class Phase : uint8_t { kIdle, kBusy, kReceiveWindow, kSendBuffer };

  void Enter(Phase phase, Instant now) {
    if (phase == phase_) [[likely]]
      return;
    Spent(phase_) += now - since_;
    phase_ = phase;
    since_ = now;
  }
  Phase phase() const { return phase_; }

  // Until `now`.
  Duration busy(Instant now) const {
    return In(Phase::kBusy, now) + rwnd_limited(now) + sndbuf_limited(now);
  }
  Duration rwnd_limited(Instant now) const {
    return In(Phase::kReceiveWindow, now);
  }
  Duration sndbuf_limited(Instant now) const {
    return In(Phase::kSendBuffer, now);
  }

 private:
  Duration& Spent(Phase phase) { return spent_[static_cast<size_t>(phase)]; }
  Duration In(Phase phase, Instant now) const {
    const Duration spent = spent_[static_cast<size_t>(phase)];
    return phase == phase_ ? spent + (now - since_) : spent;
  }

  Phase phase_ = Phase::kIdle;
  Instant since_;
  std::array<Duration, 4> spent_;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_SENDER_TIME_H_
