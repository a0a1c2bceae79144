#include "transport/tcp/reset.h"

namespace devwire {

std::optional<TxSegment> ResetForUnknown(const Segment& segment) {
  if (segment.has_rst()) return std::nullopt;
  TxSegment reset;
  if (segment.has_ack()) {  // <SEQ=SEG.ACK><CTL=RST>
    reset.seq = segment.ack;
    reset.flags = kRst;
  } else {  // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
    reset.ack = segment.seq + segment.len();
    reset.flags = kRst | kAck;
  }
  return reset;
}

}  // namespace devwire
