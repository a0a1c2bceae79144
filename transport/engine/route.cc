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

bool Route::CanBePeer(const IpAddress& ip) const {
  const uint8_t first = ip.bytes[0];
  if (!ip.is_v4()) {
    IpAddress loopback{.family = IpFamily::kIpv6};
    const bool is_unspecified = ip == loopback;
    loopback.bytes[15] = 1;
    return first != 0xff && !is_unspecified && ip != loopback;
  }
  if (first == 0 || first == 127 || first >= 224) return false;
  // Of a prefix with room for them, all ones and all zeros are no hosts.
  if (!address.is_v4() || prefix_bits > 30 ||
      !SamePrefix(ip, address, prefix_bits)) {
    return true;
  }
  const uint32_t host_mask = 0xffffffffu >> prefix_bits;
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    value = value << 8 | ip.bytes[static_cast<size_t>(i)];
  }
  return (value & host_mask) != 0 && (value & host_mask) != host_mask;
}

}  // namespace devwire
