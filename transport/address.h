// Addresses as the wire has them: network byte order bytes for IP, host order
// for ports.
#ifndef TRANSPORT_ADDRESS_H_
#define TRANSPORT_ADDRESS_H_

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace devwire {

using MacAddress = std::array<uint8_t, 6>;

// A TCP port, host byte order.
enum class Port : uint16_t {};

enum class IpFamily : uint8_t { kIpv4, kIpv6 };

// An IPv4 or IPv6 address. IPv4 uses the first four bytes, the rest are zero,
// so equality and hashing need no branch.
struct IpAddress {
  std::array<uint8_t, 16> bytes{};
  IpFamily family = IpFamily::kIpv4;

  static IpAddress V4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
    IpAddress ip;
    ip.bytes = {a, b, c, d};
    return ip;
  }
  // inet_pton(3) forms; empty when it is neither.
  static std::optional<IpAddress> Parse(std::string_view text);
  std::string ToString() const;
  bool is_v4() const { return family == IpFamily::kIpv4; }

  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;
};

struct Endpoint {
  IpAddress ip;
  Port port{};

  // "10.0.0.1:80" or "[fd00::1]:80"; empty when it is neither.
  static std::optional<Endpoint> Parse(std::string_view text);
  std::string ToString() const;

  friend auto operator<=>(const Endpoint&, const Endpoint&) = default;
};

// A connection's name, as seen from here.
struct FourTuple {
  Endpoint local;
  Endpoint remote;
  friend auto operator<=>(const FourTuple&, const FourTuple&) = default;
};

// "02:00:00:00:00:01"; empty when it is not six hex pairs.
std::optional<MacAddress> ParseMac(std::string_view text);
std::string MacToString(const MacAddress& mac);

}  // namespace devwire

#endif  // TRANSPORT_ADDRESS_H_
