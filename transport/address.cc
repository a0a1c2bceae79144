#include "transport/address.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstdio>

namespace devwire {

std::optional<IpAddress> IpAddress::Parse(std::string_view text) {
  const std::string z(text);
  IpAddress ip;
  if (inet_pton(AF_INET, z.c_str(), ip.bytes.data()) == 1) return ip;
  ip.family = IpFamily::kIpv6;
  if (inet_pton(AF_INET6, z.c_str(), ip.bytes.data()) == 1) return ip;
  return std::nullopt;
}

std::string IpAddress::ToString() const {
  char buf[INET6_ADDRSTRLEN];
  return inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes.data(), buf,
                   sizeof(buf));
}

std::optional<Endpoint> Endpoint::Parse(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  const bool bracketed =
      host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);

  uint16_t port = 0;
  const char* end = digits.data() + digits.size();
  auto [p, ec] = std::from_chars(digits.data(), end, port);
  if (digits.empty() || ec != std::errc() || p != end) return std::nullopt;

  auto ip = IpAddress::Parse(host);
  if (!ip || ip->is_v4() == bracketed) return std::nullopt;
  return Endpoint{*ip, Port{port}};
}

std::string Endpoint::ToString() const {
  const std::string p = std::to_string(static_cast<uint16_t>(port));
  return ip.is_v4() ? ip.ToString() + ":" + p : "[" + ip.ToString() + "]:" + p;
}

std::optional<MacAddress> ParseMac(std::string_view text) {
  if (text.size() != 17) return std::nullopt;
  MacAddress mac;
  for (size_t i = 0; i < 6; ++i) {
    const char* at = text.data() + 3 * i;
    auto [p, ec] = std::from_chars(at, at + 2, mac[i], 16);
    if (ec != std::errc() || p != at + 2) return std::nullopt;
    if (i < 5 && at[2] != ':') return std::nullopt;
  }
  return mac;
}

std::string MacToString(const MacAddress& mac) {
  char buf[18];
  std::snprintf(buf, sizeof(buf), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0],
                mac[1], mac[2], mac[3], mac[4], mac[5]);
  return buf;
}

}  // namespace devwire
