// The TCP header, RFC 9293 3.1, as fields in host byte order.
#ifndef TRANSPORT_WIRE_TCP_HEADER_H_
#define TRANSPORT_WIRE_TCP_HEADER_H_

#include <cstdint>

#include "transport/seq.h"
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

struct TcpHeader {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  SeqNum seq;
  SeqNum ack;
  uint16_t wnd = 0;  // As on the wire: not scaled.
  uint16_t urgent_pointer = 0;
  uint8_t flags = 0;
  TcpOptions options;
};

}  // namespace devwire

#endif  // TRANSPORT_WIRE_TCP_HEADER_H_
