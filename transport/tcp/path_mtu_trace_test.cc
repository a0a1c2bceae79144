// Paths that carry less than the peer takes: told by ICMP, or found out.
#include "gtest/gtest.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

// RFC 1191 6.5: what was too long goes again at once, cut anew; cwnd stays.
TEST(PathMtuTrace, TextInFlightIsCutAnewAndSentAgain) {
  Trace t = Trace::Established({.mss = 1000});
  t.Send(2500).Out(".  1:1001(1000) ack 1", ".  1001:2001(1000) ack 1",
                   "P. 2001:2501(500) ack 1");
  const uint32_t cwnd = t.connection().stats().cwnd;
  t.At(10_ms).connection().OnPathMss(600);
  t.Out(".  1:601(600) ack 1", ".  601:1201(600) ack 1",
        ".  1201:1801(600) ack 1", ".  1801:2001(200) ack 1");
  EXPECT_EQ(t.connection().stats().cwnd, cwnd);
  EXPECT_EQ(t.connection().stats().smss, 600u);
  t.At(20_ms).In(".  1:1(0) ack 2501").OutNothing();
  t.Send(1200).Out(".  2501:3101(600) ack 1", "P. 3101:3701(600) ack 1");
}

TEST(PathMtuTrace, TheFinStaysOnTheLastPiece) {
  Trace t = Trace::Established({.mss = 1000});
  t.Send(900).Close().Out("FP. 1:901(900) ack 1");
  t.connection().OnPathMss(400);
  t.Out(".  1:401(400) ack 1", ".  401:801(400) ack 1",
        "FP. 801:901(100) ack 1");
  t.In(".  1:1(0) ack 902").OutNothing().Expect(State::kFinWait2);
}

// Timestamps are part of what the path must carry.
TEST(PathMtuTrace, TimestampsCount) {
  Trace t = Trace::Established({.mss = 1000, .timestamps = true});
  t.connection().OnPathMss(612);
  t.Send(600).Out("P. 1:601(600) ack 1");
}

// The queue has a record for each segment: more pieces wait for ACKs of others.
TEST(PathMtuTrace, MorePiecesThanThereIsRoomFor) {
  Trace::Setup setup{.mss = 1000};
  setup.options.max_segments_in_flight = 4;
  Trace t = Trace::Established(setup);
  t.Send(4000).Out(".  1:1001(1000) ack 1", ".  1001:2001(1000) ack 1",
                   ".  2001:3001(1000) ack 1", "P. 3001:4001(1000) ack 1");
  t.At(10_ms).connection().OnPathMss(400);
  t.Out(".  1:401(400) ack 1", ".  401:801(400) ack 1",
        ".  801:1201(400) ack 1");
  t.At(20_ms).In(".  1:1(0) ack 1201");
  t.Out(".  1201:1601(400) ack 1", ".  1601:2001(400) ack 1",
        ".  2001:2401(400) ack 1");
  t.At(30_ms).In(".  1:1(0) ack 2401");
  t.Out(".  2401:2801(400) ack 1", ".  2801:3201(400) ack 1",
        ".  3201:3601(400) ack 1", "P. 3601:4001(400) ack 1");
  t.At(50_ms).In(".  1:1(0) ack 4001").OutNothing();
}

// Not one record is free, and no ACK can come: piece by piece, by the timer.
TEST(PathMtuTrace, NoRoomAtAll) {
  Trace::Setup setup{.mss = 1000};
  setup.options.max_segments_in_flight = 1;
  Trace t = Trace::Established(setup);
  t.Send(1000).Out("P. 1:1001(1000) ack 1");
  t.At(10_ms).connection().OnPathMss(600);
  t.Out(".  1:601(600) ack 1");
  t.At(20_ms).In(".  1:1(0) ack 601");
  t.OutAt(20_ms + t.connection().stats().rto, "P. 601:1001(400) ack 1");
  t.In(".  1:1(0) ack 1001").OutNothing();
}

// Of what the peer takes, the path carries, and a floor, the least.
TEST(PathMtuTrace, NeitherAbovePeersMssNorBelowTheFloor) {
  Trace t = Trace::Established({.mss = 1000});
  t.connection().OnPathMss(60'000);
  EXPECT_EQ(t.connection().stats().smss, 1000u);
  t.connection().OnPathMss(1);
  EXPECT_EQ(t.connection().stats().smss, 48u) << "Linux's tcp_min_snd_mss";
  t.connection().OnPathMss(700);
  EXPECT_EQ(t.connection().stats().smss, 700u) << "the path has grown";
  t.Send(700).Out("P. 1:701(700) ack 1");
}

// Before the peer's SYN came, only the limit is noted.
TEST(PathMtuTrace, KnownBeforeTheHandshake) {
  Trace::Setup setup{.mss = 1000};
  setup.options.path_mss = 800;
  Trace t(setup);
  t.OpenActive().Out("S 0:0(0)");
  EXPECT_EQ(t.last_out().options.mss, 1000) << "what we take is another matter";
  t.connection().OnPathMss(700);
  t.In("S. 0:0(0) ack 1 <mss 1000>").Out(".  1:1(0) ack 1");
  EXPECT_EQ(t.connection().stats().smss, 700u);
}

// RFC 4821, Linux's tcp_mtu_probing = 1: after three timeouts in a row segments
// become smaller, half each time, down to the family's default; after ten
// minutes the old size is tried again.
TEST(BlackHoleTrace, FullSegmentsDieAndSmallOnesDoNot) {
  Trace t = Trace::Established({.mss = 1460});
  t.Send(1460).Out("P. 1:1461(1460) ack 1");
  const Duration rto = t.connection().stats().rto;
  t.OutAt(rto, "P. 1:1461(1460) ack 1");
  t.OutAt(3 * rto, "P. 1:1461(1460) ack 1");
  t.At(7 * rto).Out(".  1:731(730) ack 1", "P. 731:1461(730) ack 1");
  EXPECT_EQ(t.connection().stats().black_holes, 1u);
  t.At(15 * rto).Out(".  1:537(536) ack 1", ".  537:1073(536) ack 1",
                     "P. 1073:1461(388) ack 1");
  EXPECT_EQ(t.connection().stats().smss, 536u);
  t.At(16 * rto).In(".  1:1(0) ack 1461").OutNothing();
  t.Send(536).Out("P. 1461:1997(536) ack 1").In(".  1:1(0) ack 1997");
  t.At(15 * rto + 600_s).Send(1460).Out("P. 1997:3457(1460) ack 1");
}

// A connection whose segments are small anyhow has another trouble.
TEST(BlackHoleTrace, SmallSegmentsAreNotCut) {
  Trace t = Trace::Established({.mss = 1460});
  t.Send(500).Out("P. 1:501(500) ack 1");
  const Duration rto = t.connection().stats().rto;
  for (const int at : {1, 3, 7, 15}) {
    t.OutAt(at * rto, "P. 1:501(500) ack 1");
  }
  EXPECT_EQ(t.connection().stats().black_holes, 0u);
}

}  // namespace
}  // namespace devwire
