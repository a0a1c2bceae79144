// Loss recovery with SACK: scoreboard, RACK, tail loss probes, PRR, undo,
// F-RTO.
#include <gtest/gtest.h>

#include <algorithm>

#include "transport/tcp/cubic.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

std::string Num(uint64_t n) { return std::to_string(n); }
// One full segment of 1000 bytes: the i-th, from 0.
std::string Full(uint64_t i) {
  return ".  " + Num(1 + 1000 * i) + ":" + Num(1001 + 1000 * i) +
         "(1000) ack 1";
}
std::string AckTo(uint64_t segments) {
  return ".  1:1(0) ack " + Num(1 + 1000 * segments);
}
// Segments [left, right).
std::string Block(uint64_t left, uint64_t right) {
  return Num(1 + 1000 * left) + ":" + Num(1 + 1000 * right);
}
std::string Sack(uint64_t ack, uint64_t left, uint64_t right) {
  return AckTo(ack) + " <sack " + Block(left, right) + ">";
}
std::string Sack(uint64_t ack, const std::string& blocks) {
  return AckTo(ack) + " <sack " + blocks + ">";
}

// Established at 100 ms, which is the RTT, and `segments` sent then.
Trace InFlight(uint64_t segments, uint64_t queued, bool sack = true,
               bool timestamps = false) {
  Trace t({.timestamps = timestamps, .sack = sack});
  t.OpenActive().OutCount(1);
  std::string options = "<mss 1000";
  if (sack) options += ",sackOK";
  if (timestamps) {
    options += ",TS val 1100 ecr " + Num(t.last_out().options.timestamps->val);
  }
  t.At(100_ms).In("S. 0:0(0) ack 1 " + options + ">").OutCount(1);
  const uint64_t smss = timestamps ? 988 : 1000;
  t.Send(smss * queued).OutCount(segments);
  EXPECT_EQ(t.connection().stats().srtt, 100_ms);
  return t;
}
Trace InFlight(uint64_t segments) { return InFlight(segments, segments); }

Connection::Stats Of(Trace& t) { return t.connection().stats(); }

// -- the scoreboard, RFC 2018 5, RFC 6675 4 -----------------------------------

TEST(ScoreboardTrace, TheThirdSackedSegmentFindsTheLoss) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(0, 1, 2)).In(Sack(0, 1, 3)).OutNothing();
  t.In(Sack(0, 1, 4)).Out(Full(0));
  EXPECT_EQ(Of(t).fast_recoveries, 1u);
  EXPECT_EQ(Of(t).ssthresh, 5000u);
  t.In(Sack(0, 1, 10)).OutNothing();
  t.At(300_ms).In(AckTo(10)).OutNothing();
  EXPECT_EQ(Of(t).segments_retransmitted, 1u);
  EXPECT_EQ(Of(t).sack_blocks_in, 4u);
  EXPECT_EQ(t.connection().acked_offset(), 10'000u);
}

TEST(ScoreboardTrace, EachHoleIsRepairedAndNothingElse) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(1, 2, 4)).OutNothing();
  t.In(Sack(1, Block(5, 6) + " " + Block(2, 4))).Out(Full(1));
  t.In(Sack(1, Block(5, 10) + " " + Block(2, 4))).Out(Full(4));
  t.At(300_ms).In(Sack(4, 5, 10)).OutNothing().In(AckTo(10)).OutNothing();
  EXPECT_EQ(Of(t).segments_retransmitted, 2u);
  EXPECT_EQ(Of(t).fast_recoveries, 1u);
  EXPECT_EQ(Of(t).timeouts, 0u);
}

// An ACK with news of older holes, because the ACKs before it were lost, is no
// reordering: the losses are found at once.
TEST(ScoreboardTrace, BlocksCountInAscendingOrder) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(0, Block(7, 8) + " " + Block(3, 4) + " " + Block(1, 2)));
  t.Out(Full(0), Full(2), Full(4));
}

