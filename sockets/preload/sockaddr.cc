#include "sockets/preload/sockaddr.h"

#include <errno.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "sockets/preload/user_memory.h"

namespace devwire::preload {
namespace {

// SIN6_LEN_RFC2133 of Linux: an address without its scope.
constexpr socklen_t kLeastInet6 = 24;

}  // namespace

std::optional<Endpoint> ToEndpoint(const sockaddr* address, socklen_t size,
                                   int family) {
  sockaddr_storage storage = {};
  const bool is_v4 = family == AF_INET;
  if (size < (is_v4 ? sizeof(sockaddr_in) : kLeastInet6) ||
      size > sizeof(storage) || !CopyIn(&storage, address, size) ||
      storage.ss_family != family) {
    return std::nullopt;
  }
  Endpoint e;
  if (is_v4) {
    sockaddr_in in;
    memcpy(&in, &storage, sizeof(in));
    memcpy(e.ip.bytes.data(), &in.sin_addr, 4);
    e.port = Port{ntohs(in.sin_port)};
    return e;
  }
  sockaddr_in6 in;
  memcpy(&in, &storage, sizeof(in));
  e.port = Port{ntohs(in.sin6_port)};
  if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) {
    memcpy(e.ip.bytes.data(), &in.sin6_addr.s6_addr[12], 4);
  } else {
    e.ip.family = IpFamily::kIpv6;
    memcpy(e.ip.bytes.data(), &in.sin6_addr, 16);
  }
  return e;
}

int64_t FromEndpoint(const Endpoint& e, int family, sockaddr* out,
                     socklen_t* size) {
  socklen_t room = 0;
  if (!CopyIn(&room, size, sizeof(room))) return -EFAULT;
  if (static_cast<int>(room) < 0) return -EINVAL;
  sockaddr_in v4 = {};
  sockaddr_in6 v6 = {};
  const void* from = &v4;
  socklen_t full = sizeof(v4);
  if (family == AF_INET) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<uint16_t>(e.port));
    memcpy(&v4.sin_addr, e.ip.bytes.data(), 4);
  } else {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(static_cast<uint16_t>(e.port));
    uint8_t* const bytes = v6.sin6_addr.s6_addr;
    if (!e.ip.is_v4()) {
      memcpy(bytes, e.ip.bytes.data(), 16);
    } else if (!IsAny(e.ip)) {  // ::ffff:a.b.c.d
      bytes[10] = bytes[11] = 0xff;
      memcpy(bytes + 12, e.ip.bytes.data(), 4);
    }
    from = &v6;
    full = sizeof(v6);
  }
  if (!CopyOut(out, from, std::min(room, full))) return -EFAULT;
  return CopyOut(size, &full, sizeof(full)) ? 0 : -EFAULT;
}

bool IsAny(const IpAddress& ip) { return ip.bytes == IpAddress().bytes; }

}  // namespace devwire::preload
