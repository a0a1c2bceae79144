#include "transport/engine/route.h"

#include <algorithm>

namespace devwire {
namespace {

bool SamePrefix(const IpAddress& a, const IpAddress& b, uint32_t bits) {
  const uint32_t width = a.is_v4() ? 32 : 128;
  bits = std::min(bits, width);
  for (uint32_t i = 0; i < bits / 8; ++i) {
    if (a.bytes[i] != b.bytes[i]) return false;
  }
  if (bits % 8 == 0) return true;
  const uint8_t mask = static_cast<uint8_t>(0xff << (8 - bits % 8));
  return ((a.bytes[bits / 8] ^ b.bytes[bits / 8]) & mask) == 0;
}

}  // namespace

std::optional<IpAddress> Route::NextHop(const IpAddress& destination) const {
  if (destination.family != address.family) return std::nullopt;
  if (SamePrefix(destination, address, prefix_bits)) return destination;
  return gateway;
}

}  // namespace devwire
