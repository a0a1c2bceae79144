// Socket addresses of ip(7) and ipv6(7), and ours.
#ifndef SOCKETS_PRELOAD_SOCKADDR_H_
#define SOCKETS_PRELOAD_SOCKADDR_H_

#include <sys/socket.h>

#include <optional>

#include "transport/address.h"

namespace devwire::preload {

// An IPv4 address mapped into IPv6 is IPv4. Empty: of another family, or cut.
std::optional<Endpoint> ToEndpoint(const sockaddr* address, socklen_t size);

// As accept(2): fills *size bytes at most and says how many it would take.
// Null pointers are left alone.
void FromEndpoint(const Endpoint& e, sockaddr* out, socklen_t* size);

// INADDR_ANY, in6addr_any.
bool IsAny(const IpAddress& ip);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_SOCKADDR_H_
