// Reads the headers of one frame: offsets for checksums and segmentation, and
// the fields that flow rules match.
//
// Written apart from transport/wire on purpose (docs/softnic.md): two parsers
// cannot share one mistake. Sources: IEEE 802.3, 802.1Q; RFC 791, RFC 8200,
// RFC 9293 3.1, RFC 768.
// Threads: pure functions. Cost: one pass, no allocation.
#ifndef SOFTNIC_PACKET_H_
#define SOFTNIC_PACKET_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "softnic/port.h"

namespace softnic {

inline constexpr uint32_t kEthernetBytes = 14;
inline constexpr uint32_t kVlanTagBytes = 4;
// IEEE 802.3: the shortest frame, without FCS; shorter ones are padded.
inline constexpr uint32_t kMinFrameBytes = 60;

inline uint16_t Load16(const std::byte* p) {
  return static_cast<uint16_t>(static_cast<uint16_t>(p[0]) << 8 |
                               static_cast<uint16_t>(p[1]));
}
inline uint32_t Load32(const std::byte* p) {
  return static_cast<uint32_t>(Load16(p)) << 16 | Load16(p + 2);
}
inline void Store16(std::byte* p, uint16_t v) {
  p[0] = static_cast<std::byte>(v >> 8);
  p[1] = static_cast<std::byte>(v & 0xff);
}
inline void Store32(std::byte* p, uint32_t v) {
  Store16(p, static_cast<uint16_t>(v >> 16));
  Store16(p + 2, static_cast<uint16_t>(v & 0xffff));
}

struct ParsedFrame {
  Layout layout;
  uint16_t ethertype = 0;    // behind the VLAN tags
  bool has_vlan = false;     // an 802.1Q tag stands first
  uint16_t vlan_tag = 0;     // its TCI
  bool is_fragment = false;  // IPv4 or IPv6 fragment, the first one included
  uint8_t ip_protocol = 0;   // also when the L4 header is cut or unknown
  // Bytes of IP datagram behind the Ethernet header that IP itself claims;
  // 0 without a sound IP header. The frame may be longer (padding).
  uint32_t ip_total_length = 0;
};

// `head` is the start of a frame of `frame_length` bytes; headers that reach
// beyond it are reported as absent, as are lengths beyond the frame.
ParsedFrame ParseFrame(std::span<const std::byte> head, uint32_t frame_length);

}  // namespace softnic

#endif  // SOFTNIC_PACKET_H_
