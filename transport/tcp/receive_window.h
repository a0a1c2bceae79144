// How much the peer may send: the receive window of one stream.
//
// Two limits, because memory comes in slots: a budget of bytes, and a quota of
// slots times the bytes that this peer has been putting into a slot. What is
// held (readable, or with the application) counts against both. A third is what
// this reader has use for (WindowTuner): what it has not read counts against
// that. The right edge never moves left, so the measure can prove wrong; then
// there are no slots for text inside the window, and the connection drops it
// unacknowledged, and from then on what this peer puts into a slot counts as
// its full segment, until it sends a larger one.
//
//   rcv_nxt                edge_            rcv_nxt + what the limits allow
//     |---- RCV.WND --------|--- may be offered when worthwhile ---|
//
// Scaling: the field on the wire counts units of 2^shift bytes. It is rounded
// up, so that the edge does not seem to move left; once rounding has given
// away an eighth of the budget it is rounded down, and the edge seems to move
// left by less than a unit, as RFC 7323 2.4 allows. Text up to edge_ is
// accepted in any case.
//
// Source:   RFC 9293 3.8.6.2.2 (silly window), RFC 7323 2.
// Threads:  none of its own. Cost: no allocation.
#ifndef TRANSPORT_TCP_RECEIVE_WINDOW_H_
#define TRANSPORT_TCP_RECEIVE_WINDOW_H_

#include <algorithm>
#include <cstdint>

#include "transport/seq.h"

namespace devwire {

struct ReceiveLimits {
  uint64_t byte_budget = 0;  // Bytes held or offered, together.
  uint32_t slot_quota = 0;   // Slots held, with those out of order.
};

class ReceiveWindow {
 public:
  struct Options {
    ReceiveLimits limits;
    uint32_t slot_bytes = 2048;  // The measure never exceeds it.
    uint32_t slot_reserve = 1;   // Slots that only in-order text may use.
    uint32_t mss = 1460;         // Ours: the largest text we can be sent.
    bool use_scaling = true;
    uint64_t tuned_bytes = UINT64_MAX;  // To begin with; then SetTunedBytes().
  };

  explicit ReceiveWindow(const Options& options);

  // No more than this is unread or offered, though the limits allow it. Grows
  // only: WindowTuner.
  void SetTunedBytes(uint64_t bytes) {
    tuned_bytes_ = std::max(bytes, tuned_bytes_);
    Precompute();
  }

  // The smallest shift that lets the whole byte budget be offered, up to 14.
  uint8_t wanted_shift() const { return wanted_shift_; }
  // Both sides sent the option: use it from the next segment on.
  void EnableScaling() {
    shift_ = wanted_shift_;
    Precompute();
  }
  uint8_t shift() const { return shift_; }

  // The peer's SYN arrived; our own SYN may have offered `offered` already.
  void Start(SeqNum rcv_nxt, uint32_t offered) {
    edge_ = rcv_nxt + offered;
    is_advertised_ = false;
  }

  // RCV.WND: what may still arrive.
  uint32_t rcv_wnd(SeqNum rcv_nxt) const {
    int32_t wnd = SeqDistance(edge_, rcv_nxt);
    return wnd < 0 ? 0 : static_cast<uint32_t>(wnd);
  }
  SeqNum edge() const { return edge_; }

  // The field for a segment about to be sent, and moves the edge accordingly.
  // A SYN's is never scaled. RFC 7323 2.2.
  uint16_t Advertise(SeqNum rcv_nxt, bool is_syn) {
    // Nothing came and nothing was released since.
    if (is_advertised_ && !is_syn && rcv_nxt == advertised_at_) {
      return advertised_field_;
    }
    return AdvertiseAnew(rcv_nxt, is_syn);
  }
  // Whether telling the peer would give it a good deal more than it knows.
  bool IsUpdateDue(SeqNum rcv_nxt) const;

  // In-order text became readable: it is held until released.
  void Hold(uint32_t bytes, uint32_t slots) {
    held_bytes_ += bytes;
    unread_bytes_ += bytes;
    held_slots_ += slots;
  }
  // The application took so much of it.
  void OnRead(uint64_t bytes) {
    unread_bytes_ -= bytes;
    if (tuned_bytes_ < limits_.byte_budget) is_advertised_ = false;
  }
  void Release(uint64_t bytes, uint32_t slots);
  uint64_t held_bytes() const { return held_bytes_; }
  uint64_t unread_bytes() const { return unread_bytes_; }
  uint32_t held_slots() const { return held_slots_; }

  // Slots that text may still use, beside `out_of_order_slots` kept.
  bool HasRoomInOrder(uint32_t slots, size_t out_of_order_slots) const {
    return held_slots_ + out_of_order_slots + slots <= limits_.slot_quota;
  }
  bool HasRoomOutOfOrder(uint32_t slots, size_t out_of_order_slots) const {
    return held_slots_ + out_of_order_slots + slots + slot_reserve_ <=
           limits_.slot_quota;
  }

  // One slot took `bytes` of text. The measure follows: a moving average.
  void Measure(uint32_t bytes) {
    bytes_per_slot_x8_ -= bytes_per_slot_x8_ >> 3;
    bytes_per_slot_x8_ += bytes;
    if (bytes > full_segment_) SetFullSegment(bytes);
  }
  // Text within the window found no slot: too much was offered for this peer.
  void OnRefused(uint32_t bytes_per_slot_of_it) {
    Measure(bytes_per_slot_of_it);
    SetFullSegment(std::max(bytes_per_slot(), bytes_per_slot_of_it));
  }
  uint32_t bytes_per_slot() const { return bytes_per_slot_x8_ >> 3; }

  // Other streams of the pool came or went. The edge stays where it is.
  void SetLimits(const ReceiveLimits& limits) {
    limits_ = limits;
    Precompute();
  }
  const ReceiveLimits& limits() const { return limits_; }
  // Bytes unread and offered, at most, for now.
  uint64_t budget() const {
    return std::min(limits_.byte_budget, tuned_bytes_);
  }

 private:
  // What the two limits allow beyond rcv_nxt.
  uint64_t Allowed() const;
  uint16_t AdvertiseAnew(SeqNum rcv_nxt, bool is_syn);
  void Precompute();
  void SetFullSegment(uint32_t bytes) {
    full_segment_ = std::min(bytes, largest_segment_);
    Precompute();
  }

  ReceiveLimits limits_;
  uint64_t tuned_bytes_;
  uint64_t held_bytes_ = 0;
  uint64_t unread_bytes_ = 0;   // Of them.
  uint64_t rounded_bytes_ = 0;  // By rounding, since the edge last moved.
  uint32_t held_slots_ = 0;
  uint32_t bytes_per_slot_x8_;
  uint32_t slot_reserve_;
  uint32_t largest_segment_;       // The most text one slot gets.
  uint32_t full_segment_;          // The most that this peer puts into one.
  uint32_t worthwhile_bytes_ = 0;  // The edge moves by this much or more.
  uint32_t least_offer_ = 0;       // What a free slot is worth at least.
  SeqNum edge_;
  SeqNum advertised_at_;           // rcv_nxt, when
  uint16_t advertised_field_ = 0;  // this was told,
  bool is_advertised_ = false;     // unless something changed since.
  uint8_t shift_ = 0;
  uint8_t wanted_shift_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_RECEIVE_WINDOW_H_
