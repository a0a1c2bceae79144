// Cuts a TCP super-frame (a TSO send, or a GSO frame that Linux hands over)
// into the segments that go over the wire.
//
// Each segment has the super-frame's headers, changed as hardware changes them:
// IP length; IPv4 identification, one more each; sequence number; FIN and PSH
// on the last alone (RFC 9293 3.8.1: PSH marks the end of what was pushed), CWR
// on the first alone (RFC 3168 6.1.2: one answer to one congestion signal);
// checksums. The urgent pointer stays, as Linux's tcp_gso_segment leaves it.
//
//   header | payload ................................ |
//   h' mss | h' mss | h' mss | h' rest |
//
// Threads:  a value, no shared state.
// Lifetime: keeps a copy of the header; refers to no memory of the caller.
// Cost:     a fixed cost per segment, independent of its payload; no
//           allocation.
#ifndef SOFTNIC_SEGMENT_H_
#define SOFTNIC_SEGMENT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "softnic/packet.h"
#include "softnic/port.h"

namespace softnic {

class Segmenter {
 public:
  // Room for the longest header: two VLAN tags, IPv4 with all its options, TCP
  // with all its options are 142 bytes; the rest is for IPv6 extensions.
  static constexpr size_t kMaxHeaderBytes = 256;

  // Takes a header from Ethernet to the end of the TCP options, exactly; its
  // length and checksum fields may hold anything. False: it is not that (not
  // TCP, a fragment, options that do not end where the header ends, too long),
  // or mss is 0. payload_bytes 0 gives one segment.
  [[nodiscard]] bool Start(std::span<const std::byte> header,
                           uint32_t payload_bytes, uint16_t mss);

  // Of the last successful Start:
  uint32_t count() const { return count_; }
  uint32_t header_bytes() const { return header_bytes_; }
  // Where the headers lie: the same in every segment.
  const Layout& layout() const { return layout_; }
  // The payload of segment i < count(): [PayloadFrom(i), + PayloadBytes(i)).
  uint32_t PayloadFrom(uint32_t i) const { return i * mss_; }
  uint32_t PayloadBytes(uint32_t i) const;

  // Writes header_bytes() bytes: segment i's header, complete with the IPv4
  // checksum; the TCP checksum is owed (port.h, l4_checksum_owed).
  void WriteHeader(uint32_t i, std::byte* out) const;

 private:
  std::array<std::byte, kMaxHeaderBytes> header_;
  Layout layout_;
  uint32_t header_bytes_ = 0;
  uint32_t payload_bytes_ = 0;
  uint32_t count_ = 0;
  uint32_t mss_ = 0;
};

// The `bytes` bytes from `from` on of the concatenated pieces, as pieces that
// point into the same memory (and the same regions); their number. They must
// lie in `pieces` and `out` must have room for as many pieces.
size_t CutPieces(std::span<const Piece> pieces, uint64_t from, uint64_t bytes,
                 std::span<Piece> out);

}  // namespace softnic

#endif  // SOFTNIC_SEGMENT_H_
