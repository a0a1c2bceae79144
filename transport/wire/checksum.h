// The Internet checksum, over bytes in host memory.
//
// Source:   RFC 1071; the pseudo headers of RFC 9293 3.1 and RFC 8200 8.1.
// Threads:  pure functions.
// Cost:     one pass, eight bytes at a time; no allocation. Not for payload in
//           device memory: the NIC sums that (docs/wire.md).
#ifndef TRANSPORT_WIRE_CHECKSUM_H_
#define TRANSPORT_WIRE_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "transport/address.h"

namespace devwire {

// A running ones-complement sum. Every piece but the last has an even length.
class InternetSum {
 public:
  void Add(std::span<const std::byte> bytes);
  // One 16-bit word in host order, as in "the word 0x0006".
  void AddWord(uint16_t word) { sum_ += __builtin_bswap16(word); }
  void AddLong(uint32_t value) {
    AddWord(static_cast<uint16_t>(value >> 16));
    AddWord(static_cast<uint16_t>(value));
  }
  // Folded to 16 bits, not complemented, host order: what the checksum field
  // holds when a NIC is to complete it.
  uint16_t Folded() const;
  // The value of a checksum field, host order. Zero when what was summed
  // contains a right checksum.
  uint16_t Checksum() const { return static_cast<uint16_t>(~Folded()); }

 private:
  uint64_t sum_ = 0;  // Of 16-bit words in memory order; RFC 1071 2 (B).
};

// The pseudo header of TCP or ICMPv6 between these addresses, both of one
// family. `l4_bytes` counts the transport header and its payload.
InternetSum PseudoHeaderSum(const IpAddress& source,
                            const IpAddress& destination, uint8_t protocol,
                            uint32_t l4_bytes);

}  // namespace devwire

#endif  // TRANSPORT_WIRE_CHECKSUM_H_
