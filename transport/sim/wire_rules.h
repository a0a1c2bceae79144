// What a host may put on the wire, judged from outside: only the segments that
// went in and out, and what the two ends agreed on.
//
// The rules are the RFCs', not the code's: a mistake that every invariant of
// the Connection is blind to shows here.
//
// Threads:  none of its own. Tests only.
#ifndef TRANSPORT_SIM_WIRE_RULES_H_
#define TRANSPORT_SIM_WIRE_RULES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "transport/tcp/segment.h"
#include "transport/tcp/tcb.h"

namespace devwire {

// Of one connection, from its first segment on.
class WireRules {
 public:
  // A segment of the peer's arrived whole.
  void OnArrival(const Segment& segment, const Tcb& before);
  // We send one. Returns what is wrong with it; empty when nothing is.
  std::string OnSend(const TxSegment& segment, uint32_t payload_bytes,
                     const Tcb& tcb, uint32_t smss);

 private:
  std::string CheckText(const TxSegment& segment, uint32_t payload_bytes,
                        uint32_t smss) const;
  std::string CheckAck(const TxSegment& segment, const Tcb& tcb);
  std::string CheckOptions(const TxSegment& segment, const Tcb& tcb);
  std::string CheckSackBlocks(const TxSegment& segment) const;

  // Of the peer: the end of the highest that arrived, and how far it let us
  // send at most.
  std::optional<SeqNum> peer_max_;
  std::optional<SeqNum> may_send_to_;
  // Of ours: what we told.
  std::optional<SeqNum> right_edge_;
  std::optional<SeqNum> last_ack_;
  std::optional<uint32_t> last_tsval_;
};

}  // namespace devwire

#endif  // TRANSPORT_SIM_WIRE_RULES_H_
