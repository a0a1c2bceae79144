#include "transport/tcp/congestion.h"

#include <algorithm>

#include "transport/tcp/cubic.h"
#include "transport/tcp/dctcp.h"
#include "transport/tcp/newreno.h"

namespace devwire {
namespace {

// The largest window that RFC 7323 2.3 lets a peer offer.
constexpr uint32_t kMaxCwnd = 1u << 30;

struct Algorithm {
  std::string_view name;
  CongestionFactory make;
};
constexpr Algorithm kAlgorithms[] = {
    {"cubic", &NewCubic},
    {"newreno", &NewNewReno},
    {"dctcp", &NewDctcp},
};

// RFC 6928 2.
uint32_t InitialWindow(const CongestionControl::Start& start) {
  const uint32_t smss = start.smss;
  if (start.initial_window_segments) {
    return static_cast<uint32_t>(std::min<uint64_t>(
        uint64_t{*start.initial_window_segments} * smss, kMaxCwnd));
  }
  return std::min(10 * smss, std::max(2 * smss, 14'600u));
}

}  // namespace

void CongestionControl::OnEstablished(const Start& start) {
  smss_ = start.smss;
  initial_window_ = std::max(InitialWindow(start), smss_);
  cwnd_ = initial_window_;
}

// RFC 4015 3.1 (0): pipe_prev is the threshold that was safe before.
void CongestionControl::Remember(uint32_t flight_size) {
  prior_cwnd_ = cwnd_;
  prior_ssthresh_ = std::max(flight_size, ssthresh_);
}

void CongestionControl::OnLoss(uint32_t flight_size, Instant now) {
  Remember(flight_size);
  ssthresh_ =
      std::max(OnCongestion(Signal::kLoss, flight_size, now), 2 * smss_);
  cwnd_ = ssthresh_;
  ++reductions_;
}

void CongestionControl::OnEce(uint32_t flight_size, Instant now) {
  const uint32_t reduced = OnCongestion(Signal::kEce, flight_size, now);
  ssthresh_ = std::max(reduced, 2 * smss_);
  // Down to one SMSS, where a loss would stop at two. RFC 3168 6.1.2.
  cwnd_ = std::min(cwnd_, std::max(reduced, smss_));
  ++reductions_;
}

void CongestionControl::OnRecovered(uint32_t, Instant) { cwnd_ = ssthresh_; }

void CongestionControl::OnTimeout(uint32_t flight_size, bool is_first,
                                  Instant now) {
  if (is_first) {
    // RFC 5681 3.1: a segment lost again does not lower ssthresh again.
    Remember(flight_size);
    ssthresh_ =
        std::max(OnCongestion(Signal::kTimeout, flight_size, now), 2 * smss_);
  }
  cwnd_ = smss_;  // The loss window.
  ++reductions_;
}

void CongestionControl::OnUndo(uint32_t flight_size, Instant) {
  // At most an initial window more than is in flight at once; slow start
  // brings the rest.
  const uint32_t calm = flight_size + initial_window_;
  cwnd_ = std::max(cwnd_, std::min(prior_cwnd_, calm));
  ssthresh_ = std::max(ssthresh_, prior_ssthresh_);
}

void CongestionControl::OnIdle(Duration idle, Duration rto) {
  // What the path took before is a bound for slow start; the window is halved
  // for every RTO that passed, and the first ACKs validate it. RFC 2861 3.1,
  // as Linux; gentler than RFC 5681 4.1, which restarts from IW at once.
  ssthresh_ = std::max(ssthresh_, cwnd_ - cwnd_ / 4);
  while (idle > rto && cwnd_ > initial_window_) {
    cwnd_ = std::max(cwnd_ / 2, initial_window_);
    idle -= rto;
  }
}

uint64_t CongestionControl::pacing_rate(std::optional<Duration> srtt) const {
  if (!srtt || *srtt <= Duration()) return UINT64_MAX;
  const uint64_t percent = cwnd_ < ssthresh_ / 2 ? 200 : 120;
  return uint64_t{cwnd_} * 10'000'000 * percent /
         static_cast<uint64_t>(srtt->nanoseconds());
}

uint32_t CongestionControl::SlowStart(uint32_t acked) {
  if (cwnd_ >= ssthresh_) return acked;
  // By bytes, without RFC 3465's limit L: receivers (ours too) acknowledge
  // whole batches at once. As Linux.
  const uint32_t grow = std::min(acked, ssthresh_ - cwnd_);
  Grow(grow);
  return acked - grow;
}

void CongestionControl::Grow(uint32_t bytes) {
  cwnd_ += std::min(bytes, kMaxCwnd - std::min(cwnd_, kMaxCwnd));
}

CongestionFactory FindCongestion(std::string_view name) {
  for (const Algorithm& a : kAlgorithms) {
    if (a.name == name) return a.make;
  }
  return nullptr;
}

std::string CongestionNames() {
  std::string names;
  for (const Algorithm& a : kAlgorithms) {
    if (!names.empty()) names += ", ";
    names += a.name;
  }
  return names;
}

}  // namespace devwire
