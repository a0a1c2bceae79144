#include "transport/tcp/dctcp.h"

namespace devwire {
namespace {

constexpr int kGainBits = 4;  // g = 1/16. RFC 8257 4.2.

}  // namespace

void Dctcp::OnAck(const Ack& ack) {
  bytes_acked_in_round_ += ack.acked_bytes;
  if (ack.has_ece) bytes_marked_in_round_ += ack.acked_bytes;
  if (ack.ends_round) {
    // DCTCP.Alpha = DCTCP.Alpha * (1 - g) + g * M. 3.3, steps 5 to 8; the
    // window of observation is a round.
    const auto m = static_cast<uint32_t>(bytes_marked_in_round_ * kOne /
                                         bytes_acked_in_round_);
    alpha_ = alpha_ - (alpha_ >> kGainBits) + (m >> kGainBits);
    // What the shift cannot take away any more: 15 units of 2^-20.
    if (m == 0 && alpha_ < (1u << kGainBits)) alpha_ = 0;
    bytes_acked_in_round_ = bytes_marked_in_round_ = 0;
  }
  NewReno::OnAck(ack);
}

uint32_t Dctcp::OnCongestion(Signal signal, uint32_t flight_size, Instant now) {
  const uint32_t half = NewReno::OnCongestion(signal, flight_size, now);
  if (signal != Signal::kEce) return half;
  // cwnd = cwnd * (1 - DCTCP.Alpha / 2). 3.3, step 9.
  return cwnd_ -
         static_cast<uint32_t>(uint64_t{cwnd_} * alpha_ >> (kAlphaBits + 1));
}

std::unique_ptr<CongestionControl> NewDctcp() {
  return std::make_unique<Dctcp>();
}

}  // namespace devwire
