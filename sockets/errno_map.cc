#include "sockets/errno_map.h"

#include <cerrno>

namespace devwire {

int ErrnoOf(TcpError error) {
  switch (error) {
    case TcpError::kNone:
      return 0;
    case TcpError::kRefused:
      return ECONNREFUSED;
    case TcpError::kReset:
      return ECONNRESET;
    case TcpError::kTimedOut:
      return ETIMEDOUT;
    case TcpError::kAborted:
      return ECONNABORTED;
    case TcpError::kUnreachable:
      return EHOSTUNREACH;
    case TcpError::kRegionRevoked:
    case TcpError::kDeviceFailed:
      return EIO;
    case TcpError::kStackClosed:
      return ESHUTDOWN;
  }
  return EIO;
}

}  // namespace devwire
