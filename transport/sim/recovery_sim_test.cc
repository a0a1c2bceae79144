// Loss recovery by its results, over a simulated wire: what is lost is sent
// again, little else is, and the retransmission timer has little to do. Fixed
// seeds: the same numbers on every machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "transport/sim/tcp_sim.h"

namespace devwire {
namespace {

// 3 MB one way at an RTT of 10 ms.
TcpSimResult Transfer(const LinkFaults& faults, bool sack, uint64_t seed) {
  TcpSimSetup s;
  s.seed = seed;
  s.faults = faults;
  s.faults.delay = 5_ms;
  s.client.bytes_to_write = 3'000'000;
  s.server.closing = TcpHost::Closing::kAfterPeer;
  s.connection.use_sack = sack;
  s.connection.receive.byte_budget = 400'000;
  s.connection.send_queue_limit_bytes = 1'000'000;
  s.slot_count = 400;
  s.max_tso_payload = 60'000;
  TcpSimResult r = RunTcpSim(s);
  EXPECT_EQ(r.failure, "");
  EXPECT_EQ(r.server_read, s.client.bytes_to_write);
  return r;
}

struct Sum {
  uint64_t lost = 0;       // Frames of the sender,
  uint64_t reordered = 0;  // likewise.
  uint64_t retransmitted = 0;
  uint64_t timeouts = 0;
  uint64_t spurious = 0;  // Recoveries taken back.
  Duration took;
};

Sum Transfers(const LinkFaults& faults, bool sack) {
  Sum sum;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    const TcpSimResult r = Transfer(faults, sack, seed);
    sum.lost += r.up.lost;
    sum.reordered += r.up.reordered;
    sum.retransmitted += r.client.segments_retransmitted;
    sum.timeouts += r.client.timeouts;
    sum.spurious += r.client.spurious_recoveries;
    sum.took += r.data_took;
  }
  std::cout << (sack ? "SACK: " : "none: ") << sum.lost << " lost, "
            << sum.retransmitted << " sent again, " << sum.timeouts
            << " timeouts, " << sum.spurious << " undone, "
            << sum.took.milliseconds() << " ms\n";
  return sum;
}

TEST(RecoverySim, WhatIsLostIsSentAgainAndLittleElse) {
  for (double loss : {0.001, 0.01, 0.03, 0.05}) {
    SCOPED_TRACE(loss);
    const Sum sack = Transfers({.loss = loss}, true);
    EXPECT_GE(sack.retransmitted + 10, sack.lost);  // Less lost bare ACKs.
    EXPECT_LE(sack.retransmitted, sack.lost + sack.lost / 10 + 10);
    const Sum none = Transfers({.loss = loss}, false);
    EXPECT_LT(sack.took, none.took);
    EXPECT_LE(sack.timeouts, none.timeouts);
  }
}

TEST(RecoverySim, ReorderingIsNotTakenForLoss) {
  const Sum sum =
      Transfers({.reorder = 0.05, .reorder_delay = 3_ms}, /*sack=*/true);
  EXPECT_EQ(sum.lost, 0u);
  EXPECT_EQ(sum.timeouts, 0u);
  // Late by up to 0.3 RTT, the first ones seem lost; then RACK's window grows.
  EXPECT_GT(sum.reordered, 800u);
  EXPECT_LT(sum.retransmitted, sum.reordered / 10);
  EXPECT_GT(sum.spurious, 0u);
}

TEST(RecoverySim, DuplicatesAreHarmless) {
  const Sum sum = Transfers({.duplicate = 0.1}, /*sack=*/true);
  EXPECT_EQ(sum.retransmitted, 0u);
  EXPECT_EQ(sum.timeouts, 0u);
}

}  // namespace
}  // namespace devwire
