// A TCP segment as a line of text, in tcpdump's spelling:
//
//   S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>
//   |  |  | |     |         |  |
//   |  |  | |     |         |  options in wire order, nops included
//   |  |  | |     |         window as on the wire, not scaled
//   |  |  | |     if and only if the flags hold ACK, written "."
//   |  |  | payload bytes
//   |  |  sequence number after the payload (SYN and FIN not counted)
//   |  sequence number
//   flags, any of F S R P . U E (ECE) W (CWR); "-" for none
//
// then "urg N" after the window if URG is set. For traces, tests and logs, not
// for the data path: it allocates.
//
// Source:   the form of tcpdump(8) and packetdrill.
// Threads:  pure functions.
#ifndef TRANSPORT_WIRE_NOTATION_H_
#define TRANSPORT_WIRE_NOTATION_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "transport/wire/tcp_header.h"

namespace devwire {

std::string FormatSegment(const TcpHeader& header, uint32_t payload_bytes);
// "<mss 1460,sackOK>", or "" when there are none.
std::string FormatOptions(const TcpOptions& options);
// "S.", "FP.", "-".
std::string FormatFlags(uint8_t flags);

struct NotatedSegment {
  TcpHeader header;  // Ports are 0.
  uint32_t payload_bytes = 0;
  // What a trace left out is not to be compared.
  bool has_wnd = false;
  bool has_options = false;  // "<>" is there and empty.
};

// Reads one segment. Spaces between the parts are free; nop and eol are read
// over, so the order of the options does not matter. InvalidArgument says where
// the text stopped making sense.
absl::StatusOr<NotatedSegment> ParseSegment(std::string_view text);

}  // namespace devwire

#endif  // TRANSPORT_WIRE_NOTATION_H_
