// Round-trip time estimate and retransmission timeout of one connection.
//
// Source:   RFC 6298 sections 2, 3 and 5. Samples from timestamps: RFC 7323 4.
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation, no clock call.
#ifndef TRANSPORT_TCP_RTT_H_
#define TRANSPORT_TCP_RTT_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/time.h"

namespace devwire {

class RttEstimator {
 public:
  struct Options {
    Duration rto_initial = 1_s;  // RFC 6298 (2.1).
    // RFC 6298 (2.4) says 1 s. As in Linux it is the least margin above SRTT
    // (in place of 4*RTTVAR), so that a delayed ACK is no timeout.
    Duration rto_min = 200_ms;
    Duration rto_max = 120_s;      // RFC 6298 (2.5): not below 60 s. Linux's.
    Duration granularity = 50_us;  // G: the longest pause between two polls.
  };

  // 0 < granularity <= rto_min <= rto_initial <= rto_max, else CHECK: an
  // engine validates its options when it opens.
  explicit RttEstimator(const Options& options);

  // Adds one sample, taken at `now`. Measure to the segment's arrival Instant:
  // time spent in our own queues is not network delay.
  // Karn's rule (RFC 6298 3): no samples from retransmitted segments, unless a
  // timestamp tells which copy was acknowledged.
  void OnSample(Duration rtt, Instant now);

  // The timer fired: doubles rto(), up to rto_max. RFC 6298 (5.5). It stays
  // so until the next sample.
  void OnTimeout();
  // The SYN was retransmitted and the handshake gave no sample: start data
  // with 3 s. RFC 6298 (5.7).
  void OnSynRetransmitted();

  Duration rto() const { return rto_; }  // In [rto_min, rto_max].
  // Empty before a sample.
  std::optional<Duration> srtt() const {
    return has_sample_ ? std::optional(srtt_) : std::nullopt;
  }
  Duration rttvar() const { return rttvar_; }
  // RACK.min_RTT: the least of the last 150 to 300 s. Max() before a sample.
  Duration rtt_min() const { return std::min(older_min_, newer_min_); }
  // How often OnTimeout() was called since the last sample.
  int backoffs() const { return backoffs_; }

 private:
  Options options_;
  Duration srtt_;
  Duration rttvar_;
  Duration rto_;
  Duration older_min_ = Duration::Max();  // Of the half before half_start_,
  Duration newer_min_ = Duration::Max();  // and since.
  Instant half_start_;
  int backoffs_ = 0;
  bool has_sample_ = false;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_RTT_H_
