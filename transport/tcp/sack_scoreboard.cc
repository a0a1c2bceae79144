#include "transport/tcp/sack_scoreboard.h"

#include <algorithm>
#include <span>

namespace devwire {
namespace {

// RFC 2883 4: the first block is a DSACK when the cumulative ACK covers it, or
// the second block does.
bool IsDsack(const TcpOptions& options, SeqNum ack) {
  const SackBlock& first = options.sack_blocks[0];
  if (SeqLe(first.right, ack)) return true;
  if (options.sack_block_count < 2) return false;
  const SackBlock& second = options.sack_blocks[1];
  return SeqGe(first.left, second.left) && SeqLe(first.right, second.right);
}

// Something that we sent within the last window.
bool IsPlausibleDsack(const SackBlock& block, const SackScoreboard::Ack& ack) {
  return SeqLt(block.left, block.right) && SeqLe(block.right, ack.snd_nxt) &&
         SeqGe(block.left, ack.snd_una - ack.max_snd_wnd);
}

bool IsPlausible(const SackBlock& block, const SackScoreboard::Ack& ack) {
  return SeqLt(block.left, block.right) && SeqLe(block.right, ack.snd_nxt) &&
         SeqGt(block.left, ack.snd_una);
}

}  // namespace

bool SackScoreboard::IsKnown(const SackBlock& block) const {
  for (size_t i = 0; i < known_count_; ++i) {
    if (known_[i] == block) return true;
  }
  return false;
}

SackScoreboard::News SackScoreboard::Update(const TcpOptions& options,
                                            const Ack& ack,
                                            RetransmitQueue* queue, Rack* rack,
                                            Rack::Arrival* arrival) {
  News news;
  // What was known of an earlier hole says nothing of this one.
  if (queue->sacked_segments() == 0) known_count_ = 0;
  std::array<SackBlock, kMaxSackBlocks> blocks;
  size_t count = 0;
  for (size_t i = 0; i < options.sack_block_count; ++i) {
    const SackBlock& block = options.sack_blocks[i];
    if (i == 0 && IsDsack(options, ack.ack)) {
      if (IsPlausibleDsack(block, ack)) {
        news.dsack = block;
      } else {
        ++news.refused_blocks;
      }
    } else if (IsPlausible(block, ack)) {
      // In ascending order: Rack judges by it who overtook whom.
      size_t at = count++;
      for (; at > 0 && SeqLt(block.left, blocks[at - 1].left); --at) {
        blocks[at] = blocks[at - 1];
      }
      blocks[at] = block;
    } else if (SeqGt(block.right, ack.snd_una)) {
      ++news.refused_blocks;  // Not merely late.
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (IsKnown(blocks[i])) continue;
    news.sacked_bytes +=
        queue->MarkSacked(blocks[i].left, blocks[i].right, rack, arrival);
  }
  known_ = blocks;
  known_count_ = static_cast<uint8_t>(count);
  return news;
}

}  // namespace devwire
