// The keys of the shim's configuration: names, what each accepts, and where
// its value goes.
#ifndef SOCKETS_PRELOAD_CONFIG_KEYS_H_
#define SOCKETS_PRELOAD_CONFIG_KEYS_H_

#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "sockets/preload/config.h"

namespace devwire::preload {

struct ConfigKey {
  std::string_view name;      // "stack.mtu"
  std::string_view accepted;  // In words, for messages and docs/sockets.md.
  bool is_text;               // In the environment: as it is, without quotes.
  // False: it does not accept this value.
  bool (*take)(const toml::node& value, ShimConfig* config);
};

std::span<const ConfigKey> ConfigKeys();
// Null: there is none of this name.
const ConfigKey* FindConfigKey(std::string_view name);
// "stack.mtu" is DEVWIRE_STACK_MTU.
std::string EnvironmentName(std::string_view key);

// "take.rule": an array of tables. An error names the rule and the key.
absl::Status TakeRulesOf(const toml::node& value, TakeRules* out);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_CONFIG_KEYS_H_
