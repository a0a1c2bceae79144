// What a Connection is told when it is asked to send, and what it reports.
#ifndef TRANSPORT_TCP_CONNECTION_IO_H_
#define TRANSPORT_TCP_CONNECTION_IO_H_

#include <cstdint>

namespace devwire {

// Where the application's bytes lie, as far as TCP must know: in how many
// pieces, because one send can gather only so many.
class SendSource {
 public:
  // How many bytes from `stream_offset` on, at most `want`, one frame can
  // carry. At least 1 when want is.
  virtual uint32_t GatherableBytes(uint64_t stream_offset,
                                   uint32_t want) const = 0;

 protected:
  ~SendSource() = default;
};

// What the sender below can do, per PollTransmit.
struct TxLimits {
  uint32_t max_tso_payload = 0;        // Bytes in one send; 0: no TSO.
  const SendSource* source = nullptr;  // Null: everything is gatherable.
};

struct Event {
  enum class Kind : uint8_t {
    kConnected,   // ESTABLISHED was reached.
    kAcked,       // acked_offset() advanced.
    kReadable,    // readable_bytes() grew.
    kUrgent,      // The end of urgent data moved on: urgent_bytes().
    kWritable,    // Send() took less than asked before, and takes more now.
    kPeerClosed,  // The peer's FIN was taken in: after readable_bytes(), end.
    kStalled,     // R1: sent three times again, no answer. RFC 9293 3.8.3.
    kError,       // It ended with error(). kClosed follows.
    kClosed,      // CLOSED. The last event.
  };
  Kind kind;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_CONNECTION_IO_H_
