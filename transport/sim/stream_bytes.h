// What a simulated stream carries: each byte follows from its position, so a
// receiver can check any byte at any time, and one that is lost, doubled or
// moved by less than 2^56 shows.
#ifndef TRANSPORT_SIM_STREAM_BYTES_H_
#define TRANSPORT_SIM_STREAM_BYTES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/prng.h"

namespace devwire {

// The eight bytes from position 8 * word on.
inline uint64_t StreamWord(uint64_t stream, uint64_t word) {
  return Prng(stream ^ word * 0x2545f4914f6cdd1d).Next64();
}

// Fills `out` with the bytes from `position` on.
inline void FillStream(uint64_t stream, uint64_t position,
                       std::span<std::byte> out) {
  for (size_t i = 0; i < out.size();) {
    const uint64_t at = position + i;
    const uint64_t word = StreamWord(stream, at / 8);
    const size_t n = std::min<size_t>(8 - at % 8, out.size() - i);
    std::memcpy(out.data() + i,
                reinterpret_cast<const std::byte*>(&word) + at % 8, n);
    i += n;
  }
}

// Whether `bytes` are those from `position` on.
inline bool IsStream(uint64_t stream, uint64_t position,
                     std::span<const std::byte> bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const uint64_t at = position + i;
    const uint64_t word = StreamWord(stream, at / 8);
    const size_t n = std::min<size_t>(8 - at % 8, bytes.size() - i);
    if (std::memcmp(bytes.data() + i,
                    reinterpret_cast<const std::byte*>(&word) + at % 8,
                    n) != 0) {
      return false;
    }
    i += n;
  }
  return true;
}

}  // namespace devwire

#endif  // TRANSPORT_SIM_STREAM_BYTES_H_
