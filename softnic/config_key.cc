#include "softnic/config_key.h"

#include <limits>
#include <type_traits>
#include <utility>

#include "softnic/config_value.h"

namespace softnic {
namespace {

using devwire::Duration;

// The field that a member pointer names, in the device or in its faults.
template <auto kMember>
auto& Field(DeviceConfig* config) {
  if constexpr (requires { config->*kMember; }) {
    return config->*kMember;
  } else {
    return config->faults.*kMember;
  }
}

template <auto kMember, uint64_t kLow, uint64_t kHigh>
bool Number(std::string_view value, DeviceConfig* config) {
  uint64_t number = 0;
  if (!ParseNumber(value, kLow, kHigh, &number)) return false;
  auto& field = Field<kMember>(config);
  static_assert(kHigh <=
                std::numeric_limits<std::decay_t<decltype(field)>>::max());
  field = static_cast<std::decay_t<decltype(field)>>(number);
  return true;
}

template <auto kMember>
bool Switch(std::string_view value, DeviceConfig* config) {
  return ParseSwitch(value, &Field<kMember>(config));
}

template <auto kMember>
bool Probability(std::string_view value, DeviceConfig* config) {
  return ParseProbability(value, &Field<kMember>(config));
}

template <auto kMember>
bool Span(std::string_view value, DeviceConfig* config) {
  return ParseDuration(value, &Field<kMember>(config));
}

// A path or an interface name, 1 to kMax bytes.
template <size_t kMax>
bool IsPath(std::string_view value) {
  return !value.empty() && value.size() <= kMax &&
         value.find('\0') == std::string_view::npos;
}

bool Name(std::string_view value, DeviceConfig* config) {
  if (value.empty() || value.size() > kMaxNameBytes) return false;
  for (char c : value) {
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool is_digit = c >= '0' && c <= '9';
    if (!is_letter && !is_digit && c != '_' && c != '-') return false;
  }
  config->name = value;
  return true;
}

bool PortSpec(std::string_view value, DeviceConfig* config) {
  PortKind kind = PortKind::kNone;
  if (value == "none") {
    value = "";
  } else if (value.starts_with("shm:")) {
    kind = PortKind::kShm;
    value.remove_prefix(4);
    if (!IsPath<100>(value)) return false;  // a socket's sun_path is 108
  } else if (value.starts_with("tap:")) {
    kind = PortKind::kTap;
    value.remove_prefix(4);
    if (!IsPath<15>(value)) return false;  // IFNAMSIZ - 1
    if (value.find_first_of("/% \t:") != std::string_view::npos) return false;
  } else {
    return false;
  }
  config->port = kind;
  config->port_path = value;
  return true;
}

bool Mac(std::string_view value, DeviceConfig* config) {
  return ParseMac(value, &config->mac);
}

bool Ip(std::string_view value, DeviceConfig* config) {
  std::vector<IpAddress> all;
  bool more = true;
  while (more) {
    const size_t plus = value.find('+');
    more = plus != std::string_view::npos;
    if (all.size() == kMaxIpPerDevice) return false;
    if (!ParseIp(value.substr(0, plus), &all.emplace_back())) return false;
    if (more) value.remove_prefix(plus + 1);
  }
  config->ip = std::move(all);
  return true;
}

template <typename T, auto kMember>
struct Choice {
  template <T kFirst, T kSecond, T kThird = kSecond>
  static bool Of(std::string_view value, const char* first, const char* second,
                 const char* third, DeviceConfig* config) {
    if (value == first) {
      Field<kMember>(config) = kFirst;
    } else if (value == second) {
      Field<kMember>(config) = kSecond;
    } else if (third != nullptr && value == third) {
      Field<kMember>(config) = kThird;
    } else {
      return false;
    }
    return true;
  }
};

bool ProfileName(std::string_view value, DeviceConfig* config) {
  return Choice<Profile, &DeviceConfig::profile>::Of<Profile::kMlx5,
                                                     Profile::kFull>(
      value, "mlx5", "full", nullptr, config);
}

bool ModeName(std::string_view value, DeviceConfig* config) {
  return Choice<Mode, &DeviceConfig::mode>::Of<Mode::kInline, Mode::kProcess,
                                               Mode::kThread>(
      value, "inline", "process", "thread", config);
}

bool Side(std::string_view value, DeviceConfig* config) {
  return Choice<FaultSide, &FaultConfig::side>::Of<
      FaultSide::kBoth, FaultSide::kTx, FaultSide::kRx>(value, "both", "tx",
                                                        "rx", config);
}

bool Link(std::string_view value, DeviceConfig* config) {
  return Choice<bool, &FaultConfig::link_up>::Of<true, false>(
      value, "up", "down", nullptr, config);
}

bool Seed(std::string_view value, DeviceConfig* config) {
  if (!ParseNumber(value, 0, UINT64_MAX, &config->faults.seed)) return false;
  ++config->faults.seed_given;
  return true;
}

bool Rate(std::string_view value, DeviceConfig* config) {
  return ParseRate(value, &config->faults.rate);
}

bool RuleLatency(std::string_view value, DeviceConfig* config) {
  uint64_t us = 0;
  if (!ParseNumber(value, 0, 10'000'000, &us)) return false;
  config->rule_latency =
      Duration::Nanoseconds(static_cast<int64_t>(us) * 1'000);
  return true;
}

template <auto kMember>
bool File(std::string_view value, DeviceConfig* config) {
  if (!value.empty() && !IsPath<4095>(value)) return false;
  Field<kMember>(config) = value;
  return true;
}

constexpr const char kZeroOrOne[] = "0 or 1";
constexpr const char kProbability[] = "a probability from 0 to 1, such as 0.01";
constexpr const char kSpan[] =
    "a time with its unit, such as 250us (ns us ms s)";
constexpr const char kCount[] = "a whole number from 0 to 1000000000000";
constexpr uint64_t kMaxCount = 1'000'000'000'000;

using D = DeviceConfig;
using F = FaultConfig;

// clang-format off
constexpr ConfigKey kKeys[] = {
    {"dev", Name, "1 to 63 letters, digits, '-' and '_'", "none, must be the first key", false, "name of the device, begins a device"},
    {"port", PortSpec, "shm:PATH (to 100 bytes), tap:NAME (to 15 bytes) or none", "none", false, "where the wire leads"},
    {"vnet", Switch<&D::vnet>, kZeroOrOne, "0", false, "tap: checksum and segmentation offloads with Linux"},
    {"mac", Mac, "a unicast address, six hexadecimal pairs with colons, such as 02:00:00:00:00:01", "02: and a hash of the name", false, "address of the port"},
    {"ip", Ip, "IPv4 and IPv6 addresses, up to 14, with + between them", "none", false, "entries of the GID table behind the link-local one"},
    {"mtu", Number<&D::mtu, 68, 9978>, "a whole number of bytes from 68 to 9978", "1500", false, "longest frame without its Ethernet header"},
    {"profile", ProfileName, "mlx5 or full", "mlx5", false, "behave as that hardware, or have everything"},
    {"mode", ModeName, "inline, thread or process", "inline", false, "work in the verbs calls, there and in a thread, or in a device process"},
    {"max_sge", Number<&D::max_sge, 1, 30>, "a whole number from 1 to 30", "30", false, "scatter and gather entries of a work request"},
    {"max_qp_wr", Number<&D::max_qp_wr, 1, 32768>, "a whole number from 1 to 32768", "32768", false, "depth of a work queue"},
    {"rx_csum", Switch<&D::rx_csum>, kZeroOrOne, "1", false, "receive checksums are verified and reported"},
    {"tx_csum", Switch<&D::tx_csum>, kZeroOrOne, "1", false, "send checksums can be asked for"},
    {"tso", Switch<&D::tso>, kZeroOrOne, "1", false, "TCP segmentation offload"},
    {"dmabuf", Switch<&D::dmabuf>, kZeroOrOne, "1", false, "0: dmabuf registration is not supported"},
    {"dmabuf_refuse", Switch<&D::dmabuf_refuse>, kZeroOrOne, "0", true, "1: dmabuf registration is refused"},
    {"raw", Switch<&D::raw>, kZeroOrOne, "1", false, "0: raw packet queue pairs are not supported"},
    {"vlan_strip", Switch<&D::vlan_strip>, kZeroOrOne, "1", false, "VLAN tags can be stripped"},
    {"require_cap_net_raw", Switch<&D::require_cap_net_raw>, kZeroOrOne, "0", true, "1: raw queue pairs and rules need CAP_NET_RAW"},
    {"rules", Number<&D::rules, 0, 65536>, "a whole number from 0 to 65536", "65536", true, "room for flow rules"},
    {"rule_latency_us", RuleLatency, "a whole number of microseconds from 0 to 10000000", "0", true, "time of one rule insertion or removal"},
    {"loopback", Switch<&D::loopback>, kZeroOrOne, "1", false, "frames to our own address come back"},
    {"verify", Switch<&D::verify>, kZeroOrOne, "0", true, "1: sum every byte, even where a softnic at the other end of a cable vouches for it"},
    {"pcap", File<&D::pcap>, "a file name, or nothing", "none", false, "finished frames of both directions go here"},
    {"counters", File<&D::counters>, "a file name, or nothing", "none", false, "the counters go here as text, at close and every 100 ms while polled"},
    {"seed", Seed, "a whole number below 2^64", "1", true, "start of all random choices; setting it starts them again"},
    {"fault_side", Side, "both, tx or rx", "both", true, "frames that loss, path_mtu, dup, corrupt, reorder and delay act on"},
    {"loss", Probability<&F::loss>, kProbability, "0", true, "a frame is lost"},
    {"path_mtu", Number<&F::path_mtu, 0, 9978>, "a whole number of bytes from 0 to 9978", "0, none", true, "longer frames, without their Ethernet header, are lost"},
    {"dup", Probability<&F::dup>, kProbability, "0", true, "a frame comes twice"},
    {"corrupt", Probability<&F::corrupt>, kProbability, "0", true, "one byte of a frame is changed"},
    {"reorder", Probability<&F::reorder>, kProbability, "0", true, "a frame is overtaken by 1 to reorder_depth others"},
    {"reorder_depth", Number<&F::reorder_depth, 1, 64>, "a whole number from 1 to 64", "3", true, "see reorder"},
    {"delay", Span<&F::delay>, kSpan, "0", true, "every frame is late by this"},
    {"delay_jitter", Span<&F::delay_jitter>, kSpan, "0", true, "and by a random time up to this"},
    {"hold_frames", Number<&F::hold_frames, 1, 65536>, "a whole number from 1 to 65536", "1024", false, "room for delayed frames; more are dropped"},
    {"rate", Rate, "bits per second from 1000 to 1000G with k, M or G, or 0", "0, no limit", true, "of the wire, sending"},
    {"link", Link, "up or down", "up", true, "state of the port"},
    {"cqe_error", Probability<&F::cqe_error>, kProbability, "0", true, "a work request completes in error"},
    {"cqe_error_at", Number<&F::cqe_error_at, 0, kMaxCount>, kCount, "0, never", true, "the N-th work request from now does"},
    {"lost_event", Probability<&F::lost_event>, kProbability, "0", true, "an event of a completion channel is lost"},
    {"qp_error", Probability<&F::qp_error>, kProbability, "0", true, "a queue pair goes to ERR, per work request"},
    {"qp_error_at", Number<&F::qp_error_at, 0, kMaxCount>, kCount, "0, never", true, "at the N-th work request from now"},
    {"revoke_at", Number<&F::revoke_at, 0, kMaxCount>, kCount, "0, never", true, "the last region that the N-th received frame is written to is revoked"},
    {"revoke_send_at", Number<&F::revoke_send_at, 0, kMaxCount>, kCount, "0, never", true, "the dmabuf that the N-th send from one ends in is revoked"},
    {"revoke_lkey", Number<&F::revoke_lkey, 0, UINT32_MAX>, "an lkey, or 0", "0, none", true, "this region is revoked at once"},
    {"late_scatter", Span<&F::late_scatter>, kSpan, "0", true, "payload is written this long after its completion, or by softnic_make_visible"},
    {"late_gather", Span<&F::late_gather>, kSpan, "0", true, "a send's memory is read this long after it is posted, before its completion"},
};
// clang-format on

}  // namespace

std::span<const ConfigKey> ConfigKeys() { return kKeys; }

}  // namespace softnic
