// Two TCPs over a wire with faults: fixed seeds. For others set SIM_SEEDS (how
// many per kind of fault) and SIM_FIRST_SEED; SIM_TRACE=1 prints every segment.
#include "transport/sim/tcp_sim.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

namespace devwire {
namespace {

struct NamedFaults {
  const char* name;
  LinkFaults faults;
};

std::vector<NamedFaults> Faults() {
  return {
      {"clean", {}},
      {"loss 1%", {.loss = 0.01}},
      {"loss 10%", {.loss = 0.1}},
      {"bursts", {.burst_loss = 0.01, .burst_end = 0.3}},
      {"duplicates", {.duplicate = 0.1}},
      {"reordering", {.reorder = 0.1}},
      {"corruption", {.corrupt = 0.05}},
      {"jitter", {.delay = 20_ms, .jitter = 30_ms}},
      {"slow wire, short queue",
       {.delay = 5_ms, .bits_per_second = 10'000'000, .queue_limit_frames = 8}},
      {"blackouts",
       {.delay = 2_ms,
        .bits_per_second = 20'000'000,
        .queue_limit_frames = 50,
        .blackout_period = 2_s,
        .blackout_length = 400_ms}},
      {"everything",
       {.delay = 10_ms,
        .jitter = 5_ms,
        .loss = 0.03,
        .burst_loss = 0.002,
        .duplicate = 0.03,
        .reorder = 0.05,
        .reorder_delay = 20_ms,
        .corrupt = 0.02,
        .bits_per_second = 50'000'000,
        .queue_limit_frames = 40}},
  };
}

// Options and applications drawn from the seed.
TcpSimSetup Draw(uint64_t seed, const LinkFaults& faults) {
  Prng prng(seed);
  TcpSimSetup s;
  s.seed = seed;
  s.is_traced = std::getenv("SIM_TRACE") != nullptr;
  s.faults = faults;
  constexpr uint16_t kMss[] = {1460, 1448, 536, 1000, 100};
  s.connection.mss = kMss[prng.Below(5)];
  s.connection.use_timestamps = prng.Chance(0.7);
  s.connection.use_window_scale = prng.Chance(0.7);
  s.connection.use_sack = prng.Chance(0.7);
  s.connection.nodelay = prng.Chance(0.5);
  s.connection.receive.byte_budget = 4'000 + prng.Below(200'000);
  s.connection.send_queue_limit_bytes = 1'000 + prng.Below(300'000);
  s.slot_count = static_cast<uint32_t>(8 + prng.Below(120));
  s.pool_reserve = prng.Chance(0.5) ? 2 : 0;
  s.max_tso_payload = prng.Chance(0.5) ? 60'000 : 0;
  const auto draw_app = [&prng](TcpHost::App* app) {
    app->bytes_to_write = prng.Chance(0.2) ? 0 : prng.Below(200'000);
    app->max_write = prng.Chance(0.2) ? 40 : 30'000;
    app->write_gap = prng.Chance(0.3) ? 5_ms : Duration();
    if (app->max_write == 40) app->bytes_to_write %= 5'000;
    app->max_read = prng.Chance(0.3) ? 700 : 100'000;
    app->read_gap = prng.Chance(0.3) ? 20_ms : Duration();
    app->token_delay = prng.Chance(0.5) ? 30_ms : Duration();
    app->closing = prng.Chance(0.5) ? TcpHost::Closing::kAfterWriting
                                    : TcpHost::Closing::kAfterPeer;
  };
  draw_app(&s.client);
  draw_app(&s.server);
  // One of them has to begin.
  if (s.client.closing == TcpHost::Closing::kAfterPeer) {
    s.server.closing = TcpHost::Closing::kAfterWriting;
  }
  return s;
}

int SeedsPerFault() {
  const char* seeds = std::getenv("SIM_SEEDS");
  return seeds == nullptr ? 12 : std::atoi(seeds);
}

uint64_t FirstSeed() {
  const char* seed = std::getenv("SIM_FIRST_SEED");
  return seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
}

// Every byte arrives, whatever the wire does; both ends close in good order.
TEST(TcpSimTest, EveryByteArrivesInOrder) {
  uint64_t events = 0;
  uint64_t retransmitted = 0;
  for (const NamedFaults& f : Faults()) {
    for (int i = 0; i < SeedsPerFault(); ++i) {
      const TcpSimSetup setup = Draw(FirstSeed() + i, f.faults);
      const TcpSimResult r = RunTcpSim(setup);
      SCOPED_TRACE(std::string(f.name) + ", SIM_FIRST_SEED=" +
                   std::to_string(setup.seed) + " SIM_SEEDS=1");
      ASSERT_EQ(r.failure, "");
      ASSERT_EQ(r.client_error, TcpError::kNone);
      ASSERT_EQ(r.server_error, TcpError::kNone);
      ASSERT_EQ(r.server_read, setup.client.bytes_to_write);
      ASSERT_EQ(r.client_read, setup.server.bytes_to_write);
      events += r.events;
      retransmitted +=
          r.client.segments_retransmitted + r.server.segments_retransmitted;
    }
  }
  std::cout << events << " events, " << retransmitted
            << " segments retransmitted\n";
}

void ExpectComplete(
    const TcpSimSetup& setup,
    const std::function<void(const TcpSimResult&)>& look = nullptr) {
  const TcpSimResult r = RunTcpSim(setup);
  EXPECT_EQ(r.failure, "");
  EXPECT_EQ(r.client_error, TcpError::kNone);
  EXPECT_EQ(r.server_error, TcpError::kNone);
  EXPECT_EQ(r.server_read, setup.client.bytes_to_write);
  EXPECT_EQ(r.client_read, setup.server.bytes_to_write);
  if (look != nullptr) look(r);
}

// Each congestion control, asking for ECN and pacing, over a wire that marks,
// one that drops what it cannot queue, and one that does both and loses.
TEST(TcpSimTest, EachCongestionControlOverAShortQueue) {
  const LinkFaults wires[] = {
      {.delay = 5_ms,
       .bits_per_second = 10'000'000,
       .queue_limit_frames = 200,
       .mark_threshold_frames = 5},
      {.delay = 5_ms, .bits_per_second = 10'000'000, .queue_limit_frames = 20},
      {.delay = 5_ms,
       .jitter = 1_ms,
       .loss = 0.02,
       .bits_per_second = 10'000'000,
       .queue_limit_frames = 20,
       .mark_threshold_frames = 5}};
  const int seeds = (SeedsPerFault() + 1) / 2;
  uint64_t marked = 0;
  uint64_t reductions = 0;
  for (const char* name : {"cubic", "newreno", "dctcp"}) {
    for (const LinkFaults& wire : wires) {
      for (int i = 0; i < seeds; ++i) {
        TcpSimSetup setup = Draw(FirstSeed() + i, wire);
        setup.connection.congestion = FindCongestion(name);
        setup.connection.ecn = EcnMode::kOn;
        setup.connection.use_pacing = i % 2 == 0;
        SCOPED_TRACE(name);
        ExpectComplete(setup, [&](const TcpSimResult& r) {
          marked += r.up.marked + r.down.marked;
          reductions += r.client.ecn_reductions + r.server.ecn_reductions;
        });
      }
    }
  }
  EXPECT_GT(marked, 20u * static_cast<uint64_t>(seeds));
  EXPECT_GT(reductions, 2u * static_cast<uint64_t>(seeds));
}

// Both sides fill the other's window and lose text of it: every ACK bears the
// number just past the window. Dropping those was a livelock.
TEST(TcpSimTest, BothWindowsFullAndHolesInBoth) {
  ExpectComplete(Draw(72, {}));
}

// A partial acknowledgment takes back less than it acknowledges.
TEST(TcpSimTest, PartialAcknowledgmentOfASmallFlight) {
  ExpectComplete(Draw(1, {}));
}

// Closed with text still queued, then aborted: the peer must hear of it.
TEST(TcpSimTest, AbortInLastAckBeforeTheFinWasSent) {
  TcpSimSetup setup = Draw(1044, {});
  Prng prng(setup.seed);
  auto& app = prng.Chance(0.5) ? setup.client : setup.server;
  app.abort_after =
      Duration::Nanoseconds(static_cast<int64_t>(prng.Below(200'000'000)));
  const TcpSimResult r = RunTcpSim(setup);
  EXPECT_EQ(r.failure, "");
  EXPECT_FALSE(r.survivor_waited);
  EXPECT_EQ(r.client_error, TcpError::kAborted);
  EXPECT_EQ(r.server_error, TcpError::kReset);
}

// One side aborts at any moment: the other learns of it or had finished, what
// was read is a prefix, and no slot is left behind.
TEST(TcpSimTest, AbortAtAnyTime) {
  int aborted = 0;
  for (const NamedFaults& f : Faults()) {
    for (int i = 0; i < SeedsPerFault(); ++i) {
      TcpSimSetup setup = Draw(FirstSeed() + 1000 + i, f.faults);
      Prng prng(setup.seed);
      auto& app = prng.Chance(0.5) ? setup.client : setup.server;
      app.abort_after =
          Duration::Nanoseconds(static_cast<int64_t>(prng.Below(200'000'000)));
      const TcpSimResult r = RunTcpSim(setup);
      SCOPED_TRACE(std::string(f.name) + ", seed " +
                   std::to_string(setup.seed));
      ASSERT_EQ(r.failure, "");
      ASSERT_LE(r.server_read, setup.client.bytes_to_write);
      ASSERT_LE(r.client_read, setup.server.bytes_to_write);
      if (r.client_error == TcpError::kAborted ||
          r.server_error == TcpError::kAborted) {
        ++aborted;
      }
    }
  }
  EXPECT_GT(aborted, SeedsPerFault());
}

// A window's worth of one-byte segments meets a pool of a few slots: a box cuts
// what we join. Each timeout brings one quota of bytes on.
TEST(TcpSimTest, OneByteSegmentsAgainstAFullWindow) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    TcpSimSetup setup = Draw(seed, {});
    setup.client.bytes_to_write = setup.server.bytes_to_write = 1'000;
    setup.connection.use_timestamps = true;
    setup.slot_count = 16;
    setup.box_up = setup.box_down = Middlebox::Options{.cut_bytes = 1};
    SCOPED_TRACE("seed " + std::to_string(seed));
    ExpectComplete(setup);
  }
}

