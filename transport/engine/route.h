// Where a packet for an address goes next: an owned address has one prefix on
// the link and at most one gateway behind it.
//
// Threads: const after construction.
#ifndef TRANSPORT_ENGINE_ROUTE_H_
#define TRANSPORT_ENGINE_ROUTE_H_

#include <cstdint>
#include <optional>

#include "transport/address.h"

namespace devwire {

struct Route {
  IpAddress address;
  uint8_t prefix_bits = 24;
  std::optional<IpAddress> gateway;

  // The neighbour to hand the packet to; empty: no route. An IPv6 destination
  // of an IPv4 stack has none, unless a neighbour names it (see NeighborTable).
  std::optional<IpAddress> NextHop(const IpAddress& destination) const;
  // False for what is no single host of any network: multicast, broadcast (that
  // of our prefix too), loopback, "this". RFC 1122 3.2.1.3, RFC 4291 2.
  bool CanBePeer(const IpAddress& ip) const;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_ROUTE_H_
