#include "transport/sim/sim_link.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace devwire {
namespace {

constexpr size_t kEthernetHeader = 14;
// Preamble, FCS and gap: IEEE 802.3, 3.1.1 and 4.4.2.
constexpr uint64_t kWireOverheadBytes = 8 + 4 + 12;

Duration UpTo(Duration max, Prng& prng) {
  if (max <= Duration()) return Duration();
  return Duration::Nanoseconds(static_cast<int64_t>(
      prng.Below(static_cast<uint64_t>(max.nanoseconds()) + 1)));
}

// Under a checksum: IPv4 or IPv6. ARP has none but the FCS.
bool IsIp(const SimFrame& frame) {
  if (frame.size() <= kEthernetHeader) return false;
  const auto type =
      static_cast<uint32_t>(frame[12]) << 8 | static_cast<uint32_t>(frame[13]);
  return type == 0x0800 || type == 0x86dd;
}

// Sets CE in the header of an ECT packet. Whether it is one.
bool MarkCe(SimFrame* frame) {
  if (!IsIp(*frame)) return false;
  constexpr auto kCeBits = static_cast<std::byte>(3);
  std::byte& tos = (*frame)[kEthernetHeader + 1];
  if ((*frame)[12] == static_cast<std::byte>(0x86)) {
    // IPv6: the ECN bits are bits 4 and 5 of this byte, and no checksum.
    if ((tos & kCeBits << 4) == std::byte{}) return false;
    tos |= kCeBits << 4;
    return true;
  }
  if ((tos & kCeBits) == std::byte{}) return false;
  const auto added = std::to_integer<uint32_t>((tos & kCeBits) ^ kCeBits);
  tos |= kCeBits;
  // The sum grows by what was added, its complement shrinks. RFC 1624 3.
  std::byte* sum = &(*frame)[kEthernetHeader + 10];
  uint32_t checksum = std::to_integer<uint32_t>(sum[0]) << 8 |
                      std::to_integer<uint32_t>(sum[1]);
  checksum = (~checksum & 0xffff) + added;
  checksum = ~((checksum & 0xffff) + (checksum >> 16));
  sum[0] = static_cast<std::byte>(checksum >> 8);
  sum[1] = static_cast<std::byte>(checksum);
  return true;
}

}  // namespace

bool SimLink::IsBlackout(Instant now) const {
  if (faults_.blackout_period <= Duration()) return false;
  const int64_t period = faults_.blackout_period.nanoseconds();
  const int64_t phase = now.nanoseconds() % period;
  return phase >= period - faults_.blackout_length.nanoseconds();
}

bool SimLink::IsLost(Instant now) {
  if (IsBlackout(now)) return true;
  if (in_burst_ && now - burst_began_ > faults_.burst_max) in_burst_ = false;
  if (!in_burst_) {
    in_burst_ = prng_.Chance(faults_.burst_loss);
    burst_began_ = now;
  }
  if (in_burst_) {
    in_burst_ = !prng_.Chance(faults_.burst_end);
    return true;
  }
  return prng_.Chance(faults_.loss);
}

bool SimLink::IsTooLong(const SimFrame& frame, Instant now) {
  if (faults_.path_mtu == 0) return false;
  if (!narrows_at_) narrows_at_ = now + faults_.narrows_after;
  return now >= *narrows_at_ &&
         frame.size() > kEthernetHeader + faults_.path_mtu;
}

void SimLink::Send(SimFrame frame, Instant now) {
  if (!rewriter_) return PutOnWire(std::move(frame), now);
  for (SimFrame& one : rewriter_(frame, now)) PutOnWire(std::move(one), now);
}

void SimLink::PutOnWire(SimFrame frame, Instant now) {
  ++stats_.sent;
  Instant departure = now;
  if (faults_.bits_per_second > 0) {
    while (!departures_.empty() && departures_.front() <= now) {
      departures_.pop();
    }
    if (departures_.size() >= faults_.queue_limit_frames) {
      ++stats_.queue_dropped;
      Observe(frame, now, "queue full");
      return;
    }
    if (faults_.mark_threshold_frames > 0 &&
        departures_.size() >= faults_.mark_threshold_frames && MarkCe(&frame)) {
      ++stats_.marked;
    }
    const uint64_t bits = (frame.size() + kWireOverheadBytes) * 8;
    departure = std::max(now, wire_free_at_) +
                Duration::Nanoseconds(static_cast<int64_t>(
                    bits * 1'000'000'000 / faults_.bits_per_second));
    wire_free_at_ = departure;
    departures_.push(departure);
  }
  if (IsLost(now) || IsTooLong(frame, now)) {
    ++stats_.lost;
    Observe(frame, now, "lost");
    return;
  }
  const char* fate = "";
  if (IsIp(frame) && prng_.Chance(faults_.corrupt)) {
    const uint64_t bit = prng_.Below((frame.size() - kEthernetHeader) * 8);
    frame[kEthernetHeader + bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    ++stats_.corrupted;
    fate = "corrupted";
  }
  const bool is_duplicated = prng_.Chance(faults_.duplicate);
  if (is_duplicated) fate = "duplicated";
  Observe(frame, now, fate);
  if (is_duplicated) {
    ++stats_.duplicated;
    Deliver(frame, departure);
  }
  Deliver(std::move(frame), departure);
}

void SimLink::Deliver(SimFrame frame, Instant departure) {
  Instant arrival = departure + faults_.delay + UpTo(faults_.jitter, prng_);
  arrival = std::max(arrival, last_arrival_);
  if (prng_.Chance(faults_.reorder)) {
    arrival += UpTo(faults_.reorder_delay, prng_);
    ++stats_.reordered;
  } else {
    last_arrival_ = arrival;
  }
  under_way_.push({arrival, next_number_++, std::move(frame)});
}

Instant SimLink::NextArrival() const {
  return under_way_.empty() ? Instant::Never() : under_way_.top().arrival;
}

std::optional<SimFrame> SimLink::Receive(Instant now) {
  if (under_way_.empty() || NextArrival() > now) return std::nullopt;
  SimFrame frame = std::move(const_cast<UnderWay&>(under_way_.top()).frame);
  under_way_.pop();
  ++stats_.delivered;
  return frame;
}

std::string SimLink::StatsString() const {
  return absl::StrCat("sent ", stats_.sent, " delivered ", stats_.delivered,
                      " lost ", stats_.lost, " queue_dropped ",
                      stats_.queue_dropped, " duplicated ", stats_.duplicated,
                      " marked ", stats_.marked, " reordered ",
                      stats_.reordered, " corrupted ", stats_.corrupted);
}

}  // namespace devwire
