// Sequence numbers: a circle of 2^32, RFC 9293 3.4. The only place that
// compares them.
#ifndef TRANSPORT_SEQ_H_
#define TRANSPORT_SEQ_H_

#include <cstdint>
#include <ostream>

namespace devwire {

// A count of sequence numbers (bytes, plus one for each SYN and FIN).
using SeqLen = uint32_t;

// A point on the circle. Has no order of its own: use SeqLt and friends, which
// are right while the two are less than 2^31 apart.
class SeqNum {
 public:
  constexpr SeqNum() = default;
  explicit constexpr SeqNum(uint32_t raw) : raw_(raw) {}
  constexpr uint32_t raw() const { return raw_; }

  friend constexpr bool operator==(SeqNum, SeqNum) = default;
  friend constexpr SeqNum operator+(SeqNum a, SeqLen n) {
    return SeqNum(a.raw_ + n);
  }
  friend constexpr SeqNum operator-(SeqNum a, SeqLen n) {
    return SeqNum(a.raw_ - n);
  }
  constexpr SeqNum& operator+=(SeqLen n) { return *this = *this + n; }
  // How far `a` lies after `b`; right when it does.
  friend constexpr SeqLen operator-(SeqNum a, SeqNum b) {
    return a.raw_ - b.raw_;
  }
  friend std::ostream& operator<<(std::ostream& out, SeqNum a) {
    return out << a.raw_;
  }

 private:
  uint32_t raw_ = 0;
};

// Signed distance from b to a, in [-2^31, 2^31).
constexpr int32_t SeqDistance(SeqNum a, SeqNum b) {
  return static_cast<int32_t>(a.raw() - b.raw());
}
constexpr bool SeqLt(SeqNum a, SeqNum b) { return SeqDistance(a, b) < 0; }
constexpr bool SeqLe(SeqNum a, SeqNum b) { return SeqDistance(a, b) <= 0; }
constexpr bool SeqGt(SeqNum a, SeqNum b) { return SeqLt(b, a); }
constexpr bool SeqGe(SeqNum a, SeqNum b) { return SeqLe(b, a); }
constexpr SeqNum SeqMin(SeqNum a, SeqNum b) { return SeqLt(a, b) ? a : b; }
constexpr SeqNum SeqMax(SeqNum a, SeqNum b) { return SeqLt(a, b) ? b : a; }

// low < x <= high: an acceptable acknowledgment.
constexpr bool InOpenClosed(SeqNum low, SeqNum x, SeqNum high) {
  return SeqLt(low, x) && SeqLe(x, high);
}
// low <= x < high: within a window.
constexpr bool InClosedOpen(SeqNum low, SeqNum x, SeqNum high) {
  return SeqLe(low, x) && SeqLt(x, high);
}

}  // namespace devwire

#endif  // TRANSPORT_SEQ_H_
