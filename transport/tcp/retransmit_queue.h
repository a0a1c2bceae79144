// What was sent and is not acknowledged: one record per segment on the wire,
// oldest first.
//
//   snd_una                                   snd_nxt
//     | record 0 | record 1 | ...   | newest  |
//
// Records lie end to end. A large send that the NIC cuts makes one record per
// piece, so that loss is known, and repaired, per segment.
// Invariants: records are contiguous from the first one's seq to snd_nxt;
// lost_bytes() is the sum over records marked lost and not sent again since.
//
// Source:   RFC 9293 3.10.7.4 (retransmission queue); the marks are those that
//           RFC 6675 and 8985 need.
// Threads:  none of its own. Cost: memory once, in the constructor; O(1) per
//           segment sent and per segment acknowledged.
#ifndef TRANSPORT_TCP_RETRANSMIT_QUEUE_H_
#define TRANSPORT_TCP_RETRANSMIT_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/ring.h"
#include "base/time.h"
#include "transport/seq.h"

namespace devwire {

struct SentSegment {
  SeqNum seq;
  SeqLen len = 0;   // Counts SYN and FIN.
  Instant xmit_ts;  // Of the latest transmission.
  bool has_syn = false;
  bool has_fin = false;
  bool is_lost = false;  // Marked, and not sent again since.
  bool was_retransmitted = false;

  SeqNum end() const { return seq + len; }
  uint32_t payload_bytes() const {
    return len - (has_syn ? 1u : 0u) - (has_fin ? 1u : 0u);
  }
  SeqNum text_seq() const { return seq + (has_syn ? 1u : 0u); }
};

class RetransmitQueue {
 public:
  // Room for `capacity` segments in flight. A full queue ends sending of new
  // segments until an ACK comes.
  explicit RetransmitQueue(size_t capacity) : ring_(capacity) {}

  bool empty() const { return ring_.empty(); }
  bool full() const { return ring_.full(); }
  size_t size() const { return ring_.size(); }
  size_t free_records() const { return ring_.capacity() - ring_.size(); }
  const SentSegment& front() const { return ring_.front(); }
  const SentSegment& operator[](size_t i) const { return ring_[i]; }
  uint32_t lost_bytes() const { return lost_bytes_; }

  // A segment was sent for the first time. Not when full().
  void Append(const SentSegment& segment) { CHECK(ring_.Push(segment)); }

  struct Acked {
    uint32_t segments = 0;  // Wholly acknowledged.
    bool any_retransmitted = false;
    // When the oldest of them that was sent only once was sent.
    std::optional<Instant> first_xmit_ts;
  };
  // SND.UNA moved to `snd_una`: forgets what lies below, trims the record
  // that it cuts.
  Acked AckTo(SeqNum snd_una);

  // The oldest one is missing, as duplicate or partial ACKs tell. Not when
  // empty().
  void MarkFirstLost();
  // The retransmission timer fired. RFC 5681 3.1: send all again, in order.
  void MarkAllLost();
  // The one to send again next: the oldest record marked lost. Null when there
  // is none.
  const SentSegment* NextLost();
  // NextLost() was sent again.
  void OnRetransmitted(Instant now);

  void Clear();
  void CheckInvariants(SeqNum snd_una, SeqNum snd_nxt) const;

 private:
  Ring<SentSegment> ring_;
  uint32_t lost_bytes_ = 0;
  size_t lost_hint_ = 0;  // No record before this one is marked lost.
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_RETRANSMIT_QUEUE_H_
