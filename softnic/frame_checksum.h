// Verifies and writes the checksums of a frame: IPv4 header, TCP and UDP.
//
// Source:   RFC 791 3.1, RFC 9293 3.1, RFC 768, RFC 8200 8.1. "Owed" is the
//           state that virtio calls NEEDS_CSUM (port.h).
// Threads:  pure functions over the caller's bytes.
// Cost:     reads the checksummed bytes once; no allocation.
#ifndef SOFTNIC_FRAME_CHECKSUM_H_
#define SOFTNIC_FRAME_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "softnic/checksum.h"
#include "softnic/packet.h"
#include "softnic/port.h"

namespace softnic {

enum class ChecksumState : uint8_t {
  kNone,  // nothing to verify: not IP, a fragment, another protocol
  kGood,
  kBad,
};

// The bytes of a frame: `header` first, then the pieces. Either may be empty.
struct FrameBytes {
  std::span<const std::byte> header;
  std::span<const Piece> pieces;

  // The sum of bytes [from, to); to is not beyond the end.
  InternetSum Sum(size_t from, size_t to) const;
  // Copies bytes [from, to) to `out`; to is not beyond the end.
  void Copy(size_t from, size_t to, std::byte* out) const;
};

// `head` begins with all headers that `frame` tells of.
//
// The IPv4 header's own; kNone for IPv6, which has none.
ChecksumState VerifyIpHeader(const ParsedFrame& frame, const std::byte* head);
// TCP or UDP. An IPv4 UDP datagram that was sent without a checksum (RFC 768)
// is kGood, an IPv6 one (RFC 8200 8.1) kBad, as is a UDP length beyond IP's.
ChecksumState VerifyL4(const ParsedFrame& frame, const std::byte* head,
                       const FrameBytes& bytes);
// Both at once, as a port and a flag of a completion want it: kGood, when all
// there is is right and L4 is TCP or UDP; else kBad or kNone.
ChecksumState VerifyFrame(const ParsedFrame& frame, const std::byte* head,
                          const FrameBytes& bytes);

// Writes the IPv4 header checksum into `head`; nothing to do for others.
void WriteIpChecksum(const ParsedFrame& frame, std::byte* head);
// Writes the TCP or UDP checksum into `head`, whatever the field holds; nothing
// to do for others. `head` may be bytes.header itself.
void WriteL4Checksum(const ParsedFrame& frame, std::byte* head,
                     const FrameBytes& bytes);
// Leaves it owed: the field holds the folded sum of the pseudo header.
void WriteOwedL4Checksum(const ParsedFrame& frame, std::byte* head);
// Pays it. Sums from `l4_offset` to `end` and completes the field at
// `checksum_offset`; `head` as above.
void FinishOwedChecksum(size_t l4_offset, size_t checksum_offset, size_t end,
                        bool is_udp, std::byte* head, const FrameBytes& bytes);
void FinishOwedChecksum(const ParsedFrame& frame, std::byte* head,
                        const FrameBytes& bytes);

// Offset of the TCP or UDP checksum field; layout.l4_offset > 0.
size_t L4ChecksumOffset(const Layout& layout);

}  // namespace softnic

#endif  // SOFTNIC_FRAME_CHECKSUM_H_
