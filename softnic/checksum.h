// The Internet checksum over memory in pieces.
//
// Source:   RFC 1071 (definition, byte order independence), RFC 1624 eqn. 3
//           (incremental update), RFC 9293 3.1 and RFC 8200 8.1 (pseudo
//           headers).
// Threads:  values, no shared state.
// Cost:     SumBytes and CopyAndSum read each byte once, 32 at a time where
//           the CPU has AVX2; no allocation.
//
// Sums are kept as they stand in memory: a 16-bit word is loaded, added and
// stored without swapping bytes, which RFC 1071 2(B) shows to be sound. Only
// AddNumber takes a number.
#ifndef SOFTNIC_CHECKSUM_H_
#define SOFTNIC_CHECKSUM_H_

#include <bit>
#include <cstddef>
#include <cstdint>

namespace softnic {

// The one's complement sum of the 16-bit words at `data`, an odd last byte
// padded with zero; below 2^16, in memory order.
uint16_t SumBytes(const void* data, size_t bytes);

// The same, and copies the bytes; the two ranges do not overlap.
uint16_t CopyAndSum(void* to, const void* from, size_t bytes);

// A sum that grows piece by piece, whatever their lengths.
class InternetSum {
 public:
  void Add(const void* data, size_t bytes) {
    AddWord(SumBytes(data, bytes), bytes);
  }
  // A sum made by SumBytes or CopyAndSum over `bytes` bytes that come next.
  void AddWord(uint16_t sum, size_t bytes) {
    // A piece that starts at an odd offset has its bytes in the other halves.
    sum_ += is_odd_ ? __builtin_bswap16(sum) : sum;
    is_odd_ ^= (bytes & 1) != 0;
  }
  // A 16-bit field, as a number; only at an even offset.
  void AddNumber(uint16_t number) {
    static_assert(std::endian::native == std::endian::little);
    sum_ += __builtin_bswap16(number);
  }

  // The sum folded to 16 bits, in memory order; 0xffff over data whose
  // checksum field is right.
  uint16_t Folded() const {
    uint64_t s = (sum_ & 0xffffffff) + (sum_ >> 32);
    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    return static_cast<uint16_t>((s & 0xffff) + (s >> 16));
  }
  // What belongs into the checksum field: store these two bytes as they are.
  uint16_t Checksum() const { return static_cast<uint16_t>(~Folded()); }
  bool IsRight() const { return Folded() == 0xffff; }

 private:
  uint64_t sum_ = 0;  // 2^48 words fit: no frame has as many
  bool is_odd_ = false;
};

// The pseudo header of TCP or UDP over the IP header at `ip` (version 4 or 6,
// from its first nibble); l4_bytes counts the TCP or UDP header and payload.
InternetSum PseudoHeaderSum(const std::byte* ip, uint8_t protocol,
                            uint32_t l4_bytes);

// The checksum field after a 16-bit word under it changed; all three in memory
// order.
uint16_t UpdateChecksum(uint16_t checksum, uint16_t old_word,
                        uint16_t new_word);

}  // namespace softnic

#endif  // SOFTNIC_CHECKSUM_H_
