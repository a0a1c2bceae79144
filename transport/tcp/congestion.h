// Congestion control of one connection: how many bytes may be in flight.
//
// The connection finds losses and decides what to send again; this decides how
// much. In recovery the connection sends while pipe < cwnd, where pipe leaves
// out what arrived or was lost, so cwnd is never inflated (RFC 6582's
// arithmetic, written as RFC 6675's).
//
// Source:   RFC 5681; terms as there. Implementations stand beside this file.
// Threads:  none of its own; belongs to one Connection.
// Cost:     one virtual call per event; no allocation, no clock.
#ifndef TRANSPORT_TCP_CONGESTION_H_
#define TRANSPORT_TCP_CONGESTION_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "base/time.h"

namespace devwire {

class CongestionControl {
 public:
  // New bytes were acknowledged outside of fast recovery.
  struct Ack {
    Instant now;
    uint32_t acked_bytes = 0;  // > 0
    uint32_t flight_size = 0;  // Bytes, before this ACK.
    std::optional<Duration> rtt;
    bool is_cwnd_limited = false;  // The window was in use: it may grow.
    bool has_ece = false;
  };

  virtual ~CongestionControl() = default;
  // For tcp_info: "newreno".
  virtual const char* name() const = 0;
  // The effective send MSS became known. Before any other call.
  virtual void OnEstablished(uint32_t smss, Instant now) = 0;
  virtual void OnAck(const Ack& ack) = 0;
  // A loss was found without a timeout: fast recovery begins.
  virtual void OnLoss(uint32_t flight_size, Instant now) = 0;
  // Everything sent before the loss is acknowledged.
  virtual void OnRecovered(uint32_t flight_size, Instant now) = 0;
  // The retransmission timer fired. `is_first`: not yet so for these bytes.
  virtual void OnTimeout(uint32_t flight_size, bool is_first, Instant now) = 0;
  // The latest OnLoss() or first OnTimeout() was a mistake: what seemed lost
  // had only been late. Back to the state before it, as far as that sends no
  // burst. RFC 4015 3.1 (9), RFC 9438 4.9.
  virtual void OnUndo(uint32_t flight_size, Instant now) = 0;
  // Nothing was sent for longer than the RTO. RFC 5681 4.1.
  virtual void OnIdle(Instant now) = 0;

  uint32_t cwnd() const { return cwnd_; }          // Bytes.
  uint32_t ssthresh() const { return ssthresh_; }  // Bytes; UINT32_MAX: none.

 protected:
  uint32_t cwnd_ = 0;
  uint32_t ssthresh_ = UINT32_MAX;
};

// Makes the controller of one connection, when the connection is made.
using CongestionFactory = std::unique_ptr<CongestionControl> (*)();

}  // namespace devwire

#endif  // TRANSPORT_TCP_CONGESTION_H_
