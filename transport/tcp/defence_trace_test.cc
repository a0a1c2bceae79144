// What strangers can make a connection do: SYNs that nobody answers for, SYN
// cookies, challenge ACKs.
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "transport/tcp/challenge_budget.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

// The SYN-ACK goes again five times, as in Linux, and then the state is gone:
// no stranger draws more than six answers, none longer than his question.
TEST(SynAckTrace, GoesAgainFiveTimes) {
  Trace t = Trace::SynReceived({});
  Duration at;
  for (const Duration wait : {1_s, 2_s, 4_s, 8_s, 16_s}) {
    at += wait;
    t.OutAt(at, "S. 0:0(0) ack 1");
  }
  t.ExpectQuietUntil(at + 32_s).Expect(State::kClosed);
  EXPECT_EQ(t.connection().error(), TcpError::kTimedOut);
}

// RFC 4987 3.6: the ACK brings everything back, and its text counts.
TEST(CookieTrace, TheAckAndItsTextOpen) {
  Trace t({.mss = 1460, .timestamps = true, .sack = true, .peer_scale = 7});
  t.At(9_ms).OpenByCookie("S 0:0(0) <mss 1440,sackOK,TS val 50 ecr 0,wscale 7>",
                          "P. 1:101(100) ack 1 win 10 <TS val 50 ecr 960>");
  t.Expect(State::kEstablished).ExpectEvents("connected readable");
  t.Out(".  1:1(0) ack 101 <TS val 1009 ecr 50>").ExpectReadable(100);
  EXPECT_EQ(t.connection().stats().smss, 1440u - 12);
  EXPECT_EQ(t.connection().stats().snd_wnd, 1280u) << "the ACK's, scaled";
  EXPECT_TRUE(t.connection().stats().sack);
  EXPECT_EQ(t.connection().stats().srtt, Duration()) << "its time is no RTT";
  t.Send(1280).Out("P. 1:1281(1280) ack 101");
  t.At(10_ms).In(".  101:101(0) ack 1281").OutNothing();
  EXPECT_EQ(t.connection().acked_offset(), 1280u);
}

// The window that the SYN-ACK offered is open from the start.
TEST(CookieTrace, TextThatFollowsTheAckIsInTheWindow) {
  Trace t({});
  t.OpenByCookie("S 0:0(0) <mss 536>", ".  1:1(0) ack 1");
  t.OutNothing().Expect(State::kEstablished).ExpectEvents("connected");
  EXPECT_EQ(t.connection().stats().smss, 536u);
  t.In(".  1001:2001(1000) ack 1").Out(".  1:1(0) ack 1");
  t.In(".  1:1001(1000) ack 1").Out(".  1:1(0) ack 2001").ExpectReadable(2000);
}

TEST(CookieTrace, TheAckMayCloseAtOnce) {
  Trace t({});
  t.OpenByCookie("S 0:0(0) <mss 1000>", "F. 1:1(0) ack 1");
  t.Out(".  1:1(0) ack 2").Expect(State::kCloseWait);
  t.Close().Out("F. 1:1(0) ack 2").Expect(State::kLastAck);
  t.In(".  2:2(0) ack 2").Expect(State::kClosed);
}

// A peer that asks for a byte at a time would have us send headers alone.
// Linux's tcp_min_snd_mss.
TEST(TinyMssTrace, HasAFloor) {
  for (const char* offer : {"<mss 0>", "<mss 1>", "<mss 48>"}) {
    Trace t({});
    t.OpenPassive(absl::StrCat("S 0:0(0) ", offer)).Out("S. 0:0(0) ack 1");
    t.In(".  1:1(0) ack 1").OutNothing().Expect(State::kEstablished);
    t.Send(96).Out(".  1:49(48) ack 1", "P. 49:97(48) ack 1");
  }
}

// RFC 5961 7. All connections of an engine draw on one budget.
TEST(ChallengeTrace, ABudgetForAllConnections) {
  ChallengeBudget budget(4, /*seed=*/1);
  Trace::Setup setup;
  setup.options.challenge_budget = &budget;
  int answered = 0;
  for (int i = 0; i < 20; ++i) {
    Trace t = Trace::Established(setup);
    t.At(1_ms).In("R 3:3(0)").ExpectDrop(DropReason::kResetChallenged);
    const bool is_answered = t.connection().stats().challenge_acks == 1;
    if (is_answered) {
      t.Out(".  1:1(0) ack 1");
      ++answered;
    }
    t.OutNothing().Expect(State::kEstablished);
  }
  EXPECT_GE(answered, 2);
  EXPECT_LT(answered, 6);
  EXPECT_EQ(budget.refused(), static_cast<uint64_t>(20 - answered));
}

// No two seconds need have the same limit (CVE-2016-5696), but together they
// keep to the average.
TEST(ChallengeTrace, TheBudgetOfASecondCannotBeKnown) {
  ChallengeBudget budget(100, /*seed=*/7);
  int taken = 0;
  int differ = 0;
  int before = -1;
  for (int second = 0; second < 100; ++second) {
    int now = 0;
    while (budget.Take(Instant() + second * 1_s)) ++now;
    EXPECT_GE(now, 50);
    EXPECT_LT(now, 150);
    differ += now != before ? 1 : 0;
    before = now;
    taken += now;
  }
  EXPECT_NEAR(taken, 10'000, 1'000);
  EXPECT_GT(differ, 80);
  ChallengeBudget unlimited(0, /*seed=*/1);
  for (int i = 0; i < 10'000; ++i) EXPECT_TRUE(unlimited.Take(Instant()));
}

// RFC 5961 5.2 and 7: ACKs that answer what a blind attacker sends are limited.
TEST(ChallengeTrace, AcksOfUnsentAreLimited) {
  Trace t = Trace::Established();
  int acks = 0;
  for (int i = 0; i < 10; ++i) {
    t.In(".  1:1(0) ack 5000");
    TxSegment out;
    while (t.connection().PollTransmit(t.now(), {}, &out)) ++acks;
  }
  EXPECT_LE(acks, 1);
}

}  // namespace
}  // namespace devwire
