#include "softnic/packet.h"

namespace softnic {
namespace {

constexpr uint16_t kTypeIpv4 = 0x0800, kTypeIpv6 = 0x86dd;
constexpr uint16_t kTypeVlan = 0x8100, kTypeServiceVlan = 0x88a8;
constexpr uint8_t kTcp = 6, kUdp = 17;
constexpr uint8_t kHopByHop = 0, kRouting = 43, kFragment = 44, kDestOpts = 60;
constexpr int kMaxExtensionHeaders = 8;
constexpr int kMaxVlanTags = 2;

// Sets l4_offset and payload_offset when a whole TCP or UDP header lies at `at`
// and its lengths are sound. `end` is where IP says that the datagram ends.
void ParseL4(std::span<const std::byte> head, uint32_t at, uint32_t end,
             ParsedFrame* f) {
  uint32_t length = 0;
  if (f->ip_protocol == kTcp) {
    if (at + 20 > end || at + 20 > head.size()) return;
    length = (static_cast<uint8_t>(head[at + 12]) >> 4) * 4u;
    if (length < 20) return;
  } else if (f->ip_protocol == kUdp) {
    length = 8;
  } else {
    return;
  }
  if (at + length > end || at + length > head.size()) return;
  f->layout.l4_offset = static_cast<uint16_t>(at);
  f->layout.payload_offset = static_cast<uint16_t>(at + length);
  f->layout.protocol = f->ip_protocol;
}

void ParseIpv4(std::span<const std::byte> head, uint32_t at,
               uint32_t frame_length, ParsedFrame* f) {
  if (at + 20 > head.size()) return;
  const std::byte* ip = head.data() + at;
  const uint32_t version_ihl = static_cast<uint8_t>(ip[0]);
  const uint32_t header = (version_ihl & 15) * 4;
  const uint32_t total = Load16(ip + 2);
  if (version_ihl >> 4 != 4 || header < 20 || total < header) return;
  if (at + total > frame_length || at + header > head.size()) return;
  f->layout.l3_offset = static_cast<uint16_t>(at);
  f->layout.ip_version = 4;
  f->ip_protocol = static_cast<uint8_t>(ip[9]);
  f->ip_total_length = total;
  // RFC 791: the more-fragments flag or a fragment offset.
  f->is_fragment = (Load16(ip + 6) & 0x3fff) != 0;
  if (!f->is_fragment) ParseL4(head, at + header, at + total, f);
}

void ParseIpv6(std::span<const std::byte> head, uint32_t at,
               uint32_t frame_length, ParsedFrame* f) {
  if (at + 40 > head.size()) return;
  const std::byte* ip = head.data() + at;
  const uint32_t end = at + 40 + Load16(ip + 4);
  if (static_cast<uint8_t>(ip[0]) >> 4 != 6 || end > frame_length) return;
  f->layout.l3_offset = static_cast<uint16_t>(at);
  f->layout.ip_version = 6;
  f->ip_total_length = end - at;
  uint8_t next = static_cast<uint8_t>(ip[6]);
  at += 40;
  for (int i = 0; i < kMaxExtensionHeaders; ++i) {
    if (next != kHopByHop && next != kRouting && next != kFragment &&
        next != kDestOpts) {
      break;
    }
    if (at + 8 > end || at + 8 > head.size()) break;
    f->is_fragment |= next == kFragment;
    const uint8_t units = static_cast<uint8_t>(head[at + 1]);
    const uint8_t after = static_cast<uint8_t>(head[at]);
    at += next == kFragment ? 8 : (units + 1u) * 8;  // RFC 8200 4.2, 4.5
    next = after;
  }
  f->ip_protocol = next;
  if (!f->is_fragment) ParseL4(head, at, end, f);
}

}  // namespace

ParsedFrame ParseFrame(std::span<const std::byte> head, uint32_t frame_length) {
  ParsedFrame f;
  if (head.size() < kEthernetBytes) return f;
  uint32_t at = kEthernetBytes;
  f.ethertype = Load16(head.data() + 12);
  for (int tags = 0; tags < kMaxVlanTags; ++tags) {
    if (f.ethertype != kTypeVlan && f.ethertype != kTypeServiceVlan) break;
    if (at + kVlanTagBytes > head.size()) return f;
    if (tags == 0 && f.ethertype == kTypeVlan) {
      f.has_vlan = true;
      f.vlan_tag = Load16(head.data() + at);
    }
    f.ethertype = Load16(head.data() + at + 2);
    at += kVlanTagBytes;
  }
  if (f.ethertype == kTypeIpv4) ParseIpv4(head, at, frame_length, &f);
  if (f.ethertype == kTypeIpv6) ParseIpv6(head, at, frame_length, &f);
  return f;
}

}  // namespace softnic
