// What a stream and its user exchange: pieces of received memory, spans to
// send, and what became of them. The public face is sockets/stream.h.
#ifndef TRANSPORT_ENGINE_STREAM_TYPES_H_
#define TRANSPORT_ENGINE_STREAM_TYPES_H_

#include <cstddef>
#include <cstdint>

#include "memreg/frag.h"
#include "transport/address.h"

namespace devwire {

// The pools that every stack has; bound memory follows.
inline constexpr PoolId kHostPool{0};    // Whole frames of the control queue.
inline constexpr PoolId kLinearPool{1};  // A few bytes each: short headers.
inline constexpr PoolId kFirstDevicePool{2};

// The next bytes of the stream.
struct StreamFrag {
  // Where they lie: bytes from the start of the bound dmabuf. Only when `host`
  // is null.
  uint64_t offset = 0;
  uint32_t length = 0;
  // *Linear* bytes: they came in a header, or before the NIC steered the
  // stream, and lie here in host memory, until the token is returned.
  const std::byte* host = nullptr;
  FragToken token;
};

struct Received {
  size_t frags = 0;
  uint64_t bytes = 0;
  bool end_of_stream = false;  // The peer's FIN: nothing will follow.
};

// Bytes of bound device memory to send: `offset` from its start.
struct DeviceSpan {
  uint64_t offset = 0;
  uint32_t length = 0;
};

enum class SendOutcome : uint8_t {
  kQueued,      // All of it; a completion with the cookie will follow.
  kWouldBlock,  // None of it: the send queue is full. Wait for kWritable.
};

// One SendDevice() whose memory is the caller's again.
struct SendCompletion {
  uint64_t cookie = 0;
  uint64_t bytes = 0;
  // False: the stream ended before the peer acknowledged all of it.
  bool delivered = false;
};

// Learns whom a host is connected with, for who has to tell the peers should
// the process die. Called by the engine, on whatever thread runs it.
class ConnectionObserver {
 public:
  // Established, whether somebody accepts it or not. `index` is below
  // max_connections, and this connection's until OnEnded().
  virtual void OnConnected(uint32_t index, const Endpoint& local,
                           const Endpoint& remote) = 0;
  // The peer waits for nothing any more: CLOSED, or TIME-WAIT.
  virtual void OnEnded(uint32_t index) = 0;

 protected:
  ~ConnectionObserver() = default;
};

// Bits of a readiness set.
using Readiness = uint32_t;
inline constexpr Readiness kReadable = 1;  // bytes, end of stream
// Room in the send queue, and, when a send found none free, in the send buffers
// of the stack.
inline constexpr Readiness kWritable = 2;
inline constexpr Readiness kSendCompleted = 4;  // PollSendCompletions has some
inline constexpr Readiness kAcceptable = 8;     // listener: a connection waits
inline constexpr Readiness kConnected = 16;     // the handshake is complete
inline constexpr Readiness kFailed = 32;        // fatal; always reported
inline constexpr Readiness kReported = 64;      // TakeReports() has some
inline constexpr Readiness kAllReadiness = 127;

// Bits of what happened to a stream and is not its end: RFC 9293 3.9.1.8.
using Reports = uint32_t;
// R1 was reached: sent three times again, and no answer. RFC 9293 3.8.3.
inline constexpr Reports kReportStalled = 1;
// ICMP says so; soft, so the stream goes on. RFC 9293 3.9.2.2.
inline constexpr Reports kReportUnreachable = 2;
inline constexpr Reports kReportTimeExceeded = 4;
// The end of the peer's urgent data moved on. RFC 9293 3.8.5.
inline constexpr Reports kReportUrgent = 8;

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_STREAM_TYPES_H_
