// Points in time and spans of time, in nanoseconds, as types that do not mix.
//
// An Instant counts from an origin that its Clock chose; two Instants compare
// only when they come from one Clock. Neither type reads a clock: base/clock.h
// does, and nothing else.
#ifndef BASE_TIME_H_
#define BASE_TIME_H_

#include <compare>
#include <cstdint>
#include <limits>

namespace devwire {

// A signed span of nanoseconds; about 292 years either way.
class Duration {
 public:
  constexpr Duration() = default;
  static constexpr Duration Nanoseconds(int64_t n) { return Duration(n); }
  static constexpr Duration Max() {
    return Duration(std::numeric_limits<int64_t>::max());
  }

  constexpr int64_t nanoseconds() const { return ns_; }
  constexpr int64_t microseconds() const { return ns_ / 1'000; }
  constexpr int64_t milliseconds() const { return ns_ / 1'000'000; }
  constexpr double seconds() const { return static_cast<double>(ns_) / 1e9; }

  friend constexpr auto operator<=>(Duration, Duration) = default;
  friend constexpr Duration operator-(Duration a) { return Duration(-a.ns_); }
  friend constexpr Duration operator+(Duration a, Duration b) {
    return Duration(a.ns_ + b.ns_);
  }
  friend constexpr Duration operator-(Duration a, Duration b) {
    return Duration(a.ns_ - b.ns_);
  }
  friend constexpr Duration operator*(Duration a, int64_t k) {
    return Duration(a.ns_ * k);
  }
  friend constexpr Duration operator*(int64_t k, Duration a) { return a * k; }
  friend constexpr Duration operator/(Duration a, int64_t k) {
    return Duration(a.ns_ / k);
  }
  constexpr Duration& operator+=(Duration d) { return *this = *this + d; }
  constexpr Duration& operator-=(Duration d) { return *this = *this - d; }

 private:
  explicit constexpr Duration(int64_t ns) : ns_(ns) {}
  int64_t ns_ = 0;
};

// A point in time of one Clock.
class Instant {
 public:
  constexpr Instant() = default;
  static constexpr Instant FromNanoseconds(int64_t n) { return Instant(n); }
  // Later than every time a Clock gives: "no deadline".
  static constexpr Instant Never() {
    return Instant(std::numeric_limits<int64_t>::max());
  }

  constexpr int64_t nanoseconds() const { return ns_; }

  friend constexpr auto operator<=>(Instant, Instant) = default;
  friend constexpr Instant operator+(Instant t, Duration d) {
    return Instant(t.ns_ + d.nanoseconds());
  }
  friend constexpr Instant operator-(Instant t, Duration d) {
    return Instant(t.ns_ - d.nanoseconds());
  }
  friend constexpr Duration operator-(Instant a, Instant b) {
    return Duration::Nanoseconds(a.ns_ - b.ns_);
  }
  constexpr Instant& operator+=(Duration d) { return *this = *this + d; }

 private:
  explicit constexpr Instant(int64_t ns) : ns_(ns) {}
  int64_t ns_ = 0;
};

inline namespace time_literals {
constexpr Duration operator""_ns(unsigned long long n) {
  return Duration::Nanoseconds(static_cast<int64_t>(n));
}
constexpr Duration operator""_us(unsigned long long n) {
  return Duration::Nanoseconds(static_cast<int64_t>(n) * 1'000);
}
constexpr Duration operator""_ms(unsigned long long n) {
  return Duration::Nanoseconds(static_cast<int64_t>(n) * 1'000'000);
}
constexpr Duration operator""_s(unsigned long long n) {
  return Duration::Nanoseconds(static_cast<int64_t>(n) * 1'000'000'000);
}
}  // namespace time_literals

}  // namespace devwire

#endif  // BASE_TIME_H_
