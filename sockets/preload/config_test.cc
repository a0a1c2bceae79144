// The shim's configuration: what is taken, and what is said to the rest.
#include "sockets/preload/config.h"

#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sockets/errno_map.h"
#include "sockets/preload/config_keys.h"

namespace devwire::preload {
namespace {

constexpr char kAddress[] = "[stack]\naddress = \"10.0.0.2/24\"\n";

// One value for each key.
constexpr char kEveryKey[] = R"(
[stack]
verbs_library = "libsoftnic.so"
softnic = "dev=sn0"
device = "sn0"
interface = ""
port = 2
address = "10.0.0.2/16"
gateway = "10.0.0.1"
mac = "02:00:00:00:00:07"
mtu = 9000
guardian = false
max_connections = 2000
max_half_open = 200
syn_cookies = false
rx_ring_frames = 256
tx_ring_frames = 128
first_local_port = 20000
[memory]
host_receive_bytes = 33554432
host_send_bytes = 1048576
slot_bytes = 4096
relaxed_ordering = true
max_receive_pools = 3
[tcp]
timestamps = false
window_scale = false
sack = false
max_mss = 1000
no_delay = true
send_budget_bytes = 65536
ttl = 3
dscp = 10
congestion = "dctcp"
initial_window_segments = 4
ecn = 1
pacing = false
initial_receive_window_bytes = 8192
receive_budget_bytes = 16384
delayed_ack_time = "10ms"
rto_min = "100ms"
rto_initial = "0.5s"
rto_max = "60s"
syn_retries = 1
synack_retries = 2
data_retries = 3
orphan_retries = 4
user_timeout = "20s"
keepalive_idle = "60s"
keepalive_interval = "5s"
keepalive_probes = 6
time_wait = "1s"
fin_wait_2 = "2s"
max_orphans = 7
challenge_ack_interval = "250us"
challenge_acks_per_second = 8
[take]
listen = false
connect = false
[log]
level = "info"
file = "/log"
explain = true
report = "-"
)";

// The keys that kEveryKey sets.
std::set<std::string> KeysOfTheSample() {
  std::set<std::string> out;
  std::istringstream lines(kEveryKey);
  std::string section;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    if (line[0] == '[') {
      section = line.substr(1, line.size() - 2);
    } else {
      out.insert(section + "." + line.substr(0, line.find(' ')));
    }
  }
  return out;
}

TEST(ShimConfig, EveryKeyIsAccepted) {
  const auto config = ParseShimConfig(kEveryKey);
  ASSERT_TRUE(config.ok()) << config.status();
  std::set<std::string> known;
  for (const ConfigKey& key : ConfigKeys()) known.emplace(key.name);
  EXPECT_EQ(known, KeysOfTheSample());
}

TEST(ShimConfig, TheStack) {
  const auto config = ParseShimConfig(kEveryKey);
  ASSERT_TRUE(config.ok()) << config.status();
  const StackOptions& stack = config->stack;
  EXPECT_EQ(stack.verbs_library, "libsoftnic.so");
  EXPECT_EQ(config->softnic, "dev=sn0");
  EXPECT_EQ(stack.device, "sn0");
  EXPECT_EQ(stack.port, 2);
  EXPECT_EQ(stack.address, IpAddress::V4(10, 0, 0, 2));
  EXPECT_EQ(stack.prefix_bits, 16);
  EXPECT_EQ(stack.gateway, IpAddress::V4(10, 0, 0, 1));
  EXPECT_EQ(stack.mac, (MacAddress{2, 0, 0, 0, 0, 7}));
  EXPECT_EQ(stack.mtu, 9000u);
  EXPECT_FALSE(config->guardian);
  EXPECT_EQ(stack.max_connections, 2000u);
  EXPECT_EQ(stack.max_half_open, 200u);
  EXPECT_FALSE(stack.syn_cookies);
  EXPECT_EQ(stack.rx_ring_frames, 256u);
  EXPECT_EQ(stack.tx_ring_frames, 128u);
  EXPECT_EQ(stack.first_local_port, 20000u);
  EXPECT_EQ(stack.host_receive_bytes, 32u << 20);
  EXPECT_EQ(stack.host_send_bytes, 1u << 20);
  EXPECT_EQ(config->pool.slot_bytes, 4096u);
  EXPECT_TRUE(config->pool.relaxed_ordering);
  EXPECT_EQ(stack.max_receive_pools, 3u);
  EXPECT_FALSE(config->take.listen);
  EXPECT_FALSE(config->take.connect);
  EXPECT_EQ(config->log_level, LogLevel::kInfo);
  EXPECT_EQ(config->log_file, "/log");
  EXPECT_TRUE(config->explain);
  EXPECT_EQ(config->report, "-");
}

