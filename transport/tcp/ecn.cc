#include "transport/tcp/ecn.h"

#include <algorithm>

#include "transport/wire/tcp_header.h"

namespace devwire {
namespace {

constexpr uint8_t kEcnFlags = kEce | kCwr;

bool IsEcnSetupSyn(uint8_t flags) { return (flags & kEcnFlags) == kEcnFlags; }
// CWR too would be a host that reflects what it got. RFC 3168 6.1.1.2.
bool IsEcnSetupSynAck(uint8_t flags) { return (flags & kEcnFlags) == kEce; }

}  // namespace

uint8_t EcnState::SynFlags(bool is_retransmission) {
  if (mode_ != EcnMode::kOn || is_retransmission) {
    sent_plain_syn_ = true;
    return 0;
  }
  return kEcnFlags;
}

uint8_t EcnState::SynAckFlags() const { return is_on_ ? kEce : 0; }

void EcnState::OnSyn(uint8_t flags) {
  is_on_ = mode_ != EcnMode::kOff && IsEcnSetupSyn(flags) && !sent_plain_syn_;
  // A SYN that comes again and asks no more, or never asked: not later either.
  if (!is_on_) mode_ = EcnMode::kOff;
}

void EcnState::OnSynAck(uint8_t flags) {
  is_on_ = mode_ == EcnMode::kOn && IsEcnSetupSynAck(flags) && !sent_plain_syn_;
}

bool EcnState::OnText(uint8_t codepoint, uint8_t flags, SeqNum rcv_nxt,
                      SeqNum last_ack_sent) {
  if (!is_on_) return false;
  has_seen_ect_ |= codepoint != kEcnNotEct;
  const bool is_marked = codepoint == kEcnCe;
  if (is_dctcp_) {
    if (is_marked == is_echoing_) return false;
    is_echoing_ = is_marked;
    if (prior_ack_count_ == kMaxPriorAcks) {
      --prior_ack_count_;  // Runs still alternate.
    } else if (rcv_nxt != last_ack_sent || prior_ack_count_ > 0) {
      prior_acks_[prior_ack_count_++] = rcv_nxt;
    }
    return true;
  }
  // CWR first: a mark on the same segment is newer. RFC 8257 3.2.
  const bool has_cwr = (flags & kCwr) != 0;
  if (has_cwr) is_echoing_ = false;
  const bool is_first_mark = is_marked && !is_echoing_;
  if (is_marked) is_echoing_ = true;
  return has_cwr || is_first_mark;
}

uint8_t EcnState::AckFlags() const { return is_echoing_ ? kEce : 0; }

bool EcnState::TakePriorAck(SeqNum* ack, uint8_t* flags) {
  if (prior_ack_count_ == 0) return false;
  *ack = prior_acks_[0];
  // Runs alternate, and the one after the newest boundary is is_echoing_.
  const bool was_marked = is_echoing_ != (prior_ack_count_ % 2 == 1);
  *flags = was_marked ? kEce : 0;
  std::copy(prior_acks_.begin() + 1, prior_acks_.end(), prior_acks_.begin());
  --prior_ack_count_;
  return true;
}

}  // namespace devwire