TEST(ScoreboardTrace, BlocksOutsideOfWhatIsInFlightAreRefused) {
  Trace t = InFlight(10);
  t.At(150_ms).In(AckTo(2));
  for (const char* block : {"2001:3001", "9001:10002", "9001:20001",
                            "4001:3001", "3001:3001", "1001:4001"}) {
    SCOPED_TRACE(block);
    const uint64_t refused = Of(t).sack_blocks_refused;
    t.In(Sack(2, Block(3, 4) + " " + block)).OutNothing();
    EXPECT_EQ(Of(t).sack_blocks_refused, refused + 1);
    EXPECT_EQ(Of(t).fast_recoveries, 0u);
  }
}

// Linux puts them on text too.
TEST(ScoreboardTrace, BlocksOnTextCount) {
  Trace t = InFlight(10);
  t.At(200_ms).In("P. 1:101(100) ack 1 <sack 1001:4001>");
  t.Out(".  1:1001(1000) ack 101");
}

// An ACK that a later one overtook still tells what arrived.
TEST(ScoreboardTrace, BlocksOnAnOldAckCount) {
  Trace t = InFlight(10);
  t.At(200_ms).In(AckTo(2)).In(Sack(1, 4, 8)).Out(Full(2), Full(3));
  EXPECT_EQ(Of(t).sack_blocks_in, 1u);
  EXPECT_EQ(t.connection().tcb().snd_una, t.connection().tcb().iss + 2001);
}

// What was SACKed is not sent again after a timeout. RFC 6675 5.1.
TEST(ScoreboardTrace, MarksOutliveATimeout) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(0, 1, 9)).Out(Full(0));
  t.OutAt(400_ms, Full(0));
  EXPECT_EQ(Of(t).timeouts, 1u);
  t.At(500_ms).In(AckTo(9)).Out(Full(9));
  t.At(600_ms).In(AckTo(10)).OutNothing();
  EXPECT_EQ(Of(t).segments_retransmitted, 3u);
}

// The cumulative ACK stops short of what was SACKed: the peer threw it away.
// RFC 2018 8.
TEST(ScoreboardTrace, AReceiverThatRenegesGetsItAllAgain) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(0, 1, 10)).Out(Full(0));
  t.At(300_ms).In(AckTo(1)).OutNothing();
  t.OutAt(350_ms, Full(1));  // Half an SRTT later: no ACK explained it.
  EXPECT_EQ(Of(t).reneged, 1u);
  t.At(450_ms).In(AckTo(2)).Out(Full(2), Full(3));
  t.In(AckTo(4)).OutCount(4);
}

// -- RACK, RFC 8985 6 ---------------------------------------------------------

// Too few segments for DupThresh: a quarter of the RTT decides.
TEST(RackTrace, TheReorderingTimerFindsALossAmongTwo) {
  Trace t = InFlight(2);
  t.At(200_ms).In(Sack(0, 1, 2)).OutNothing();
  t.OutAt(225_ms, Full(0));
  EXPECT_EQ(Of(t).fast_recoveries, 1u);
  EXPECT_EQ(Of(t).timeouts, 0u);
}

TEST(RackTrace, ReorderingWithinTheWindowIsNoLoss) {
  Trace t = InFlight(2);
  t.At(200_ms).In(Sack(0, 1, 2)).OutNothing();
  t.At(220_ms).In(AckTo(2)).OutNothing().ExpectQuietUntil(10_s);
  EXPECT_EQ(Of(t).segments_retransmitted, 0u);
}

TEST(RackTrace, ALostRetransmissionIsFoundByALaterOne) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(0, 2, 10)).Out(Full(0), Full(1));
  t.At(300_ms).In(Sack(0, 1, 10)).Out(Full(0));
  t.At(400_ms).In(AckTo(10)).OutNothing();
  EXPECT_EQ(Of(t).segments_retransmitted, 3u);
  EXPECT_EQ(Of(t).fast_recoveries, 1u);
  EXPECT_EQ(Of(t).timeouts, 0u);
}

