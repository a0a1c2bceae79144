// The IPv4 header.
//
// Source:   RFC 791 3.1; the ECN bits RFC 3168 5; DSCP RFC 2474 3.
// Threads:  pure functions. Cost: no allocation.
#ifndef TRANSPORT_WIRE_IPV4_H_
#define TRANSPORT_WIRE_IPV4_H_

#include "transport/address.h"
#include "transport/wire/byte_order.h"
#include "transport/wire/checksum.h"

namespace devwire {

inline constexpr uint32_t kMinIpv4HeaderBytes = 20;
inline constexpr uint32_t kMaxIpv4HeaderBytes = 60;

// IANA protocol numbers.
inline constexpr uint8_t kProtocolIcmp = 1;
inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;
inline constexpr uint8_t kProtocolIcmpv6 = 58;

// RFC 3168 5: the two low bits of the TOS or traffic class byte.
enum class Ecn : uint8_t { kNotEct = 0, kEct1 = 1, kEct0 = 2, kCe = 3 };

struct Ipv4Header {
  // Bits of flags_and_offset.
  static constexpr uint16_t kDontFragment = 0x4000;
  static constexpr uint16_t kMoreFragments = 0x2000;
  static constexpr uint16_t kOffsetMask = 0x1fff;

  uint8_t header_bytes = kMinIpv4HeaderBytes;  // Options included.
  uint8_t tos = 0;                             // DSCP and ECN.
  uint8_t ttl = 64;
  uint8_t protocol = 0;
  uint16_t total_length = 0;  // Header and payload.
  uint16_t identification = 0;
  uint16_t flags_and_offset = 0;
  uint16_t checksum = 0;
  IpAddress source;
  IpAddress destination;

  bool is_fragment() const {
    return (flags_and_offset & (kMoreFragments | kOffsetMask)) != 0;
  }
  Ecn ecn() const { return static_cast<Ecn>(tos & 3); }
};

enum class Ipv4Result : uint8_t {
  kOk,
  kCut,         // Fewer than 20 bytes.
  kBadVersion,  // Not 4.
  kBadLength,   // IHL below 5, or total length below the header's.
};

// Reads the fixed 20 bytes; options (20 to header_bytes) need not be there.
// The checksum is not verified: Ipv4ChecksumIsRight().
inline Ipv4Result ParseIpv4(const std::byte* at, uint32_t available,
                            Ipv4Header* out) {
  if (available < kMinIpv4HeaderBytes) return Ipv4Result::kCut;
  const uint8_t version_ihl = Load8(at);
  if (version_ihl >> 4 != 4) return Ipv4Result::kBadVersion;
  out->header_bytes = static_cast<uint8_t>((version_ihl & 15) * 4);
  out->tos = Load8(at + 1);
  out->total_length = LoadBe16(at + 2);
  out->identification = LoadBe16(at + 4);
  out->flags_and_offset = LoadBe16(at + 6);
  out->ttl = Load8(at + 8);
  out->protocol = Load8(at + 9);
  out->checksum = LoadBe16(at + 10);
  out->source = out->destination = IpAddress();
  std::memcpy(out->source.bytes.data(), at + 12, 4);
  std::memcpy(out->destination.bytes.data(), at + 16, 4);
  const bool lengths_fit = out->header_bytes >= kMinIpv4HeaderBytes &&
                           out->total_length >= out->header_bytes;
  return lengths_fit ? Ipv4Result::kOk : Ipv4Result::kBadLength;
}

// Writes 20 bytes at `at` and returns how many. Emits no options, whatever
// header_bytes says; the checksum as it stands in the struct.
inline uint32_t EmitIpv4(const Ipv4Header& header, std::byte* at) {
  Store8(at, 0x45);
  Store8(at + 1, header.tos);
  StoreBe16(at + 2, header.total_length);
  StoreBe16(at + 4, header.identification);
  StoreBe16(at + 6, header.flags_and_offset);
  Store8(at + 8, header.ttl);
  Store8(at + 9, header.protocol);
  StoreBe16(at + 10, header.checksum);
  std::memcpy(at + 12, header.source.bytes.data(), 4);
  std::memcpy(at + 16, header.destination.bytes.data(), 4);
  return kMinIpv4HeaderBytes;
}

// Of header_bytes bytes at `at`, all of them readable.
inline bool Ipv4ChecksumIsRight(const std::byte* at, uint32_t header_bytes) {
  InternetSum sum;
  sum.Add({at, header_bytes});
  return sum.Checksum() == 0;
}
inline void WriteIpv4Checksum(std::byte* at, uint32_t header_bytes) {
  StoreBe16(at + 10, 0);
  InternetSum sum;
  sum.Add({at, header_bytes});
  StoreBe16(at + 10, sum.Checksum());
}

}  // namespace devwire

#endif  // TRANSPORT_WIRE_IPV4_H_
