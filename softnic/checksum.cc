#include "softnic/checksum.h"

#include <immintrin.h>

#include <cstring>

namespace softnic {
namespace {

uint16_t Fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

uint64_t Load(const uint8_t* p, size_t bytes) {
  uint64_t word = 0;
  memcpy(&word, p, bytes);
  return word;
}

// Adds with the end-around carry of one's complement.
uint64_t AddCarry(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  const bool carry = __builtin_add_overflow(a, b, &sum);
  return sum + (carry ? 1 : 0);
}

// Eight bytes at a time. kCopy: also writes them to `to`.
template <bool kCopy>
uint64_t SumWords(uint8_t* to, const uint8_t* from, size_t bytes,
                  uint64_t sum) {
  for (; bytes >= 8; bytes -= 8, from += 8) {
    const uint64_t word = Load(from, 8);
    sum = AddCarry(sum, word);
    if constexpr (kCopy) {
      memcpy(to, &word, 8);
      to += 8;
    }
  }
  // The rest by constant sizes, which compile to single loads; a word may be
  // added anywhere as long as it starts at an even offset.
  const auto add = [&]<size_t kBytes>() {
    if ((bytes & kBytes) == 0) return;
    const uint64_t word = Load(from, kBytes);
    sum = AddCarry(sum, word);
    from += kBytes;
    if constexpr (kCopy) {
      memcpy(to, &word, kBytes);
      to += kBytes;
    }
  };
  add.template operator()<4>();
  add.template operator()<2>();
  add.template operator()<1>();
  return sum;
}

// 64 bytes a turn, each 32-bit half added into a 64-bit lane: no carry is lost
// below 2^32 turns. The tail goes to SumWords.
template <bool kCopy>
__attribute__((target("avx2"))) uint64_t SumAvx2(uint8_t* to,
                                                 const uint8_t* from,
                                                 size_t bytes) {
  const __m256i low_half = _mm256_set1_epi64x(0xffffffff);
  __m256i a = _mm256_setzero_si256();
  __m256i b = _mm256_setzero_si256();
  for (; bytes >= 64; bytes -= 64, from += 64) {
    const __m256i x =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    const __m256i y =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32));
    if constexpr (kCopy) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32), y);
      to += 64;
    }
    a = _mm256_add_epi64(a, _mm256_add_epi64(_mm256_and_si256(x, low_half),
                                             _mm256_srli_epi64(x, 32)));
    b = _mm256_add_epi64(b, _mm256_add_epi64(_mm256_and_si256(y, low_half),
                                             _mm256_srli_epi64(y, 32)));
  }
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi64(a, b));
  uint64_t sum = 0;
  for (uint64_t lane : lanes) sum = AddCarry(sum, lane);
  return SumWords<kCopy>(to, from, bytes, sum);
}

const bool kHasAvx2 = __builtin_cpu_supports("avx2") != 0;

template <bool kCopy>
uint16_t Sum(void* to, const void* from, size_t bytes) {
  auto* out = static_cast<uint8_t*>(to);
  const auto* in = static_cast<const uint8_t*>(from);
  if (bytes >= 128 && kHasAvx2) return Fold(SumAvx2<kCopy>(out, in, bytes));
  return Fold(SumWords<kCopy>(out, in, bytes, 0));
}

}  // namespace

uint16_t SumBytes(const void* data, size_t bytes) {
  return Sum<false>(nullptr, data, bytes);
}

uint16_t CopyAndSum(void* to, const void* from, size_t bytes) {
  return Sum<true>(to, from, bytes);
}

InternetSum PseudoHeaderSum(const std::byte* ip, uint8_t protocol,
                            uint32_t l4_bytes) {
  InternetSum sum;
  if (static_cast<uint8_t>(ip[0]) >> 4 == 4) {
    sum.Add(ip + 12, 8);
  } else {
    sum.Add(ip + 8, 32);
  }
  sum.AddNumber(static_cast<uint16_t>(l4_bytes >> 16));
  sum.AddNumber(static_cast<uint16_t>(l4_bytes));
  sum.AddNumber(protocol);
  return sum;
}

uint16_t UpdateChecksum(uint16_t checksum, uint16_t old_word,
                        uint16_t new_word) {
  const uint32_t sum = static_cast<uint16_t>(~checksum) +
                       static_cast<uint32_t>(static_cast<uint16_t>(~old_word)) +
                       new_word;
  return static_cast<uint16_t>(~Fold(sum));
}

}  // namespace softnic