// New text and a retransmission left at one time, in an order that the time
// does not tell: the text's SACK does not make the other one lost.
TEST(RackTrace, TextOfTheSameInstantDoesNotOvertakeARetransmission) {
  Trace t = InFlight(10, 12);
  t.At(200_ms).In(Sack(0, 1, 2)).Out(Full(10)).In(Sack(0, 1, 3)).Out(Full(11));
  t.In(Sack(0, 1, 4)).Out(Full(0));
  t.At(300_ms).In(Sack(0, 1, 12)).OutNothing().In(AckTo(12)).OutNothing();
  EXPECT_EQ(Of(t).segments_retransmitted, 1u);
}

// Once a segment came late without having been sent again, three SACKed
// segments prove nothing: the reordering window has to pass.
TEST(RackTrace, ReorderingSeenMakesItWait) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(0, 1, 3)).In(AckTo(3)).OutNothing();
  t.In(Sack(3, 4, 9)).OutNothing();
  t.OutAt(225_ms, Full(3));
}

// -- tail loss probes, RFC 8985 7 ---------------------------------------------

TEST(TlpTrace, TheLastSegmentProbesForALostTail) {
  Trace t = InFlight(10);
  t.At(200_ms).In(AckTo(8)).OutNothing();
  t.OutAt(402_ms, Full(9));  // 2 * SRTT, and the margin.
  EXPECT_TRUE(t.last_out().retransmission);
  t.At(502_ms).In(Sack(8, 9, 10)).Out(Full(8));
  t.At(602_ms).In(AckTo(10)).OutNothing();
  EXPECT_EQ(Of(t).tlp_probes, 1u);
  EXPECT_EQ(Of(t).timeouts, 0u);
}

// Though cwnd is full: one segment more.
TEST(TlpTrace, NewTextIsTheBetterProbe) {
  Trace t = InFlight(10, 20);
  t.OutAt(302_ms, Full(10));
  EXPECT_FALSE(t.last_out().retransmission);
  // All before it was lost. One delivered, one sent: RFC 9937.
  t.At(402_ms).In(Sack(0, 10, 11)).Out(Full(0));
  EXPECT_EQ(Of(t).fast_recoveries, 1u);
}

TEST(TlpTrace, NoNewTextBeyondThePeersWindow) {
  Trace t({.sack = true, .peer_wnd = 2000});
  t.OpenActive().OutCount(1);
  t.At(100_ms).In("S. 0:0(0) ack 1 <mss 1000,sackOK>").OutCount(1);
  t.Send(5000).Out(Full(0), Full(1));
  t.OutAt(302_ms, Full(1));
}

// The probe was the repair: congestion control hears of the loss when an ACK
// from beyond it shows that no duplicate was reported.
TEST(TlpTrace, ALossThatTheProbeRepairedCounts) {
  Trace t = InFlight(10);
  t.At(200_ms).In(AckTo(9)).OutNothing();
  t.OutAt(500_ms, Full(9));  // At the RTO: one segment may wait for its ACK.
  t.At(600_ms).In(AckTo(10));
  const uint32_t cwnd = Of(t).cwnd;
  t.Send(1000).Out("P. 10001:11001(1000) ack 1");
  t.At(700_ms).In(AckTo(11));
  EXPECT_EQ(Of(t).tlp_repairs, 1u);
  EXPECT_EQ(Of(t).ssthresh, cwnd / 2);
  EXPECT_EQ(Of(t).cwnd, cwnd / 2);
  EXPECT_EQ(Of(t).timeouts, 0u);
}

TEST(TlpTrace, ADsackOfTheProbeMeansNoLoss) {
  Trace t = InFlight(10);
  t.At(200_ms).In(AckTo(9)).OutAt(500_ms, Full(9));
  t.At(600_ms).In(AckTo(10) + " <sack 9001:10001>");
  t.Send(1000).Out("P. 10001:11001(1000) ack 1");
  t.At(700_ms).In(AckTo(11));
  EXPECT_EQ(Of(t).tlp_repairs, 0u);
  EXPECT_EQ(Of(t).ssthresh, UINT32_MAX);
  EXPECT_EQ(Of(t).dsacks_in, 1u);
}

TEST(TlpTrace, OneProbeThenTheTimeout) {
  Trace t = InFlight(1);
  t.OutAt(400_ms, Full(0)).OutAt(700_ms, Full(0));
  EXPECT_EQ(Of(t).tlp_probes, 1u);
  EXPECT_EQ(Of(t).timeouts, 1u);
}

