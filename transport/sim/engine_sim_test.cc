// Two whole engines over a simulated NIC and wire: device streams both ways,
// rules that come late or not at all, sends gathered late, every fault.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "transport/sim/engine_host.h"

namespace devwire {
namespace {

struct EngineSetup {
  uint64_t seed = 1;
  LinkFaults faults;
  size_t streams = 4;
  uint64_t client_bytes = 60'000;  // Per stream.
  uint64_t server_bytes = 60'000;
  bool timestamps = true;
  uint32_t max_tso_payload = 0;
  Duration gather_delay;
  Duration rule_delay;
  double rule_refusals = 0;
  uint32_t device_slots = 256;
  Duration token_delay;
  bool can_read_option_tails = true;
};

struct Result {
  std::string failure;
  uint64_t linear_bytes = 0;
  SimPacketIo::Stats client, server;
};

char running[64] = "";
void OnAbort(int) { (void)!write(STDERR_FILENO, running, sizeof(running)); }

EngineHost::Options HostOptions(const EngineSetup& s, bool is_client) {
  EngineHost::Options o;
  o.ip = IpAddress::V4(10, 0, 0, is_client ? 1 : 2);
  o.nic.limits.mac = {2, 0, 0, 0, 0, static_cast<uint8_t>(is_client ? 1 : 2)};
  o.nic.limits.mtu = 1500;
  o.nic.limits.max_tso_payload = s.max_tso_payload;
  o.nic.gather_delay = s.gather_delay;
  o.nic.rule_delay = s.rule_delay;
  o.nic.rule_refusals = s.rule_refusals;
  o.nic.seed = s.seed * 2 + is_client;
  o.device_slots = s.device_slots;
  o.tcp.use_timestamps = s.timestamps;
  o.tcp.time_wait = 1_s;
  o.bytes_per_stream = is_client ? s.client_bytes : s.server_bytes;
  o.token_delay = s.token_delay;
  o.can_read_option_tails = s.can_read_option_tails;
  o.seed = s.seed * 2 + is_client;
  return o;
}

// Stands still while a run lasts; moves by itself while engines that failed
// are destroyed, because they wait for their NIC.
class RunClock final : public Clock {
 public:
  Instant Now() const override {
    if (is_over) now_ += 1_ms;
    return now_;
  }
  void Set(Instant t) { now_ = t; }
  bool is_over = false;

