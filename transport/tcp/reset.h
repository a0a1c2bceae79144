// The answer to a segment that belongs to no connection.
#ifndef TRANSPORT_TCP_RESET_H_
#define TRANSPORT_TCP_RESET_H_

#include <optional>

#include "transport/tcp/segment.h"

namespace devwire {

// RFC 9293 3.10.7.1 (CLOSED): a reset that the sender of `segment` will
// accept, or nothing when it was a reset itself. Send it with the addresses
// and ports swapped. Takes no frag: the caller frees the segment's slots.
std::optional<TxSegment> ResetForUnknown(const Segment& segment);

}  // namespace devwire

#endif  // TRANSPORT_TCP_RESET_H_
