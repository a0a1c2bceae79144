#include "sockets/preload/take_rules.h"

#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace devwire::preload {
namespace {

bool FitsProgram(const std::string& pattern, const ProgramNames& program) {
  return pattern.empty() ||
         fnmatch(pattern.c_str(), program.executable.c_str(), 0) == 0 ||
         fnmatch(pattern.c_str(), program.invoked.c_str(), 0) == 0;
}

bool Fits(const TakeRule& rule, const ProgramNames& program,
          Direction direction, const Endpoint& endpoint) {
  const auto port = static_cast<uint16_t>(endpoint.port);
  return FitsProgram(rule.program, program) &&
         (!rule.direction || *rule.direction == direction) &&
         (!rule.address || rule.address->Contains(endpoint.ip)) &&
         rule.first_port <= port && port <= rule.last_port;
}

}  // namespace

bool AddressPrefix::Contains(const IpAddress& ip) const {
  if (ip.family != net.family) return false;
  for (unsigned i = 0; i < bits; ++i) {
    const unsigned mask = 0x80u >> (i % 8);
    if (((ip.bytes[i / 8] ^ net.bytes[i / 8]) & mask) != 0) return false;
  }
  return true;
}

std::optional<AddressPrefix> AddressPrefix::Parse(std::string_view text) {
  const size_t slash = text.find('/');
  const auto ip = IpAddress::Parse(text.substr(0, slash));
  uint32_t bits = 0;
  if (slash == std::string_view::npos || !ip ||
      !absl::SimpleAtoi(std::string(text.substr(slash + 1)), &bits) ||
      bits > (ip->is_v4() ? 32u : 128u)) {
    return std::nullopt;
  }
  return AddressPrefix{*ip, static_cast<uint8_t>(bits)};
}

TakeDecision Decide(const TakeRules& rules, const ProgramNames& program,
                    Direction direction, const Endpoint& endpoint) {
  for (size_t i = 0; i < rules.rules.size(); ++i) {
    if (Fits(rules.rules[i], program, direction, endpoint)) {
      return {rules.rules[i].take, absl::StrCat("take.rule ", i + 1),
              rules.rules[i].device_memory};
    }
  }
  if (direction == Direction::kListen) return {rules.listen, "take.listen"};
  return {rules.connect, "take.connect"};
}

ProgramNames ThisProgram() {
  ProgramNames names{.executable = {},
                     .invoked = program_invocation_short_name};
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path));
  if (size > 0) {
    const std::string_view whole(path, static_cast<size_t>(size));
    names.executable = whole.substr(whole.rfind('/') + 1);
  }
  return names;
}

}  // namespace devwire::preload
