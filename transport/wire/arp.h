// ARP for IPv4 over Ethernet.
//
// Source:   RFC 826; the numbers in RFC 5494 and the IANA ARP registry.
// Threads:  pure functions. Cost: no allocation.
#ifndef TRANSPORT_WIRE_ARP_H_
#define TRANSPORT_WIRE_ARP_H_

#include "transport/address.h"
#include "transport/wire/byte_order.h"

namespace devwire {

inline constexpr uint32_t kArpBytes = 28;  // After the Ethernet header.

struct ArpPacket {
  enum class Operation : uint16_t { kRequest = 1, kReply = 2 };
  Operation operation = Operation::kRequest;
  MacAddress sender_mac{};
  IpAddress sender_ip;
  MacAddress target_mac{};
  IpAddress target_ip;
};

// False when it is not a whole request or reply about IPv4 over Ethernet.
inline bool ParseArp(const std::byte* at, uint32_t available, ArpPacket* out) {
  if (available < kArpBytes) return false;
  const bool ipv4_over_ethernet = LoadBe16(at) == 1 &&
                                  LoadBe16(at + 2) == 0x0800 &&
                                  Load8(at + 4) == 6 && Load8(at + 5) == 4;
  const uint16_t operation = LoadBe16(at + 6);
  if (!ipv4_over_ethernet || operation < 1 || operation > 2) return false;
  out->operation = static_cast<ArpPacket::Operation>(operation);
  out->sender_ip = out->target_ip = IpAddress();
  std::memcpy(out->sender_mac.data(), at + 8, 6);
  std::memcpy(out->sender_ip.bytes.data(), at + 14, 4);
  std::memcpy(out->target_mac.data(), at + 18, 6);
  std::memcpy(out->target_ip.bytes.data(), at + 24, 4);
  return true;
}

// Writes kArpBytes bytes at `at` and returns how many.
inline uint32_t EmitArp(const ArpPacket& arp, std::byte* at) {
  StoreBe16(at, 1);
  StoreBe16(at + 2, 0x0800);
  Store8(at + 4, 6);
  Store8(at + 5, 4);
  StoreBe16(at + 6, static_cast<uint16_t>(arp.operation));
  std::memcpy(at + 8, arp.sender_mac.data(), 6);
  std::memcpy(at + 14, arp.sender_ip.bytes.data(), 4);
  std::memcpy(at + 18, arp.target_mac.data(), 6);
  std::memcpy(at + 24, arp.target_ip.bytes.data(), 4);
  return kArpBytes;
}

}  // namespace devwire

#endif  // TRANSPORT_WIRE_ARP_H_
