#include "sockets/preload/config_keys.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "sockets/errno_map.h"

namespace devwire::preload {
namespace {

using Node = toml::node;
using Config = ShimConfig;

// Where a field lies in the configuration.
template <typename T>
T& At(Config& c, T StackOptions::*field) {
  return c.stack.*field;
}
template <typename T>
T& At(Config& c, T StreamKnobs::*field) {
  return c.stack.tcp.*field;
}
template <typename T>
T& At(Config& c, T TcpKnobs::*field) {
  return c.stack.tcp.*field;
}
template <typename T>
T& At(Config& c, T PoolOptions::*field) {
  return c.pool.*field;
}
template <typename T>
T& At(Config& c, T KeepAliveOptions::*field) {
  return c.keepalive.*field;
}
template <typename T>
T& At(Config& c, T TakeRules::*field) {
  return c.take.*field;
}
template <typename T>
T& At(Config& c, T Config::*field) {
  return c.*field;
}

std::string TextOf(const Node& value) {
  return value.value_exact<std::string>().value_or("");
}

template <auto kField>
bool Text(const Node& value, Config* config) {
  if (!value.is_string()) return false;
  At(*config, kField) = TextOf(value);
  return true;
}

template <auto kField>
bool Switch(const Node& value, Config* config) {
  const auto is_on = value.value_exact<bool>();
  if (is_on) At(*config, kField) = *is_on;
  return is_on.has_value();
}

template <auto kField, int64_t kLow, int64_t kHigh>
bool Number(const Node& value, Config* config) {
  const auto number = value.value_exact<int64_t>();
  if (!number || *number < kLow || *number > kHigh) return false;
  auto& field = At(*config, kField);
  if constexpr (requires { field.has_value(); }) {
    field = static_cast<uint32_t>(*number);
  } else {
    field = static_cast<std::decay_t<decltype(field)>>(*number);
  }
  return true;
}

// "40ms".
template <auto kField, int64_t kLowMs, int64_t kHighMs>
bool Time(const Node& value, Config* config) {
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
  const std::string text = TextOf(value);
  const size_t digits =
      std::min(text.find_first_not_of("0123456789."), text.size());
  double number = 0;
  if (!absl::SimpleAtod(text.substr(0, digits), &number)) return false;
  for (const auto& [unit, nanoseconds] : kUnits) {
    if (text.substr(digits) != unit) continue;
    const double exact = number * nanoseconds;
    if (exact < kLowMs * 1e6 || exact > kHighMs * 1e6) return false;
    At(*config, kField) = Duration::Nanoseconds(std::llround(exact));
    return true;
  }
  return false;
}

bool Address(const Node& value, Config* config) {
  const auto prefix = AddressPrefix::Parse(TextOf(value));
  if (!prefix) return false;
  config->stack.address = prefix->net;
  config->stack.prefix_bits = prefix->bits;
  return true;
}

bool Gateway(const Node& value, Config* config) {
  config->stack.gateway = IpAddress::Parse(TextOf(value));
  return config->stack.gateway.has_value();
}

bool Mac(const Node& value, Config* config) {
  config->stack.mac = ParseMac(TextOf(value));
  return config->stack.mac && ((*config->stack.mac)[0] & 1) == 0;
}

// The index of the text among `names`, which is the enumerator's value.
template <auto kField>
bool OneOf(const Node& value, std::initializer_list<std::string_view> names,
           Config* config) {
  const auto found = std::find(names.begin(), names.end(), TextOf(value));
  if (found == names.end()) return false;
  auto& field = At(*config, kField);
  field = static_cast<std::decay_t<decltype(field)>>(found - names.begin());
  return true;
}

bool Level(const Node& value, Config* config) {
  return OneOf<&Config::log_level>(value, {"none", "error", "warning", "info"},
                                   config);
}

bool Congestion(const Node& value, Config* config) {
  const std::string name = TextOf(value);
  if (name != "cubic" && name != "newreno" && name != "dctcp") return false;
  config->stack.tcp.congestion = name;
  return true;
}

constexpr int64_t kKib = 1024;
constexpr int64_t kMib = 1024 * kKib;
constexpr int64_t kGib = 1024 * kMib;
constexpr int64_t kTib = 1024 * kGib;
constexpr char kFile[] = "a file name";
constexpr char kName[] = "a name";
constexpr char kSwitch[] = "true or false";
constexpr char kRetries[] = "0 to 127";
constexpr char kWindow[] = "bytes from 4096 to 1073741824";
constexpr char kHostBytes[] = "bytes from 1048576 to 68719476736";
constexpr char kRto[] = "a time from 1ms to 120s";
constexpr char kTenMinutes[] = "a time from 0s to 600s";
constexpr char kKeepAlive[] = "a time from 1ms to 32767s";
constexpr char kRing[] = "2 to 32768";

using S = StackOptions;
using K = TcpKnobs;

constexpr ConfigKey kKeys[] = {
    {"stack.verbs_library", kFile, true, Text<&S::verbs_library>},
    {"stack.softnic", "a configuration of softnic", true,
     Text<&Config::softnic>},
    {"stack.device", kName, true, Text<&S::device>},
    {"stack.interface", kName, true, Text<&Config::interface>},
    {"stack.port", "1 to 255", false, Number<&S::port, 1, 255>},
    {"stack.address", "an address with its prefix, as 10.0.0.2/24", true,
     Address},
    {"stack.gateway", "an IP address", true, Gateway},
    {"stack.mac", "a unicast address, as 02:00:00:00:00:01", true, Mac},
    {"stack.mtu", "bytes from 576 to 9978", false, Number<&S::mtu, 576, 9978>},
    {"stack.guardian", kSwitch, false, Switch<&Config::guardian>},
    {"stack.max_connections", "1 to 65535", false,
     Number<&S::max_connections, 1, 65535>},
    {"stack.max_half_open", "1 to 32767", false,
     Number<&S::max_half_open, 1, 32767>},
    {"stack.syn_cookies", kSwitch, false, Switch<&S::syn_cookies>},
    {"stack.rx_ring_frames", kRing, false,
     Number<&S::rx_ring_frames, 2, 32768>},
    {"stack.tx_ring_frames", kRing, false,
     Number<&S::tx_ring_frames, 2, 32768>},
    {"stack.first_local_port", "1024 to 65535", false,
     Number<&S::first_local_port, 1024, 65535>},

    {"memory.host_receive_bytes", kHostBytes, false,
     Number<&S::host_receive_bytes, kMib, 64 * kGib>},
    {"memory.host_send_bytes", kHostBytes, false,
     Number<&S::host_send_bytes, kMib, 64 * kGib>},
    {"memory.slot_bytes", "bytes from 2048 to 9216", false,
     Number<&PoolOptions::slot_bytes, 2048, 9216>},
    {"memory.relaxed_ordering", kSwitch, false,
     Switch<&PoolOptions::relaxed_ordering>},
    {"memory.max_receive_pools", "1 to 62", false,
     Number<&S::max_receive_pools, 1, 62>},

    {"tcp.timestamps", kSwitch, false, Switch<&K::timestamps>},
    {"tcp.window_scale", kSwitch, false, Switch<&K::window_scale>},
    {"tcp.sack", kSwitch, false, Switch<&K::sack>},
    {"tcp.max_mss", "bytes from 88 to 65495", false,
     Number<&K::max_mss, 88, 65495>},
    {"tcp.no_delay", kSwitch, false, Switch<&K::no_delay>},
    {"tcp.send_budget_bytes", "bytes from 4096 to 1099511627776", false,
     Number<&K::send_budget_bytes, 4 * kKib, kTib>},
    {"tcp.ttl", "1 to 255", false, Number<&K::ttl, 1, 255>},
    {"tcp.dscp", "0 to 63", false, Number<&K::dscp, 0, 63>},
    {"tcp.congestion", "cubic, newreno or dctcp", true, Congestion},
    {"tcp.initial_window_segments", "1 to 1000", false,
     Number<&K::initial_window_segments, 1, 1000>},
    {"tcp.ecn", "0, 1 or 2", false, Number<&K::ecn, 0, 2>},
    {"tcp.pacing", kSwitch, false, Switch<&K::pacing>},
    {"tcp.initial_receive_window_bytes", kWindow, false,
     Number<&K::initial_receive_window_bytes, 4 * kKib, kGib>},
    {"tcp.receive_budget_bytes", kWindow, false,
     Number<&K::receive_budget_bytes, 4 * kKib, kGib>},
    {"tcp.delayed_ack_time", "a time from 0s to 499ms", true,
     Time<&K::delayed_ack_time, 0, 499>},
    {"tcp.rto_min", kRto, true, Time<&K::rto_min, 1, 120'000>},
    {"tcp.rto_initial", kRto, true, Time<&K::rto_initial, 1, 120'000>},
    {"tcp.rto_max", kRto, true, Time<&K::rto_max, 1, 120'000>},
    {"tcp.syn_retries", kRetries, false, Number<&K::syn_retries, 0, 127>},
    {"tcp.synack_retries", kRetries, false, Number<&K::synack_retries, 0, 127>},
    {"tcp.data_retries", kRetries, false, Number<&K::data_retries, 0, 127>},
    {"tcp.orphan_retries", kRetries, false, Number<&K::orphan_retries, 0, 127>},
    {"tcp.user_timeout", "a time from 1ms to 86400s", true,
     Time<&K::user_timeout, 1, 86'400'000>},
    {"tcp.keepalive_idle", kKeepAlive, true,
     Time<&KeepAliveOptions::idle, 1, 32'767'000>},
    {"tcp.keepalive_interval", kKeepAlive, true,
     Time<&KeepAliveOptions::interval, 1, 32'767'000>},
    {"tcp.keepalive_probes", "1 to 127", false,
     Number<&KeepAliveOptions::probes, 1, 127>},
    {"tcp.time_wait", kTenMinutes, true, Time<&K::time_wait, 0, 600'000>},
    {"tcp.fin_wait_2", kTenMinutes, true, Time<&K::fin_wait_2, 0, 600'000>},
    {"tcp.max_orphans", "0 to 65535", false, Number<&K::max_orphans, 0, 65535>},
    {"tcp.challenge_ack_interval", "a time from 0s to 10s", true,
     Time<&K::challenge_ack_interval, 0, 10'000>},
    {"tcp.challenge_acks_per_second", "0 to 1000000", false,
     Number<&K::challenge_acks_per_second, 0, 1'000'000>},

    {"take.listen", kSwitch, false, Switch<&TakeRules::listen>},
    {"take.connect", kSwitch, false, Switch<&TakeRules::connect>},

    {"log.level", "none, error, warning or info", true, Level},
    {"log.file", kFile, true, Text<&Config::log_file>},
    {"log.explain", kSwitch, false, Switch<&Config::explain>},
    {"log.report", "a file name, or -", true, Text<&Config::report>},
};

// -- take.rule ----------------------------------------------------------------

bool RulePort(const Node& value, TakeRule* rule) {
  uint32_t first = 0;
  if (const auto number = value.value_exact<int64_t>()) {
    if (*number < 0 || *number > 65535) return false;
    rule->first_port = rule->last_port = static_cast<uint16_t>(*number);
    return true;
  }
  const std::string text = TextOf(value);
  const size_t dash = text.find('-');
  uint32_t last = 0;
  if (dash == std::string::npos ||
      !absl::SimpleAtoi(text.substr(0, dash), &first) ||
      !absl::SimpleAtoi(text.substr(dash + 1), &last) || first > last ||
      last > 65535) {
    return false;
  }
  rule->first_port = static_cast<uint16_t>(first);
  rule->last_port = static_cast<uint16_t>(last);
  return true;
}

struct RuleKey {
  std::string_view name;
  std::string_view accepted;
  bool (*take)(const Node& value, TakeRule* rule);
};

constexpr RuleKey kRuleKeys[] = {
    {"program", "a name, or a pattern as redis-*",
     [](const Node& value, TakeRule* rule) {
       rule->program = TextOf(value);
       return !rule->program.empty();
     }},
    {"direction", "connect or listen",
     [](const Node& value, TakeRule* rule) {
       const std::string text = TextOf(value);
       rule->direction =
           text == "listen" ? Direction::kListen : Direction::kConnect;
       return text == "listen" || text == "connect";
     }},
    {"address", "a prefix, as 10.0.0.0/8",
     [](const Node& value, TakeRule* rule) {
       rule->address = AddressPrefix::Parse(TextOf(value));
       return rule->address.has_value();
     }},
    {"port", "a port, or \"FIRST-LAST\"", RulePort},
    {"take", kSwitch,
     [](const Node& value, TakeRule* rule) {
       rule->take = value.value_exact<bool>().value_or(false);
       return value.is_boolean();
     }},
    {"device_memory", "true or false",
     [](const Node& value, TakeRule* rule) {
       rule->device_memory = value.value_exact<bool>().value_or(false);
       return value.is_boolean();
     }},
};

absl::Status TakeRuleKey(size_t index, std::string_view name, const Node& value,
                         TakeRule* rule) {
  std::string known;
  for (const RuleKey& key : kRuleKeys) {
    known.append(known.empty() ? "" : ", ").append(key.name);
    if (key.name != name) continue;
    if (key.take(value, rule)) return absl::OkStatus();
    return ErrnoStatus(
        EINVAL, absl::StrFormat("take.rule %d: %s: accepted is %s", index, name,
                                key.accepted));
  }
  return ErrnoStatus(
      EINVAL, absl::StrFormat("take.rule %d: unknown key %s: there are %s",
                              index, name, known));
}

}  // namespace

std::span<const ConfigKey> ConfigKeys() { return kKeys; }

const ConfigKey* FindConfigKey(std::string_view name) {
  for (const ConfigKey& key : kKeys) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

std::string EnvironmentName(std::string_view key) {
  std::string name = "DEVWIRE_" + absl::AsciiStrToUpper(std::string(key));
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

absl::Status TakeRulesOf(const Node& value, TakeRules* out) {
  const toml::array* const rules = value.as_array();
  if (rules == nullptr || (!rules->empty() && !rules->is_array_of_tables())) {
    return ErrnoStatus(EINVAL,
                       "take.rule: accepted is an array of tables, as "
                       "[[take.rule]] begins one");
  }
  out->rules.clear();
  for (const Node& table : *rules) {
    TakeRule rule;
    for (const auto& [key, entry] : *table.as_table()) {
      if (auto status =
              TakeRuleKey(out->rules.size() + 1, key.str(), entry, &rule);
          !status.ok()) {
        return status;
      }
    }
    out->rules.push_back(std::move(rule));
  }
  return absl::OkStatus();
}

}  // namespace devwire::preload