TEST(ShimConfig, TcpKnobs) {
  const auto config = ParseShimConfig(kEveryKey);
  ASSERT_TRUE(config.ok()) << config.status();
  const TcpKnobs& tcp = config->stack.tcp;
  EXPECT_FALSE(tcp.timestamps);
  EXPECT_FALSE(tcp.window_scale);
  EXPECT_FALSE(tcp.sack);
  EXPECT_EQ(tcp.max_mss, 1000);
  EXPECT_TRUE(tcp.no_delay);
  EXPECT_EQ(tcp.send_budget_bytes, 65536u);
  EXPECT_EQ(tcp.ttl, 3);
  EXPECT_EQ(tcp.dscp, 10);
  EXPECT_EQ(tcp.congestion, "dctcp");
  EXPECT_EQ(tcp.initial_window_segments, 4u);
  EXPECT_EQ(tcp.ecn, EcnMode::kOn);
  EXPECT_FALSE(tcp.pacing);
  EXPECT_EQ(tcp.initial_receive_window_bytes, 8192u);
  EXPECT_EQ(tcp.receive_budget_bytes, 16384u);
  EXPECT_EQ(tcp.delayed_ack_time, 10_ms);
  EXPECT_EQ(tcp.rto_min, 100_ms);
  EXPECT_EQ(tcp.rto_initial, 500_ms);
  EXPECT_EQ(tcp.rto_max, 60_s);
  EXPECT_EQ(tcp.syn_retries, 1);
  EXPECT_EQ(tcp.synack_retries, 2);
  EXPECT_EQ(tcp.data_retries, 3);
  EXPECT_EQ(tcp.orphan_retries, 4);
  EXPECT_EQ(tcp.user_timeout, 20_s);
  EXPECT_EQ(config->keepalive.idle, 60_s);
  EXPECT_EQ(config->keepalive.interval, 5_s);
  EXPECT_EQ(config->keepalive.probes, 6);
  EXPECT_EQ(tcp.time_wait, 1_s);
  EXPECT_EQ(tcp.fin_wait_2, 2_s);
  EXPECT_EQ(tcp.max_orphans, 7u);
  EXPECT_EQ(tcp.challenge_ack_interval, 250_us);
  EXPECT_EQ(tcp.challenge_acks_per_second, 8u);
}

TEST(ShimConfig, Defaults) {
  const auto config = ParseShimConfig(kAddress);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->take.listen);
  EXPECT_TRUE(config->take.connect);
  EXPECT_TRUE(config->take.rules.empty());
  EXPECT_TRUE(config->guardian);
  EXPECT_EQ(config->stack.mtu, 1500u);
  EXPECT_EQ(config->stack.gateway, std::nullopt);
  EXPECT_EQ(config->log_level, LogLevel::kWarning);
  EXPECT_FALSE(config->explain);
  EXPECT_EQ(config->report, "");
}

// The table of docs/sockets.md: every key, and what it accepts, word for word.
TEST(ShimConfig, TheDocumentHasEveryKey) {
  std::ifstream in("docs/sockets.md");
  std::set<std::string> documented;
  for (std::string line; std::getline(in, line);) {
    if (line == "## Why a socket was taken, or was not") break;
    const std::vector<std::string> cells = absl::StrSplit(line, " | ");
    if (cells.size() != 4 || !absl::StartsWith(cells[0], "| `") ||
        cells[0].find('.') == std::string::npos) {
      continue;
    }
    documented.insert(cells[0].substr(2) + " " + cells[1]);
  }
  std::set<std::string> known;
  for (const ConfigKey& key : ConfigKeys()) {
    known.insert(absl::StrFormat("`%s` %s", key.name, key.accepted));
  }
  EXPECT_THAT(documented, testing::ContainerEq(known));
}

void ExpectRefused(const absl::StatusOr<ShimConfig>& config,
                   const std::string& said) {
  EXPECT_EQ(ErrnoOf(config.status()), EINVAL) << said;
  EXPECT_THAT(std::string(config.status().message()), testing::HasSubstr(said));
}

// Each key refuses a value of another kind, and says what it accepts.
TEST(ShimConfig, EveryKeyRefusesWhatItDoesNotAccept) {
  for (const ConfigKey& key : ConfigKeys()) {
    const std::string name(key.name);
    const size_t dot = name.find('.');
    ExpectRefused(
        ParseShimConfig(absl::StrFormat("[%s]\n%s = [1]\n", name.substr(0, dot),
                                        name.substr(dot + 1))),
        absl::StrFormat("%s: accepted is %s", name, key.accepted));
  }
}

