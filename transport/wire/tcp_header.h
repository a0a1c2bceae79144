// The TCP header, RFC 9293 3.1, as fields in host byte order.
//
// Threads:  pure functions. Cost: no allocation.
#ifndef TRANSPORT_WIRE_TCP_HEADER_H_
#define TRANSPORT_WIRE_TCP_HEADER_H_

#include <cstddef>
#include <cstdint>

#include "transport/seq.h"
#include "transport/wire/byte_order.h"
#include "transport/wire/tcp_options.h"

namespace devwire {

// Control bits, RFC 9293 3.1.
inline constexpr uint8_t kFin = 0x01;
inline constexpr uint8_t kSyn = 0x02;
inline constexpr uint8_t kRst = 0x04;
inline constexpr uint8_t kPsh = 0x08;
inline constexpr uint8_t kAck = 0x10;
inline constexpr uint8_t kUrg = 0x20;
inline constexpr uint8_t kEce = 0x40;
inline constexpr uint8_t kCwr = 0x80;

inline constexpr uint32_t kTcpFixedHeaderBytes = 20;
inline constexpr uint32_t kMaxTcpHeaderBytes = 60;
inline constexpr uint32_t kTcpChecksumOffset = 16;

struct TcpHeader {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  SeqNum seq;
  SeqNum ack;
  uint16_t wnd = 0;  // As on the wire: not scaled.
  uint16_t urgent_pointer = 0;
  uint8_t flags = 0;
  TcpOptions options;

  friend bool operator==(const TcpHeader&, const TcpHeader&) = default;
};

// The header length that the data offset field of 20 readable bytes claims;
// below 20 when it is malformed.
inline uint32_t TcpHeaderBytes(const std::byte* at) {
  return static_cast<uint32_t>(Load8(at + 12) >> 4) * 4;
}

// Reads the fixed 20 bytes; leaves out->options alone.
inline void ParseTcpFixed(const std::byte* at, TcpHeader* out) {
  out->source_port = LoadBe16(at);
  out->destination_port = LoadBe16(at + 2);
  out->seq = SeqNum(LoadBe32(at + 4));
  out->ack = SeqNum(LoadBe32(at + 8));
  out->flags = Load8(at + 13);
  out->wnd = LoadBe16(at + 14);
  out->urgent_pointer = LoadBe16(at + 18);
}

// Writes header and options at `at`, room for kMaxTcpHeaderBytes, with
// `checksum` as it is given. Returns how many bytes.
inline uint32_t EmitTcp(const TcpHeader& header, uint16_t checksum,
                        std::byte* at) {
  const uint32_t bytes =
      kTcpFixedHeaderBytes +
      EmitTcpOptions(header.options, at + kTcpFixedHeaderBytes);
  StoreBe16(at, header.source_port);
  StoreBe16(at + 2, header.destination_port);
  StoreBe32(at + 4, header.seq.raw());
  StoreBe32(at + 8, header.ack.raw());
  Store8(at + 12, static_cast<uint8_t>(bytes / 4 << 4));
  Store8(at + 13, header.flags);
  StoreBe16(at + 14, header.wnd);
  StoreBe16(at + 16, checksum);
  StoreBe16(at + 18, header.urgent_pointer);
  return bytes;
}

}  // namespace devwire

#endif  // TRANSPORT_WIRE_TCP_HEADER_H_