// What tcp_info says held a sender back is what did: each path, reader and
// writer is slow in one way alone.
TEST(TcpSimTest, WhatHeldTheSenderBack) {
  struct Row {
    const char* name;
    std::function<void(TcpSimSetup*)> set;
    // Of the time until the last byte was read: at least, at most. It is busy
    // until it knows of that.
    double busy[2];
    double window[2];
    double buffer[2];
  };
  const Row rows[] = {
      {"the network",
       [](TcpSimSetup* s) { s->faults.bits_per_second = 10'000'000; },
       {0.9, 1.01},
       {0, 0.05},
       {0, 0.05}},
      {"a lossy network",
       [](TcpSimSetup* s) {
         s->faults.loss = 0.05;
         s->seed = 2;  // It loses no SYN.
       },
       {0.9, 1.2},
       {0, 0.05},
       {0, 0.05}},
      {"a slow reader",
       [](TcpSimSetup* s) {
         s->connection.receive.byte_budget = 20'000;
         s->server.max_read = 2'000;
         s->server.read_gap = 20_ms;
       },
       {0.9, 1.01},
       {0.8, 1},
       {0, 0.05}},
      {"a small send buffer",
       [](TcpSimSetup* s) {
         s->connection.send_queue_limit_bytes = 10'000;
         s->connection.nodelay = true;  // Nagle would hold something back.
       },
       {0.9, 1.01},
       {0, 0.05},
       {0.7, 1}},
      {"little to say",  // 500 bytes every 500 ms, 21 ms each.
       [](TcpSimSetup* s) {
         s->client.bytes_to_write = 20'000;
         s->client.max_write = 1'000;
         s->client.write_gap = 1_s;
       },
       {0.03, 0.06},
       {0, 0},
       {0, 0}}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    TcpSimSetup setup;
    setup.faults = {.delay = 10_ms, .queue_limit_frames = 1000};
    setup.client.bytes_to_write = 1'000'000;
    setup.slot_count = 2048;
    setup.connection.max_slot_quota = 1024;
    setup.connection.receive = {.byte_budget = 1 << 20, .slot_quota = 1024};
    setup.connection.send_queue_limit_bytes = 4 << 20;
    setup.connection.max_segments_in_flight = 4096;
    setup.connection.delayed_ack_time = 1_ms;
    row.set(&setup);
    const TcpSimResult r = RunTcpSim(setup);
    ASSERT_EQ(r.failure, "");
    const SenderTime& time = r.client.sender_time;
    ASSERT_EQ(time.phase(), SenderTime::Phase::kIdle) << "at the end";
    const auto share = [&](Duration d) {
      return d.seconds() / r.data_took.seconds();
    };
    const double busy = share(time.busy(Instant()));
    const double window = share(time.rwnd_limited(Instant()));
    const double buffer = share(time.sndbuf_limited(Instant()));
    EXPECT_TRUE(row.busy[0] <= busy && busy <= row.busy[1]) << busy;
    EXPECT_TRUE(row.window[0] <= window && window <= row.window[1]) << window;
    EXPECT_TRUE(row.buffer[0] <= buffer && buffer <= row.buffer[1]) << buffer;
    // The server only reads.
    EXPECT_LE(r.server.sender_time.busy(Instant()), 30_ms);
  }
}

