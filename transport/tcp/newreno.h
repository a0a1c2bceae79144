// NewReno: slow start, congestion avoidance, halving on loss.
//
// Source:   RFC 5681 3.1, 3.2 and 4.1; RFC 6582; initial window RFC 6928;
//           byte counting RFC 3465; undo RFC 4015.
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation after NewNewReno().
#ifndef TRANSPORT_TCP_NEWRENO_H_
#define TRANSPORT_TCP_NEWRENO_H_

#include <cstdint>
#include <memory>

#include "transport/tcp/congestion.h"

namespace devwire {

class NewReno final : public CongestionControl {
 public:
  const char* name() const override { return "newreno"; }
  void OnEstablished(uint32_t smss, Instant now) override;
  void OnAck(const Ack& ack) override;
  void OnLoss(uint32_t flight_size, Instant now) override;
  void OnRecovered(uint32_t flight_size, Instant now) override;
  void OnTimeout(uint32_t flight_size, bool is_first, Instant now) override;
  void OnUndo(uint32_t flight_size, Instant now) override;
  void OnIdle(Instant now) override;

 private:
  void Remember(uint32_t flight_size);

  uint32_t smss_ = 536;
  uint32_t bytes_acked_ = 0;  // Towards the next SMSS in congestion avoidance.
  // Before the latest loss, for OnUndo().
  uint32_t prior_cwnd_ = 0;
  uint32_t prior_ssthresh_ = UINT32_MAX;
};

// A CongestionFactory.
std::unique_ptr<CongestionControl> NewNewReno();

}  // namespace devwire

#endif  // TRANSPORT_TCP_NEWRENO_H_
