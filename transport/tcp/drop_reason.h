// What became of an arriving segment, and why.
//
// The engine keeps one counter per reason, named as the enumerator, and writes
// the name into the capture as a packet comment.
#ifndef TRANSPORT_TCP_DROP_REASON_H_
#define TRANSPORT_TCP_DROP_REASON_H_

#include <cstdint>

namespace devwire {

enum class DropReason : uint8_t {
  kNone,                // Not dropped.
  kClosed,              // The connection is CLOSED.
  kListenReset,         // RST in LISTEN.
  kListenAck,           // ACK in LISTEN: answered with RST.
  kListenWithoutSyn,    // Neither RST, ACK nor SYN in LISTEN.
  kAckOutsideSynSent,   // SYN-SENT: ACK of something not sent.
  kResetWithoutAck,     // SYN-SENT: RST that acknowledges nothing.
  kNotSynNorRst,        // SYN-SENT: neither.
  kPaws,                // Timestamp older than TS.Recent. RFC 7323 5.
  kOutsideWindow,       // Sequence number not acceptable.
  kResetOutsideWindow,  // RST outside the window: ignored.
  kResetChallenged,     // RST in window, not at RCV.NXT. RFC 5961 3.
  kSynChallenged,       // SYN on a synchronized connection. RFC 5961 4.
  kWithoutAck,          // Synchronized, and no ACK bit.
  kAckTooOld,           // RFC 5961 5.
  kAckOfUnsent,         // SEG.ACK > SND.NXT.
  kDuplicateText,       // Every byte was here before.
  kOutOfSlots,          // In window, but the slot quota is used up.
  kTooManyHoles,        // In window, but the table of ranges is full.
  kPoolReserve,         // The engine dropped the text: pool at its reserve.
  kTextAfterFin,        // Bytes beyond the peer's FIN.
  kTextAfterClose,      // Nobody will read it: answered with RST.
  kTextUnread,          // Reading was shut down: acknowledged, not kept.
  kTextOnSyn,           // Text on a SYN is not queued; it comes again.
};
inline constexpr int kDropReasonCount =
    static_cast<int>(DropReason::kTextOnSyn) + 1;

// "kPaws" for DropReason::kPaws.
const char* DropReasonName(DropReason reason);

// The answer of Connection::OnSegment. Whatever it is, the segment's frags
// are no longer the caller's: the connection holds them, or gave them to the
// FragSink. A reason says that the segment, or its text, was not used; its
// acknowledgment may have been.
struct Verdict {
  DropReason reason = DropReason::kNone;

  bool is_accepted() const { return reason == DropReason::kNone; }
  static const Verdict kAccepted;
  friend bool operator==(Verdict, Verdict) = default;
};
inline constexpr Verdict Verdict::kAccepted{};

}  // namespace devwire

#endif  // TRANSPORT_TCP_DROP_REASON_H_
