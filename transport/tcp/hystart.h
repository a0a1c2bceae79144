// HyStart++: leaves the first slow start when the round-trip time grows,
// before the queue overflows.
//
//   slow start --RTT of a round grew--> conservative slow start (CSS)
//       ^                                   |            |
//       '------- it fell again -------------'            | kCssRounds rounds
//                                                        v
//                                               congestion avoidance
//
// Source:   RFC 9406 4.2 and 4.3. Without its limit L of segments per ACK:
//           4.3 lifts it for senders that pace, and ours does wherever a burst
//           could fill a queue (docs/decisions/0010-pacing.md).
// Threads:  none of its own. Cost: no allocation, no clock.
#ifndef TRANSPORT_TCP_HYSTART_H_
#define TRANSPORT_TCP_HYSTART_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/time.h"

namespace devwire {

class HyStart {
 public:
  // RFC 9406 4.3.
  static constexpr Duration kMinRttThresh = 4_ms;
  static constexpr Duration kMaxRttThresh = 16_ms;
  static constexpr int kMinRttDivisor = 8;
  static constexpr int kRttSamples = 8;  // N_RTT_SAMPLE.
  static constexpr uint32_t kCssGrowthDivisor = 4;
  static constexpr int kCssRounds = 5;

  // What cwnd grows by when `acked` bytes were.
  uint32_t Growth(uint32_t acked) const {
    return is_in_css() ? acked / kCssGrowthDivisor : acked;
  }
  // An ACK arrived in slow start; rounds are CongestionControl::Ack's.
  // True: slow start is over.
  [[nodiscard]] bool OnAck(std::optional<Duration> rtt, bool ends_round);
  bool is_in_css() const { return css_baseline_min_rtt_ != Duration::Max(); }

 private:
  Duration last_round_min_rtt_ = Duration::Max();
  Duration current_round_min_rtt_ = Duration::Max();
  Duration css_baseline_min_rtt_ = Duration::Max();
  int rtt_sample_count_ = 0;
  int css_rounds_ = 0;
};

inline bool HyStart::OnAck(std::optional<Duration> rtt, bool ends_round) {
  if (rtt) {
    current_round_min_rtt_ = std::min(current_round_min_rtt_, *rtt);
    ++rtt_sample_count_;
  }
  if (rtt_sample_count_ >= kRttSamples) {
    if (is_in_css()) {
      // The growth was a mistake: jitter.
      if (current_round_min_rtt_ < css_baseline_min_rtt_) {
        css_baseline_min_rtt_ = Duration::Max();
      }
    } else if (last_round_min_rtt_ != Duration::Max()) {
      const Duration rtt_thresh = std::clamp(
          last_round_min_rtt_ / kMinRttDivisor, kMinRttThresh, kMaxRttThresh);
      if (current_round_min_rtt_ >= last_round_min_rtt_ + rtt_thresh) {
        css_baseline_min_rtt_ = current_round_min_rtt_;
        css_rounds_ = 0;
      }
    }
  }
  if (!ends_round) return false;
  last_round_min_rtt_ = current_round_min_rtt_;
  current_round_min_rtt_ = Duration::Max();
  rtt_sample_count_ = 0;
  // A round in the middle of which CSS began counts.
  return is_in_css() && ++css_rounds_ >= kCssRounds;
}

}  // namespace devwire

#endif  // TRANSPORT_TCP_HYSTART_H_
