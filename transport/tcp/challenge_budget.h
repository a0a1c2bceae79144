// How many challenge ACKs all connections of one engine send together.
//
// A fixed number per second would tell an attacker, who can draw challenge
// ACKs to a connection of his own, whether another connection sent some: what
// is missing of the number were the answers to his guesses (CVE-2016-5696). So
// each second has a limit of its own, drawn from [n/2, n + n/2), as in Linux.
//
// Source:   RFC 5961 7.
// Threads:  one. Cost: no allocation, no clock.
#ifndef TRANSPORT_TCP_CHALLENGE_BUDGET_H_
#define TRANSPORT_TCP_CHALLENGE_BUDGET_H_

#include <cstdint>

#include "base/prng.h"
#include "base/time.h"

namespace devwire {

class ChallengeBudget {
 public:
  // `per_second` on average; 0: no limit. The seed is a secret.
  ChallengeBudget(uint32_t per_second, uint64_t seed)
      : per_second_(per_second), prng_(seed) {}

  // Whether one may be sent; if so, it counts.
  [[nodiscard]] bool Take(Instant now) {
    if (per_second_ == 0) return true;
    if (now >= next_second_) {
      next_second_ = now + 1_s;
      left_ = per_second_ / 2 + static_cast<uint32_t>(prng_.Below(per_second_));
    }
    if (left_ == 0) {
      ++refused_;
      return false;
    }
    --left_;
    return true;
  }
  uint64_t refused() const { return refused_; }

 private:
  const uint32_t per_second_;
  Prng prng_;
  Instant next_second_;
  uint32_t left_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_CHALLENGE_BUDGET_H_
