// Explicit congestion notification of one connection: negotiated on the SYNs,
// marks of the network echoed to the sender, echoes of the peer answered.
//
//   sender                        router                 receiver
//     | text, ECT(0) ---------------|--- CE ---------------->|
//     |<--------------------------- ACK, ECE ----------------|  until CWR
//     | smaller window; CWR on the first new text ---------->|
//
// Two ways to echo: RFC 3168's, ECE on every ACK from a mark until CWR comes;
// and RFC 8257's for DCTCP, ECE exactly on the ACKs of marked text.
//
// Source:   RFC 3168 6.1; RFC 8257 3.2 (DCTCP.CE). ECT(0) alone: ECT(1) means
//           something else since RFC 8311 and 9331.
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation, no clock; nothing per segment that is not marked.
#ifndef TRANSPORT_TCP_ECN_H_
#define TRANSPORT_TCP_ECN_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "transport/seq.h"

namespace devwire {

// Codepoints of the IP header, RFC 3168 5, as Segment::ecn has them.
inline constexpr uint8_t kEcnNotEct = 0;
inline constexpr uint8_t kEcnEct0 = 2;
inline constexpr uint8_t kEcnCe = 3;

// Linux's tcp_ecn.
enum class EcnMode : uint8_t {
  kOff,        // 0: neither asked for nor granted.
  kOn,         // 1: asked for on our SYNs, and granted.
  kWhenAsked,  // 2: granted to a peer that asks.
};

class EcnState {
 public:
  // DCTCP asks for ECN whatever the mode, and echoes every mark.
  EcnState(EcnMode mode, bool is_dctcp)
      : mode_(is_dctcp ? EcnMode::kOn : mode), is_dctcp_(is_dctcp) {}

  // -- handshake, RFC 3168 6.1.1 ---------------------------------------------
  // Flags for our SYN. One that is sent again does without: the first may have
  // been dropped for them. 6.1.1.1, as Linux's tcp_ecn_fallback.
  uint8_t SynFlags(bool is_retransmission);
  uint8_t SynAckFlags() const;
  // A SYN or SYN-ACK came with these flags; any that does not agree ends it.
  void OnSyn(uint8_t flags);
  void OnSynAck(uint8_t flags);
  // Both ends agreed.
  bool is_on() const { return is_on_; }

  // -- receiver, 6.1.3 -------------------------------------------------------
  // Whether OnText() would do anything for such a segment without CWR.
  bool IsNews(uint8_t codepoint) const {
    return is_on_ && (codepoint == kEcnCe || (is_dctcp_ && is_echoing_) ||
                      (codepoint != kEcnNotEct && !has_seen_ect_));
  }
  // The peer has sent with an ECN-capable codepoint. For tcp_info.
  bool has_seen_ect() const { return has_seen_ect_; }
  // Text inside the window came; what lies before it is received up to
  // `rcv_nxt` and acknowledged up to `last_ack_sent`. True: an ACK is due now,
  // because the sender should learn at once, or its window may be one segment.
  [[nodiscard]] bool OnText(uint8_t codepoint, uint8_t flags, SeqNum rcv_nxt,
                            SeqNum last_ack_sent);
  // ECE or nothing, for an ACK of everything.
  uint8_t AckFlags() const;
  // DCTCP: text before this number was marked otherwise than that after it,
  // and is not acknowledged: an ACK of its own is owed, with flags. False when
  // none is. RFC 8257 3.2 calls the second ACK optional; without it the sender
  // would count the wrong bytes.
  [[nodiscard]] bool TakePriorAck(SeqNum* ack, uint8_t* flags);
  bool has_prior_ack() const { return prior_ack_count_ > 0; }

  // -- sender, 6.1.2 ---------------------------------------------------------
  // Whether an ACK with ECE, of text up to `acked_offset` of the stream, tells
  // of congestion that the sender has not answered: once per window of data.
  // `reductions` is the congestion control's.
  bool IsCongestion(uint64_t acked_offset, uint32_t reductions) const {
    return reductions == reductions_seen_ && acked_offset > reduced_at_;
  }
  // Whether new text has to tell of a smaller window: CWR.
  bool IsCwrDue(uint32_t reductions) const {
    return is_on_ && reductions != reductions_seen_;
  }
  void OnCwrSent(uint64_t sent_offset, uint32_t reductions) {
    reduced_at_ = sent_offset;
    reductions_seen_ = reductions;
  }

 private:
  // With more changes than this between two polls the latest runs are merged.
  static constexpr size_t kMaxPriorAcks = 8;

  EcnMode mode_;
  bool is_dctcp_;
  bool is_on_ = false;
  bool has_seen_ect_ = false;
  bool sent_plain_syn_ = false;
  bool is_echoing_ = false;  // RFC 8257: DCTCP.CE.
  uint8_t prior_ack_count_ = 0;
  uint32_t reductions_seen_ = 0;
  uint64_t reduced_at_ = 0;  // Where in the stream CWR was last sent.
  // Each ends a run of text marked alike, oldest first; runs alternate.
  std::array<SeqNum, kMaxPriorAcks> prior_acks_;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_ECN_H_
