// CUBIC: after a loss the window returns to where it was along a cubic curve
// of time, lingers there, and then probes; never slower than Reno would.
//
//   W_cubic(t) = C * (t - K)^3 + W_max
//
//   W_max ............____----
//              __----'                  K: when W_cubic is W_max again
//           .-'
//          /   <- 0.7 * W_max
//   t_epoch                 K            t
//
// Names are the RFC's; windows are in bytes. The curve is computed in whole
// milliseconds: at its steepest use a millisecond is a tenth of a segment.
//
// Source:   RFC 9438; first slow start RFC 9406.
// Threads:  none of its own; belongs to one Connection.
// Cost:     per ACK two cubes and one division of integers; a cube root per
//           congestion event; no allocation after NewCubic().
#ifndef TRANSPORT_TCP_CUBIC_H_
#define TRANSPORT_TCP_CUBIC_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "transport/tcp/congestion.h"
#include "transport/tcp/hystart.h"

namespace devwire {

class Cubic final : public CongestionControl {
 public:
  const char* name() const override { return "cubic"; }
  void OnAck(const Ack& ack) override;
  void OnUndo(uint32_t flight_size, Instant now) override;
  void OnIdle(Duration idle, Duration rto) override;

 protected:
  uint32_t OnCongestion(Signal signal, uint32_t flight_size,
                        Instant now) override;

 private:
  // RFC 9438 4.1.2: what OnUndo() brings back.
  struct State {
    uint32_t w_max = 0;       // 0: undefined, 4.10; set when an epoch starts.
    uint32_t cwnd_prior = 0;  // cwnd when ssthresh was set.
    uint32_t w_est = 0;
    int64_t k_ms = 0;
    std::optional<Instant> t_epoch;  // Empty: the next ACK starts one.
  };

  void StartEpoch(Instant now);
  void AvoidCongestion(uint32_t acked, const Ack& ack);
  uint32_t WCubic(Duration t) const;

  State state_;
  State undo_;
  HyStart hystart_;
  // cwnd was not updated since, for want of data to send. 4.2: this time is
  // no part of t.
  std::optional<Instant> limited_since_;
  uint64_t est_credit_ = 0;     // Towards the next SMSS of w_est.
  uint64_t growth_credit_ = 0;  // Towards the next byte of cwnd.
};

// A CongestionFactory.
std::unique_ptr<CongestionControl> NewCubic();

}  // namespace devwire

#endif  // TRANSPORT_TCP_CUBIC_H_
