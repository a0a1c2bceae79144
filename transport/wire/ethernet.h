// Ethernet II with at most one VLAN tag.
//
// Source:   IEEE 802.3 3.2 (type encapsulation), IEEE 802.1Q 9 (the tag).
// Threads:  pure functions. Cost: no allocation.
#ifndef TRANSPORT_WIRE_ETHERNET_H_
#define TRANSPORT_WIRE_ETHERNET_H_

#include <optional>

#include "transport/address.h"
#include "transport/wire/byte_order.h"

namespace devwire {

inline constexpr uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr uint16_t kEtherTypeArp = 0x0806;
inline constexpr uint16_t kEtherTypeVlan = 0x8100;
inline constexpr uint16_t kEtherTypeIpv6 = 0x86dd;
inline constexpr uint16_t kEtherTypeStackedVlan = 0x88a8;  // IEEE 802.1ad.

inline constexpr uint32_t kEthernetHeaderBytes = 14;
inline constexpr uint32_t kVlanTagBytes = 4;
// Shorter frames are padded by the sender; IEEE 802.3 3.2.8, less the FCS.
inline constexpr uint32_t kMinEthernetFrameBytes = 60;

inline constexpr MacAddress kBroadcastMac = {0xff, 0xff, 0xff,
                                             0xff, 0xff, 0xff};

struct EthernetHeader {
  MacAddress destination{};
  MacAddress source{};
  std::optional<uint16_t> vlan_tci;  // Priority 3 bits, DEI 1, VLAN id 12.
  uint16_t ether_type = 0;           // Of what follows the tag.

  uint32_t bytes() const {
    return kEthernetHeaderBytes + (vlan_tci ? kVlanTagBytes : 0);
  }
};

// Reads the header at `at`; false when `available` bytes do not hold it. A
// second tag is not looked into: it stands in ether_type.
inline bool ParseEthernet(const std::byte* at, uint32_t available,
                          EthernetHeader* out) {
  if (available < kEthernetHeaderBytes) return false;
  std::memcpy(out->destination.data(), at, 6);
  std::memcpy(out->source.data(), at + 6, 6);
  out->ether_type = LoadBe16(at + 12);
  out->vlan_tci.reset();
  if (out->ether_type != kEtherTypeVlan) return true;
  if (available < kEthernetHeaderBytes + kVlanTagBytes) return false;
  out->vlan_tci = LoadBe16(at + 14);
  out->ether_type = LoadBe16(at + 16);
  return true;
}

// Writes header.bytes() bytes at `at` and returns how many.
inline uint32_t EmitEthernet(const EthernetHeader& header, std::byte* at) {
  std::memcpy(at, header.destination.data(), 6);
  std::memcpy(at + 6, header.source.data(), 6);
  if (!header.vlan_tci) {
    StoreBe16(at + 12, header.ether_type);
    return kEthernetHeaderBytes;
  }
  StoreBe16(at + 12, kEtherTypeVlan);
  StoreBe16(at + 14, *header.vlan_tci);
  StoreBe16(at + 16, header.ether_type);
  return kEthernetHeaderBytes + kVlanTagBytes;
}

}  // namespace devwire

#endif  // TRANSPORT_WIRE_ETHERNET_H_
