#include "transport/engine/iss.h"

#include <bit>
#include <cstring>

namespace devwire {
namespace {

struct SipState {
  uint64_t v0, v1, v2, v3;

  void Round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }
  void Compress(uint64_t word) {
    v3 ^= word;
    Round();
    Round();
    v0 ^= word;
  }
};

enum class Purpose : uint8_t { kIss, kTimestamps, kCookie, kPort, kFlowLabel };

uint64_t HashTuple(const FourTuple& tuple, const HashKey& key, Purpose purpose,
                   uint64_t number = 0) {
  std::array<uint8_t, 45> bytes{};
  std::memcpy(bytes.data(), tuple.local.ip.bytes.data(), 16);
  std::memcpy(bytes.data() + 16, tuple.remote.ip.bytes.data(), 16);
  std::memcpy(bytes.data() + 32, &tuple.local.port, 2);
  std::memcpy(bytes.data() + 34, &tuple.remote.port, 2);
  bytes[36] = static_cast<uint8_t>(purpose);
  std::memcpy(bytes.data() + 37, &number, 8);
  return SipHash24(key, bytes);
}

}  // namespace

uint64_t SipHash24(const HashKey& key, std::span<const uint8_t> bytes) {
  SipState s{key.k0 ^ 0x736f6d6570736575, key.k1 ^ 0x646f72616e646f6d,
             key.k0 ^ 0x6c7967656e657261, key.k1 ^ 0x7465646279746573};
  size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + at, 8);
    s.Compress(word);
  }
  uint64_t last = uint64_t{bytes.size()} << 56;
  for (size_t i = 0; at + i < bytes.size(); ++i) {
    last |= uint64_t{bytes[at + i]} << (8 * i);
  }
  s.Compress(last);
  s.v2 ^= 0xff;
  for (int i = 0; i < 4; ++i) s.Round();
  return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

SeqNum InitialSequenceNumber(const FourTuple& tuple, const HashKey& secret,
                             Instant now) {
  const uint64_t ticks = static_cast<uint64_t>(now.nanoseconds()) / 4'000;
  return SeqNum(
      static_cast<uint32_t>(ticks + HashTuple(tuple, secret, Purpose::kIss)));
}

uint32_t TimestampOffset(const FourTuple& tuple, const HashKey& secret) {
  return static_cast<uint32_t>(HashTuple(tuple, secret, Purpose::kTimestamps));
}

uint64_t PortHash(FourTuple tuple, const HashKey& secret) {
  tuple.local.port = Port{0};
  return HashTuple(tuple, secret, Purpose::kPort);
}

uint32_t FlowLabel(const FourTuple& tuple, const HashKey& secret) {
  const uint64_t hash = HashTuple(tuple, secret, Purpose::kFlowLabel);
  const auto label = static_cast<uint32_t>(hash & 0xfffff);
  return label == 0 ? 1 : label;
}

uint32_t CookieHash(const FourTuple& tuple, const HashKey& secret,
                    uint64_t epoch) {
  return static_cast<uint32_t>(
      HashTuple(tuple, secret, Purpose::kCookie, epoch));
}

}  // namespace devwire
