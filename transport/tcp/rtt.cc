#include "transport/tcp/rtt.h"

#include <algorithm>

#include "base/check.h"

namespace devwire {

namespace {

// Half of Linux's tcp_min_rtt_wlen.
constexpr Duration kMinHalf = 150_s;

}  // namespace

RttEstimator::RttEstimator(const Options& options)
    : options_(options), rto_(options.rto_initial) {
  CHECK(Duration() < options.granularity);
  CHECK(options.granularity <= options.rto_min);
  CHECK(options.rto_min <= options.rto_initial);
  CHECK(options.rto_initial <= options.rto_max);
}

void RttEstimator::OnSample(Duration rtt, Instant now) {
  rtt = std::max(rtt, 1_ns);
  if (!has_sample_ || now - half_start_ >= kMinHalf) [[unlikely]] {
    older_min_ = now - half_start_ < 2 * kMinHalf ? newer_min_ : rtt;
    newer_min_ = rtt;
    half_start_ = now;
  }
  newer_min_ = std::min(newer_min_, rtt);
  if (!has_sample_) {  // RFC 6298 (2.2).
    has_sample_ = true;
    srtt_ = rtt;
    rttvar_ = rtt / 2;
  } else {  // RFC 6298 (2.3): alpha 1/8, beta 1/4.
    Duration error = rtt > srtt_ ? rtt - srtt_ : srtt_ - rtt;
    rttvar_ = (3 * rttvar_ + error) / 4;
    srtt_ = (7 * srtt_ + rtt) / 8;
  }
  backoffs_ = 0;
  Duration margin =
      std::max({4 * rttvar_, options_.granularity, options_.rto_min});
  rto_ = std::min(srtt_ + margin, options_.rto_max);
}

void RttEstimator::OnTimeout() {
  ++backoffs_;
  rto_ = std::min(2 * rto_, options_.rto_max);
}

void RttEstimator::OnSynRetransmitted() {
  if (has_sample_) return;
  rto_ = std::min(std::max(options_.rto_initial, 3_s), options_.rto_max);
}

}  // namespace devwire
