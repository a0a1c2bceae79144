// When text may leave: a burst of about a millisecond's worth at the congestion
// control's rate, then a pause until that much time has passed.
//
//   |<---- interval ---->|<---- interval ---->|
//   ####                 ####                      # text, back to back
//
// A burst is what Linux sizes its TSO sends to (tcp_tso_autosize: about 1 ms),
// so a timer fires a thousand times per second and connection at most. A round
// trip below a millisecond is not paced: whole windows are such bursts, and
// slow start would outgrow the rate within one. docs/decisions/0010-pacing.md.
//
// Threads:  none of its own; belongs to one Connection.
// Cost:     a comparison per send; two divisions per interval; no clock.
#ifndef TRANSPORT_TCP_PACER_H_
#define TRANSPORT_TCP_PACER_H_

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace devwire {

class Pacer {
 public:
  static constexpr Duration kInterval = 1_ms;
  static constexpr uint64_t kIntervalsPerSecond = 1000;
  // A slower sender's burst, and a longer interval: as tcp_min_tso_segs.
  static constexpr uint64_t kMinBurstSegments = 2;

  // The interval is over: another burst may begin.
  bool NeedsRate(Instant now) const { return now >= next_burst_; }
  // `rate` in bytes per second; UINT64_MAX: no limit.
  void StartInterval(Instant now, uint64_t rate, uint32_t smss);
  // Bytes that may leave before next_burst().
  uint32_t left() const { return left_; }
  void OnSent(uint32_t bytes) { left_ -= std::min(left_, bytes); }
  Instant next_burst() const { return next_burst_; }
  // Nothing new until then.
  void HoldUntil(Instant time) {
    left_ = 0;
    next_burst_ = time;
  }

 private:
  Instant next_burst_;
  uint32_t left_ = 0;
};

inline void Pacer::StartInterval(Instant now, uint64_t rate, uint32_t smss) {
  constexpr uint64_t kSecond = 1'000'000'000;
  constexpr uint64_t kMaxBurst = 1u << 30;  // The largest window there is.
  const uint64_t burst = rate / kIntervalsPerSecond;
  if (burst >= kMaxBurst) {
    left_ = UINT32_MAX;
    next_burst_ = now;
    return;
  }
  const uint64_t segments = std::max(burst / smss, kMinBurstSegments);
  left_ = static_cast<uint32_t>(segments * smss);
  // At a rate of nothing there would be no end to the interval.
  next_burst_ = now + Duration::Nanoseconds(static_cast<int64_t>(
                          left_ * kSecond / std::max<uint64_t>(rate, 1)));
}

}  // namespace devwire

#endif  // TRANSPORT_TCP_PACER_H_
