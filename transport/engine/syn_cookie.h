// SYN cookies: a SYN answered without keeping anything of it. What must be
// remembered is sent to the peer, and comes back in its ACK.
//
//   ISS = F(4-tuple) + IRS + ( epoch mod 256 | F(4-tuple, epoch) + mss )
//                               8 bits         24 bits
//
// The ACK of the SYN-ACK brings ISS and IRS, so the sum can be undone: the
// epoch must be the present one or the one before, and what is left of the low
// bits an index of the MSS table. Of 2^32 guesses 2^4 hit.
//
// The other options do not fit. When both ends use timestamps, the low six
// bits of the SYN-ACK's TSval carry them, and the ACK echoes them; without
// timestamps a connection that came by cookie has no window scale and no SACK.
//
//   TSval:  ticks since offset, without the low six bits | E S W W W W
//           E: ECN was offered   S: SACK permitted   W: scale, 15 for none
//
// Source:   RFC 4987 3.6 and appendix A; the layout of both fields follows
//           Linux's, for the same reasons, with a table of our own.
// Threads:  pure functions. Cost: two or three SipHashes.
#ifndef TRANSPORT_ENGINE_SYN_COOKIE_H_
#define TRANSPORT_ENGINE_SYN_COOKIE_H_

#include <cstdint>
#include <optional>

#include "base/time.h"
#include "transport/address.h"
#include "transport/engine/iss.h"
#include "transport/seq.h"

namespace devwire {

// A cookie is good for its epoch and the next: 60 to 120 s.
inline constexpr Duration kCookieEpoch = 60_s;
inline constexpr Duration kCookieLifetime = 2 * kCookieEpoch;

// What a cookie keeps of a SYN.
struct SynFacts {
  uint16_t mss = 536;
  // Known only with timestamps.
  std::optional<uint8_t> window_scale;
  bool sack_permitted = false;
  bool ecn = false;
  friend bool operator==(const SynFacts&, const SynFacts&) = default;
};

// The ISS of the answer to a SYN with this MSS: the largest of the table that
// is not above it stands for it (the least, 536, also for what is below).
SeqNum MakeSynCookie(const FourTuple& tuple, const HashKey& secret, SeqNum irs,
                     uint16_t mss, Instant now);
// The MSS that `cookie` stands for; empty when it is none of ours, or stale.
std::optional<uint16_t> CheckSynCookie(const FourTuple& tuple,
                                       const HashKey& secret, SeqNum irs,
                                       SeqNum cookie, Instant now);

// The TSval less its offset, at `ticks`. Never later than `ticks`: what is sent
// next would look old to the peer (PAWS).
uint32_t MakeCookieTicks(uint32_t ticks, const SynFacts& facts);
// Fills everything but the MSS from the TSval that came back, less its offset.
void ReadCookieTicks(uint32_t ticks, SynFacts* facts);

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_SYN_COOKIE_H_
