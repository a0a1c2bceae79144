// TCP options as fields: RFC 9293 3.2 (MSS), 7323 (window scale, timestamps),
// 2018 (SACK).
#ifndef TRANSPORT_WIRE_TCP_OPTIONS_H_
#define TRANSPORT_WIRE_TCP_OPTIONS_H_

#include <array>
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
};

}  // namespace devwire

#endif  // TRANSPORT_WIRE_TCP_OPTIONS_H_
