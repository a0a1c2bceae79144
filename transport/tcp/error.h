// Why a connection ended other than by an orderly close.
//
// sockets/errno_map gives each its errno.
#ifndef TRANSPORT_TCP_ERROR_H_
#define TRANSPORT_TCP_ERROR_H_

#include <cstdint>

namespace devwire {

enum class TcpError : uint8_t {
  kNone,
  kRefused,        // RST in answer to our SYN.
  kReset,          // RST from the peer, later.
  kTimedOut,       // Retransmissions or the user timeout ran out.
  kAborted,        // The application's ABORT.
  kUnreachable,    // No route, no neighbour, or ICMP says so (by the engine).
  kRegionRevoked,  // The memory that the stream is bound to went away.
  kDeviceFailed,   // The NIC is gone (by the engine).
  kStackClosed,    // The stack was closed with the stream open.
};

// Every enumerator in words, for messages: "connection refused".
constexpr const char* TcpErrorName(TcpError error) {
  switch (error) {
    case TcpError::kNone:
      return "no error";
    case TcpError::kRefused:
      return "connection refused";
    case TcpError::kReset:
      return "connection reset by peer";
    case TcpError::kTimedOut:
      return "connection timed out";
    case TcpError::kAborted:
      return "connection aborted";
    case TcpError::kUnreachable:
      return "host unreachable";
    case TcpError::kRegionRevoked:
      return "memory region revoked";
    case TcpError::kDeviceFailed:
      return "device failed";
    case TcpError::kStackClosed:
      return "stack closed";
  }
  return "?";
}

}  // namespace devwire

#endif  // TRANSPORT_TCP_ERROR_H_
