// What was sent and is not acknowledged: one record per segment on the wire,
// oldest first, with what the peer's SACK blocks and loss detection say of it.
//
//   snd_una                                   snd_nxt
//     | record 0 | record 1 | ...   | newest  |
//       lost       SACKed             in flight
//
// Records lie end to end. A large send that the NIC cuts makes one record per
// piece, so that loss is known, and repaired, per segment. Each is in flight,
// lost (marked, and not sent again since), or SACKed.
//
// A record's number is its index plus the number of the first one, so it stays
// when older ones are acknowledged. By number, records are linked two ways:
// those in flight again, in order of retransmission (the originals need no
// list: their order is the ring's); and from a SACKed one to one behind it, so
// that a block that grows by one segment is not walked again from its left.
//
// Invariants: records are contiguous from the first one's seq to snd_nxt;
// lost_bytes() and sacked_bytes() are the sums over records so marked.
//
// Source:   RFC 9293 3.10.7.4 (retransmission queue); marks and walks are those
//           of RFC 6675 4 and RFC 8985 6.2, 6.3.
// Threads:  none of its own. Cost: memory once, in the constructor. O(1) per
//           segment sent, acknowledged, SACKed, found lost, and sent again: a
//           block costs the segments it newly covers and two searches.
#ifndef TRANSPORT_TCP_RETRANSMIT_QUEUE_H_
#define TRANSPORT_TCP_RETRANSMIT_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/ring.h"
#include "base/time.h"
#include "transport/seq.h"
#include "transport/tcp/rack.h"
#include "transport/tcp/sent_segment.h"

namespace devwire {

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
  const SentSegment& back() const { return ring_[ring_.size() - 1]; }
  const SentSegment& operator[](size_t i) const { return ring_[i]; }
  uint32_t lost_bytes() const { return lost_bytes_; }
  uint32_t sacked_bytes() const { return sacked_bytes_; }
  uint32_t sacked_segments() const { return sacked_segments_; }
  uint32_t segments_in_flight_again() const { return again_count_; }
  // Nothing in it is lost, SACKed or sent again.
  bool is_calm() const {
    return lost_bytes_ == 0 && sacked_segments_ == 0 && again_count_ == 0;
  }

  // A segment was sent for the first time. Not when full().
  void Append(const SentSegment& segment) { CHECK(ring_.Push(segment)); }

  struct Acked {
    uint32_t segments = 0;  // Wholly acknowledged.
    // When the oldest of them that was sent only once was sent.
    std::optional<Instant> first_xmit_ts;
    // When one of them was sent again last.
    std::optional<Instant> again_xmit_ts;
  };
  // SND.UNA moved to `snd_una`: forgets what lies below, trims the record
  // that it cuts. Tells `rack` what was delivered, unless it is null.
  Acked AckTo(SeqNum snd_una, Rack* rack, Rack::Arrival* arrival);
  Acked AckTo(SeqNum snd_una) { return AckTo(snd_una, nullptr, nullptr); }
  // The peer has [left, right). Records that it covers wholly are SACKed.
  // Returns how many bytes of them were not before.
  uint32_t MarkSacked(SeqNum left, SeqNum right, Rack* rack,
                      Rack::Arrival* arrival);
  // Records that MarkSacked() has looked at: what the peer's blocks cost.
  uint64_t sack_steps() const { return sack_steps_; }
  // The peer reneged: it threw away what it had SACKed. RFC 2018 8.
  void ForgetSacked();

  struct Lost {
    uint32_t bytes = 0;  // Marked now.
    // When the next one is lost unless delivered by then.
    Instant next = Instant::Never();
  };
  // Marks what RFC 8985 6.2, step 5, calls lost.
  Lost MarkOverdueLost(const Rack& rack, Instant now);
  // The retransmission timer fired. RFC 8985 6.3: the first one is lost, and
  // those sent long enough ago.
  void MarkLostOnTimeout(const Rack& rack, Instant now);
  // The same without SACK. RFC 5681 3.1: send all again, in order.
  void MarkAllLost();
  // The oldest one is missing, as duplicate or partial ACKs tell. Not when
  // empty().
  void MarkFirstLost();
  // The timeout or recovery was a mistake: what was not sent again is in
  // flight.
  void UnmarkLost();
  // The path does not carry so much text at once any more: cuts what has more,
  // and is not SACKed, into pieces of at most `most_text`, and marks them lost.
  // For want of room the rest may stay in one long record, also lost. Whether
  // the oldest lost one is short enough now. O(records).
  bool Recut(uint32_t most_text);

  // The one to send again next: the oldest record marked lost. Null when there
  // is none.
  const SentSegment* NextLost();
  // Appends to `run`, which is NextLost(), the records after it that are lost
  // too, as long as all have no more than `most` bytes of text. Returns how
  // many records it is then.
  size_t ExtendLost(uint32_t most, SentSegment* run) const;
  // NextLost(), and those that ExtendLost() appended, were sent again.
  void OnRetransmitted(Instant now, size_t records = 1,
                       const RateMark& mark = {});
  // back() was sent again, as a tail loss probe.
  void OnLastRetransmitted(Instant now, const RateMark& mark = {});

  void Clear();
  void CheckInvariants(SeqNum snd_una, SeqNum snd_nxt) const;

 private:
  uint32_t NumberOf(size_t index) const {
    return first_number_ + static_cast<uint32_t>(index);
  }
  size_t IndexOf(uint32_t number) const { return number - first_number_; }
  // The first record that begins at or after `seq`; size() when none does.
  size_t FirstAtOrAfter(SeqNum seq) const;
  void MarkLost(size_t index);
  void MarkSent(size_t index, Instant now, const RateMark& mark);
  void LinkNewest(size_t index);
  void Unlink(const SentSegment& segment, uint32_t number);
  void PopFront();
  void Relink();

  Ring<SentSegment> ring_;
  uint32_t first_number_ = 0;
  uint32_t lost_bytes_ = 0;
  uint32_t sacked_bytes_ = 0;
  uint32_t sacked_segments_ = 0;
  uint64_t sack_steps_ = 0;
  size_t lost_hint_ = 0;  // No record before this one is marked lost.
  // No record before this one is in flight for the first time.
  size_t original_hint_ = 0;
  // In flight again: the list's ends and length.
  uint32_t again_oldest_ = 0;
  uint32_t again_newest_ = 0;
  uint32_t again_count_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_RETRANSMIT_QUEUE_H_
