// NewReno: slow start, congestion avoidance, halving on loss.
//
// Source:   RFC 5681 3.1, 3.2; RFC 6582; byte counting RFC 3465.
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation after NewNewReno().
#ifndef TRANSPORT_TCP_NEWRENO_H_
#define TRANSPORT_TCP_NEWRENO_H_

#include <cstdint>
#include <memory>

#include "transport/tcp/congestion.h"

namespace devwire {

class NewReno : public CongestionControl {
 public:
  const char* name() const override { return "newreno"; }
  void OnAck(const Ack& ack) override;
  void OnRecovered(uint32_t flight_size, Instant now) override;

 protected:
  uint32_t OnCongestion(Signal signal, uint32_t flight_size,
                        Instant now) override;

 private:
  uint32_t bytes_acked_ = 0;  // Towards the next SMSS in congestion avoidance.
};

// A CongestionFactory.
std::unique_ptr<CongestionControl> NewNewReno();

}  // namespace devwire

#endif  // TRANSPORT_TCP_NEWRENO_H_
