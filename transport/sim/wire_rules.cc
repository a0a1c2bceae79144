#include "transport/sim/wire_rules.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace devwire {
namespace {

void Raise(std::optional<SeqNum>& highest, SeqNum seq) {
  highest = highest ? SeqMax(*highest, seq) : seq;
}

}  // namespace

void WireRules::OnArrival(const Segment& segment, const Tcb& before) {
  if (segment.has_rst()) return;
  Raise(peer_max_, segment.seq + segment.len());
  if (!segment.has_ack()) {
    // A SYN: its window counts from our first byte of text.
    Raise(may_send_to_, before.iss + 1 + segment.wnd);
    return;
  }
  // A SYN's window is never scaled. RFC 7323 2.2.
  const int shift = segment.has_syn() ? 0 : before.snd_wind_shift;
  Raise(may_send_to_, segment.ack + (uint32_t{segment.wnd} << shift));
}

std::string WireRules::OnSend(const TxSegment& segment, uint32_t payload_bytes,
                              const Tcb& tcb, uint32_t smss) {
  if ((segment.flags & kRst) != 0) return "";
  if (std::string wrong = CheckText(segment, payload_bytes, smss);
      !wrong.empty()) {
    return wrong;
  }
  if ((segment.flags & kAck) != 0) {
    if (std::string wrong = CheckAck(segment, tcb); !wrong.empty()) {
      return wrong;
    }
  } else if ((segment.flags & kSyn) == 0) {
    return "neither SYN nor ACK on a segment";  // RFC 9293 3.10.7.4.
  }
  return CheckOptions(segment, tcb);
}

std::string WireRules::CheckText(const TxSegment& segment,
                                 uint32_t payload_bytes, uint32_t smss) const {
  if (payload_bytes == 0) return "";
  if (payload_bytes > smss) {
    return absl::StrCat("text of ", payload_bytes, " bytes, SMSS is ", smss);
  }
  if (!may_send_to_) return "text before the peer offered a window";
  // A window probe is one byte beyond. RFC 9293 3.8.6.1.
  const SeqNum limit = *may_send_to_ + (payload_bytes == 1 ? 1u : 0u);
  const SeqNum end = segment.seq + payload_bytes;
  if (SeqGt(end, limit)) {
    return absl::StrCat("text ", end - limit,
                        " bytes beyond any window that the peer offered");
  }
  return "";
}

std::string WireRules::CheckAck(const TxSegment& segment, const Tcb& tcb) {
  if (!peer_max_) return "an ACK before anything arrived";
  if (SeqGt(segment.ack, *peer_max_)) return "an ACK of what never arrived";
  // RFC 9293 3.4: cumulative. What is sent later never says less.
  if (last_ack_ && SeqLt(segment.ack, *last_ack_)) return "an ACK runs back";
  last_ack_ = segment.ack;
  const int shift = (segment.flags & kSyn) != 0 ? 0 : tcb.rcv_wind_shift;
  const SeqNum edge = segment.ack + (uint32_t{segment.wnd} << shift);
  // RFC 7323 2.4: by less than a unit of the scale it may seem to.
  const uint32_t unit = 1u << tcb.rcv_wind_shift;
  if (right_edge_ && SeqLt(edge + (unit - 1), *right_edge_)) {
    return absl::StrCat("the window's right edge moves left by ",
                        *right_edge_ - edge);
  }
  Raise(right_edge_, edge);
  return "";
}

std::string WireRules::CheckOptions(const TxSegment& segment, const Tcb& tcb) {
  const TcpOptions& o = segment.options;
  if ((segment.flags & kSyn) != 0) {
    return o.sack_block_count == 0 ? "" : "SACK blocks on a SYN";
  }
  if (o.mss || o.window_scale || o.sack_permitted) {
    return "an option of SYNs on another segment";
  }
  // RFC 7323 3.2: once agreed on, on every segment but RST.
  if (o.timestamps.has_value() != tcb.snd_ts_ok) {
    return tcb.snd_ts_ok ? "no timestamps, though agreed on"
                         : "timestamps, though not agreed on";
  }
  if (o.timestamps) {
    if (last_tsval_ &&
        static_cast<int32_t>(o.timestamps->val - *last_tsval_) < 0) {
      return "TSval runs back";
    }
    last_tsval_ = o.timestamps->val;
  }
  return CheckSackBlocks(segment);
}

// RFC 2018 4, with RFC 2883 4 for the first.
std::string WireRules::CheckSackBlocks(const TxSegment& segment) const {
  const TcpOptions& o = segment.options;
  if (o.timestamps && o.sack_block_count > 3) return "too many SACK blocks";
  for (int i = 0; i < o.sack_block_count; ++i) {
    const SackBlock& b = o.sack_blocks[static_cast<size_t>(i)];
    if (!SeqLt(b.left, b.right)) return "an empty SACK block";
    if (SeqGt(b.right, *peer_max_)) return "SACK of what never arrived";
    bool is_duplicate = i == 0 && SeqLe(b.right, segment.ack);
    for (int j = 0; j < o.sack_block_count; ++j) {
      if (i == j) continue;
      const SackBlock& c = o.sack_blocks[static_cast<size_t>(j)];
      const bool overlaps = SeqLt(b.left, c.right) && SeqLt(c.left, b.right);
      if (!overlaps) continue;
      // Only a DSACK lies within another block. RFC 2883 4.2.
      if (i != 0 && j != 0) return "SACK blocks overlap";
      is_duplicate |= i == 0;
    }
    if (!is_duplicate && SeqLe(b.left, segment.ack)) {
      return "a SACK block that the ACK covers";
    }
  }
  return "";
}

}  // namespace devwire
