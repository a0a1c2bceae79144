// What the sender below a connection can do: where bytes lie, and how many go
// at once.
#ifndef TRANSPORT_TCP_SEND_SOURCE_H_
#define TRANSPORT_TCP_SEND_SOURCE_H_

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

}  // namespace devwire

#endif  // TRANSPORT_TCP_SEND_SOURCE_H_
