// TCP options as fields: RFC 9293 3.2 (MSS), 7323 (window scale, timestamps),
// 2018 (SACK).
//
// Emitted in Linux's order, so that tools and middleboxes see what they know:
//   SYN           mss, sackOK, TS, nop, wscale      (absent ones left out)
//   established   nop, nop, TS, nop, nop, sack
//
// Threads:  pure functions. Cost: no allocation.
#ifndef TRANSPORT_WIRE_TCP_OPTIONS_H_
#define TRANSPORT_WIRE_TCP_OPTIONS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "transport/seq.h"

namespace devwire {

// [left, right): bytes that arrived. RFC 2018 3.
struct SackBlock {
  SeqNum left;
  SeqNum right;
  friend bool operator==(const SackBlock&, const SackBlock&) = default;
};
inline constexpr int kMaxSackBlocks = 4;  // 3 beside timestamps.

// RFC 7323 3.2: ticks of the sender's clock; ours are milliseconds.
struct Timestamps {
  uint32_t val = 0;
  uint32_t ecr = 0;
  friend bool operator==(const Timestamps&, const Timestamps&) = default;
};

struct TcpOptions {
  std::optional<uint16_t> mss;
  std::optional<uint8_t> window_scale;  // As on the wire; clamp to 14 on use.
  bool sack_permitted = false;
  std::optional<Timestamps> timestamps;
  uint8_t sack_block_count = 0;
  std::array<SackBlock, kMaxSackBlocks> sack_blocks;

  // Blocks past sack_block_count do not count.
  friend bool operator==(const TcpOptions& a, const TcpOptions& b);
};

// Option kinds, IANA "TCP Option Kind Numbers".
inline constexpr uint8_t kOptionEnd = 0;
inline constexpr uint8_t kOptionNop = 1;
inline constexpr uint8_t kOptionMss = 2;
inline constexpr uint8_t kOptionWindowScale = 3;
inline constexpr uint8_t kOptionSackPermitted = 4;
inline constexpr uint8_t kOptionSack = 5;
inline constexpr uint8_t kOptionTimestamps = 8;

inline constexpr uint32_t kMaxTcpOptionBytes = 40;

enum class TcpOptionsResult : uint8_t {
  kOk,
  // An option's length is below 2, beyond the header, or wrong for its kind.
  // The options before it stand, those behind are ignored: what Linux does.
  // RFC 9293 MUST-7 asks only that it do no harm.
  kMalformed,
  // `available` ended inside or before an option: those before it stand.
  kCut,
};

// Reads options at `at`, of which the first `available` of `option_bytes`
// bytes are readable. Unknown kinds are skipped (RFC 9293 MUST-6). Of a kind
// that comes twice the last counts, as in Linux. Overwrites *out.
TcpOptionsResult ParseTcpOptions(const std::byte* at, uint32_t available,
                                 uint32_t option_bytes, TcpOptions* out);

// Length of what EmitTcpOptions writes: a multiple of 4. More than
// kMaxTcpOptionBytes is the caller's bug (four SACK blocks beside timestamps).
uint32_t TcpOptionsBytes(const TcpOptions& options);

// Writes them at `at`, room for kMaxTcpOptionBytes; returns how many bytes.
uint32_t EmitTcpOptions(const TcpOptions& options, std::byte* at);

}  // namespace devwire

#endif  // TRANSPORT_WIRE_TCP_OPTIONS_H_