// RFC 5961: somebody off the path who guesses resets nothing and corrupts
// nothing, be it with a reset, a SYN, an ACK or text, in the window or not.
TEST(TcpSimTest, ABlindAttackerDoesNoHarm) {
  uint64_t attacks = 0;
  uint64_t challenges = 0;
  BlindAttacker::Tally tally;
  const auto seeds = 5 * static_cast<uint64_t>(SeedsPerFault());
  for (uint64_t i = 0; i < seeds; ++i) {
    const uint64_t seed = FirstSeed() + i;
    TcpSimSetup setup = Draw(seed, {.loss = seed % 3 == 0 ? 0.01 : 0});
    setup.client.write_gap = setup.server.write_gap = 5_ms;
    setup.client.max_write = setup.server.max_write = 3'000;
    setup.attack_gap = 500_us;
    setup.attack_limit = 2'000;
    const TcpSimResult r = RunTcpSim(setup);
    SCOPED_TRACE("seed " + std::to_string(seed));
    ASSERT_EQ(r.failure, "");
    ASSERT_EQ(r.client_error, TcpError::kNone);
    ASSERT_EQ(r.server_error, TcpError::kNone);
    ASSERT_EQ(r.server_read, setup.client.bytes_to_write);
    ASSERT_EQ(r.client_read, setup.server.bytes_to_write);
    attacks += r.attacks;
    for (size_t kind = 0; kind < tally.in_window.size(); ++kind) {
      tally.in_window[kind] += r.attacks_by_kind.in_window[kind];
      tally.outside[kind] += r.attacks_by_kind.outside[kind];
    }
    challenges += r.client.challenge_acks + r.server.challenge_acks;
    // RFC 5961 7: no amplifier either.
    ASSERT_LE(r.client.challenge_acks + r.server.challenge_acks, r.attacks);
  }
  std::cout << attacks << " guesses in " << seeds << " connections\n";
  for (size_t kind = 0; kind < tally.in_window.size(); ++kind) {
    EXPECT_GT(tally.in_window[kind], 5 * seeds) << kind;
    EXPECT_GT(tally.outside[kind], 5 * seeds) << kind;
  }
  EXPECT_GT(challenges, seeds);
}

}  // namespace
}  // namespace devwire
