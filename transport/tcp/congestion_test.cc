// The congestion controls by themselves: how the window moves.
#include "transport/tcp/congestion.h"

#include <gtest/gtest.h>

#include <cmath>

#include "transport/tcp/cubic.h"
#include "transport/tcp/dctcp.h"
#include "transport/tcp/hystart.h"

namespace devwire {
namespace {

constexpr Instant kStart = Instant::FromNanoseconds(1'000'000'000);
constexpr uint32_t kSmss = 1000;

// -- the table
// ----------------------------------------------------------------

TEST(Congestion, FactoriesByName) {
  for (const char* name : {"cubic", "newreno", "dctcp"}) {
    const CongestionFactory make = FindCongestion(name);
    ASSERT_NE(make, nullptr) << name;
    EXPECT_STREQ(make()->name(), name);
    EXPECT_NE(CongestionNames().find(name), std::string::npos);
  }
  EXPECT_EQ(FindCongestion("Cubic"), nullptr);
  EXPECT_EQ(FindCongestion(""), nullptr);
}

TEST(Congestion, InitialWindowIsAKnob) {
  auto cc = NewCubic();
  cc->OnEstablished(
      {.now = kStart, .smss = 8948, .initial_window_segments = 10});
  EXPECT_EQ(cc->cwnd(), 89'480u);
}

// tcp_pacing_ss_ratio 200, tcp_pacing_ca_ratio 120.
TEST(Congestion, PacingRate) {
  auto cc = NewCubic();
  cc->OnEstablished({.now = kStart, .smss = kSmss});
  EXPECT_EQ(cc->pacing_rate({}), UINT64_MAX);
  EXPECT_EQ(cc->pacing_rate(100_ms), 200'000u);
  cc->OnLoss(10'000, kStart);
  EXPECT_EQ(cc->pacing_rate(100_ms), 84'000u);
}

// Half for each RTO of idleness, not below IW; ssthresh remembers. RFC 2861.
TEST(Congestion, IdleHalvesPerRto) {
  auto cc = NewCubic();
  cc->OnEstablished({.now = kStart, .smss = kSmss});
  cc->OnLoss(100'000, kStart);
  EXPECT_EQ(cc->cwnd(), 70'000u);
  cc->OnIdle(250_ms, 200_ms);
  EXPECT_EQ(cc->cwnd(), 35'000u);
  EXPECT_EQ(cc->ssthresh(), 70'000u);
  cc->OnIdle(10_s, 200_ms);
  EXPECT_EQ(cc->cwnd(), 10'000u);
}

// -- HyStart++, RFC 9406
// ------------------------------------------------------

// One round of `samples` ACKs. True: slow start is over.
bool Round(HyStart* hystart, Duration rtt, int samples = 8) {
  bool is_over = false;
  for (int i = 1; i <= samples; ++i) {
    is_over |= hystart->OnAck(rtt, i == samples);
  }
  return is_over;
}

TEST(HyStartTest, GrowingRttLeadsToCssAndThenOut) {
  struct Row {
    Duration last;
    Duration threshold;  // 1/8, within 4 to 16 ms.
  };
  for (const Row row : {Row{1_ms, 4_ms}, Row{80_ms, 10_ms}, Row{1_s, 16_ms}}) {
    HyStart hystart;
    EXPECT_FALSE(Round(&hystart, row.last));
    EXPECT_FALSE(Round(&hystart, row.last + row.threshold - 1_ns));
    EXPECT_FALSE(hystart.is_in_css());
    HyStart other;
    EXPECT_FALSE(Round(&other, row.last));
    EXPECT_FALSE(Round(&other, row.last + row.threshold));  // The first of 5.
    EXPECT_TRUE(other.is_in_css());
    EXPECT_EQ(other.Growth(4000), 1000u);
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(Round(&other, 2 * row.last + 1_s));
    EXPECT_TRUE(Round(&other, 2 * row.last + 1_s));
  }
}

TEST(HyStartTest, FewSamplesProveNothing) {
  HyStart hystart;
  (void)Round(&hystart, 10_ms);
  (void)Round(&hystart, 100_ms, 7);
  EXPECT_FALSE(hystart.is_in_css());
}

TEST(HyStartTest, RttFallsAgainSlowStartGoesOn) {
  HyStart hystart;
  (void)Round(&hystart, 20_ms);
  (void)Round(&hystart, 30_ms);
  ASSERT_TRUE(hystart.is_in_css());
  (void)Round(&hystart, 29_ms);
  EXPECT_FALSE(hystart.is_in_css());
  EXPECT_EQ(hystart.Growth(4000), 4000u);
}

// -- CUBIC, RFC 9438
// ----------------------------------------------------------

// A sender whose window is always in use, acknowledged segment by segment.
class CubicPath {
 public:
  explicit CubicPath(Duration rtt, uint32_t flight) : rtt_(rtt) {
    cc.OnEstablished(
        {.now = now, .smss = kSmss, .initial_window_segments = flight / kSmss});
    cc.OnLoss(flight, now);
  }
  void RunFor(Duration time) {
    const Instant end = now + time;
    while (now < end) {
      for (uint32_t sent = cc.cwnd() / kSmss, i = 0; i < sent; ++i) {
        cc.OnAck({.now = now + rtt_ * i / sent,
                  .acked_bytes = kSmss,
                  .rtt = rtt_,
                  .srtt = rtt_,
                  .is_cwnd_limited = true});
      }
      now += rtt_;
    }
  }
  double segments() const { return double{1} * cc.cwnd() / kSmss; }

  Cubic cc;
  Instant now = kStart;

 private:
  Duration rtt_;
};

// From 70 back to 100 segments along the curve, and beyond. Figure 1. At this
// round trip Reno is slower throughout.
TEST(CubicTest, FollowsTheCurve) {
  CubicPath path(200_ms, 100'000);
  EXPECT_EQ(path.cc.ssthresh(), 70'000u);
  EXPECT_EQ(path.cc.cwnd(), 70'000u);
  const double k = std::cbrt(30 / 0.4);
  for (int second = 1; second <= 8; ++second) {
    path.RunFor(1_s);
    EXPECT_NEAR(path.segments(), 0.4 * std::pow(second - k, 3) + 100, 1.0)
        << second << " s";
  }
}

// At a short round trip Reno is faster: 9/17 of a segment each, and a whole
// one past cwnd_prior. 4.3.
TEST(CubicTest, RenoFriendlyRegion) {
  CubicPath path(1_ms, 20'000);
  EXPECT_EQ(path.cc.cwnd(), 14'000u);
  path.RunFor(9_ms);
  EXPECT_NEAR(path.segments(), 14 + 9 * 9.0 / 17, 1.0);
  path.RunFor(3_ms);
  EXPECT_NEAR(path.segments(), 20, 1.0);
  path.RunFor(10_ms);
  EXPECT_NEAR(path.segments(), 30, 1.5);
}

// A second loss below W_max: W_max shrinks to 0.85 of the window. 4.7.
TEST(CubicTest, FastConvergence) {
  CubicPath path(100_ms, 100'000);
  path.cc.OnLoss(70'000, path.now);
  EXPECT_EQ(path.cc.cwnd(), 49'000u);
  const double k = std::cbrt((0.85 * 70 - 49) / 0.4);
  path.RunFor(2_s);
  EXPECT_NEAR(path.segments(), 0.4 * std::pow(2 - k, 3) + 0.85 * 70, 1.0);
}

// 4.8: ssthresh by beta, one SMSS, then the curve from where slow start ends.
TEST(CubicTest, Timeout) {
  CubicPath path(100_ms, 100'000);
  path.cc.OnTimeout(70'000, true, path.now);
  EXPECT_EQ(path.cc.ssthresh(), 49'000u);
  EXPECT_EQ(path.cc.cwnd(), 1000u);
  path.RunFor(600_ms);  // 1, 2, 4, 8, 16, 32, and to ssthresh.
  EXPECT_NEAR(path.segments(), 49, 1.0);
  path.RunFor(2_s);
  EXPECT_GT(path.segments(), 49 + 0.4 * 8 - 1);
}

// RFC 9438 4.2: while the application held back, t did not run.
TEST(CubicTest, TimeWithoutDataDoesNotCount) {
  CubicPath path(100_ms, 100'000);
  path.RunFor(1_s);
  const uint32_t before = path.cc.cwnd();
  for (int i = 0; i < 100; ++i) {
    path.cc.OnAck({.now = path.now, .acked_bytes = kSmss});
    path.now += 1_s;
  }
  path.RunFor(200_ms);
  EXPECT_LT(path.cc.cwnd(), before + 10'000);
  EXPECT_GE(path.cc.cwnd(), before);
}

// The curve goes on where it was. 4.9.2.
TEST(CubicTest, UndoRestoresTheCurve) {
  CubicPath path(100_ms, 100'000);
  path.RunFor(2_s);
  const uint32_t before = path.cc.cwnd();
  path.cc.OnLoss(before, path.now);
  EXPECT_LT(path.cc.cwnd(), before);
  path.cc.OnUndo(before, path.now);
  EXPECT_EQ(path.cc.cwnd(), before);
  path.RunFor(3_s);
  EXPECT_NEAR(path.segments(), 0.4 * std::pow(5 - std::cbrt(75), 3) + 100, 1.5);
}

// Found out so late that the window has grown past it since: all stays as it
// is. 4.9.2.
TEST(CubicTest, ALateUndoChangesNothing) {
  CubicPath path(100_ms, 100'000);
  CubicPath other(100_ms, 100'000);
  path.RunFor(10_s);
  other.RunFor(10_s);
  ASSERT_GT(path.cc.cwnd(), 100'000u);
  path.cc.OnUndo(path.cc.cwnd(), path.now);
  EXPECT_EQ(path.cc.ssthresh(), 70'000u);
  path.RunFor(2_s);
  other.RunFor(2_s);
  EXPECT_EQ(path.cc.cwnd(), other.cc.cwnd());
}

// RFC 3168 6.1.2: no growth by an ECE; and down to one SMSS by marks.
TEST(CubicTest, CongestionMarks) {
  CubicPath path(100_ms, 10'000);
  for (int i = 0; i < 20; ++i) path.cc.OnEce(path.cc.cwnd(), path.now);
  EXPECT_EQ(path.cc.cwnd(), kSmss);
  path.cc.OnAck({.now = path.now,
                 .acked_bytes = kSmss,
                 .is_cwnd_limited = true,
                 .has_ece = true});
  EXPECT_EQ(path.cc.cwnd(), kSmss);
}

// The first slow start ends by delay, not by loss.
TEST(CubicTest, HyStartEndsSlowStart) {
  Cubic cc;
  cc.OnEstablished({.now = kStart, .smss = kSmss});
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 10; ++i) {
      cc.OnAck({.now = kStart + round * 100_ms,
                .acked_bytes = kSmss,
                .rtt = 100_ms + round * 20_ms,
                .srtt = 100_ms,
                .is_cwnd_limited = true,
                .ends_round = i == 9});
    }
  }
  EXPECT_NE(cc.ssthresh(), UINT32_MAX);
  EXPECT_LT(cc.cwnd(), 50'000u);
}

// -- DCTCP, RFC 8257
// ----------------------------------------------------------

// A round of ten segments of which `marked` were.
void DctcpRound(Dctcp* cc, int marked) {
  for (int i = 1; i <= 10; ++i) {
    cc->OnAck({.now = kStart,
               .acked_bytes = kSmss,
               .ends_round = i == 10,
               .has_ece = i <= marked});
  }
}

// alpha = alpha * (1 - g) + g * M, g = 1/16. 3.3.
TEST(DctcpTest, AlphaIsTheMarkedFraction) {
  Dctcp cc;
  cc.OnEstablished({.now = kStart, .smss = kSmss});
  EXPECT_EQ(cc.alpha_1024(), 1024u);
  DctcpRound(&cc, 0);
  EXPECT_EQ(cc.alpha_1024(), 960u);  // 15/16.
  for (int i = 0; i < 100; ++i) DctcpRound(&cc, 3);
  EXPECT_NEAR(cc.alpha_1024(), 0.3 * 1024, 3);
  for (int i = 0; i < 300; ++i) DctcpRound(&cc, 0);
  EXPECT_EQ(cc.alpha_1024(), 0u);
}

TEST(DctcpTest, MarksShrinkByAlphaLossesByHalf) {
  Dctcp cc;
  cc.OnEstablished(
      {.now = kStart, .smss = kSmss, .initial_window_segments = 100});
  for (int i = 0; i < 100; ++i) DctcpRound(&cc, 2);
  cc.OnEce(100'000, kStart);
  EXPECT_NEAR(cc.cwnd(), 90'000u, 500);
  cc.OnLoss(90'000, kStart);
  EXPECT_EQ(cc.cwnd(), 45'000u);  // 3.5: as any TCP.
}

}  // namespace
}  // namespace devwire
