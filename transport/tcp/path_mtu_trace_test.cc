// Paths that carry less than the peer takes: told by ICMP, or found out.
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
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
// become smaller, half each time, down to the family's default.
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
  t.Send(1460).Out(".  1461:1997(536) ack 1", ".  1997:2533(536) ack 1",
                   "P. 2533:2921(388) ack 1");
}

// Carries segments of up to so many bytes of text, and loses longer ones. The
// peer has SACK, and acknowledges each that comes.
class NarrowPath {
 public:
  NarrowPath(Trace& t, uint32_t carries) : carries(carries), trace_(t) {}

  // Ten milliseconds later, or when the next timer fires: what is sent then.
  void Flight() {
    Connection& c = trace_.connection();
    (void)c.Send(200'000);
    now_ += 10_ms;
    if (!got_one_) now_ = std::max(now_, c.NextDeadline() - kStart);
    got_one_ = false;
    trace_.At(now_);
    TxSegment out;
    std::vector<std::pair<uint32_t, uint32_t>> arrived;
    while (c.PollTransmit(kStart + now_, {}, &out)) {
      const uint32_t left = out.seq - c.tcb().iss;
      if (out.payload_bytes <= carries) {
        arrived.push_back({left, left + out.payload_bytes});
      }
    }
    for (const auto& [left, right] : arrived) Acknowledge(left, right);
  }

  void Wait(Duration time) { now_ += time; }

  uint32_t carries;

 private:
  static constexpr Instant kStart = Instant::FromNanoseconds(1'000'000'000);

  void Acknowledge(uint32_t left, uint32_t right) {
    got_one_ = true;
    beyond_[left] = right;
    while (!beyond_.empty() && beyond_.begin()->first <= next_) {
      next_ = std::max(next_, beyond_.begin()->second);
      beyond_.erase(beyond_.begin());
    }
    std::string ack = absl::StrCat(".  1:1(0) ack ", next_);
    if (!beyond_.empty()) {  // One hole: the probe.
      absl::StrAppend(&ack, " <sack ", beyond_.begin()->first, ":",
                      beyond_.rbegin()->second, ">");
    }
    trace_.In(ack);
  }

  Trace& trace_;
  Duration now_;
  bool got_one_ = true;
  uint32_t next_ = 1;
  std::map<uint32_t, uint32_t> beyond_;
};

// RFC 4821 7.3 to 7.6: longer segments, one at a time, find out what gets
// through. One that is lost costs a retransmission, and no congestion window.
TEST(BlackHoleTrace, ProbesFindWhatGetsThrough) {
  Trace t = Trace::Established({.mss = 8960, .sack = true});
  NarrowPath path(t, 4000);
  for (int i = 0; i < 100; ++i) path.Flight();
  Connection::Stats stats = t.connection().stats();
  EXPECT_EQ(stats.black_holes, 1u);
  EXPECT_LE(stats.smss, 4000u);
  EXPECT_GT(stats.smss, 4000u - 8u);
  EXPECT_GE(stats.path_probes, 5u);
  EXPECT_LE(stats.path_probes, 13u) << "a binary search of 8 KB";
  EXPECT_EQ(stats.fast_recoveries, 0u);
  EXPECT_EQ(stats.timeouts, 3u);
  // Ten minutes later the path carries all: one probe tells.
  path.carries = 8960;
  path.Wait(600_s);
  for (int i = 0; i < 10; ++i) path.Flight();
  EXPECT_EQ(t.connection().stats().smss, 8960u);
  EXPECT_EQ(t.connection().stats().path_probes, stats.path_probes + 1);
  EXPECT_EQ(t.connection().stats().timeouts, 3u);
}

// The path became still narrower: what got through does not any more.
TEST(BlackHoleTrace, AHoleWithinTheHole) {
  Trace t = Trace::Established({.mss = 8960, .sack = true});
  NarrowPath path(t, 4000);
  for (int i = 0; i < 100; ++i) path.Flight();
  path.carries = 600;
  for (int i = 0; i < 200; ++i) path.Flight();
  const Connection::Stats stats = t.connection().stats();
  EXPECT_LE(stats.smss, 600u);
  EXPECT_GE(stats.smss, 536u);
  EXPECT_EQ(stats.black_holes, 3u) << "1024 died too";
}

// Small segments that were joined to be sent again may be too long for a path
// that carried each of them.
TEST(BlackHoleTrace, WhatWasJoinedIsTakenApart) {
  Trace::Setup setup;
  setup.options.nodelay = true;
  Trace t = Trace::Established(setup);
  t.Send(15).Out("P. 1:16(15) ack 1");
  t.Send(641).Out("P. 16:657(641) ack 1");
  const Duration rto = t.connection().stats().rto;
  t.OutAt(rto, "P. 1:657(656) ack 1");
  t.OutAt(3 * rto, "P. 1:657(656) ack 1");
  t.At(7 * rto).Out(".  1:16(15) ack 1", "P. 16:657(641) ack 1");
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
