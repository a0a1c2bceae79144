#include "transport/tcp/receive_window.h"

#include <algorithm>

#include "base/check.h"

namespace devwire {
namespace {

constexpr uint32_t kMaxShift = 14;  // RFC 7323 2.3.
constexpr uint32_t kMaxField = 65535;
// The measure before the first segment: RFC 9293's default MSS, which every
// path carries. Low on purpose.
constexpr uint32_t kFirstBytesPerSlot = 536;

}  // namespace

ReceiveWindow::ReceiveWindow(const Options& options)
    : limits_(options.limits),
      tuned_bytes_(options.tuned_bytes),
      slot_reserve_(options.slot_reserve),
      largest_segment_(std::min<uint32_t>(options.mss, options.slot_bytes)),
      full_segment_(largest_segment_) {
  CHECK_GT(options.limits.byte_budget, 0u);
  CHECK_GT(full_segment_, 0u);
  bytes_per_slot_x8_ = 8 * std::min(full_segment_, kFirstBytesPerSlot);
  if (options.use_scaling) {
    while (wanted_shift_ < kMaxShift &&
           (limits_.byte_budget >> wanted_shift_) > kMaxField) {
      ++wanted_shift_;
    }
  }
  Precompute();
}

void ReceiveWindow::Precompute() {
  // RFC 9293 3.8.6.2.2: min(Fr * RCV.BUFF, Eff.snd.MSS), Fr = 1/2.
  worthwhile_bytes_ = static_cast<uint32_t>(
      std::min<uint64_t>(full_segment_, (budget() + 1) / 2));
  least_offer_ = std::max(full_segment_, 1u << shift_);
  is_advertised_ = false;
}

inline uint64_t ReceiveWindow::Allowed() const {
  if (held_slots_ >= limits_.slot_quota) return 0;
  if (held_bytes_ >= limits_.byte_budget) return 0;
  uint64_t bytes = limits_.byte_budget - held_bytes_;
  if (tuned_bytes_ < limits_.byte_budget) {
    if (unread_bytes_ >= tuned_bytes_) return 0;
    bytes = std::min(bytes, tuned_bytes_ - unread_bytes_);
  }
  // A free slot is worth a full segment at least: so a peer whose segments were
  // small gets on to larger ones.
  uint64_t slots = std::max<uint64_t>(
      uint64_t{limits_.slot_quota - held_slots_} * bytes_per_slot(),
      least_offer_);
  return std::min(bytes, slots);
}

uint16_t ReceiveWindow::AdvertiseAnew(SeqNum rcv_nxt, bool is_syn) {
  uint32_t shift = is_syn ? 0 : shift_;
  uint32_t unit = 1u << shift;
  uint64_t allowed = Allowed();
  uint32_t wnd = rcv_wnd(rcv_nxt);
  if (allowed >= uint64_t{wnd} + worthwhile_bytes_) {
    wnd = static_cast<uint32_t>(
        std::min<uint64_t>(allowed, uint64_t{kMaxField} << shift) &
        ~uint64_t{unit - 1});
    wnd = std::max(wnd, rcv_wnd(rcv_nxt));
    rounded_bytes_ = 0;
  }
  uint32_t field = wnd >> shift;
  const uint32_t rounding = (unit - (wnd & (unit - 1))) & (unit - 1);
  // The class comment says why rounding up must end.
  if (rounded_bytes_ + rounding <= budget() / 8) {
    rounded_bytes_ += rounding;
    field = (wnd + rounding) >> shift;
  }
  field = std::min(field, kMaxField);
  edge_ = SeqMax(edge_, rcv_nxt + (field << shift));
  advertised_at_ = rcv_nxt;
  advertised_field_ = static_cast<uint16_t>(field);
  is_advertised_ = !is_syn;
  return advertised_field_;
}

bool ReceiveWindow::IsUpdateDue(SeqNum rcv_nxt) const {
  uint32_t wnd = rcv_wnd(rcv_nxt);
  uint64_t allowed =
      std::min<uint64_t>(Allowed(), uint64_t{kMaxField} << shift_);
  if (allowed < uint64_t{wnd} + worthwhile_bytes_) return false;
  // An ACK of its own only when the window at least doubles (as Linux), or
  // when so little is left that the peer may be waiting.
  return allowed >= 2 * uint64_t{wnd} || wnd < 2 * full_segment_;
}

void ReceiveWindow::Release(uint64_t bytes, uint32_t slots) {
  CHECK_LE(bytes, held_bytes_);
  CHECK_LE(slots, held_slots_);
  held_bytes_ -= bytes;
  held_slots_ -= slots;
  is_advertised_ = false;
}

}  // namespace devwire
