#include "transport/wire/nd.h"

#include <cstring>

#include "base/check.h"

namespace devwire {
namespace {

constexpr uint32_t kMessageBytes = 24;
constexpr uint32_t kOptionUnit = 8;  // Option lengths count these.
constexpr uint8_t kSourceLinkAddress = 1;
constexpr uint8_t kTargetLinkAddress = 2;

constexpr uint8_t kRouterFlag = 0x80;
constexpr uint8_t kSolicitedFlag = 0x40;
constexpr uint8_t kOverrideFlag = 0x20;

bool IsMulticast(const IpAddress& ip) { return ip.bytes[0] == 0xff; }

bool IsUnspecified(const IpAddress& ip) {
  IpAddress none;
  none.family = IpFamily::kIpv6;
  return ip == none;
}

bool IsSolicitedNode(const IpAddress& ip) {
  return std::memcmp(ip.bytes.data(), SolicitedNode(ip).bytes.data(), 13) == 0;
}

// False when an option has no length, or one beyond the message.
bool ReadOptions(const std::byte* at, uint32_t bytes, uint8_t wanted,
                 std::optional<MacAddress>* link_address) {
  while (bytes > 0) {
    if (bytes < 2) return false;
    const uint8_t kind = Load8(at);
    const uint32_t length = Load8(at + 1) * kOptionUnit;
    if (length == 0 || length > bytes) return false;
    if (kind == wanted && length == kOptionUnit) {
      std::memcpy(link_address->emplace().data(), at + 2, 6);
    }
    at += length;
    bytes -= length;
  }
  return true;
}

}  // namespace

IpAddress AllNodes() {
  IpAddress ip;
  ip.family = IpFamily::kIpv6;
  ip.bytes[0] = 0xff;
  ip.bytes[1] = 2;
  ip.bytes[15] = 1;
  return ip;
}

IpAddress SolicitedNode(const IpAddress& ip) {
  IpAddress group = AllNodes();
  group.bytes[11] = 1;
  group.bytes[12] = 0xff;
  std::memcpy(group.bytes.data() + 13, ip.bytes.data() + 13, 3);
  return group;
}

MacAddress MulticastMac(const IpAddress& group) {
  MacAddress mac = {0x33, 0x33};
  std::memcpy(mac.data() + 2, group.bytes.data() + 12, 4);
  return mac;
}

bool ParseNd(const std::byte* frame, const ParsedFrame& parsed,
             NdMessage* out) {
  *out = NdMessage();
  if (parsed.l4_bytes < kMessageBytes || parsed.ttl != kNdHopLimit) {
    return false;
  }
  const std::byte* icmp = frame + parsed.l4_offset;
  const uint8_t type = Load8(icmp);
  const bool is_solicitation = type == kNdSolicitation;
  if ((!is_solicitation && type != kNdAdvertisement) || Load8(icmp + 1) != 0) {
    return false;
  }
  out->type = static_cast<NdMessage::Type>(type);
  out->target.family = IpFamily::kIpv6;
  std::memcpy(out->target.bytes.data(), icmp + 8, 16);
  if (IsMulticast(out->target)) return false;
  if (!ReadOptions(icmp + kMessageBytes, parsed.l4_bytes - kMessageBytes,
                   is_solicitation ? kSourceLinkAddress : kTargetLinkAddress,
                   &out->link_address)) {
    return false;
  }
  if (out->link_address && ((*out->link_address)[0] & 1) != 0) return false;
  const IpAddress& destination = parsed.tuple.local.ip;
  if (is_solicitation) {
    // Somebody checks whether an address is free: RFC 4862 5.4.
    return !IsUnspecified(parsed.tuple.remote.ip) ||
           (IsSolicitedNode(destination) && !out->link_address);
  }
  const uint8_t flags = Load8(icmp + 4);
  out->is_router = (flags & kRouterFlag) != 0;
  out->is_solicited = (flags & kSolicitedFlag) != 0;
  out->overrides = (flags & kOverrideFlag) != 0;
  return !(out->is_solicited && IsMulticast(destination));
}

void EmitNd(const NdMessage& message, const NdAddresses& addresses,
            std::byte* at) {
  CHECK(message.link_address.has_value());
  constexpr uint32_t kBytes = kMessageBytes + kOptionUnit;
  at += EmitEthernet({.destination = addresses.destination_mac,
                      .source = addresses.source_mac,
                      .ether_type = kEtherTypeIpv6},
                     at);
  Ipv6Header ip;
  ip.payload_length = kBytes;
  ip.next_header = kProtocolIcmpv6;
  ip.hop_limit = kNdHopLimit;
  ip.source = addresses.source;
  ip.destination = addresses.destination;
  at += EmitIpv6(ip, at);
  const bool is_solicitation = message.type == NdMessage::Type::kSolicitation;
  std::memset(at, 0, kMessageBytes);
  Store8(at, static_cast<uint8_t>(message.type));
  uint8_t flags = 0;
  if (!is_solicitation) {
    if (message.is_router) flags |= kRouterFlag;
    if (message.is_solicited) flags |= kSolicitedFlag;
    if (message.overrides) flags |= kOverrideFlag;
  }
  Store8(at + 4, flags);
  std::memcpy(at + 8, message.target.bytes.data(), 16);
  std::byte* option = at + kMessageBytes;
  Store8(option, is_solicitation ? kSourceLinkAddress : kTargetLinkAddress);
  Store8(option + 1, 1);
  std::memcpy(option + 2, message.link_address->data(), 6);
  InternetSum sum = PseudoHeaderSum(addresses.source, addresses.destination,
                                    kProtocolIcmpv6, kBytes);
  sum.Add({at, kBytes});
  StoreBe16(at + 2, sum.Checksum());
}

}  // namespace devwire
