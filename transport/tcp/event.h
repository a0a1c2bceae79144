// What a connection tells its user, by Connection::PollEvent().
#ifndef TRANSPORT_TCP_EVENT_H_
#define TRANSPORT_TCP_EVENT_H_

#include <cstdint>

namespace devwire {

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

#endif  // TRANSPORT_TCP_EVENT_H_
