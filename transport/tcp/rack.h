// RACK-TLP: which segments are lost, by when they were sent.
//
//   time of transmission ->
//     lost?     lost?    delivered      not judged
//   ---o----------o----------o--------------o----------> now
//                            ^ RACK.segment: of those delivered, the one sent
//                              last. Whatever was sent before it is overdue;
//                              it is lost when rtt + reo_wnd have passed too.
//
// Rack keeps what RFC 8985 5.3 lists and says what is due; RetransmitQueue
// walks over the records. Tlp says what a tail loss probe was for.
//
// Source:   RFC 8985 sections 6 and 7, terms as there.
// Threads:  none of its own; belongs to one Connection with SACK.
// Cost:     no allocation, no clock; a few instructions per segment delivered.
#ifndef TRANSPORT_TCP_RACK_H_
#define TRANSPORT_TCP_RACK_H_

#include <cstdint>
#include <limits>
#include <optional>

#include "base/time.h"
#include "transport/seq.h"
#include "transport/tcp/sent_segment.h"
#include "transport/wire/tcp_options.h"

namespace devwire {

inline constexpr uint32_t kDupThresh = 3;  // RFC 5681 3.2, RFC 6675 2.

// Milliseconds of our clock, as the timestamps option counts them, but without
// the connection's offset.
inline uint32_t MillisecondsOf(Instant t) {
  return static_cast<uint32_t>(t.nanoseconds() / 1'000'000);
}

class Rack {
 public:
  // What one ACK brought, besides the segments that it delivers.
  struct Arrival {
    Instant now;
    std::optional<uint32_t> echo_ms;  // TSecr, as MillisecondsOf() counts.
    Duration rtt_min;                 // RACK.min_RTT.
    // Of the segment sent last among those delivered by this ACK so far.
    Duration rtt = Duration::Max();
    // The segment sent last itself, and how many there are.
    std::optional<DeliveryRate::Newest> newest;
    uint32_t segments = 0;
    // The lowest that one sent later overtook: reordering.
    std::optional<SeqNum> overtaken;

    void Count(const SentSegment& segment) {
      ++segments;
      if (newest && segment.xmit_ts < newest->xmit_ts) return;
      newest = {segment.mark, segment.xmit_ts, segment.is_app_limited};
    }
  };

  // `fack`: everything before it is known to be delivered.
  explicit Rack(SeqNum fack) : fack_(fack) {}

  // 6.2, steps 2 and 3, for one segment newly acknowledged or SACKed. Of one
  // ACK's segments, those with lower sequence numbers come first.
  void OnDelivered(const SentSegment& segment, Arrival* ack);
  // The same for an ACK of segments that were sent once and come in order:
  // `newest` is the last of them.
  void OnDeliveredInOrder(const SentSegment& newest, Instant now) {
    fack_ = newest.end();
    rtt_ = now - newest.xmit_ts;
    xmit_ts_ = newest.xmit_ts;
    end_seq_ = newest.end();
    is_again_ = false;
  }

  struct Round {
    SeqNum snd_una;
    SeqNum snd_nxt;
    bool has_dsack = false;
    bool is_in_recovery = false;
    uint32_t segs_sacked = 0;
    Duration rtt_min;  // Max(): no sample yet.
    Duration srtt;
  };
  // 6.2, step 4.
  void UpdateReorderingWindow(const Round& round);
  // Fast or RTO recovery is over.
  void OnRecoveryEnded();
  // It was a mistake: so may be what an ACK of a retransmission seemed to tell.
  void OnUndo() { xmit_ts_ = kLongAgo; }

  // 6.2, step 5. Whether `segment` was sent before RACK.segment; if so, it is
  // lost when LossTime() is reached.
  bool IsOvertaken(const SentSegment& segment) const {
    // Sent again and sent first at one time: which came first is not known.
    if (segment.was_retransmitted && !is_again_ &&
        segment.xmit_ts == xmit_ts_) {
      return false;
    }
    return IsSentAfter(xmit_ts_, end_seq_, segment.xmit_ts, segment.end());
  }
  Instant LossTime(const SentSegment& segment) const {
    return segment.xmit_ts + rtt_ + reo_wnd_;
  }

  SeqNum fack() const { return fack_; }
  Duration rtt() const { return rtt_; }
  Duration reo_wnd() const { return reo_wnd_; }
  bool reordering_seen() const { return reordering_seen_; }

 private:
  // Bursts share one time: their order is that of their sequence numbers.
  static bool IsSentAfter(Instant t1, SeqNum seq1, Instant t2, SeqNum seq2) {
    return t1 > t2 || (t1 == t2 && SeqGt(seq1, seq2));
  }

  static constexpr Instant kLongAgo =
      Instant::FromNanoseconds(std::numeric_limits<int64_t>::min());

  Instant xmit_ts_ = kLongAgo;
  SeqNum end_seq_;
  SeqNum fack_;
  Duration rtt_;
  Duration reo_wnd_;
  std::optional<SeqNum> dsack_round_;
  uint8_t reo_wnd_mult_ = 1;
  uint8_t reo_wnd_persist_ = 0;  // Recoveries left until mult is 1 again.
  bool reordering_seen_ = false;
  bool is_again_ = false;  // RACK.segment was a retransmission.
};

// The latest tail loss probe. RFC 8985 7.
class Tlp {
 public:
  // 7.2. `is_one_segment`: FlightSize is one segment.
  static Duration ProbeTimeout(std::optional<Duration> srtt,
                               bool is_one_segment);

  // 7.3: at most one probe in flight, and an RTT sample between two of them.
  bool CanProbe() const { return !end_seq_ && has_rtt_sample_; }
  void OnRttSample() { has_rtt_sample_ = true; }
  void OnProbeSent(SeqNum snd_nxt, bool is_retrans);
  // 7.1: fast recovery or RTO recovery begins.
  void Reset() { end_seq_.reset(); }

  struct Ack {
    SeqNum ack;
    std::optional<SackBlock> dsack;
    bool is_duplicate_without_sack = false;
  };
  // 7.4.2. True: the probe repaired a loss, which congestion control has to
  // hear of.
  bool OnAck(const Ack& ack);

  bool is_pending() const { return end_seq_.has_value(); }

 private:
  std::optional<SeqNum> end_seq_;
  bool is_retrans_ = false;
  bool has_rtt_sample_ = false;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_RACK_H_
