#include "softnic/config_value.h"

#include <arpa/inet.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <string>

namespace softnic {
namespace {

// A finite fraction without sign or exponent: digits, at most one point.
bool ParseFraction(std::string_view text, double* out) {
  if (text.empty() || text.size() > 32) return false;
  bool digit_seen = false;
  for (char c : text) {
    if (c >= '0' && c <= '9') {
      digit_seen = true;
    } else if (c != '.') {
      return false;
    }
  }
  if (!digit_seen) return false;
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(),
                                      value, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  *out = value;
  return true;
}

bool HexDigit(char c, uint8_t* out) {
  auto [end, error] = std::from_chars(&c, &c + 1, *out, 16);
  return error == std::errc() && end == &c + 1;
}

}  // namespace

bool ParseNumber(std::string_view text, uint64_t low, uint64_t high,
                 uint64_t* out) {
  uint64_t value = 0;
  const char* last = text.data() + text.size();
  auto [end, error] = std::from_chars(text.data(), last, value);
  if (text.empty() || error != std::errc() || end != last) return false;
  if (value < low || value > high) return false;
  *out = value;
  return true;
}

bool ParseSwitch(std::string_view text, bool* out) {
  if (text != "0" && text != "1") return false;
  *out = text == "1";
  return true;
}

bool ParseProbability(std::string_view text, double* out) {
  double value = 0;
  if (!ParseFraction(text, &value) || value > 1) return false;
  *out = value;
  return true;
}

bool ParseDuration(std::string_view text, devwire::Duration* out) {
  if (text == "0") {
    *out = devwire::Duration();
    return true;
  }
  constexpr struct {
    std::string_view unit;
    double nanoseconds;
  } kUnits[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
  for (const auto& u : kUnits) {
    if (text.size() <= u.unit.size() || !text.ends_with(u.unit)) continue;
    double value = 0;
    text.remove_suffix(u.unit.size());
    if (!ParseFraction(text, &value)) return false;
    if (value * u.nanoseconds > 3600e9) return false;
    *out = devwire::Duration::Nanoseconds(std::llround(value * u.nanoseconds));
    return true;
  }
  return false;
}

bool ParseRate(std::string_view text, uint64_t* out) {
  if (text == "0") {
    *out = 0;
    return true;
  }
  double unit = 1;
  if (text.ends_with('k')) unit = 1e3;
  if (text.ends_with('M')) unit = 1e6;
  if (text.ends_with('G')) unit = 1e9;
  if (unit != 1) text.remove_suffix(1);
  double value = 0;
  if (!ParseFraction(text, &value)) return false;
  value *= unit;
  if (value < 1e3 || value > 1e12) return false;
  *out = static_cast<uint64_t>(std::llround(value));
  return true;
}

bool ParseMac(std::string_view text, std::array<uint8_t, 6>* out) {
  if (text.size() != 17) return false;
  std::array<uint8_t, 6> mac = {};
  bool any = false;
  for (size_t i = 0; i < mac.size(); ++i) {
    uint8_t high = 0;
    uint8_t low = 0;
    if (!HexDigit(text[3 * i], &high)) return false;
    if (!HexDigit(text[3 * i + 1], &low)) return false;
    if (i < 5 && text[3 * i + 2] != ':') return false;
    mac[i] = static_cast<uint8_t>(high << 4 | low);
    any |= mac[i] != 0;
  }
  if (!any || (mac[0] & 1) != 0) return false;
  *out = mac;
  return true;
}

bool ParseIp(std::string_view text, std::array<uint8_t, 16>* out) {
  const std::string copy(text);  // inet_pton wants a terminating zero.
  if (copy.find('\0') != std::string::npos) return false;
  std::array<uint8_t, 16> ip = {};
  if (inet_pton(AF_INET6, copy.c_str(), ip.data()) == 1) {
    *out = ip;
    return true;
  }
  ip = {};
  if (inet_pton(AF_INET, copy.c_str(), ip.data() + 12) != 1) return false;
  ip[10] = ip[11] = 0xff;
  *out = ip;
  return true;
}

}  // namespace softnic
