#include "sockets/preload/config.h"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "sockets/errno_map.h"
#include "sockets/preload/config_keys.h"

namespace devwire::preload {
namespace {

constexpr std::string_view kRule = "take.rule";
// Variables that begin so are keys, or mistakes.
constexpr std::string_view kSections[] = {"stack.", "memory.", "tcp.", "take.",
                                          "log."};

absl::Status Wrong(std::string_view name, std::string_view accepted) {
  return ErrnoStatus(EINVAL,
                     absl::StrFormat("%s: accepted is %s", name, accepted));
}

absl::Status Unknown(std::string_view what) {
  std::string known;
  for (const ConfigKey& key : ConfigKeys()) {
    known.append(key.name).append(", ");
  }
  return ErrnoStatus(EINVAL, absl::StrFormat("unknown %s: there are %s%s", what,
                                             known, kRule));
}

// `said`: how messages call the key.
absl::Status TakeOne(std::string_view name, std::string_view said,
                     const toml::node& value, ShimConfig* config) {
  if (name == kRule) return TakeRulesOf(value, &config->take);
  const ConfigKey* const key = FindConfigKey(name);
  if (key == nullptr) return Unknown(absl::StrFormat("key %s", name));
  if (!key->take(value, config)) return Wrong(said, key->accepted);
  return absl::OkStatus();
}

absl::Status ParseToml(std::string_view text, toml::table* out) {
  toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    return ErrnoStatus(
        EINVAL,
        absl::StrFormat("line %u: %s", parsed.error().source().begin.line,
                        parsed.error().description()));
  }
  *out = std::move(parsed).table();
  return absl::OkStatus();
}

absl::Status TakeFile(std::string_view text, ShimConfig* config) {
  toml::table whole;
  if (auto status = ParseToml(text, &whole); !status.ok()) return status;
  for (const auto& [section, table] : whole) {
    if (!table.is_table()) {
      return TakeOne(section.str(), section.str(), table, config);
    }
    for (const auto& [key, value] : *table.as_table()) {
      const std::string name =
          absl::StrFormat("%s.%s", section.str(), key.str());
      if (auto status = TakeOne(name, name, value, config); !status.ok()) {
        return status;
      }
    }
  }
  return absl::OkStatus();
}

// One variable: text as it is, what else as in a TOML file.
absl::Status TakeVariable(std::string_view variable, std::string_view value,
                          ShimConfig* config) {
  std::string name(kRule);
  for (const ConfigKey& key : ConfigKeys()) {
    if (EnvironmentName(key.name) != variable) continue;
    name = key.name;
    if (!key.is_text) break;
    return TakeOne(name, variable, toml::value<std::string>(std::string(value)),
                   config);
  }
  if (name == kRule && variable != EnvironmentName(kRule)) {
    return Unknown(absl::StrFormat("variable %s", variable));
  }
  toml::table whole;
  if (!ParseToml(absl::StrFormat("value = %s", value), &whole).ok()) {
    return Wrong(variable, "a TOML value");
  }
  return TakeOne(name, variable, *whole.get("value"), config);
}

absl::Status TakeEnvironment(const char* const* environment,
                             ShimConfig* config) {
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view line(*environment);
    const std::string_view variable = line.substr(0, line.find('='));
    bool is_ours = false;
    for (const std::string_view section : kSections) {
      is_ours |= variable.starts_with(EnvironmentName(section));
    }
    if (!is_ours || variable.size() == line.size()) continue;
    if (auto status =
            TakeVariable(variable, line.substr(variable.size() + 1), config);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ShimConfig> ParseShimConfig(std::string_view toml,
                                           const char* const* environment) {
  ShimConfig config;
  if (auto status = TakeFile(toml, &config); !status.ok()) return status;
  if (auto status = TakeEnvironment(environment, &config); !status.ok()) {
    return status;
  }
  if (config.stack.address == IpAddress()) {
    return Wrong("stack.address",
                 "an address with its prefix, and there must be one");
  }
  if (!config.interface.empty() && !config.stack.device.empty()) {
    return Wrong("stack.interface", "none beside stack.device");
  }
  // How they stand to each other: rto_min, rto_initial, rto_max.
  if (auto status = CheckTcpKnobs(config.stack.tcp); !status.ok()) {
    return status;
  }
  return config;
}

absl::StatusOr<ShimConfig> ReadShimConfig(const std::string& path,
                                          const char* const* environment) {
  std::ifstream file(path);
  if (!file) {
    return ErrnoStatus(
        ENOENT, absl::StrCat("cannot read ", path, ": see DEVWIRE_CONFIG"));
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  auto config = ParseShimConfig(text, environment);
  if (config.ok()) return config;
  return ErrnoStatus(ErrnoOf(config.status()),
                     absl::StrCat(path, ": ", config.status().message()));
}

}  // namespace devwire::preload
