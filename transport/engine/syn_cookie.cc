#include "transport/engine/syn_cookie.h"

#include <algorithm>
#include <array>

namespace devwire {
namespace {

// Of common links, less headers: the least that every IPv4 host takes; IPv6's
// least (1280 - 60); tunnels; PPPoE and Ethernet; InfiniBand's 4200; jumbo
// frames over IPv6 and IPv4. Ascending.
constexpr std::array<uint16_t, 8> kMss = {536,  1220, 1300, 1440,
                                          1460, 4160, 8940, 8960};

constexpr uint32_t kLowBits = 24;
constexpr uint32_t kLowMask = (1u << kLowBits) - 1;

constexpr uint32_t kTicksMask = 63;
constexpr uint32_t kScaleMask = 15;
constexpr uint32_t kNoScale = 15;
constexpr uint32_t kSackBit = 16;
constexpr uint32_t kEcnBit = 32;

uint32_t EpochAt(Instant now) {
  return static_cast<uint32_t>(now.nanoseconds() / kCookieEpoch.nanoseconds());
}

// The part that does not change with time.
uint32_t Base(const FourTuple& tuple, const HashKey& secret, SeqNum irs) {
  return CookieHash(tuple, secret, 0) + irs.raw();
}

// The part that does. Epochs begin at 1 here: 0 is the base's.
uint32_t Moving(const FourTuple& tuple, const HashKey& secret, uint32_t epoch) {
  return CookieHash(tuple, secret, 1 + uint64_t{epoch}) & kLowMask;
}

}  // namespace

SeqNum MakeSynCookie(const FourTuple& tuple, const HashKey& secret, SeqNum irs,
                     uint16_t mss, Instant now) {
  uint32_t index = kMss.size() - 1;
  while (index > 0 && kMss[index] > mss) --index;
  const uint32_t epoch = EpochAt(now);
  const uint32_t low = (Moving(tuple, secret, epoch) + index) & kLowMask;
  return SeqNum(Base(tuple, secret, irs) + (epoch << kLowBits | low));
}

std::optional<uint16_t> CheckSynCookie(const FourTuple& tuple,
                                       const HashKey& secret, SeqNum irs,
                                       SeqNum cookie, Instant now) {
  const uint32_t sum = cookie.raw() - Base(tuple, secret, irs);
  const uint32_t age = (EpochAt(now) - (sum >> kLowBits)) & 0xff;
  if (age > 1) return std::nullopt;
  const uint32_t index =
      (sum - Moving(tuple, secret, EpochAt(now) - age)) & kLowMask;
  if (index >= kMss.size()) return std::nullopt;
  return kMss[index];
}

uint32_t MakeCookieTicks(uint32_t ticks, const SynFacts& facts) {
  // RFC 7323 2.3: a scale above 14 counts as 14.
  uint32_t bits = facts.window_scale
                      ? std::min<uint32_t>(*facts.window_scale, 14)
                      : kNoScale;
  if (facts.sack_permitted) bits |= kSackBit;
  if (facts.ecn) bits |= kEcnBit;
  const uint32_t coded = (ticks & ~kTicksMask) | bits;
  return bits > (ticks & kTicksMask) ? coded - (kTicksMask + 1) : coded;
}

void ReadCookieTicks(uint32_t ticks, SynFacts* facts) {
  const uint32_t scale = ticks & kScaleMask;
  facts->window_scale.reset();
  if (scale != kNoScale) facts->window_scale = static_cast<uint8_t>(scale);
  facts->sack_permitted = (ticks & kSackBit) != 0;
  facts->ecn = (ticks & kEcnBit) != 0;
}

}  // namespace devwire
