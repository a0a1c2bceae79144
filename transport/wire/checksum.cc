#include "transport/wire/checksum.h"

#include <cstring>

namespace devwire {

void InternetSum::Add(std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  size_t left = bytes.size();
  // 32-bit words into a 64-bit sum: 2^32 words before the carries overflow,
  // far more than a packet has.
  for (; left >= 8; at += 8, left -= 8) {
    uint32_t a, b;
    std::memcpy(&a, at, 4);
    std::memcpy(&b, at + 4, 4);
    sum_ += static_cast<uint64_t>(a) + b;
  }
  // The odd byte is the high half of a word whose low half is zero.
  uint64_t tail = 0;
  if (left > 0) std::memcpy(&tail, at, left);
  sum_ += (tail & 0xffffffff) + (tail >> 32);
}

uint16_t InternetSum::Folded() const {
  uint64_t s = (sum_ & 0xffffffff) + (sum_ >> 32);
  s = (s & 0xffff) + (s >> 16);
  s = (s & 0xffff) + (s >> 16);
  s = (s & 0xffff) + (s >> 16);
  return __builtin_bswap16(static_cast<uint16_t>(s));
}

InternetSum PseudoHeaderSum(const IpAddress& source,
                            const IpAddress& destination, uint8_t protocol,
                            uint32_t l4_bytes) {
  const size_t address_bytes = source.is_v4() ? 4 : 16;
  InternetSum sum;
  sum.Add(std::as_bytes(std::span(source.bytes).first(address_bytes)));
  sum.Add(std::as_bytes(std::span(destination.bytes).first(address_bytes)));
  sum.AddWord(protocol);
  sum.AddLong(l4_bytes);
  return sum;
}

}  // namespace devwire
