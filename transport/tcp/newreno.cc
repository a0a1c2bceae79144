#include "transport/tcp/newreno.h"

#include <algorithm>

namespace devwire {
namespace {

// The largest window that RFC 7323 2.3 lets a peer offer.
constexpr uint32_t kMaxCwnd = 1u << 30;

// RFC 6928 2.
uint32_t InitialWindow(uint32_t smss) {
  return std::min(10 * smss, std::max(2 * smss, 14'600u));
}

}  // namespace

void NewReno::OnEstablished(uint32_t smss, Instant) {
  smss_ = smss;
  cwnd_ = InitialWindow(smss);
}

void NewReno::OnAck(const Ack& ack) {
  if (!ack.is_cwnd_limited) return;
  uint32_t acked = ack.acked_bytes;
  if (cwnd_ < ssthresh_) {
    // Slow start by bytes, without RFC 3465's limit L: receivers (ours too)
    // acknowledge whole batches at once. As Linux.
    uint32_t grow = std::min({acked, ssthresh_ - cwnd_, kMaxCwnd - cwnd_});
    cwnd_ += grow;
    acked -= grow;
    if (acked == 0 || cwnd_ < ssthresh_) return;
  }
  // Congestion avoidance: one SMSS per window acknowledged. RFC 5681 3.1.
  bytes_acked_ += acked;
  if (bytes_acked_ >= cwnd_) {
    bytes_acked_ -= cwnd_;
    cwnd_ = std::min(cwnd_ + smss_, kMaxCwnd);
  }
}

// RFC 4015 3.1 (0): pipe_prev is the threshold that was safe before.
void NewReno::Remember(uint32_t flight_size) {
  prior_cwnd_ = cwnd_;
  prior_ssthresh_ = std::max(flight_size, ssthresh_);
}

void NewReno::OnLoss(uint32_t flight_size, Instant) {
  Remember(flight_size);
  ssthresh_ = std::max(flight_size / 2, 2 * smss_);  // RFC 5681 (4).
  cwnd_ = ssthresh_;
  bytes_acked_ = 0;
}

void NewReno::OnRecovered(uint32_t flight_size, Instant) {
  // RFC 6582 3.2, step 3, "full acknowledgments", option 1: no burst.
  cwnd_ = std::min(ssthresh_, std::max(flight_size, smss_) + smss_);
  bytes_acked_ = 0;
}

void NewReno::OnTimeout(uint32_t flight_size, bool is_first, Instant) {
  // RFC 5681 3.1: a segment lost again does not lower ssthresh again.
  if (is_first) {
    Remember(flight_size);
    ssthresh_ = std::max(flight_size / 2, 2 * smss_);
  }
  cwnd_ = smss_;  // The loss window.
  bytes_acked_ = 0;
}

void NewReno::OnUndo(uint32_t flight_size, Instant) {
  // At most an initial window more than is in flight at once; slow start
  // brings the rest.
  const uint32_t calm = flight_size + InitialWindow(smss_);
  cwnd_ = std::max(cwnd_, std::min(prior_cwnd_, calm));
  ssthresh_ = std::max(ssthresh_, prior_ssthresh_);
  bytes_acked_ = 0;
}

void NewReno::OnIdle(Instant) { cwnd_ = std::min(cwnd_, InitialWindow(smss_)); }

std::unique_ptr<CongestionControl> NewNewReno() {
  return std::make_unique<NewReno>();
}

}  // namespace devwire
