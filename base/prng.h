// A seeded generator of pseudo-random numbers: same seed, same numbers, on
// every machine. Not for secrets.
//
// Source: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#ifndef BASE_PRNG_H_
#define BASE_PRNG_H_

#include <cstdint>

namespace devwire {

class Prng {
 public:
  explicit constexpr Prng(uint64_t seed) : seed_(seed), state_(seed) {}

  constexpr uint64_t seed() const { return seed_; }

  constexpr uint64_t Next64() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  constexpr uint32_t Next32() { return static_cast<uint32_t>(Next64() >> 32); }

  // Uniform in [0, bound), bound > 0; the bias is below bound / 2^64.
  constexpr uint64_t Below(uint64_t bound) {
    return static_cast<uint64_t>(
        (static_cast<unsigned __int128>(Next64()) * bound) >> 64);
  }
  // Uniform in [low, high].
  constexpr int64_t Between(int64_t low, int64_t high) {
    return low +
           static_cast<int64_t>(Below(static_cast<uint64_t>(high - low) + 1));
  }
  // True with probability p in [0, 1].
  constexpr bool Chance(double p) {
    return static_cast<double>(Next64() >> 11) * 0x1p-53 < p;
  }

 private:
  uint64_t seed_;
  uint64_t state_;
};

}  // namespace devwire

#endif  // BASE_PRNG_H_
