// The kinds of value a configuration string holds. Each parser takes the whole
// text, writes `out` only when all of it is a value in range, and returns
// whether it was.
//
// Threads: pure functions. Cost: no allocation but for the copies they return.
#ifndef SOFTNIC_CONFIG_VALUE_H_
#define SOFTNIC_CONFIG_VALUE_H_

#include <array>
#include <cstdint>
#include <string_view>

#include "base/time.h"

namespace softnic {

// Decimal, no sign, low <= *out <= high.
bool ParseNumber(std::string_view text, uint64_t low, uint64_t high,
                 uint64_t* out);
// 0 or 1.
bool ParseSwitch(std::string_view text, bool* out);
// A decimal fraction in [0, 1].
bool ParseProbability(std::string_view text, double* out);
// A number with the unit ns, us, ms or s, up to one hour; a bare 0.
bool ParseDuration(std::string_view text, devwire::Duration* out);
// Bits per second, a fraction with an optional k, M or G (powers of 1000),
// 1000 to 1T; a bare 0.
bool ParseRate(std::string_view text, uint64_t* out);
// Six hexadecimal pairs with colons; neither multicast nor all zero, since a
// port sends from it (IEEE 802.3 3.2.3).
bool ParseMac(std::string_view text, std::array<uint8_t, 6>* out);
// IPv4 dotted (stored IPv4-mapped) or IPv6, inet_pton(3).
bool ParseIp(std::string_view text, std::array<uint8_t, 16>* out);

}  // namespace softnic

#endif  // SOFTNIC_CONFIG_VALUE_H_
