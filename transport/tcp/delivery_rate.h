// How fast the path delivers: one sample per ACK that delivered something, for
// tcp_info and for congestion controls that model the path.
//
//   P: of the segments that an ACK delivers, the one sent last
//
//   delivered by then |--- RateSample::delivered ---|
//   ------------------P sent------------------------ACK of P----> time
//     interval: the longer of how long these bytes took to be sent and to be
//     acknowledged, so that neither a burst of ACKs nor of sends looks fast
//
// Source:   draft-cheng-iccrg-delivery-rate-estimation-02, 3; its C. and P.
//           variables under their names. Linux's tcp_rate.c.
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation, no clock. 12 bytes per segment in flight: times in
//           units of 256 ns, which tell 18 minutes apart.
#ifndef TRANSPORT_TCP_DELIVERY_RATE_H_
#define TRANSPORT_TCP_DELIVERY_RATE_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/time.h"

namespace devwire {

// What a segment in flight remembers of the moment it was sent. Low 32 bits.
struct RateMark {
  uint32_t delivered = 0;
  uint32_t delivered_time = 0;
  uint32_t first_sent_time = 0;
};

// One sample, as a congestion control gets it.
struct RateSample {
  Instant now;
  uint64_t total_delivered = 0;  // Bytes, ever: C.delivered.
  uint64_t prior_delivered = 0;  // The same when P was sent: rounds end by it.
  uint64_t delivered = 0;        // Over `interval`.
  Duration interval;             // Zero: no rate can be told.
  std::optional<Duration> rtt;   // This ACK's own.
  uint32_t newly_delivered = 0;  // Bytes, by this ACK, and
  uint32_t newly_lost = 0;       // found lost by it.
  uint32_t pipe = 0;             // In flight after it.
  bool is_app_limited = false;   // The application had nothing more to send.

  uint64_t bytes_per_second() const {
    if (interval <= Duration()) return 0;
    return static_cast<uint64_t>(static_cast<double>(delivered) * 1e9 /
                                 static_cast<double>(interval.nanoseconds()));
  }
};

class DeliveryRate {
 public:
  // A segment goes out, for the first time or again. `is_idle`: nothing was in
  // flight, so what came before tells nothing.
  RateMark OnSent(Instant now, bool is_idle) {
    if (is_idle) first_sent_time_ = delivered_time_ = TicksAt(now);
    return {static_cast<uint32_t>(delivered_), delivered_time_,
            first_sent_time_};
  }
  bool is_app_limited() const { return app_limited_ != 0; }
  // The application has had nothing more to send, with `pipe` in flight: until
  // that is delivered, the rate is its own and not the path's.
  void OnAppLimited(uint32_t pipe) {
    app_limited_ = std::max<uint64_t>(delivered_ + pipe, 1);
  }

  struct Newest {
    RateMark mark;
    Instant xmit_ts;
    bool is_app_limited = false;
  };
  // An ACK delivered `bytes`, the last of them sent as `newest` says. Samples
  // shorter than rtt_min are of ACKs that were held back on their way: no rate.
  RateSample OnDelivered(Instant now, uint32_t bytes,
                         const std::optional<Newest>& newest,
                         Duration rtt_min) {
    delivered_ += bytes;
    delivered_time_ = TicksAt(now);
    if (app_limited_ != 0 && delivered_ > app_limited_) app_limited_ = 0;
    RateSample sample{
        .now = now, .total_delivered = delivered_, .newly_delivered = bytes};
    if (!newest) return sample;
    const RateMark& mark = newest->mark;
    sample.delivered = static_cast<uint32_t>(delivered_) - mark.delivered;
    sample.prior_delivered = delivered_ - sample.delivered;
    sample.is_app_limited = newest->is_app_limited;
    const uint32_t sent = TicksAt(newest->xmit_ts);
    const uint32_t elapsed = std::max(sent - mark.first_sent_time,
                                      delivered_time_ - mark.delivered_time);
    first_sent_time_ = sent;
    const Duration interval = int64_t{elapsed} * kTick;
    if (interval + kTick >= rtt_min) sample.interval = interval;
    if (sample.interval > Duration()) Remember(sample);
    return sample;
  }

  // The latest sample, or the highest of late where the application limited
  // it: Linux's tcpi_delivery_rate.
  const RateSample& latest() const { return latest_; }

 private:
  static constexpr Duration kTick = Duration::Nanoseconds(256);
  static uint32_t TicksAt(Instant t) {
    return static_cast<uint32_t>(t.nanoseconds() / 256);
  }
  void Remember(const RateSample& sample) {
    if (!sample.is_app_limited ||
        sample.bytes_per_second() >= latest_.bytes_per_second()) {
      latest_ = sample;
    }
  }

  uint64_t delivered_ = 0;  // C.delivered
  uint32_t delivered_time_ = 0;
  uint32_t first_sent_time_ = 0;
  // C.app_limited: the bytes delivered when it ends; 0: it does not last. At
  // the beginning nothing is known, as in Linux.
  uint64_t app_limited_ = 1;
  RateSample latest_{.is_app_limited = true};
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_DELIVERY_RATE_H_
