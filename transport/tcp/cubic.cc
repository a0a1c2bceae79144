#include "transport/tcp/cubic.h"

#include <algorithm>

namespace devwire {
namespace {

// RFC 9438 4.6: beta_cubic = 0.7.
constexpr uint32_t kBetaTenths = 7;
// RFC 9438 5.1: C = 0.4 segments per cubic second.
constexpr int64_t kCTenths = 4;
// RFC 9438 4.3: alpha_cubic = 3 * (1 - beta) / (1 + beta) = 9 / 17.
constexpr uint64_t kAlphaNumerator = 9;
constexpr uint64_t kAlphaDenominator = 17;
// (1 + beta) / 2 = 17 / 20, of fast convergence. RFC 9438 4.7.
constexpr uint64_t kConvergenceTwentieths = 17;
// So far from K the curve has left every window that RFC 7323 allows.
constexpr int64_t kMaxMilliseconds = 1'000'000;
constexpr int64_t kMaxWindow = 1 << 30;

// The largest integer whose cube is at most `n`.
uint64_t CubeRoot(uint64_t n) {
  constexpr int kBits = 21;  // Of the root: its cube fits 64 bits.
  uint64_t root = 0;
  for (int bit = kBits; bit >= 0; --bit) {
    const uint64_t wider = root | uint64_t{1} << bit;
    if (wider * wider <= n / wider) root = wider;
  }
  return root;
}

}  // namespace

void Cubic::OnAck(const Ack& ack) {
  if (!ack.is_cwnd_limited) {
    if (!limited_since_) limited_since_ = ack.now;
    return;
  }
  if (limited_since_ && state_.t_epoch) {
    *state_.t_epoch += ack.now - *limited_since_;
  }
  limited_since_.reset();
  // RFC 3168 6.1.2: an ACK that echoes congestion does not open the window.
  if (ack.has_ece) return;

  uint32_t acked = ack.acked_bytes;
  if (ssthresh_ == UINT32_MAX) {
    // HyStart++ is for the first slow start, RFC 9406 4.3; later ones end at
    // an ssthresh that a congestion event measured.
    acked = SlowStart(hystart_.Growth(acked));
    if (hystart_.OnAck(ack.rtt, ack.ends_round)) ssthresh_ = cwnd_;
    return;
  }
  acked = SlowStart(acked);
  if (acked > 0 && !is_in_slow_start()) AvoidCongestion(acked, ack);
}

void Cubic::StartEpoch(Instant now) {
  state_.t_epoch = now;
  state_.w_est = cwnd_;
  est_credit_ = growth_credit_ = 0;
  if (state_.w_max == 0) {
    // After a timeout (4.8), or after HyStart++ ended slow start (4.10).
    state_.cwnd_prior = std::max(state_.cwnd_prior, cwnd_);
  }
  if (cwnd_ >= state_.w_max) {
    state_.w_max = cwnd_;
    state_.k_ms = 0;
    return;
  }
  // K = cube root of (W_max - cwnd_epoch) / C, from segments and seconds to
  // bytes and milliseconds: 10^9 cubic milliseconds are one cubic second.
  const uint64_t bytes = state_.w_max - cwnd_;
  state_.k_ms = static_cast<int64_t>(
      CubeRoot(bytes * 10'000'000'000 / (uint64_t{kCTenths} * smss())));
}

uint32_t Cubic::WCubic(Duration t) const {
  const int64_t from_k = std::clamp(t.milliseconds() - state_.k_ms,
                                    -kMaxMilliseconds, kMaxMilliseconds);
  const int64_t cube = from_k * from_k * from_k / 1'000'000;
  const int64_t bytes = cube * kCTenths * int64_t{smss()} / 10'000;
  return static_cast<uint32_t>(
      std::clamp<int64_t>(state_.w_max + bytes, 0, kMaxWindow));
}

void Cubic::AvoidCongestion(uint32_t acked, const Ack& ack) {
  if (!state_.t_epoch) StartEpoch(ack.now);
  const Duration t = ack.now - *state_.t_epoch;
  const uint64_t cwnd = cwnd_;

  // W_est grows by alpha_cubic * segments_acked / cwnd; once it is back at
  // cwnd_prior, as Reno's does. 4.3.
  est_credit_ += acked * (state_.w_est < state_.cwnd_prior ? kAlphaNumerator
                                                           : kAlphaDenominator);
  if (est_credit_ >= kAlphaDenominator * cwnd) {
    est_credit_ -= kAlphaDenominator * cwnd;
    state_.w_est += smss();
  }
  if (WCubic(t) < state_.w_est) {  // The Reno-friendly region.
    if (state_.w_est > cwnd) Grow(state_.w_est - cwnd_);
    return;
  }
  // The concave and the convex region, 4.4 and 4.5: cwnd is to be `target` a
  // round trip from now, and no faster than slow start's half.
  const uint64_t target = std::clamp<uint64_t>(
      WCubic(t + ack.srtt.value_or(Duration())), cwnd, cwnd + cwnd / 2);
  growth_credit_ += acked * (target - cwnd);
  Grow(static_cast<uint32_t>(growth_credit_ / cwnd));
  growth_credit_ %= cwnd;
}

uint32_t Cubic::OnCongestion(Signal signal, uint32_t flight_size, Instant) {
  if (signal != Signal::kEce) undo_ = state_;
  limited_since_.reset();
  state_.t_epoch.reset();
  state_.cwnd_prior = cwnd_;
  if (signal == Signal::kTimeout) {
    state_.w_max = 0;
  } else if (cwnd_ < state_.w_max) {
    // Fast convergence, 4.7: somebody else needs room.
    state_.w_max = static_cast<uint32_t>(cwnd_ * kConvergenceTwentieths / 20);
  } else {
    state_.w_max = cwnd_;
  }
  return static_cast<uint32_t>(uint64_t{flight_size} * kBetaTenths / 10);
}

void Cubic::OnUndo(uint32_t flight_size, Instant now) {
  // RFC 9438 4.9.2: unless the window has grown past it since.
  if (cwnd_ >= state_.cwnd_prior) return;
  state_ = undo_;
  CongestionControl::OnUndo(flight_size, now);
}

void Cubic::OnIdle(Duration idle, Duration rto) {
  if (state_.t_epoch && !limited_since_) *state_.t_epoch += idle;
  CongestionControl::OnIdle(idle, rto);
}

std::unique_ptr<CongestionControl> NewCubic() {
  return std::make_unique<Cubic>();
}

}  // namespace devwire
