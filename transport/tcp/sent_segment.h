// One segment that was sent and is not acknowledged: what RetransmitQueue
// keeps of it, and loss detection reads.
#ifndef TRANSPORT_TCP_SENT_SEGMENT_H_
#define TRANSPORT_TCP_SENT_SEGMENT_H_

#include <cstdint>

#include "base/time.h"
#include "transport/seq.h"
#include "transport/tcp/delivery_rate.h"

namespace devwire {

struct SentSegment {
  SeqNum seq;
  SeqLen len = 0;   // Counts SYN and FIN.
  Instant xmit_ts;  // Of the latest transmission.
  bool has_syn = false;
  bool has_fin = false;
  bool is_lost = false;  // Marked, and not sent again since.
  bool is_sacked = false;
  bool was_retransmitted = false;
  bool is_app_limited = false;  // When it was sent; with `mark`.
  // Numbers of other records (retransmit_queue.h). In flight again: its
  // neighbours in order of retransmission. SACKed: in `next`, one behind it,
  // all between them being SACKed too.
  uint32_t previous = 0;
  uint32_t next = 0;
  RateMark mark;

  SeqNum end() const { return seq + len; }
  // Neither lost nor delivered, as far as is known.
  bool is_in_flight() const { return !is_lost && !is_sacked; }
  uint32_t payload_bytes() const {
    return len - (has_syn ? 1u : 0u) - (has_fin ? 1u : 0u);
  }
  SeqNum text_seq() const { return seq + (has_syn ? 1u : 0u); }
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_SENT_SEGMENT_H_