TEST(ShimConfig, WhatIsWrongIsNamed) {
  const struct {
    std::string text;
    std::string said;
  } rows[] = {
      {"", "stack.address: accepted is an address with its prefix"},
      {"[stack]\naddress = \"10.0.0.2\"\n", "stack.address: accepted is"},
      {"[stack]\naddress = \"10.0.0.2/33\"\n", "stack.address: accepted is"},
      {"[stack]\naddress = \"here/24\"\n", "stack.address: accepted is"},
      {std::string(kAddress) + "gateway = \"x\"\n",
       "stack.gateway: accepted is an IP address"},
      {std::string(kAddress) + "mac = \"01:00:00:00:00:01\"\n",
       "stack.mac: accepted is a unicast address"},
      {std::string(kAddress) + "mtu = 575\n", "stack.mtu: accepted is"},
      {std::string(kAddress) + "mtu = 9979\n", "stack.mtu: accepted is"},
      {std::string(kAddress) + "[tcp]\nrto_min = \"121s\"\n",
       "tcp.rto_min: accepted is a time"},
      {std::string(kAddress) + "[tcp]\nrto_min = \"1\"\n",
       "tcp.rto_min: accepted is a time"},
      {std::string(kAddress) + "[tcp]\nrto_min = \"ms\"\n",
       "tcp.rto_min: accepted is a time"},
      {std::string(kAddress) + "[tcp]\nrto_min = \"1h\"\n",
       "tcp.rto_min: accepted is a time"},
      {std::string(kAddress) + "[tcp]\nrto_min = \"5s\"\n",
       "TcpKnobs::rto_initial is 1 s: set it to 5 s to 120 s"},
      {std::string(kAddress) + "[tcp]\ncongestion = \"vegas\"\n",
       "tcp.congestion: accepted is cubic, newreno or dctcp"},
      {std::string(kAddress) + "device = \"a\"\ninterface = \"b\"\n",
       "stack.interface: accepted is none beside stack.device"},
      {std::string(kAddress) + "[log]\nlevel = \"loud\"\n",
       "log.level: accepted is none, error, warning or info"},
      {std::string(kAddress) + "colour = 1\n",
       "unknown key stack.colour: there are stack.verbs_library, "},
      {"mtu = 1500\n", "unknown key mtu: there are"},
      {"[stack\n", "line 1: "},
  };
  for (const auto& row : rows)
    ExpectRefused(ParseShimConfig(row.text), row.said);
}

// -- the environment ----------------------------------------------------------

TEST(ShimConfig, TheEnvironmentOverridesTheFile) {
  const char* const environment[] = {
      "HOME=/",
      "DEVWIRE_CONFIG=/elsewhere",
      "DEVWIRE_STACK_ADDRESS=10.0.0.9/8",
      "DEVWIRE_STACK_MTU=1400",
      "DEVWIRE_TCP_RTO_MIN=10ms",
      "DEVWIRE_TAKE_LISTEN=false",
      "DEVWIRE_TAKE_RULE=[{program = \"a\", take = false}, {port = 7}]",
      "DEVWIRE_LOG_REPORT=/report",
      nullptr};
  const auto config = ParseShimConfig(kEveryKey, environment);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->stack.address, IpAddress::V4(10, 0, 0, 9));
  EXPECT_EQ(config->stack.prefix_bits, 8);
  EXPECT_EQ(config->stack.mtu, 1400u);
  EXPECT_EQ(config->stack.tcp.rto_min, 10_ms);
  EXPECT_FALSE(config->take.listen);
  ASSERT_EQ(config->take.rules.size(), 2u);
  EXPECT_EQ(config->take.rules[1].first_port, 7);
  EXPECT_EQ(config->report, "/report");
}

TEST(ShimConfig, AVariableThatIsWrongIsNamed) {
  const struct {
    const char* variable;
    std::string said;
  } rows[] = {
      {"DEVWIRE_STACK_MTU=100",
       "DEVWIRE_STACK_MTU: accepted is bytes from 576"},
      {"DEVWIRE_STACK_MTU=", "DEVWIRE_STACK_MTU: accepted is a TOML value"},
      {"DEVWIRE_TCP_COLOUR=1",
       "unknown variable DEVWIRE_TCP_COLOUR: there are"},
      {"DEVWIRE_TAKE_RULE=7", "take.rule: accepted is an array of tables"},
  };
  for (const auto& row : rows) {
    const char* const environment[] = {row.variable, nullptr};
    ExpectRefused(ParseShimConfig(kAddress, environment), row.said);
  }
}

// -- take.rule ----------------------------------------------------------------

TakeRules RulesOf(const std::string& text) {
  const auto config = ParseShimConfig(std::string(kAddress) + text);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? config->take : TakeRules();
}

