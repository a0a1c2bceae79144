// Socket addresses of ip(7) and ipv6(7), and ours.
#ifndef SOCKETS_PRELOAD_SOCKADDR_H_
#define SOCKETS_PRELOAD_SOCKADDR_H_

#include <sys/socket.h>

#include <cstdint>
#include <optional>

#include "transport/address.h"

namespace devwire::preload {

// What `address` says to a socket of `family`, AF_INET or AF_INET6. An IPv4
// address mapped into IPv6 is IPv4. Empty: of another family, or cut.
std::optional<Endpoint> ToEndpoint(const sockaddr* address, socklen_t size,
                                   int family);

// As accept(2) and getsockname(2): fills *size bytes at most and says how many
// it would take. A negative errno, or 0: -EINVAL for a negative size, -EFAULT.
int64_t FromEndpoint(const Endpoint& e, int family, sockaddr* out,
                     socklen_t* size);

// INADDR_ANY, in6addr_any.
bool IsAny(const IpAddress& ip);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_SOCKADDR_H_
