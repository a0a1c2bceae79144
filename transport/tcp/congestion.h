// Congestion control of one connection: how many bytes may be in flight, and
// how fast they may leave.
//
// The connection finds losses and decides what to send again; this decides how
// much. In recovery the connection sends while pipe < cwnd, where pipe leaves
// out what arrived or was lost, so cwnd is never inflated (RFC 6582's
// arithmetic, written as RFC 6675's). During fast recovery itself the
// connection spreads the way down to ssthresh by PRR (prr.h).
//
// A new algorithm is a file beside this one and a row in congestion.cc. One
// that models the path (BBR) overrides pacing_rate(), and has OnRateSample() to
// get its samples by.
//
// Source:   RFC 5681; terms as there. Implementations stand beside this file.
// Threads:  none of its own; belongs to one Connection.
// Cost:     one virtual call per event; no allocation, no clock.
#ifndef TRANSPORT_TCP_CONGESTION_H_
#define TRANSPORT_TCP_CONGESTION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/time.h"
#include "transport/tcp/delivery_rate.h"

namespace devwire {

class CongestionControl {
 public:
  struct Start {
    Instant now;
    uint32_t smss = 536;  // Payload of a full segment out.
    // IW in segments; empty: RFC 6928's, ten of them or about 14,600 bytes.
    std::optional<uint32_t> initial_window_segments;
  };

  // New bytes were acknowledged outside of fast recovery.
  struct Ack {
    Instant now;
    uint32_t acked_bytes = 0;      // > 0
    uint32_t flight_size = 0;      // Bytes, before this ACK.
    std::optional<Duration> rtt;   // This ACK's own sample.
    std::optional<Duration> srtt;  // Smoothed.
    bool is_cwnd_limited = false;  // The window was in use: it may grow.
    // All that was in flight when the last round ended is acknowledged: about
    // once per round trip.
    bool ends_round = false;
    bool has_ece = false;  // On a connection that uses ECN.
  };

  virtual ~CongestionControl() = default;
  // For tcp_info: "newreno".
  virtual const char* name() const = 0;
  // Whether ACKs tell exactly which bytes were marked, as DCTCP's receiver
  // does, instead of RFC 3168's ECE until CWR.
  virtual bool echoes_every_mark() const { return false; }

  // The effective send MSS became known. Before any other call.
  void OnEstablished(const Start& start);
  virtual void OnAck(const Ack& ack) = 0;
  // A loss was found without a timeout: fast recovery begins.
  void OnLoss(uint32_t flight_size, Instant now);
  // The peer echoed a congestion mark, for the first time in a window of data
  // that saw no loss. RFC 3168 6.1.2.
  void OnEce(uint32_t flight_size, Instant now);
  // Everything sent before the loss is acknowledged: cwnd becomes ssthresh.
  // RFC 9937 6.
  virtual void OnRecovered(uint32_t flight_size, Instant now);
  // The retransmission timer fired. `is_first`: not yet so for these bytes.
  void OnTimeout(uint32_t flight_size, bool is_first, Instant now);
  // The latest OnLoss() or first OnTimeout() was a mistake: what seemed lost
  // had only been late. Back to the state before it, as far as that sends no
  // burst. RFC 4015 3.1 (9), RFC 9438 4.9.
  virtual void OnUndo(uint32_t flight_size, Instant now);
  // An ACK delivered something, in recovery or not; after the calls above that
  // it gave rise to.
  virtual void OnRateSample(const RateSample& /*sample*/) {}
  // Text is sent after a pause of `idle`, longer than `rto`. RFC 5681 4.1.
  virtual void OnIdle(Duration idle, Duration rto);

  uint32_t cwnd() const { return cwnd_; }          // Bytes.
  uint32_t ssthresh() const { return ssthresh_; }  // Bytes; UINT32_MAX: none.
  // How often the window was made smaller: the peer is to hear of it (CWR).
  uint32_t reductions() const { return reductions_; }
  bool is_in_slow_start() const { return cwnd_ < ssthresh_; }
  // Bytes per second at which text should leave; UINT64_MAX: no limit. Twice
  // the window per round trip while it may double, else 1.2 times: as Linux's
  // tcp_pacing_ss_ratio and tcp_pacing_ca_ratio.
  virtual uint64_t pacing_rate(std::optional<Duration> srtt) const;

 protected:
  enum class Signal : uint8_t { kLoss, kEce, kTimeout };

  // SSTHRESH for a congestion event; at most once per window of data.
  virtual uint32_t OnCongestion(Signal signal, uint32_t flight_size,
                                Instant now) = 0;
  // Slow start by `acked` bytes, up to ssthresh. Returns those left over.
  uint32_t SlowStart(uint32_t acked);
  void Grow(uint32_t bytes);
  uint32_t initial_window() const { return initial_window_; }
  uint32_t smss() const { return smss_; }

  uint32_t cwnd_ = 0;
  uint32_t ssthresh_ = UINT32_MAX;

 private:
  void Remember(uint32_t flight_size);

  uint32_t smss_ = 536;
  uint32_t initial_window_ = 0;
  uint32_t reductions_ = 0;
  // Before the latest loss, for OnUndo().
  uint32_t prior_cwnd_ = 0;
  uint32_t prior_ssthresh_ = UINT32_MAX;
};

// Makes the controller of one connection, when the connection is made.
using CongestionFactory = std::unique_ptr<CongestionControl> (*)();

// The factory of that name: "newreno"... Null when there is none.
CongestionFactory FindCongestion(std::string_view name);
// All of them, for a message: "cubic, newreno".
std::string CongestionNames();

}  // namespace devwire

#endif  // TRANSPORT_TCP_CONGESTION_H_