// RFC 8985 7.3: between two probes there is an RTT sample. The only ACK since
// the first is of a segment that was sent twice, which is none; so where the
// second would have gone out, at 702 ms, the RTO begins.
TEST(TlpTrace, NoSecondProbeBeforeAnRttSample) {
  Trace t = InFlight(1);
  t.OutAt(400_ms, Full(0));
  t.At(410_ms).In(AckTo(1));
  t.At(500_ms).In(AckTo(1) + " <sack 1:1001>");  // That probe is over.
  t.Send(2000).OutCount(2);
  t.OutAt(1002_ms, Full(1));
  EXPECT_EQ(Of(t).tlp_probes, 1u);
  EXPECT_EQ(Of(t).timeouts, 1u);
}

TEST(TlpTrace, WithoutSackTheTimeoutAlone) {
  Trace t = InFlight(1, 1, /*sack=*/false);
  t.OutAt(400_ms, Full(0));
  EXPECT_EQ(Of(t).tlp_probes, 0u);
  EXPECT_EQ(Of(t).timeouts, 1u);
}

// -- PRR, RFC 9937 ------------------------------------------------------------

// From ten in flight to five: every other SACK lets one out.
TEST(PrrTrace, OneForTwoUntilSsthresh) {
  Trace t = InFlight(10, 30);
  t.At(200_ms).In(Sack(0, 1, 2)).Out(Full(10));  // Limited transmit.
  t.At(201_ms).In(Sack(0, 1, 3)).Out(Full(11));
  t.At(202_ms).In(Sack(0, 1, 4)).Out(Full(0));
  EXPECT_EQ(Of(t).ssthresh, 5000u);
  // Half of what is delivered, in segments, is let out; this one included.
  t.At(203_ms).In(Sack(0, 1, 5)).OutNothing();
  t.At(204_ms).In(Sack(0, 1, 6)).Out(Full(12));
  t.At(205_ms).In(Sack(0, 1, 7)).OutNothing();
  t.At(206_ms).In(Sack(0, 1, 8)).Out(Full(13));
  t.At(207_ms).In(Sack(0, 1, 9)).In(Sack(0, 1, 10)).OutNothing();
  EXPECT_EQ(Of(t).flight_size - 9000, Of(t).ssthresh);
  // A full acknowledgment ends it where it stands.
  t.At(302_ms).In(AckTo(12)).OutCount(3);
  EXPECT_EQ(Of(t).cwnd, 5000u);
}

