// ICMP and ICMPv6: echo, and the errors that concern a TCP connection.
//
// Source:   RFC 792, RFC 1191 4 (next-hop MTU), RFC 4443 2.4, 3 and 4; what a
//           TCP makes of the errors: RFC 9293 3.9.2.2, RFC 5461.
// Threads:  pure functions.
// Cost:     no allocation. Everything here lies in host memory: ICMP comes
//           through the control queue.
#ifndef TRANSPORT_WIRE_ICMP_H_
#define TRANSPORT_WIRE_ICMP_H_

#include <cstddef>
#include <cstdint>

#include "transport/address.h"
#include "transport/seq.h"
#include "transport/wire/frame.h"

namespace devwire {

inline constexpr uint32_t kIcmpHeaderBytes = 8;

// RFC 792 and RFC 4443.
inline constexpr uint8_t kIcmpEchoReply = 0;
inline constexpr uint8_t kIcmpUnreachable = 3;
inline constexpr uint8_t kIcmpEchoRequest = 8;
inline constexpr uint8_t kIcmpTimeExceeded = 11;
inline constexpr uint8_t kIcmpParameterProblem = 12;
inline constexpr uint8_t kIcmpv6Unreachable = 1;
inline constexpr uint8_t kIcmpv6PacketTooBig = 2;
inline constexpr uint8_t kIcmpv6TimeExceeded = 3;
inline constexpr uint8_t kIcmpv6ParameterProblem = 4;
inline constexpr uint8_t kIcmpv6EchoRequest = 128;
inline constexpr uint8_t kIcmpv6EchoReply = 129;

// True for an echo request addressed to us that MakeEchoReply may answer.
// `parsed` is of kIcmp or kIcmpv6, its bytes lie wholly at `frame`.
bool IsEchoRequest(const std::byte* frame, const ParsedFrame& parsed);

// Turns the request into its reply in place: addresses swapped, type changed,
// TTL 64, checksums completed. The length stays. Requires IsEchoRequest().
void MakeEchoReply(std::byte* frame, const ParsedFrame& parsed);

// An error about a TCP segment that was ours.
struct IcmpError {
  enum class Kind : uint8_t {
    // Net, host, prohibited, a header that somebody could not read: soft, RFC
    // 9293 MUST-56.
    kUnreachable,
    kRefused,       // Protocol or port unreachable.
    kPacketTooBig,  // mtu holds.
    kTimeExceeded,
  };
  Kind kind = Kind::kUnreachable;
  uint8_t code = 0;  // As it came.
  uint32_t mtu = 0;  // Of the next hop; 0 from a router older than RFC 1191.
  uint32_t packet_bytes = 0;  // Of the IP packet quoted, as its header says.
  FourTuple tuple;            // local is us: the sender of the segment quoted.
  SeqNum seq;  // Its SEG.SEQ: must lie in [SND.UNA, SND.NXT), RFC 5927.
};

enum class IcmpErrorResult : uint8_t {
  kError,        // *out holds.
  kNotAnError,   // Echo, router messages, types that no TCP acts on.
  kTooShort,     // Ends within the 8 bytes of TCP it must quote.
  kNotAboutTcp,  // Another protocol, a fragment, a family that does not fit.
};

// Reads the message at parsed.l4_offset; `parsed` is of kIcmp or kIcmpv6. Does
// not verify checksums: ChecksumsAreRight().
IcmpErrorResult ParseIcmpError(const std::byte* frame,
                               const ParsedFrame& parsed, IcmpError* out);

}  // namespace devwire

#endif  // TRANSPORT_WIRE_ICMP_H_
