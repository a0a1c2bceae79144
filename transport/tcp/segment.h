// One segment, as TCP sees it: header fields, and for an arrival the frags of
// its text. No payload bytes.
#ifndef TRANSPORT_TCP_SEGMENT_H_
#define TRANSPORT_TCP_SEGMENT_H_

#include <array>
#include <cstdint>

#include "base/time.h"
#include "memreg/frag.h"
#include "transport/seq.h"
#include "transport/wire/tcp_header.h"

namespace devwire {

// A few linear bytes (a header shorter than the split), then a device or host
// frag. See docs/wire.md.
inline constexpr size_t kMaxTextFrags = 2;

// An arrival. The caller fills TcpHeader (the wire's parser can write into it
// in place) and what follows; the checksums were verified.
struct Segment : TcpHeader {
  // In stream order. Their lengths add up to payload_bytes, unless
  // text_dropped.
  std::array<Frag, kMaxTextFrags> text;
  uint8_t text_count = 0;
  // The engine had no slot to spare for the text and posted it again: text is
  // empty and payload_bytes still tells its length. ACK, window and flags
  // count; the text is not acknowledged.
  bool text_dropped = false;
  // The header was longer than the split, and the options beyond the fixed
  // ones (SACK blocks) were not fetched.
  bool options_cut = false;
  uint8_t ecn = 0;             // The two ECN bits of the IP header. RFC 3168.
  uint32_t payload_bytes = 0;  // Without SYN and FIN.
  Instant arrival;             // Of the batch that it came in.

  bool has_fin() const { return (flags & kFin) != 0; }
  bool has_syn() const { return (flags & kSyn) != 0; }
  bool has_rst() const { return (flags & kRst) != 0; }
  bool has_psh() const { return (flags & kPsh) != 0; }
  bool has_ack() const { return (flags & kAck) != 0; }
  bool has_urg() const { return (flags & kUrg) != 0; }
  bool has_text_or_fin() const { return payload_bytes != 0 || has_fin(); }

  // SEG.LEN, which counts SYN and FIN.
  SeqLen len() const {
    return payload_bytes + (has_syn() ? 1u : 0u) + (has_fin() ? 1u : 0u);
  }
  SeqNum text_seq() const { return seq + (has_syn() ? 1u : 0u); }
};

// A segment to send. The engine adds ports, addresses and the payload.
struct TxSegment {
  SeqNum seq;
  SeqNum ack;        // Meaningful with kAck; else zero.
  uint16_t wnd = 0;  // As it goes on the wire: already scaled.
  uint16_t urgent_pointer = 0;
  uint8_t flags = 0;
  bool retransmission = false;
  uint8_t ecn = 0;  // The ECN bits of the IP header.
  // Not 0: payload_bytes is longer than one segment; cut it into this many
  // bytes each.
  uint16_t tso_mss = 0;
  uint32_t payload_bytes = 0;
  // Of the first payload byte: the stream's first byte ever sent is 0.
  uint64_t stream_offset = 0;
  TcpOptions options;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_SEGMENT_H_
