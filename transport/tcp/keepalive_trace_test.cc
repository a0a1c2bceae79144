// Keep-alives: RFC 9293 3.8.4.
#include <gtest/gtest.h>

#include "transport/tcp/trace.h"

namespace devwire {
namespace {

// Idle for 10 s, then three probes 2 s apart.
Trace::Setup Probing() {
  Trace::Setup setup;
  setup.options.keepalive = {.idle = 10_s, .interval = 2_s, .probes = 3};
  return setup;
}

TEST(KeepAliveTrace, OffUnlessAskedFor) {  // MUST-25.
  Trace t = Trace::Established();
  t.ExpectQuietUntil(86'400_s).Expect(State::kEstablished);
}

TEST(KeepAliveTrace, TwoHoursByDefault) {  // MUST-28.
  Trace::Setup setup;
  setup.options.keepalive.emplace();
  Trace t = Trace::Established(setup);
  t.OutAt(7200_s, ".  0:0(0) ack 1");
}

// <SEQ=SND.NXT-1>, without text. SHLD-12. An answer ends it.
TEST(KeepAliveTrace, AnIdlePeerIsProbedAndAnswers) {
  Trace t = Trace::Established(Probing());
  t.OutAt(10_s, ".  0:0(0) ack 1");
  t.At(10'500_ms).In(".  1:1(0) ack 1").OutNothing();
  t.OutAt(20'500_ms, ".  0:0(0) ack 1");
  EXPECT_EQ(t.connection().stats().keepalive_probes, 2u);
}

// One lost answer proves nothing; `probes` of them do. MUST-29.
TEST(KeepAliveTrace, SilenceEndsItWithAReset) {
  Trace t = Trace::Established(Probing());
  t.OutAt(10_s, ".  0:0(0) ack 1").OutAt(12_s, ".  0:0(0) ack 1");
  t.OutAt(14_s, ".  0:0(0) ack 1").Expect(State::kEstablished);
  t.OutAt(16_s, "R. 1:1(0) ack 1").Expect(State::kClosed);
  t.ExpectEvents("error closed");
  EXPECT_EQ(t.connection().error(), TcpError::kTimedOut);
}

TEST(KeepAliveTrace, ALateAnswerCountsFromTheStart) {
  Trace t = Trace::Established(Probing());
  t.OutAt(10_s, ".  0:0(0) ack 1").OutAt(12_s, ".  0:0(0) ack 1");
  t.At(13_s).In(".  1:1(0) ack 1").OutNothing();
  t.OutAt(23_s, ".  0:0(0) ack 1").OutAt(25_s, ".  0:0(0) ack 1");
  t.OutAt(27_s, ".  0:0(0) ack 1").Expect(State::kEstablished);
}

// MUST-26: only when nothing arrived for the interval,
TEST(KeepAliveTrace, TextThatArrivesPutsItOff) {
  Trace t = Trace::Established(Probing());
  t.At(9_s).In("P. 1:11(10) ack 1").Out(".  1:1(0) ack 11");
  t.OutAt(19_s, ".  0:0(0) ack 11");
}

// and never while something sent is not acknowledged.
TEST(KeepAliveTrace, TextInFlightIsProbeEnough) {
  Trace t = Trace::Established(Probing());
  t.At(9_s).Send(100).Out("P. 1:101(100) ack 1");
  const Duration rto = t.connection().stats().rto;
  t.OutAt(9_s + rto, "P. 1:101(100) ack 1");
  t.OutAt(9_s + 3 * rto, "P. 1:101(100) ack 1");
  t.OutAt(9_s + 7 * rto, "P. 1:101(100) ack 1");
  EXPECT_EQ(t.connection().stats().keepalive_probes, 0u);
}

// MUST-24 and MUST-27: on, off and how often, at any time.
TEST(KeepAliveTrace, TurnedOnAndOff) {
  Trace t = Trace::Established();
  t.At(5_s).connection().SetKeepAlive(
      KeepAlive::Options{.idle = 1_s, .interval = 1_s, .probes = 2}, t.now());
  t.OutAt(6_s, ".  0:0(0) ack 1");
  t.connection().SetKeepAlive(std::nullopt, t.now());
  t.ExpectQuietUntil(1000_s).Expect(State::kEstablished);
}

// A probe of the peer's lies left of the window, so it is answered. RFC 9293
// 3.10.7.4, first step. One in the time of a challenge ACK, as in Linux.
TEST(KeepAliveTrace, TheirProbesAreAnswered) {
  Trace t = Trace::Established();
  t.At(1_s).In(".  0:0(0) ack 1").Out(".  1:1(0) ack 1");
  t.At(2_s).In(".  0:1(1) ack 1").Out(".  1:1(0) ack 1");  // With garbage.
  t.ExpectNoSlotsInUse();
}

// The application has closed, the peer has not: it is watched all the same.
TEST(KeepAliveTrace, HalfClosed) {
  Trace t = Trace::Established(Probing());
  t.Close().Out("F. 1:1(0) ack 1");
  t.In(".  1:1(0) ack 2").Expect(State::kFinWait2);
  t.OutAt(10_s, ".  1:1(0) ack 1");
  t.In("F. 1:1(0) ack 2").Out(".  2:2(0) ack 2").Expect(State::kTimeWait);
  t.ExpectQuietUntil(71_s).Expect(State::kClosed);
}

}  // namespace
}  // namespace devwire
