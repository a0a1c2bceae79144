// The IPv6 fixed header. Extension headers are walked by ParseFrame()
// (frame.h): those that a host may pass over are, the rest is refused by name.
//
// Source:   RFC 8200 3; the traffic class as in RFC 3168 5.
// Threads:  pure functions. Cost: no allocation.
#ifndef TRANSPORT_WIRE_IPV6_H_
#define TRANSPORT_WIRE_IPV6_H_

#include "transport/address.h"
#include "transport/wire/byte_order.h"
#include "transport/wire/ipv4.h"

namespace devwire {

inline constexpr uint32_t kIpv6HeaderBytes = 40;

// Next-header values of extension headers; RFC 8200 4, RFC 7045 4.
inline constexpr uint8_t kIpv6HopByHop = 0;
inline constexpr uint8_t kIpv6Routing = 43;
inline constexpr uint8_t kIpv6Fragment = 44;
inline constexpr uint8_t kIpv6Encapsulated = 50;
inline constexpr uint8_t kIpv6Authentication = 51;
inline constexpr uint8_t kIpv6DestinationOptions = 60;
inline constexpr uint8_t kIpv6Mobility = 135;
inline constexpr bool IsIpv6Extension(uint8_t next_header) {
  switch (next_header) {
    case kIpv6HopByHop:
    case kIpv6Routing:
    case kIpv6Fragment:
    case kIpv6Encapsulated:
    case kIpv6Authentication:
    case kIpv6DestinationOptions:
    case kIpv6Mobility:
      return true;
    default:
      return false;
  }
}

struct Ipv6Header {
  uint8_t traffic_class = 0;  // DSCP and ECN.
  uint32_t flow_label = 0;    // 20 bits.
  uint16_t payload_length = 0;
  uint8_t next_header = 0;
  uint8_t hop_limit = 64;
  IpAddress source;
  IpAddress destination;

  Ecn ecn() const { return static_cast<Ecn>(traffic_class & 3); }
};

enum class Ipv6Result : uint8_t { kOk, kCut, kBadVersion };

inline Ipv6Result ParseIpv6(const std::byte* at, uint32_t available,
                            Ipv6Header* out) {
  if (available < kIpv6HeaderBytes) return Ipv6Result::kCut;
  const uint32_t first = LoadBe32(at);
  if (first >> 28 != 6) return Ipv6Result::kBadVersion;
  out->traffic_class = static_cast<uint8_t>(first >> 20);
  out->flow_label = first & 0xfffff;
  out->payload_length = LoadBe16(at + 4);
  out->next_header = Load8(at + 6);
  out->hop_limit = Load8(at + 7);
  out->source.family = out->destination.family = IpFamily::kIpv6;
  std::memcpy(out->source.bytes.data(), at + 8, 16);
  std::memcpy(out->destination.bytes.data(), at + 24, 16);
  return Ipv6Result::kOk;
}

// Writes kIpv6HeaderBytes bytes at `at` and returns how many.
inline uint32_t EmitIpv6(const Ipv6Header& header, std::byte* at) {
  StoreBe32(at, 6u << 28 | uint32_t{header.traffic_class} << 20 |
                    (header.flow_label & 0xfffff));
  StoreBe16(at + 4, header.payload_length);
  Store8(at + 6, header.next_header);
  Store8(at + 7, header.hop_limit);
  std::memcpy(at + 8, header.source.bytes.data(), 16);
  std::memcpy(at + 24, header.destination.bytes.data(), 16);
  return kIpv6HeaderBytes;
}

}  // namespace devwire

#endif  // TRANSPORT_WIRE_IPV6_H_
