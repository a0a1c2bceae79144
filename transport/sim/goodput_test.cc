// The table of goodput, docs/goodput.md: loss x round trip x rate x congestion
// control. A change of behaviour is a difference of numbers; when it is meant,
//
//   bazel build //transport/sim:goodput_test
//   GOODPUT_OUT=docs/goodput.md bazel-bin/transport/sim/goodput_test
//
// writes the table anew.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "transport/sim/flow_sim.h"

namespace devwire {
namespace {

constexpr const char* kAlgorithms[] = {"cubic", "newreno", "dctcp"};

struct Path {
  const char* name;
  FlowSimSetup setup;
};

// Round trips measured, after as many to warm up: what a second affords.
FlowSimSetup OnPath(uint64_t megabits, Duration rtt, uint32_t mtu, double loss,
                    int round_trips) {
  FlowSimSetup s;
  s.bits_per_second = megabits * 1'000'000;
  s.rtt = rtt;
  s.mtu = mtu;
  s.loss = loss;
  s.warm_up = round_trips * rtt;
  s.measured = round_trips * rtt;
  return s;
}

FlowSimSetup ShortQueue(uint64_t megabits, Duration rtt, int round_trips) {
  FlowSimSetup s = OnPath(megabits, rtt, 1500, 0, round_trips);
  s.queue_bdps = 0.5;
  return s;
}

FlowSimSetup LosingAcks(uint64_t megabits, Duration rtt, double loss) {
  FlowSimSetup s = OnPath(megabits, rtt, 1500, loss, 5'000);
  s.ack_loss = loss;
  return s;
}

std::vector<Path> Paths() {
  return {
      {"200 Gb/s, 50 us, MTU 9000", OnPath(200'000, 50_us, 9000, 0, 200)},
      {"200 Gb/s, 50 us, MTU 4200", OnPath(200'000, 50_us, 4200, 0, 100)},
      {"200 Gb/s, 50 us, MTU 4200, loss 0.01 %",
       OnPath(200'000, 50_us, 4200, 1e-4, 100)},
      {"10 Gb/s, 100 us", OnPath(10'000, 100_us, 1500, 0, 300)},
      {"10 Gb/s, 100 us, loss 0.1 %", OnPath(10'000, 100_us, 1500, 1e-3, 300)},
      {"1 Gb/s, 1 ms", OnPath(1'000, 1_ms, 1500, 0, 300)},
      {"1 Gb/s, 1 ms, loss 0.1 %", OnPath(1'000, 1_ms, 1500, 1e-3, 300)},
      {"1 Gb/s, 10 ms", OnPath(1'000, 10_ms, 1500, 0, 40)},
      {"1 Gb/s, 10 ms, queue of half a BDP", ShortQueue(1'000, 10_ms, 100)},
      {"1 Gb/s, 10 ms, loss 0.01 %", OnPath(1'000, 10_ms, 1500, 1e-4, 40)},
      {"1 Gb/s, 10 ms, loss 0.1 %", OnPath(1'000, 10_ms, 1500, 1e-3, 100)},
      {"100 Mb/s, 50 ms", OnPath(100, 50_ms, 1500, 0, 100)},
      {"100 Mb/s, 50 ms, queue of half a BDP", ShortQueue(100, 50_ms, 200)},
      {"100 Mb/s, 50 ms, loss 0.1 %", OnPath(100, 50_ms, 1500, 1e-3, 200)},
      {"100 Mb/s, 50 ms, loss 1 %", OnPath(100, 50_ms, 1500, 1e-2, 200)},
      {"10 Mb/s, 50 ms, loss 5 %", OnPath(10, 50_ms, 1500, 5e-2, 500)},
      {"200 Mb/s, 10 ms, loss 5 %, of ACKs too", LosingAcks(200, 10_ms, 5e-2)},
  };
}

FlowSimSetup With(FlowSimSetup setup, const std::string& congestion,
                  size_t flows) {
  setup.congestion.assign(flows, congestion);
  return setup;
}

// Two flows, the second one later, over a queue of one BDP that drops.
FlowSimSetup TwoFlows() {
  FlowSimSetup s = OnPath(100, 20_ms, 1500, 0, 0);
  s.queue_bdps = 1;
  s.flow_gap = 500_ms;
  s.warm_up = 10_s;
  s.measured = 20_s;
  return s;
}

// A switch that marks beyond 65 full frames: the K of the DCTCP paper for
// 10 Gb/s. The window could fill the queue to its end.
FlowSimSetup MarkingSwitch() {
  FlowSimSetup s = OnPath(10'000, 100_us, 1500, 0, 1000);
  s.queue_bdps = 8;
  s.window_bdps = 8;
  s.mark_bytes = 65 * 1538;
  return s;
}

std::string Percent(const FlowSimResult& r) {
  return absl::StrFormat("%.1f", 100 * r.total / r.ceiling);
}

std::string MakeTable() {
  std::string text =
      "# Goodput\n\n"
      "Bulk flows over one bottleneck, in virtual time: payload received, in\n"
      "percent of what full segments could carry on that wire. One flow; a\n"
      "receive window of two bandwidth-delay products, and a queue that takes\n"
      "it whole unless the row says less; pacing on. Written by\n"
      "`transport/sim/goodput_test`, which fails when a number changes: it\n"
      "says how to write the table anew.\n\n"
      "| path | cubic | newreno | dctcp |\n|---|---|---|---|\n";
  for (const Path& path : Paths()) {
    text += absl::StrFormat("| %s |", path.name);
    for (const char* name : kAlgorithms) {
      text += " " + Percent(RunFlowSim(With(path.setup, name, 1))) + " |";
    }
    text += "\n";
  }
  text +=
      "\nTwo flows, 100 Mb/s, 20 ms, the second half a second later: 20 s\n"
      "after the first ten.\n\n"
      "| | first, Mb/s | second, Mb/s | of the ceiling, % |\n"
      "|---|---|---|---|\n";
  for (const char* name : {"cubic", "newreno"}) {
    const FlowSimResult r = RunFlowSim(With(TwoFlows(), name, 2));
    text += absl::StrFormat("| %s | %.1f | %.1f | %s |\n", name,
                            r.goodput[0] / 1e6, r.goodput[1] / 1e6, Percent(r));
  }
  text +=
      "\nTwo flows over a switch that marks beyond 65 full frames: 10 Gb/s,\n"
      "100 us, a queue that never overflows.\n\n"
      "| | mean queue, frames | of the ceiling, % |\n|---|---|---|\n";
  for (const char* name : {"cubic", "dctcp"}) {
    const FlowSimResult r = RunFlowSim(With(MarkingSwitch(), name, 2));
    text += absl::StrFormat("| %s | %.0f | %s |\n", name,
                            r.mean_queue_bytes / 1538, Percent(r));
  }
  return text;
}

TEST(Goodput, TableIsTheGoldenOne) {
  const std::string table = MakeTable();
  if (const char* out = std::getenv("GOODPUT_OUT")) {
    std::ofstream(out) << table;
    return;
  }
  std::ifstream file("docs/goodput.md");
  std::stringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(table, golden.str());
}

// 200 Gb/s, 50 us, no loss: 99 % of the ceiling, whatever the algorithm.
TEST(Goodput, FullRateInTheDataCentre) {
  for (const uint32_t mtu : {4200u, 9000u}) {
    for (const char* name : kAlgorithms) {
      const FlowSimResult r =
          RunFlowSim(With(OnPath(200'000, 50_us, mtu, 0, 100), name, 1));
      EXPECT_GE(r.total, 0.99 * r.ceiling) << name << ", MTU " << mtu;
      EXPECT_EQ(r.queue_drops, 0u);
    }
  }
}

TEST(Goodput, TwoCubicFlowsShare) {
  const FlowSimResult r = RunFlowSim(With(TwoFlows(), "cubic", 2));
  const auto [less, more] = std::minmax(r.goodput[0], r.goodput[1]);
  EXPECT_GT(less, 0.8 * more);
  EXPECT_GT(r.total, 0.9 * r.ceiling);
  EXPECT_GT(r.queue_drops, 0u) << "the queue was never full: nothing to share";
}

// Without marks acted upon, the two windows would fill six BDPs of queue.
TEST(Goodput, DctcpKeepsTheQueueAtItsMark) {
  const FlowSimSetup setup = With(MarkingSwitch(), "dctcp", 2);
  const FlowSimResult r = RunFlowSim(setup);
  EXPECT_GT(r.total, 0.98 * r.ceiling);
  EXPECT_GT(r.marks, 0u);
  EXPECT_EQ(r.queue_drops, 0u);
  EXPECT_NEAR(r.mean_queue_bytes, setup.mark_bytes, 0.4 * setup.mark_bytes);
}

}  // namespace
}  // namespace devwire
