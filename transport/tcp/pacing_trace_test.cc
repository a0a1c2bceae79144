// Pacing: a burst of a millisecond's worth, then a pause. pacer.h.
#include <gtest/gtest.h>

#include <string>

#include "transport/tcp/pacer.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

std::string Num(uint64_t n) { return std::to_string(n); }
std::string Full(uint64_t i) {
  return ".  " + Num(1 + 1000 * i) + ":" + Num(1001 + 1000 * i) +
         "(1000) ack 1";
}

// Paced, with a first round trip of `rtt`.
Trace Paced(Duration rtt) {
  Trace::Setup setup;
  setup.options.use_pacing = true;
  Trace t(setup);
  t.OpenActive().Out("S 0:0(0)");
  t.At(rtt).In("S. 0:0(0) ack 1 <mss 1000>").Out(".  1:1(0) ack 1");
  return t;
}

// IW10 over 100 ms, twice per round trip: 200 kB/s, two segments per 10 ms.
TEST(PacingTrace, TheInitialWindowIsNoBurst) {
  Trace t = Paced(100_ms);
  t.Send(5000).Out(Full(0), Full(1));
  t.ExpectQuietUntil(110_ms - 1_ns);
  t.At(110_ms).Out(Full(2), Full(3));
  t.OutAt(120_ms, "P. 4001:5001(1000) ack 1");
}

// 2 MB/s: 2000 bytes per millisecond; and the NIC is given no more at once.
TEST(PacingTrace, SendsForTheNicAreAMillisecondLong) {
  Trace t = Paced(10_ms);
  t.limits().max_tso_payload = 60'000;
  t.Send(10'000).Out(".  1:2001(2000) ack 1");
  t.OutAt(11_ms, ".  2001:4001(2000) ack 1");
  t.OutAt(12_ms, ".  4001:6001(2000) ack 1");
}

// A window leaves within a millisecond anyway: nothing waits, no timer is set.
TEST(PacingTrace, NotBelowAMillisecond) {
  Trace t = Paced(900_us);
  t.limits().max_tso_payload = 60'000;
  t.Send(100'000).Out(".  1:10001(10000) ack 1");
  EXPECT_GT(t.connection().NextDeadline(), t.now() + 100_ms);
  // Slow start doubles the window several times before a millisecond is over.
  t.At(950_us).In(".  1:1(0) ack 10001").Out(".  10001:30001(20000) ack 1");
}

// Bursts add up to the rate.
TEST(PacerTest, KeepsTheRate) {
  struct Row {
    uint64_t rate;
    uint32_t smss;
  };
  for (const Row row : {Row{10'000, 1000}, Row{2'500'000, 1448},
                        Row{1'000'000'000, 8948}, Row{25'000'000'000, 4148}}) {
    Pacer pacer;
    Instant now = Instant::FromNanoseconds(5);
    const Instant start = now;
    uint64_t sent = 0;
    for (int i = 0; i < 1000; ++i) {
      ASSERT_TRUE(pacer.NeedsRate(now));
      pacer.StartInterval(now, row.rate, row.smss);
      EXPECT_FALSE(pacer.NeedsRate(now));
      sent += pacer.left();
      pacer.OnSent(pacer.left());
      EXPECT_EQ(pacer.left(), 0u);
      now = pacer.next_burst();
    }
    EXPECT_NEAR(static_cast<double>(sent) / (now - start).seconds(),
                static_cast<double>(row.rate), 1e-3 * row.rate);
  }
}

}  // namespace
}  // namespace devwire
