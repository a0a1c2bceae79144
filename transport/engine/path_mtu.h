// What is known of paths that carry less than our link: the MTU to a
// destination, learned from ICMP and forgotten after a while.
//
// The floors keep a forged message from making every segment a handful of
// bytes. IPv6 has one of its own: every link carries 1280 bytes.
//
// Source:   RFC 1191 (IPv4), RFC 8201 (IPv6), RFC 5927 7 (what is believed).
// Threads:  none of its own. Cost: linear search in a small table, when a
//           stream is opened and when ICMP comes; no allocation after
//           construction.
#ifndef TRANSPORT_ENGINE_PATH_MTU_H_
#define TRANSPORT_ENGINE_PATH_MTU_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"
#include "transport/address.h"

namespace devwire {

class PathMtuTable {
 public:
  struct Options {
    uint32_t link_mtu = 1500;
    uint32_t max_paths = 256;  // At the limit the one next to expire goes.
    // RFC 1191 6.3 and RFC 8201 5.3 recommend 10 minutes; Linux's mtu_expires.
    Duration lifetime = 600_s;
  };
  static constexpr uint32_t kMinIpv4 = 552;   // Linux's min_pmtu.
  static constexpr uint32_t kMinIpv6 = 1280;  // RFC 8200 5, RFC 8201 4.

  explicit PathMtuTable(const Options& options) : options_(options) {
    paths_.reserve(options.max_paths);
  }

  // The longest IP packet to `destination`; at most link_mtu.
  uint32_t Mtu(const IpAddress& destination) const;
  // A router said that a packet was too big, and which size it would take: 0
  // when it is too old to say (RFC 1191 5). Returns the new MTU, if it is lower
  // than what was known.
  std::optional<uint32_t> OnTooBig(const IpAddress& destination, uint32_t mtu,
                                   Instant now);
  // A path whose time is over, forgotten by this: it may have grown. Call until
  // empty.
  std::optional<IpAddress> PollExpired(Instant now);
  Instant NextDeadline() const;

 private:
  struct Path {
    IpAddress destination;
    uint32_t mtu = 0;
    Instant expires;
  };
  const Options options_;
  std::vector<Path> paths_;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_PATH_MTU_H_