// What of cwnd is too small for a segment is no unused window: 0.7 of 4900, not
// of the 4000 in flight. A small window would lose it at every loss.
TEST(ReductionTrace, CountsThePartOfASegment) {
  Trace t({.sack = true, .options = {.congestion = &NewCubic}});
  t.OpenActive().OutCount(1);
  t.At(100_ms).In("S. 0:0(0) ack 1 <mss 1000,sackOK>").OutCount(1);
  t.Send(100'000).OutCount(10);
  uint64_t una = 0;
  Duration time = 100_ms;
  for (const uint32_t ssthresh : {7000u, 4900u, 3430u}) {
    const uint64_t nxt = t.connection().sent_offset() / 1000;
    t.At(time += 100_ms).In(Sack(una, una + 1, nxt));
    TxSegment out;
    while (t.connection().PollTransmit(t.now(), {}, &out)) continue;
    EXPECT_EQ(Of(t).ssthresh, ssthresh);
    una = t.connection().sent_offset() / 1000;
    t.At(time += 100_ms).In(AckTo(una));
    while (t.connection().PollTransmit(t.now(), {}, &out)) continue;
    EXPECT_EQ(Of(t).cwnd, ssthresh);
  }
  EXPECT_EQ(Of(t).fast_recoveries, 3u);
}

// RFC 9438 4.2: the curve does not run on while there is nothing to send. A
// minute of it would be 0.4 * 60^3 segments.
TEST(CubicTrace, APauseIsNoTimeOnTheCurve) {
  Trace t(
      {.sack = true, .options = {.nodelay = true, .congestion = &NewCubic}});
  t.OpenActive().OutCount(1);
  t.At(100_ms).In("S. 0:0(0) ack 1 <mss 1000,sackOK>").OutCount(1);
  t.Send(10'000).OutCount(10);
  t.At(200_ms).In(Sack(0, 1, 10)).Out(Full(0)).At(300_ms).In(AckTo(10));
  EXPECT_EQ(Of(t).cwnd, 7000u);
  uint64_t una = 10'001;
  // All that the window lets out, acknowledged segment by segment.
  auto round = [&](Duration time) {
    const uint64_t end = una + Of(t).cwnd;
    t.At(time).Send(Of(t).cwnd).OutCount((Of(t).cwnd + 999) / 1000);
    while (una < end) {
      una = std::min(una + 1000, end);
      t.At(time + 100_ms).In(".  1:1(0) ack " + Num(una)).OutNothing();
    }
  };
  for (int i = 4; i < 9; ++i) round(i * 100_ms);
  EXPECT_LT(Of(t).cwnd, 10'000u);
  for (int i = 0; i < 5; ++i) round(60_s + i * 100_ms);
  EXPECT_GE(Of(t).cwnd, 7000u);
  EXPECT_LT(Of(t).cwnd, 15'000u);  // As Reno: one segment a round.
}

// -- undo, RFC 3522, 3708 and 4015 --------------------------------------------

TEST(UndoTrace, ADsackForAllThatWasSentAgain) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(0, 1, 4)).Out(Full(0));
  t.At(210_ms).In(AckTo(10));
  EXPECT_EQ(Of(t).cwnd, 5000u);
  t.At(300_ms).In(AckTo(10) + " <sack 1:1001>").OutNothing();
  EXPECT_EQ(Of(t).spurious_recoveries, 1u);
  EXPECT_EQ(Of(t).cwnd, 10'000u);
  EXPECT_EQ(Of(t).ssthresh, UINT32_MAX);
}

// RFC 2883 4: a duplicate above the cumulative ACK is the first block, and lies
// in the second. Without it, one of two would seem to have been needed.
TEST(UndoTrace, ADsackAboveTheAckLiesInTheSecondBlock) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(0, 2, 10)).Out(Full(0), Full(1));
  t.At(205_ms).In(Sack(0, 1, 10)).OutNothing();  // Late, but there.
  t.At(300_ms).In(Sack(0, Block(1, 2) + " " + Block(1, 10))).OutNothing();
  EXPECT_EQ(Of(t).dsacks_in, 1u);
  EXPECT_EQ(Of(t).spurious_recoveries, 0u);
  t.At(305_ms).In(AckTo(10)).In(AckTo(10) + " <sack 1:1001>");
  EXPECT_EQ(Of(t).spurious_recoveries, 1u);
  EXPECT_EQ(Of(t).ssthresh, UINT32_MAX);
}

// Of two sent again one was needed: nothing to take back.
TEST(UndoTrace, NotForAPartOfIt) {
  Trace t = InFlight(10);
  t.At(200_ms).In(Sack(0, 2, 10)).Out(Full(0), Full(1));
  t.At(300_ms).In(AckTo(10) + " <sack 1:1001>");
  EXPECT_EQ(Of(t).dsacks_in, 1u);
  EXPECT_EQ(Of(t).spurious_recoveries, 0u);
  EXPECT_EQ(Of(t).cwnd, 5000u);
}

TEST(UndoTrace, AnEchoFromBeforeTheRetransmission) {
  Trace t = InFlight(10, 10, /*sack=*/true, /*timestamps=*/true);
  const std::string ecr = Num(t.last_out().options.timestamps->val);
  // 988 bytes each, beside the timestamps.
  t.At(200_ms).In(".  1:1(0) ack 1 <TS val 1200 ecr " + ecr +
                  ",sack 989:3953>");
  t.Out(".  1:989(988) ack 1");
  EXPECT_EQ(Of(t).fast_recoveries, 1u);
  t.At(210_ms).In(".  1:1(0) ack 3953 <TS val 1210 ecr " + ecr + ">");
  EXPECT_EQ(Of(t).spurious_recoveries, 1u);
  EXPECT_EQ(Of(t).ssthresh, UINT32_MAX);
}

TEST(UndoTrace, AnEchoOfTheRetransmissionProvesTheLoss) {
  Trace t = InFlight(10, 10, /*sack=*/true, /*timestamps=*/true);
  const std::string ecr = Num(t.last_out().options.timestamps->val);
  t.At(200_ms).In(".  1:1(0) ack 1 <TS val 1200 ecr " + ecr +
                  ",sack 989:3953>");
  t.Out(".  1:989(988) ack 1");
  const std::string again = Num(t.last_out().options.timestamps->val);
  t.At(300_ms).In(".  1:1(0) ack 3953 <TS val 1210 ecr " + again + ">");
  EXPECT_EQ(Of(t).spurious_recoveries, 0u);
}

// -- F-RTO, RFC 5682 ----------------------------------------------------------

// A delay of half a second, and nothing lost.
TEST(FRtoTrace, TheSecondAckUnmasksASpuriousTimeout) {
  Trace t = InFlight(10, 20);
  t.OutAt(302_ms, Full(10));  // The probe,
  t.OutAt(602_ms, Full(0));   // the timeout.
  EXPECT_EQ(Of(t).cwnd, 1000u);
  t.At(650_ms).In(AckTo(1)).Out(Full(11), Full(12));
  t.At(660_ms).In(AckTo(2)).OutNothing();
  EXPECT_EQ(Of(t).spurious_timeouts, 1u);
  EXPECT_EQ(Of(t).cwnd, 10'000u);
  EXPECT_EQ(Of(t).ssthresh, UINT32_MAX);
  t.At(670_ms).In(AckTo(11)).OutCount(7);
  EXPECT_EQ(Of(t).segments_retransmitted, 1u);
}

// However much the ACK acknowledged: it may have been late, or not.
TEST(FRtoTrace, TwoNewSegmentsAtMost) {
  Trace t = InFlight(10, 30, /*sack=*/false);
  t.limits().max_tso_payload = 60'000;
  t.OutAt(400_ms, Full(0));
  t.At(500_ms).In(AckTo(8)).Out(Full(10), Full(11));
}

TEST(FRtoTrace, TheFinIsSentOnce) {
  Trace t = InFlight(10, 11, /*sack=*/false);
  t.Close().OutAt(400_ms, Full(0));
  t.At(500_ms).In(AckTo(8)).Out("FP. 10001:11001(1000) ack 1");
}

TEST(FRtoTrace, ASackOfTheNewTextConfirmsTheTimeout) {
  Trace t = InFlight(10, 20);
  t.OutAt(302_ms, Full(10)).OutAt(602_ms, Full(0));
  t.At(702_ms).In(AckTo(1)).Out(Full(11), Full(12));
  t.At(802_ms).In(Sack(1, 11, 13)).Out(Full(1), Full(2));
  EXPECT_EQ(Of(t).spurious_timeouts, 0u);
  EXPECT_EQ(Of(t).timeouts, 1u);
}

TEST(FRtoTrace, WithoutSackToo) {
  Trace t = InFlight(10, 20, /*sack=*/false);
  t.OutAt(400_ms, Full(0));
  t.At(450_ms).In(AckTo(1)).Out(Full(10), Full(11));
  t.At(460_ms).In(AckTo(2)).OutNothing();
  EXPECT_EQ(Of(t).spurious_timeouts, 1u);
  EXPECT_EQ(Of(t).cwnd, 10'000u);
}

TEST(FRtoTrace, ADuplicateConfirmsTheTimeoutWithoutSack) {
  Trace t = InFlight(10, 20, /*sack=*/false);
  t.OutAt(400_ms, Full(0));
  t.At(500_ms).In(AckTo(1)).Out(Full(10), Full(11));
  t.At(600_ms).In(AckTo(1)).Out(Full(1));  // One delivered, one sent.
  t.At(700_ms).In(AckTo(10)).OutCount(4);
  EXPECT_EQ(Of(t).spurious_timeouts, 0u);
  EXPECT_EQ(Of(t).timeouts, 1u);
}

}  // namespace
}  // namespace devwire
