// Whether a recovery was a mistake: what it sent again had all arrived.
//
// Two witnesses: the receiver's DSACK blocks (each retransmission reported as a
// duplicate), and the echoed timestamp (the ACK of the first retransmission
// answers a segment sent before it).
//
// Source:   RFC 3522 3.2 (Eifel detection), RFC 3708 2 (DSACK; applied to fast
//           recovery too, as Linux does). The response is RFC 4015's, in
//           CongestionControl::OnUndo.
// Threads:  none of its own; belongs to one Connection. Cost: no allocation.
#ifndef TRANSPORT_TCP_UNDO_H_
#define TRANSPORT_TCP_UNDO_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "transport/seq.h"
#include "transport/wire/tcp_options.h"

namespace devwire {

class Undo {
 public:
  // A recovery begins; nothing was sent again yet.
  void Start(SeqNum snd_una) {
    *this = Undo();
    is_armed_ = true;
    start_ = snd_una;
  }
  void Disarm() { is_armed_ = false; }
  // The recovery is over. A DSACK may still come, until what is in flight now
  // is acknowledged.
  void OnRecoveryEnded(SeqNum snd_nxt) { last_ = snd_nxt; }

  void OnRetransmitted(uint32_t bytes, uint32_t now_ms) {
    was_used_ = true;
    bytes_in_doubt_ += bytes;
    if (!first_ms_) first_ms_ = now_ms;
  }

  // A DSACK block came with an ACK of `ack`. True: everything sent again came
  // twice.
  bool OnDsack(const SackBlock& dsack, SeqNum ack) {
    if (!is_armed_ || !was_used_) return false;
    if (last_ && SeqGt(ack, *last_)) {
      Disarm();
      return false;
    }
    if (SeqLt(dsack.left, start_)) return false;
    bytes_in_doubt_ -= std::min(bytes_in_doubt_, dsack.right - dsack.left);
    return bytes_in_doubt_ == 0;
  }

  // SND.UNA advanced by an ACK that echoes `echo_ms`. True: it answers what was
  // sent before the first retransmission. Only the first such ACK can tell.
  bool OnAdvance(std::optional<uint32_t> echo_ms) {
    if (!is_armed_ || !first_ms_ || has_advanced_) return false;
    has_advanced_ = true;
    return echo_ms && static_cast<int32_t>(*echo_ms - *first_ms_) < 0;
  }

 private:
  bool is_armed_ = false;
  bool was_used_ = false;      // Something was sent again.
  bool has_advanced_ = false;  // SND.UNA did, since then.
  SeqNum start_;
  std::optional<SeqNum> last_;
  uint32_t bytes_in_doubt_ = 0;
  std::optional<uint32_t> first_ms_;  // Of the first retransmission.
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_UNDO_H_
