#include "sockets/preload/sockaddr.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace devwire::preload {

std::optional<Endpoint> ToEndpoint(const sockaddr* address, socklen_t size) {
  Endpoint e;
  if (address == nullptr) return std::nullopt;
  if (address->sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
    sockaddr_in in;
    memcpy(&in, address, sizeof(in));
    memcpy(e.ip.bytes.data(), &in.sin_addr, 4);
    e.port = Port{ntohs(in.sin_port)};
    return e;
  }
  if (address->sa_family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in;
    memcpy(&in, address, sizeof(in));
    e.port = Port{ntohs(in.sin6_port)};
    if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) {
      memcpy(e.ip.bytes.data(), &in.sin6_addr.s6_addr[12], 4);
    } else {
      e.ip.family = IpFamily::kIpv6;
      memcpy(e.ip.bytes.data(), &in.sin6_addr, 16);
    }
    return e;
  }
  return std::nullopt;
}

void FromEndpoint(const Endpoint& e, sockaddr* out, socklen_t* size) {
  if (out == nullptr || size == nullptr) return;
  sockaddr_in v4 = {};
  sockaddr_in6 v6 = {};
  const void* from = &v4;
  socklen_t full = sizeof(v4);
  if (e.ip.is_v4()) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<uint16_t>(e.port));
    memcpy(&v4.sin_addr, e.ip.bytes.data(), 4);
  } else {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(static_cast<uint16_t>(e.port));
    memcpy(&v6.sin6_addr, e.ip.bytes.data(), 16);
    from = &v6;
    full = sizeof(v6);
  }
  memcpy(out, from, std::min(*size, full));
  *size = full;
}

bool IsAny(const IpAddress& ip) { return ip.bytes == IpAddress().bytes; }

}  // namespace devwire::preload
