// Connection::Options, each by what it changes on the wire. Those that have a
// family of tests of their own (ECN, pacing, keep-alives, the user timeout,
// retries, TIME-WAIT, the initial windows) are not here.
#include <gtest/gtest.h>

#include <string>

#include "transport/tcp/trace.h"

namespace devwire {
namespace {

std::string Syn(const Connection::Options& options) {
  Trace t({.timestamps = options.use_timestamps,
           .sack = options.use_sack,
           .options = options});
  t.OpenActive().OutCount(1);
  const TcpOptions& o = t.last_out().options;
  std::string text;
  if (o.mss) text += "mss ";
  if (o.sack_permitted) text += "sackOK ";
  if (o.timestamps) text += "TS ";
  if (o.window_scale) text += "wscale";
  return text;
}

// What is not asked for is not in the SYN.
TEST(KnobTrace, OptionsOfTheSyn) {
  Connection::Options all;
  EXPECT_EQ(Syn(all), "mss sackOK TS ");
  all.use_timestamps = false;
  EXPECT_EQ(Syn(all), "mss sackOK ");
  all.use_sack = false;
  EXPECT_EQ(Syn(all), "mss ");
}

TEST(KnobTrace, DelayedAckTime) {
  Trace::Setup setup;
  setup.options.delayed_ack_time = 7_ms;
  Trace t = Trace::Established(setup);
  // The first sixteen are acknowledged at once.
  for (uint32_t i = 0; i < 16; ++i) {
    t.In(".  " + std::to_string(1 + 100 * i) + ":" +
         std::to_string(101 + 100 * i) + "(100) ack 1");
    t.OutCount(1);
  }
  t.In(".  1601:1701(100) ack 1").OutNothing();
  t.OutAt(7_ms, ".  1:1(0) ack 1701");
}

TEST(KnobTrace, InitialRto) {
  Trace::Setup setup;
  setup.options.rtt.rto_initial = 300_ms;
  Trace t(setup);
  t.OpenActive().OutCount(1).OutAt(300_ms, "S 0:0(0)");
  t.OutAt(900_ms, "S 0:0(0)");
}

// Above SRTT it is rto_min at least, RFC 6298 (2.4) as Linux has it.
TEST(KnobTrace, LeastRto) {
  for (const Duration rto_min : {20_ms, 500_ms}) {
    Trace::Setup setup;
    setup.options.rtt.rto_min = rto_min;
    Trace t(setup);
    t.OpenActive().OutCount(1);
    t.At(10_ms).In("S. 0:0(0) ack 1 <mss 1000>").OutCount(1);
    t.Send(100).OutCount(1);
    t.OutAt(10_ms + 10_ms + rto_min, "P. 1:101(100) ack 1");
  }
}

TEST(KnobTrace, GreatestRto) {
  Trace::Setup setup;
  setup.options.rtt.rto_max = 1_s;
  Trace t(setup);
  t.OpenActive().OutCount(1).OutAt(1_s, "S 0:0(0)").OutAt(2_s, "S 0:0(0)");
  t.OutAt(3_s, "S 0:0(0)");
}

// RFC 5961 7.
TEST(KnobTrace, ChallengeAckInterval) {
  Trace::Setup setup;
  setup.options.challenge_ack_interval = 2_s;
  Trace t = Trace::Established(setup);
  t.At(10_ms).In("S 9:9(0)").Out(".  1:1(0) ack 1");
  t.At(2009_ms).In("S 9:9(0)").OutNothing();
  t.At(2010_ms).In("S 9:9(0)").Out(".  1:1(0) ack 1");
  EXPECT_EQ(t.connection().stats().challenge_acks, 2u);
}

TEST(KnobTrace, FinWait2) {
  Trace::Setup setup;
  setup.options.fin_wait_2 = 3_s;
  Trace t = Trace::Established(setup);
  t.Close().OutCount(1).ShutdownReceive();
  t.At(1_s).In(".  1:1(0) ack 2").Expect(State::kFinWait2);
  t.ExpectQuietUntil(4_s - 1_ms).Expect(State::kFinWait2);
  t.ExpectQuietUntil(4_s).Expect(State::kClosed);
}

TEST(KnobTrace, CorkTime) {
  Trace::Setup setup;
  setup.options.cork_time = 30_ms;
  Trace t = Trace::Established(setup);
  t.connection().SetCork(true);
  t.Send(100).OutNothing();
  t.OutAt(30_ms, "P. 1:101(100) ack 1");
}

// Nagle holds a small segment back while another is out.
TEST(KnobTrace, NoDelay) {
  for (const bool nodelay : {false, true}) {
    Trace::Setup setup;
    setup.options.nodelay = nodelay;
    Trace t = Trace::Established(setup);
    t.Send(100).OutCount(1).Send(100).OutCount(nodelay ? 1 : 0);
  }
}

}  // namespace
}  // namespace devwire