 private:
  mutable Instant now_ = Instant::FromNanoseconds(1'000'000'000);
};

Result RunEngines(const EngineSetup& setup) {
  std::snprintf(running, sizeof(running), "\nengine sim: aborted, seed %llu\n",
                static_cast<unsigned long long>(setup.seed));
  std::signal(SIGABRT, OnAbort);
  RunClock clock;
  const Instant start = clock.Now();
  SimLink up(setup.faults, setup.seed ^ 0xaaaa);
  SimLink down(setup.faults, setup.seed ^ 0x5555);
  EngineHost server(HostOptions(setup, false), clock, down, up);
  EngineHost client(HostOptions(setup, true), clock, up, down);
  server.Listen(Port{80});
  server.Turn();  // Rules of the listener.
  client.Turn();
  // Until they are installed: a host whose wide rules are not in is deaf.
  clock.Set(start + setup.rule_delay);
  server.Turn();
  client.Turn();
  for (size_t i = 0; i < setup.streams; ++i) {
    client.Connect({IpAddress::V4(10, 0, 0, 2), Port{80}});
  }
  Result result;
  std::string failure;
  while (failure.empty()) {
    int turns = 0;
    while ((client.Turn() | server.Turn()) && failure.empty()) {
      if (++turns > 5'000) failure = "busy loop";
    }
    if (client.is_done(setup.streams) && server.is_done(setup.streams)) break;
    if (!client.failure().empty()) failure = client.failure();
    if (!server.failure().empty()) failure = server.failure();
    const Instant next = std::min(client.NextEvent(), server.NextEvent());
    if (failure.empty() && next == Instant::Never())
      failure = "deadlock: nothing is pending";
    if (failure.empty() && next <= clock.Now()) {
      failure = "busy loop: a deadline is due";
    }
    if (clock.Now() - start > 600_s) failure = "does not come to an end";
    if (failure.empty()) clock.Set(next);
  }
  if (!failure.empty()) {
    result.failure = "seed " + std::to_string(setup.seed) + " at " +
                     std::to_string((clock.Now() - start).microseconds()) +
                     " us: " + failure + "\n  " + client.ToString() + "\n  " +
                     server.ToString() + "\n  up: " + up.StatsString() +
                     "\n  down: " + down.StatsString();
  }
  clock.is_over = true;
  result.linear_bytes = client.linear_bytes() + server.linear_bytes();
  result.client = client.nic_stats();
  result.server = server.nic_stats();
  return result;
}

// A clean wire and rules at once: not one payload byte in host memory.
TEST(EngineSimTest, CleanWireLandsInDeviceMemory) {
  const Result r = RunEngines({});
  ASSERT_EQ(r.failure, "");
  EXPECT_EQ(r.linear_bytes, 0u);
  EXPECT_EQ(r.client.control_payload_bytes, 0u);
  EXPECT_EQ(r.server.control_payload_bytes, 0u);
  EXPECT_GT(r.client.data_queue_frames, 100u);
}

TEST(EngineSimTest, WithoutTimestamps) {
  const Result r = RunEngines({.timestamps = false});
  ASSERT_EQ(r.failure, "");
  EXPECT_EQ(r.linear_bytes, 0u);
}

TEST(EngineSimTest, TsoAndLateGather) {
  const Result r = RunEngines({.client_bytes = 300'000,
                               .max_tso_payload = 60'000,
                               .gather_delay = 3_ms});
  ASSERT_EQ(r.failure, "");
  EXPECT_GT(r.client.tso_sends, 0u);
}

TEST(EngineSimTest, LateGatherWithLoss) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const Result r = RunEngines(
        {.seed = seed, .faults = {.loss = 0.05}, .gather_delay = 10_ms});
    ASSERT_EQ(r.failure, "");
  }
}

TEST(EngineSimTest, SlowRules) {
  const Result r = RunEngines({.rule_delay = 20_ms});
  ASSERT_EQ(r.failure, "");
  EXPECT_EQ(r.linear_bytes, 0u);
}

TEST(EngineSimTest, SmallPoolLateTokens) {
  const Result r = RunEngines({.faults = {.loss = 0.01},
                               .streams = 2,
                               .device_slots = 256,
                               .token_delay = 20_ms});
  ASSERT_EQ(r.failure, "");
}

TEST(EngineSimTest, Faults) {
  const struct {
    const char* name;
    LinkFaults faults;
  } kFaults[] = {
      {"loss", {.loss = 0.03}},
      {"bursts", {.burst_loss = 0.005}},
      {"duplicates", {.duplicate = 0.1}},
      {"reordering", {.reorder = 0.1}},
      {"corruption", {.corrupt = 0.03}},
      {"slow wire",
       {.delay = 5_ms,
        .bits_per_second = 20'000'000,
        .queue_limit_frames = 20}},
      {"everything",
       {.delay = 5_ms,
        .jitter = 3_ms,
        .loss = 0.02,
        .duplicate = 0.02,
        .reorder = 0.05,
        .corrupt = 0.01,
        .bits_per_second = 100'000'000}},
  };
  const char* seeds = std::getenv("SIM_SEEDS");
  const char* first = std::getenv("SIM_FIRST_SEED");
  const uint64_t from =
      first == nullptr ? 1 : std::strtoull(first, nullptr, 10);
  const uint64_t count =
      seeds == nullptr ? 3 : std::strtoull(seeds, nullptr, 10);
  for (const auto& f : kFaults) {
    for (uint64_t seed = from; seed < from + count; ++seed) {
      Prng prng(seed);
      EngineSetup s;
      s.seed = seed;
      s.faults = f.faults;
      s.streams = 1 + prng.Below(5);
      s.client_bytes = prng.Below(100'000);
      s.server_bytes = prng.Below(100'000);
      s.timestamps = prng.Chance(0.7);
      s.max_tso_payload = prng.Chance(0.5) ? 60'000 : 0;
      s.gather_delay = prng.Chance(0.5) ? 2_ms : Duration();
      s.rule_delay = prng.Chance(0.5) ? 10_ms : Duration();
      s.token_delay = prng.Chance(0.5) ? 5_ms : Duration();
      s.can_read_option_tails = prng.Chance(0.7);
      SCOPED_TRACE(std::string(f.name) + ", seed " + std::to_string(seed));
      ASSERT_EQ(RunEngines(s).failure, "");
    }
  }
}

}  // namespace
}  // namespace devwire