TEST(TakeRules, TheFirstThatFitsDecides) {
  const TakeRules rules = RulesOf(R"(
[take]
connect = false
[[take.rule]]
program = "redis-*"
direction = "connect"
[[take.rule]]
address = "10.1.0.0/16"
port = "80-89"
[[take.rule]]
direction = "listen"
port = 22
take = false
)");
  const struct {
    ProgramNames program;
    Direction direction;
    const char* endpoint;
    bool take;
    const char* why;
  } rows[] = {
      {{"redis-cli", "x"},
       Direction::kConnect,
       "10.9.9.9:1",
       true,
       "take.rule 1"},
      {{"x", "redis-cli"},
       Direction::kConnect,
       "10.9.9.9:1",
       true,
       "take.rule 1"},
      {{"redis", "x"},
       Direction::kConnect,
       "10.9.9.9:1",
       false,
       "take.connect"},
      {{"redis-cli", "x"},
       Direction::kListen,
       "10.9.9.9:1",
       true,
       "take.listen"},
      {{"x", "x"}, Direction::kConnect, "10.1.2.3:80", true, "take.rule 2"},
      {{"x", "x"}, Direction::kConnect, "10.1.2.3:89", true, "take.rule 2"},
      {{"x", "x"}, Direction::kConnect, "10.1.2.3:90", false, "take.connect"},
      {{"x", "x"}, Direction::kConnect, "10.2.2.3:80", false, "take.connect"},
      {{"x", "x"}, Direction::kConnect, "[fd00::1]:80", false, "take.connect"},
      {{"x", "x"}, Direction::kListen, "0.0.0.0:22", false, "take.rule 3"},
  };
  for (const auto& row : rows) {
    const TakeDecision decision = Decide(rules, row.program, row.direction,
                                         *Endpoint::Parse(row.endpoint));
    EXPECT_EQ(decision.take, row.take) << row.endpoint;
    EXPECT_EQ(decision.why, row.why) << row.endpoint;
  }
}

TEST(TakeRules, DeviceMemoryUnlessARuleSaysNo) {
  const TakeRules rules = RulesOf(R"(
[[take.rule]]
port = 22
device_memory = false
[[take.rule]]
port = 23
)");
  for (const int port : {22, 23, 24}) {
    const TakeDecision decision =
        Decide(rules, {}, Direction::kConnect,
               {IpAddress::V4(10, 0, 0, 1), Port{static_cast<uint16_t>(port)}});
    EXPECT_TRUE(decision.take) << port;
    EXPECT_EQ(decision.device_memory, port != 22) << port;
  }
}

TEST(TakeRules, WhatIsWrongIsNamed) {
  const struct {
    std::string rule;
    std::string said;
  } rows[] = {
      {"program = 1", "take.rule 1: program: accepted is a name"},
      {"direction = \"up\"", "take.rule 1: direction: accepted is connect or"},
      {"address = \"10.0.0.1\"", "take.rule 1: address: accepted is a prefix"},
      {"port = 65536", "take.rule 1: port: accepted is a port, or"},
      {"port = \"9-8\"", "take.rule 1: port: accepted is a port, or"},
      {"port = \"9-65536\"", "take.rule 1: port: accepted is a port, or"},
      {"port = \"http\"", "take.rule 1: port: accepted is a port, or"},
      {"take = 1", "take.rule 1: take: accepted is true or false"},
      {"device_memory = 1",
       "take.rule 1: device_memory: accepted is true or false"},
      {"colour = 1", "take.rule 1: unknown key colour: there are program, "},
  };
  for (const auto& row : rows) {
    ExpectRefused(
        ParseShimConfig(std::string(kAddress) + "[[take.rule]]\n" + row.rule),
        row.said);
  }
}

TEST(TakeRules, ThisProgramHasItsName) {
  EXPECT_EQ(ThisProgram().executable, "config_test");
  EXPECT_EQ(ThisProgram().invoked, "config_test");
}

TEST(ShimConfig, Files) {
  const auto none = ReadShimConfig("/nonesuch");
  EXPECT_EQ(ErrnoOf(none.status()), ENOENT);
  EXPECT_THAT(std::string(none.status().message()),
              testing::HasSubstr("cannot read /nonesuch: see DEVWIRE_CONFIG"));
  const std::string path = testing::TempDir() + "/devwire.toml";
  std::ofstream(path) << kAddress;
  EXPECT_TRUE(ReadShimConfig(path).ok());
  std::ofstream(path) << "mtu = 1\n";
  EXPECT_THAT(std::string(ReadShimConfig(path).status().message()),
              testing::StartsWith(path + ": unknown key mtu"));
  unlink(path.c_str());
}

}  // namespace
}  // namespace devwire::preload
