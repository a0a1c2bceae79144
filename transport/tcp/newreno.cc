#include "transport/tcp/newreno.h"

namespace devwire {

void NewReno::OnAck(const Ack& ack) {
  // RFC 3168 6.1.2: an ACK that echoes congestion does not open the window.
  if (!ack.is_cwnd_limited || ack.has_ece) return;
  bytes_acked_ += SlowStart(ack.acked_bytes);
  // Congestion avoidance: one SMSS per window acknowledged. RFC 5681 3.1.
  if (!is_in_slow_start() && bytes_acked_ >= cwnd_) {
    bytes_acked_ -= cwnd_;
    Grow(smss());
  }
}

void NewReno::OnRecovered(uint32_t flight_size, Instant now) {
  CongestionControl::OnRecovered(flight_size, now);
  bytes_acked_ = 0;
}

uint32_t NewReno::OnCongestion(Signal, uint32_t flight_size, Instant) {
  bytes_acked_ = 0;
  return flight_size / 2;  // RFC 5681 (4), RFC 3168 6.1.2.
}

std::unique_ptr<CongestionControl> NewNewReno() {
  return std::make_unique<NewReno>();
}

}  // namespace devwire
