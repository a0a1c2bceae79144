// The peer's SACK blocks: which are to be believed, and what is new in them.
// What they cover is marked in the RetransmitQueue.
//
// A block is taken when it lies strictly between SND.UNA and SND.NXT. The first
// one may instead report a duplicate (DSACK). Everything else is a stale or
// forged number: ignored and counted.
//
// Source:   RFC 2018 4 and 5; RFC 2883 4 and 5 (DSACK); RFC 6675 4, Update().
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation. An ACK has at most kMaxSackBlocks blocks; each costs
//           two searches, unless it was in the ACK before, and the segments
//           that it covers first. A segment is SACKed once: no peer gets more
//           work out of us than O(log n) per block and O(1) per segment.
#ifndef TRANSPORT_TCP_SACK_SCOREBOARD_H_
#define TRANSPORT_TCP_SACK_SCOREBOARD_H_

#include <array>
#include <cstdint>
#include <optional>

#include "transport/seq.h"
#include "transport/tcp/rack.h"
#include "transport/tcp/retransmit_queue.h"
#include "transport/wire/tcp_options.h"

namespace devwire {

class SackScoreboard {
 public:
  struct Ack {
    SeqNum ack;      // SEG.ACK,
    SeqNum snd_una;  // the same, or later for an old ACK.
    SeqNum snd_nxt;
    uint32_t max_snd_wnd = 0;
  };
  struct News {
    uint32_t sacked_bytes = 0;  // Not SACKed before.
    std::optional<SackBlock> dsack;
    uint8_t refused_blocks = 0;
  };
  // The blocks of one ACK, whose cumulative part was taken before.
  News Update(const TcpOptions& options, const Ack& ack, RetransmitQueue* queue,
              Rack* rack, Rack::Arrival* arrival);
  // After RetransmitQueue::ForgetSacked().
  void Forget() { known_count_ = 0; }

 private:
  bool IsKnown(const SackBlock& block) const;

  // Of the latest ACK with blocks.
  std::array<SackBlock, kMaxSackBlocks> known_;
  uint8_t known_count_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_SACK_SCOREBOARD_H_
