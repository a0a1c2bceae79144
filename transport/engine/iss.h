// Numbers that a stranger cannot guess: initial sequence numbers, timestamp
// offsets, the hashes of SYN cookies, of local ports and of flow labels.
//
// ISN = M + F(4-tuple, secret), M counting 4 us: RFC 9293 3.4.1, RFC 6528 3.
// F is SipHash-2-4 (Aumasson and Bernstein, 2012), as in Linux. Each use has a
// number of its own in what is hashed, so that none tells about another.
//
// Threads: pure functions. Cost: about 50 ns; once per connection.
#ifndef TRANSPORT_ENGINE_ISS_H_
#define TRANSPORT_ENGINE_ISS_H_

#include <array>
#include <cstdint>
#include <span>

#include "base/time.h"
#include "transport/address.h"
#include "transport/seq.h"

namespace devwire {

struct HashKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;
};

uint64_t SipHash24(const HashKey& key, std::span<const uint8_t> bytes);

SeqNum InitialSequenceNumber(const FourTuple& tuple, const HashKey& secret,
                             Instant now);
// Per connection, so that timestamps do not tell the uptime. RFC 7323 7.1.
uint32_t TimestampOffset(const FourTuple& tuple, const HashKey& secret);
// Of where to look for a local port to this destination. RFC 6056 3.3.4; F and
// G are the two halves. The tuple's local port does not count.
uint64_t PortHash(FourTuple tuple, const HashKey& secret);
// Of an IPv6 flow, 20 bits, never 0. RFC 6437 3.
uint32_t FlowLabel(const FourTuple& tuple, const HashKey& secret);
// Of SYN cookies; see syn_cookie.h for `epoch`.
uint32_t CookieHash(const FourTuple& tuple, const HashKey& secret,
                    uint64_t epoch);

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_ISS_H_
