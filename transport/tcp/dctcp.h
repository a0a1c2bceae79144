// DCTCP: a switch marks what it queues beyond a threshold, and the window
// shrinks in proportion to how much was marked. For networks of one operator.
//
// Source:   RFC 8257. Losses, growth and slow start are NewReno's (3.4, 3.5).
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation after NewDctcp().
#ifndef TRANSPORT_TCP_DCTCP_H_
#define TRANSPORT_TCP_DCTCP_H_

#include <cstdint>
#include <memory>

#include "transport/tcp/newreno.h"

namespace devwire {

class Dctcp final : public NewReno {
 public:
  const char* name() const override { return "dctcp"; }
  bool echoes_every_mark() const override { return true; }
  void OnAck(const Ack& ack) override;
  // DCTCP.Alpha, in 1/1024.
  uint32_t alpha_1024() const { return alpha_ >> (kAlphaBits - 10); }

 protected:
  uint32_t OnCongestion(Signal signal, uint32_t flight_size,
                        Instant now) override;

 private:
  static constexpr int kAlphaBits = 20;  // alpha_ is in units of 2^-20.
  static constexpr uint32_t kOne = 1u << kAlphaBits;

  // Starts at 1: the first mark is answered as RFC 3168 would. 3.3.
  uint32_t alpha_ = kOne;
  uint64_t bytes_acked_in_round_ = 0;   // DCTCP.BytesAcked
  uint64_t bytes_marked_in_round_ = 0;  // DCTCP.BytesMarked
};

// A CongestionFactory.
std::unique_ptr<CongestionControl> NewDctcp();

}  // namespace devwire

#endif  // TRANSPORT_TCP_DCTCP_H_
