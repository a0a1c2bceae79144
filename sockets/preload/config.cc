#include "sockets/preload/config.h"

#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "sockets/errno_map.h"

namespace devwire::preload {
namespace {

absl::Status Wrong(std::string_view key, std::string_view accepted) {
  return ErrnoStatus(EINVAL,
                     absl::StrFormat("%s: accepted is %s", key, accepted));
}

// One key: takes its value, or says what it would take.
using Take = absl::Status (*)(std::string_view key, const toml::node& value,
                              ShimConfig* config);
struct Key {
  std::string_view name;  // "stack.mtu"
  Take take;
};

template <auto kMember>
absl::Status Text(std::string_view key, const toml::node& value,
                  ShimConfig* config) {
  const auto text = value.value_exact<std::string>();
  if (!text) return Wrong(key, "a string");
  if constexpr (requires { config->*kMember; }) {
    config->*kMember = *text;
  } else {
    config->stack.*kMember = *text;
  }
  return absl::OkStatus();
}

template <auto kMember>
absl::Status Switch(std::string_view key, const toml::node& value,
                    ShimConfig* config) {
  const auto is_on = value.value_exact<bool>();
  if (!is_on) return Wrong(key, "true or false");
  config->*kMember = *is_on;
  return absl::OkStatus();
}

absl::Status Address(std::string_view key, const toml::node& value,
                     ShimConfig* config) {
  constexpr char kAccepted[] = "an address with its prefix, as \"10.0.0.2/24\"";
  const std::string text = value.value_exact<std::string>().value_or("");
  const size_t slash = text.find('/');
  const auto ip = IpAddress::Parse(text.substr(0, slash));
  uint32_t bits = 0;
  if (slash == std::string::npos || !ip ||
      !absl::SimpleAtoi(text.substr(slash + 1), &bits) ||
      bits > (ip->is_v4() ? 32u : 128u)) {
    return Wrong(key, kAccepted);
  }
  config->stack.address = *ip;
  config->stack.prefix_bits = static_cast<uint8_t>(bits);
  return absl::OkStatus();
}

absl::Status Gateway(std::string_view key, const toml::node& value,
                     ShimConfig* config) {
  config->stack.gateway =
      IpAddress::Parse(value.value_exact<std::string>().value_or(""));
  return config->stack.gateway ? absl::OkStatus() : Wrong(key, "an IP address");
}

absl::Status Mtu(std::string_view key, const toml::node& value,
                 ShimConfig* config) {
  const int64_t mtu = value.value_exact<int64_t>().value_or(0);
  if (mtu < 576 || mtu > 9978) return Wrong(key, "bytes from 576 to 9978");
  config->stack.mtu = static_cast<uint32_t>(mtu);
  return absl::OkStatus();
}

constexpr Key kKeys[] = {
    {"stack.verbs_library", Text<&StackOptions::verbs_library>},
    {"stack.softnic", Text<&ShimConfig::softnic>},
    {"stack.device", Text<&StackOptions::device>},
    {"stack.address", Address},
    {"stack.gateway", Gateway},
    {"stack.mtu", Mtu},
    {"take.listen", Switch<&ShimConfig::take_listen>},
    {"take.connect", Switch<&ShimConfig::take_connect>},
};

absl::Status TakeOne(const std::string& name, const toml::node& value,
                     ShimConfig* config) {
  std::string known;
  for (const Key& key : kKeys) {
    if (key.name == name) return key.take(key.name, value, config);
    known.append(known.empty() ? "" : ", ").append(key.name);
  }
  return ErrnoStatus(
      EINVAL, absl::StrFormat("unknown key %s: there are %s", name, known));
}

}  // namespace

absl::StatusOr<ShimConfig> ParseShimConfig(std::string_view toml) {
  const toml::parse_result parsed = toml::parse(toml);
  if (!parsed) {
    return ErrnoStatus(
        EINVAL,
        absl::StrFormat("line %u: %s", parsed.error().source().begin.line,
                        parsed.error().description()));
  }
  ShimConfig config;
  for (const auto& [section, table] : parsed.table()) {
    if (!table.is_table()) {
      return TakeOne(std::string(section.str()), table, &config);
    }
    for (const auto& [key, value] : *table.as_table()) {
      const std::string name =
          absl::StrFormat("%s.%s", section.str(), key.str());
      if (auto status = TakeOne(name, value, &config); !status.ok()) {
        return status;
      }
    }
  }
  if (config.stack.address == IpAddress()) {
    return Wrong("stack.address",
                 "an address with its prefix, and there must be one");
  }
  return config;
}

absl::StatusOr<ShimConfig> ReadShimConfig(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return ErrnoStatus(
        ENOENT, absl::StrCat("cannot read ", path, ": see DEVWIRE_CONFIG"));
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  auto config = ParseShimConfig(text);
  if (config.ok()) return config;
  return ErrnoStatus(ErrnoOf(config.status()),
                     absl::StrCat(path, ": ", config.status().message()));
}

}  // namespace devwire::preload
