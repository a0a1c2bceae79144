// Neighbour discovery: solicitations and advertisements, ICMPv6 types 135 and
// 136. Router messages are not read: a stack is told its prefix and gateway.
//
// Source:   RFC 4861 4.3, 4.4, 4.6.1 (formats), 7.1 (what is valid); RFC 4291
//           2.7.1 (the solicited-node address); RFC 2464 7 (its MAC).
// Threads:  pure functions. Cost: no allocation.
#ifndef TRANSPORT_WIRE_ND_H_
#define TRANSPORT_WIRE_ND_H_

#include <optional>

#include "transport/address.h"
#include "transport/wire/frame.h"

namespace devwire {

inline constexpr uint8_t kNdSolicitation = 135;
inline constexpr uint8_t kNdAdvertisement = 136;
// A router lowers it, so that 255 came from this link. RFC 4861 3.1.
inline constexpr uint8_t kNdHopLimit = 255;
// Ethernet, IPv6, the message, one link-layer address option.
inline constexpr uint32_t kNdFrameBytes = 14 + 40 + 24 + 8;

struct NdMessage {
  enum class Type : uint8_t {
    kSolicitation = kNdSolicitation,
    kAdvertisement = kNdAdvertisement,
  };
  Type type = Type::kSolicitation;
  IpAddress target;
  // The sender's own (solicitation) or the target's (advertisement).
  std::optional<MacAddress> link_address;
  // Of an advertisement.
  bool is_router = false;
  bool is_solicited = false;
  bool overrides = false;
};

// ff02::1, every host of the link.
IpAddress AllNodes();
// ff02::1:ffXX:XXXX, of the last 24 bits of `ip`.
IpAddress SolicitedNode(const IpAddress& ip);
// 33:33 and the last 32 bits of an IPv6 multicast address.
MacAddress MulticastMac(const IpAddress& group);

// `parsed` is of kIcmpv6 and lies wholly at `frame`. False when it is neither
// message, or one that RFC 4861 7.1.1 or 7.1.2 discards. The checksum is not
// verified: ChecksumsAreRight().
bool ParseNd(const std::byte* frame, const ParsedFrame& parsed, NdMessage* out);

// Writes a whole frame, checksum included, of kNdFrameBytes at `at`: every
// message that we send has its link-layer address.
struct NdAddresses {
  MacAddress source_mac{};
  MacAddress destination_mac{};
  IpAddress source;
  IpAddress destination;
};
void EmitNd(const NdMessage& message, const NdAddresses& addresses,
            std::byte* at);

}  // namespace devwire

#endif  // TRANSPORT_WIRE_ND_H_
