// Network byte order: loads and stores at any alignment.
#ifndef TRANSPORT_WIRE_BYTE_ORDER_H_
#define TRANSPORT_WIRE_BYTE_ORDER_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace devwire {

static_assert(std::endian::native == std::endian::little,
              "the swaps below assume a little-endian host");

inline uint8_t Load8(const std::byte* at) { return static_cast<uint8_t>(*at); }
inline uint16_t LoadBe16(const std::byte* at) {
  uint16_t v;
  std::memcpy(&v, at, sizeof(v));
  return __builtin_bswap16(v);
}
inline uint32_t LoadBe32(const std::byte* at) {
  uint32_t v;
  std::memcpy(&v, at, sizeof(v));
  return __builtin_bswap32(v);
}

inline void Store8(std::byte* at, uint8_t v) {
  *at = static_cast<std::byte>(v);
}
inline void StoreBe16(std::byte* at, uint16_t v) {
  v = __builtin_bswap16(v);
  std::memcpy(at, &v, sizeof(v));
}
inline void StoreBe32(std::byte* at, uint32_t v) {
  v = __builtin_bswap32(v);
  std::memcpy(at, &v, sizeof(v));
}

}  // namespace devwire

#endif  // TRANSPORT_WIRE_BYTE_ORDER_H_
