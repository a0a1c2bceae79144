// Sending: segmentation, Nagle, windows, probes, retransmission, NewReno.
#include <gtest/gtest.h>

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

// Established, and the ten segments of the initial window sent.
Trace TenInFlight(uint64_t queued = 100'000) {
  Trace t = Trace::Established();
  t.Send(queued);
  t.Out(Full(0), Full(1), Full(2), Full(3), Full(4), Full(5), Full(6), Full(7),
        Full(8), Full(9));
  return t;
}

TEST(SendTrace, InitialWindowThenTwoForOne) {  // RFC 6928, RFC 5681 3.1.
  Trace t = TenInFlight();
  t.At(10_ms).In(AckTo(1)).Out(Full(10), Full(11));
  t.In(AckTo(3)).Out(Full(12), Full(13), Full(14), Full(15));
  EXPECT_EQ(t.connection().stats().cwnd, 13'000u);
  EXPECT_EQ(t.connection().acked_offset(), 3000u);
}

TEST(SendTrace, PushOnTheLastOfTheQueue) {
  Trace t = Trace::Established();
  t.Send(2000);
  TxSegment out;
  ASSERT_TRUE(t.connection().PollTransmit(t.now(), {}, &out));
  EXPECT_EQ(out.flags, kAck);
  ASSERT_TRUE(t.connection().PollTransmit(t.now(), {}, &out));
  EXPECT_EQ(out.flags, kAck | kPsh);
  t.OutNothing();
}

// Who receives the last that cwnd lets go has nothing more to wait for.
TEST(SendTrace, PushOnTheLastThatCwndLetsGo) {
  Trace t = Trace::Established();
  t.Send(100'000);
  TxSegment out;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(t.connection().PollTransmit(t.now(), {}, &out)) << i;
    EXPECT_EQ(out.flags, i < 9 ? kAck : kAck | kPsh) << i;
  }
  t.OutNothing();
}

TEST(SendTrace, SegmentationIsLeftToTheNic) {
  Trace t = Trace::Established();
  t.limits().max_tso_payload = 4500;
  t.Send(9500);
  t.Out(".  1:4001(4000) ack 1", ".  4001:8001(4000) ack 1",
        "P. 8001:9501(1500) ack 1");
  EXPECT_EQ(t.last_out().tso_mss, 1000);
  EXPECT_EQ(t.last_out().stream_offset, 8000u);
  // One of the NIC's segments was lost: only that one is sent again.
  t.At(1_ms).In(AckTo(5)).OutNothing();
  for (int i = 0; i < 3; ++i) t.In(AckTo(5));
  t.Out(".  5001:6001(1000) ack 1");
  EXPECT_EQ(t.last_out().tso_mss, 0);
  EXPECT_TRUE(t.last_out().retransmission);
  EXPECT_EQ(t.connection().stats().segments_out, 13u);
}

class PiecesOf : public SendSource {
 public:
  explicit PiecesOf(uint32_t bytes) : bytes_(bytes) {}
  uint32_t GatherableBytes(uint64_t, uint32_t want) const override {
    return std::min(want, bytes_);
  }

 private:
  uint32_t bytes_;
};

TEST(SendTrace, NoMoreThanTheNicCanGather) {
  Trace t = Trace::Established();
  PiecesOf source(300);
  t.limits().source = &source;
  t.Send(700).Out(".  1:301(300) ack 1", ".  301:601(300) ack 1");
  t.In(".  1:1(0) ack 601").Out("P. 601:701(100) ack 1");
}

// Nagle as Minshall has it: a small segment waits only for a small one.
TEST(NagleTrace, ASmallSegmentWaitsForTheSmallOneBefore) {
  Trace t = Trace::Established();
  t.Send(100).Out("P. 1:101(100) ack 1");
  t.Send(100).OutNothing();
  t.Send(900).Out(".  101:1101(1000) ack 1");  // A full one does not wait.
  t.Send(5).OutNothing();
  t.In(".  1:1(0) ack 101").Out("P. 1101:1106(5) ack 1");
}

TEST(NagleTrace, NoDelaySendsAtOnce) {
  Trace t = Trace::Established();
  t.connection().SetNoDelay(true);
  t.Send(1).Out("P. 1:2(1) ack 1").Send(1).Out("P. 2:3(1) ack 1");
}

TEST(NagleTrace, CloseFlushes) {
  Trace t = Trace::Established();
  t.Send(100).Out("P. 1:101(100) ack 1");
  t.Send(100).OutNothing();
  t.Close().Out("FP. 101:201(100) ack 1");
}

TEST(CorkTrace, HoldsAPartialSegmentForABoundedTime) {
  Trace t = Trace::Established();
  t.connection().SetCork(true);
  t.Send(1100).Out(".  1:1001(1000) ack 1");
  t.In(AckTo(1)).OutNothing();
  t.OutAt(200_ms, "P. 1001:1101(100) ack 1");
  t.In(".  1:1(0) ack 1101").Send(100).OutNothing();
  t.connection().SetCork(false);
  t.Out("P. 1101:1201(100) ack 1");
}

// MUST-62: the pointer names the byte behind the urgent ones, from wherever the
// segment begins; a retransmission carries it as well.
TEST(SendTrace, UrgentPointer) {
  Trace t = Trace::Established();
  t.limits().max_tso_payload = 4000;
  t.Send(1500).connection().MarkUrgent();
  t.Send(2500);  // No TSO before the end of urgent data.
  t.Out("U. 1:1001(1000) ack 1 win 65535 urg 1500",
        "U. 1001:2001(1000) ack 1 win 65535 urg 500",
        "P. 2001:4001(2000) ack 1");
  t.OutAt(t.connection().stats().rto,
          "U. 1:1001(1000) ack 1 win 65535 urg 1500");
}

// 65,535 is as far as the pointer reaches; the sequence may be longer. MUST-31.
TEST(SendTrace, UrgentBeyondThePointer) {
  Trace t = Trace::Established();
  t.Send(100'000).connection().MarkUrgent();
  TxSegment first;
  ASSERT_TRUE(t.connection().PollTransmit(t.now(), t.limits(), &first));
  EXPECT_EQ(first.flags, kAck | kUrg);
  EXPECT_EQ(first.urgent_pointer, 65'535);
  EXPECT_EQ(first.payload_bytes, 1000u);
}

TEST(SendTrace, QueueLimitAndWritable) {
  Trace::Setup setup;
  setup.options.send_queue_limit_bytes = 4000;
  Trace t = Trace::Established(setup);
  EXPECT_EQ(t.connection().Send(5000), 4000u);
  EXPECT_EQ(t.connection().Send(1), 0u);
  t.Out(Full(0), Full(1), Full(2), Full(3));
  t.In(AckTo(1)).ExpectEvents("acked writable");
  EXPECT_EQ(t.connection().Send(5000), 1000u);
}

// -- the peer's window
// ---------------------------------------------------------

TEST(PeerWindowTrace, NothingBeyondIt) {
  Trace t = Trace::Established({.peer_wnd = 2500});
  t.Send(10'000).Out(Full(0), Full(1));  // 500 would be silly.
  t.In(".  1:1(0) ack 1001 win 2500").Out(Full(2));
}

TEST(PeerWindowTrace, IsUnsigned) {  // MUST-1.
  Trace t = Trace::Established({.peer_wnd = 1000});
  t.In(".  1:1(0) ack 1 win 65535");
  EXPECT_EQ(t.connection().stats().snd_wnd, 65535u);
  t.In(".  1:1(0) ack 1 win 32768");
  EXPECT_EQ(t.connection().stats().snd_wnd, 32768u);
  t.Send(10'000).OutCount(10);
}

TEST(PeerWindowTrace, OldAcksDoNotShrinkIt) {  // SND.WL1 and WL2.
  Trace t = Trace::Established();
  t.Send(2000).Out(Full(0), Full(1));
  t.In(".  1:1(0) ack 2001 win 5000");
  t.In(".  1:1(0) ack 1001 win 100");
  EXPECT_EQ(t.connection().stats().snd_wnd, 5000u);
}

// RFC 9293 3.10.7.4: what was sent before the segment that told the window last
// says nothing of it, though it comes later.
TEST(PeerWindowTrace, ASegmentThatWasOvertakenDoesNotSetIt) {
  Trace t = Trace::Established();
  t.In(".  1001:2001(1000) ack 1 win 500");
  EXPECT_EQ(t.connection().stats().snd_wnd, 500u);
  t.In(".  1:1001(1000) ack 1 win 9000");
  EXPECT_EQ(t.connection().stats().snd_wnd, 500u);
  t.In(".  2001:2101(100) ack 1 win 700");
  EXPECT_EQ(t.connection().stats().snd_wnd, 700u);
}

// A retransmission bears a low sequence number and a new acknowledgment: its
// window counts, or SND.UNA would take the right edge along.
TEST(PeerWindowTrace, ARetransmissionsWindowCounts) {
  Trace t = Trace::Established({.peer_wnd = 4000});
  t.Send(10'000).Out(Full(0), Full(1), Full(2), Full(3));
  t.In("P. 11:21(10) ack 1 win 4000").Out(".  4001:4001(0) ack 1");
  t.In("P. 1:11(10) ack 2001 win 2000").Out(".  4001:4001(0) ack 21");
}

// A window smaller than a segment, of which half is on offer: (3) of the rule.
TEST(PeerWindowTrace, TinyWindowsAreUsed) {
  Trace t = Trace::Established({.peer_wnd = 600});
  t.Send(1000).Out(".  1:601(600) ack 1");
  t.In(".  1:1(0) ack 601 win 600").Out("P. 601:1001(400) ack 1");
}

TEST(PeerWindowTrace, ShrinkingIsTolerated) {  // RFC 9293 3.8.6.
  Trace t = TenInFlight();
  t.At(1_ms).In(".  1:1(0) ack 1001 win 100").OutNothing();
  t.In(".  1:1(0) ack 10001 win 0").OutNothing();
  t.In(".  1:1(0) ack 10001 win 1000").Out(Full(10));
}

// MUST-35: what was in flight is acknowledged, the window is closed: probes.
TEST(PeerWindowTrace, ShrunkToZeroItIsProbed) {
  Trace t = TenInFlight(12'000);
  t.At(1_ms).In(".  1:1(0) ack 10001 win 0").OutNothing();
  const Duration rto = t.connection().stats().rto;
  t.OutAt(1_ms + rto, ".  10001:10002(1) ack 1");
  t.In(".  1:1(0) ack 10001 win 5000");
  t.Out(".  10001:11001(1000) ack 1", "P. 11001:12001(1000) ack 1");
}

// SHLD-16, SHLD-17: what is in flight is sent again, window or not, and a peer
// that answers is no dead one, however often it refuses.
TEST(PeerWindowTrace, ShrunkWindowDoesNotTimeOut) {
  Trace::Setup setup;
  setup.options.data_retries = 3;
  Trace t = Trace::Established(setup);
  t.Send(2000).Out(Full(0), "P. 1001:2001(1000) ack 1");
  t.In(".  1:1(0) ack 1 win 0").OutNothing();
  for (int i = 0; i < 10; ++i) {
    t.ExpectOneWithin(121_s);
    EXPECT_EQ(t.last_out().stream_offset, 0u);
    t.In(".  1:1(0) ack 1 win 0").OutNothing();
  }
  t.Expect(State::kEstablished);
}

// RFC 9293 3.8.6.2.1 (4): a window that stays below a segment and below half
// of the largest one is used after the override's time, 0.1 to 1 s.
TEST(SillyWindowTrace, AnOverrideEndsTheWait) {
  Trace t = Trace::Established({.peer_wnd = 4000});
  t.Send(5000).Out(Full(0), Full(1), Full(2), Full(3));
  t.At(1_ms).In(".  1:1(0) ack 4001 win 600").OutNothing();
  t.OutAt(201_ms, ".  4001:4601(600) ack 1");
}

// RFC 9293 3.8.6.1: first after the RTO, then exponentially.
TEST(ProbeTrace, ZeroWindowIsProbedWithBackoff) {
  Trace t = Trace::Established();
  t.Send(1000).Out(Full(0));
  t.In(".  1:1(0) ack 1001 win 0").Send(5000).OutNothing();
  const Duration rto = t.connection().stats().rto;
  Duration at = rto;
  for (int i = 0; i < 5; ++i) {
    t.OutAt(at, ".  1001:1002(1) ack 1");
    t.In(".  1:1(0) ack 1001 win 0").OutNothing();
    at += rto * (int64_t{2} << i);
  }
  EXPECT_EQ(t.connection().stats().window_probes, 5u);
  t.In(".  1:1(0) ack 1001 win 10000");
  t.Out(".  1001:2001(1000) ack 1", ".  2001:3001(1000) ack 1",
        ".  3001:4001(1000) ack 1", ".  4001:5001(1000) ack 1",
        "P. 5001:6001(1000) ack 1");
}

TEST(ProbeTrace, AcceptedProbeCounts) {
  Trace t = Trace::Established();
  t.Send(1000).Out(Full(0));
  t.In(".  1:1(0) ack 1001 win 0").Send(10).OutNothing();
  t.OutAt(t.connection().stats().rto, ".  1001:1002(1) ack 1");
  t.In(".  1:1(0) ack 1002 win 100").Out("P. 1002:1011(9) ack 1");
  EXPECT_EQ(t.connection().acked_offset(), 1001u);
  t.In(".  1:1(0) ack 1011 win 100");
  EXPECT_EQ(t.connection().acked_offset(), 1010u);
}

// As long as the peer answers, the connection stays. Silence ends it.
TEST(ProbeTrace, OnlySilenceTimesOut) {
  Trace::Setup setup;
  setup.options.data_retries = 3;
  Trace t = Trace::Established(setup);
  t.Send(1000).Out(Full(0));
  t.In(".  1:1(0) ack 1001 win 0").Send(10).OutNothing();
  for (int i = 0; i < 10; ++i) {
    t.OutAt(
        t.connection().NextDeadline() - Instant::FromNanoseconds(1'000'000'000),
        ".  1001:1002(1) ack 1");
    t.In(".  1:1(0) ack 1001 win 0").OutNothing();
  }
  for (int i = 0; i < 3; ++i) {
    t.OutAt(
        t.connection().NextDeadline() - Instant::FromNanoseconds(1'000'000'000),
        ".  1001:1002(1) ack 1");
  }
  t.ExpectQuietUntil(10'000_s).Expect(State::kClosed);
  EXPECT_EQ(t.connection().error(), TcpError::kTimedOut);
}

// RFC 6429: a closed window that nobody waits for any more, though the peer
// answers each probe, ends with a reset.
TEST(ProbeTrace, AnOrphanDoesNotProbeForEver) {
  Trace::Setup setup;
  setup.options.orphan_retries = 3;
  setup.options.rtt.rto_max = 1_s;
  Trace t = Trace::Established(setup);
  t.Send(1000).Out(Full(0));
  t.In(".  1:1(0) ack 1001 win 0").Send(10).OutNothing();
  t.Close().ShutdownReceive().OutNothing();
  const auto next = [&] {
    return t.connection().NextDeadline() -
           Instant::FromNanoseconds(1'000'000'000);
  };
  for (int i = 0; i < 3; ++i) {
    t.OutAt(next(), ".  1001:1002(1) ack 1");
    t.In(".  1:1(0) ack 1001 win 0").OutNothing().Expect(State::kFinWait1);
  }
  t.OutAt(next(), "R. 1001:1001(0) ack 1").Expect(State::kClosed);
  EXPECT_EQ(t.connection().error(), TcpError::kTimedOut);
}

// -- the retransmission timer, RFC 6298 ---------------------------------------

// Segments of 1000 bytes that no timeout makes smaller: BlackHoleTrace does.
Trace::Setup NoBlackHole() {
  Trace::Setup setup;
  setup.options.default_mss = 1000;
  return setup;
}

TEST(TimeoutTrace, BacksOffAndGivesUp) {
  Trace::Setup setup = NoBlackHole();
  setup.options.data_retries = 3;
  Trace t = Trace::Established(setup);
  t.Send(1000).Out(Full(0));
  const Duration rto = t.connection().stats().rto;
  t.OutAt(rto, Full(0)).OutAt(3 * rto, Full(0)).OutAt(7 * rto, Full(0));
  t.ExpectQuietUntil(15 * rto).Expect(State::kClosed);
  t.ExpectEvents("stalled error closed");
  EXPECT_EQ(t.connection().error(), TcpError::kTimedOut);
  EXPECT_EQ(t.connection().stats().timeouts, 4u);
}

// R1, RFC 9293 3.8.3: after three retransmissions the user, and IP, are told
// (SHLD-9, SHLD-10); R2 ends it. Once for each time of trouble.
TEST(TimeoutTrace, StalledAtR1) {
  Trace t = Trace::Established(NoBlackHole());
  t.Send(1000).Out(Full(0));
  const Duration rto = t.connection().stats().rto;
  t.OutAt(rto, Full(0)).OutAt(3 * rto, Full(0)).ExpectEvents("");
  t.OutAt(7 * rto, Full(0)).ExpectEvents("stalled");
  t.OutAt(15 * rto, Full(0)).ExpectEvents("");
  t.In(AckTo(1)).ExpectEvents("acked");
  EXPECT_EQ(t.connection().error(), TcpError::kNone);
}

TEST(TimeoutTrace, R2IsLongEnough) {  // SHLD-11: 100 s at least.
  Trace t = Trace::Established(NoBlackHole());
  t.Send(1000).Out(Full(0));
  const Duration rto = t.connection().stats().rto;
  for (int i = 1; i <= 9; ++i) t.OutAt(((1 << i) - 1) * rto, Full(0));
  EXPECT_GT(t.now() - Instant::FromNanoseconds(1'000'000'000), 100_s);
  t.Expect(State::kEstablished);
}

TEST(TimeoutTrace, UserTimeoutEndsItSooner) {
  Trace::Setup setup;
  setup.options.user_timeout = 500_ms;
  Trace t = Trace::Established(setup);
  t.Send(1000).Out(Full(0));
  t.OutAt(t.connection().stats().rto, Full(0));
  t.ExpectQuietUntil(500_ms).Expect(State::kClosed);
}

// MUST-21: the application sets R2 of one connection, as a time.
TEST(TimeoutTrace, UserTimeoutIsSetLater) {
  Trace t = Trace::Established(NoBlackHole());
  const Duration rto = t.connection().stats().rto;
  t.connection().SetUserTimeout(700_ms, t.now());
  t.Send(1000).Out(Full(0)).OutAt(rto, Full(0)).OutAt(3 * rto, Full(0));
  t.ExpectQuietUntil(700_ms).Expect(State::kClosed);
  Trace patient = Trace::Established(NoBlackHole());
  patient.connection().SetUserTimeout(700_ms, patient.now());
  patient.Send(1000).Out(Full(0)).OutAt(rto, Full(0));
  patient.connection().SetUserTimeout(std::nullopt, patient.now());
  patient.OutAt(3 * rto, Full(0)).OutAt(7 * rto, Full(0));
}

// What is under way has waited for as long as it has.
TEST(TimeoutTrace, UserTimeoutCountsWhatWasSentBeforeItWasSet) {
  for (const bool had_one : {true, false}) {
    Trace::Setup setup = NoBlackHole();
    if (had_one) setup.options.user_timeout = 300_s;
    Trace t = Trace::Established(setup);
    const Duration rto = t.connection().stats().rto;
    t.Send(1000).Out(Full(0)).OutAt(rto, Full(0));
    t.connection().SetUserTimeout(700_ms, t.now());
    // Without one before, nobody has counted until now.
    const Duration since = had_one ? Duration() : rto;
    t.OutAt(3 * rto, Full(0));
    t.ExpectQuietUntil(since + 699_ms).Expect(State::kEstablished);
    t.ExpectQuietUntil(since + 700_ms).Expect(State::kClosed);
    EXPECT_EQ(t.connection().error(), TcpError::kTimedOut);
  }
}

// After a timeout all is sent again in slow start, as ACKs allow.
TEST(TimeoutTrace, SlowStartFromOneSegment) {
  Trace t = TenInFlight(10'000);
  const Duration rto = t.connection().stats().rto;
  t.OutAt(rto, Full(0));
  EXPECT_EQ(t.connection().stats().cwnd, 1000u);
  EXPECT_EQ(t.connection().stats().ssthresh, 5000u);
  t.In(AckTo(1)).Out(Full(1), Full(2));
  t.In(AckTo(3)).Out(Full(3), Full(4), Full(5), Full(6));
  // The rest had arrived after all.
  t.In(AckTo(10));
  EXPECT_EQ(t.connection().acked_offset(), 10'000u);
  EXPECT_EQ(t.connection().stats().segments_retransmitted, 7u);
}

// A hundred small segments, lost, would come as a hundred again: together they
// are three. RFC 9293 3.8.1.
TEST(TimeoutTrace, SmallSegmentsAreSentAgainAsOne) {
  Trace::Setup setup;
  setup.options.nodelay = true;
  Trace t = Trace::Established(setup);
  for (int i = 0; i < 100; ++i) t.Send(25).OutCount(1);
  t.Close().Out("F. 2501:2501(0) ack 1");
  t.OutAt(t.connection().stats().rto, ".  1:1001(1000) ack 1");
  t.OutNothing();
  t.In(".  1:1(0) ack 1001")
      .Out(".  1001:2001(1000) ack 1", "FP. 2001:2501(500) ack 1");
  EXPECT_EQ(t.connection().stats().segments_retransmitted, 3u);
  EXPECT_EQ(t.connection().stats().bytes_retransmitted, 2500u);
  t.In(".  1:1(0) ack 2502").OutNothing().Expect(State::kFinWait2);
}

// One frame gathers only so many pieces: the same limit as at first.
TEST(TimeoutTrace, JoinedSegmentsAreGatherable) {
  Trace::Setup setup;
  setup.options.nodelay = true;
  Trace t = Trace::Established(setup);
  const PiecesOf pieces(70);
  t.limits().source = &pieces;
  for (int i = 0; i < 4; ++i) t.Send(30).OutCount(1);
  t.At(t.connection().stats().rto);
  t.Out(".  1:61(60) ack 1", "P. 61:121(60) ack 1");
}

// Karn: no sample from what was sent twice; the backoff stays until there is
// one. RFC 6298 section 5.
TEST(TimeoutTrace, KarnWithoutTimestamps) {
  Trace t = Trace::Established();
  t.Send(1000).Out(Full(0));
  const Duration rto = t.connection().stats().rto;
  t.OutAt(rto, Full(0));
  t.In(AckTo(1));
  EXPECT_EQ(t.connection().stats().rto, 2 * rto);
  t.Send(1000).Out(Full(1));
  t.In(AckTo(2));
  EXPECT_LE(t.connection().stats().rto, rto);
}

// An ACK of two segments, of which one was sent twice, may be that one's.
TEST(TimeoutTrace, KarnForAnAckOfSeveral) {
  Trace t = Trace::Established();
  t.Send(2000).Out(Full(0), "P. 1001:2001(1000) ack 1");
  const Duration rto = t.connection().stats().rto;
  const Duration srtt = t.connection().stats().srtt;
  t.OutAt(rto, Full(0));
  t.At(rto + 10_ms).In(AckTo(2));
  EXPECT_EQ(t.connection().stats().srtt, srtt);
  EXPECT_EQ(t.connection().stats().rto, 2 * rto);
}

TEST(TimeoutTrace, TimestampsTellWhichCopyWasAcknowledged) {
  Trace t = Trace::Established({.timestamps = true});
  t.Send(500).Out("P. 1:501(500) ack 1");
  t.OutAt(t.connection().stats().rto, "P. 1:501(500) ack 1");
  const uint32_t sent = t.last_out().options.timestamps->val;
  t.At(230_ms).In(".  1:1(0) ack 501 <TS val 1200 ecr " + Num(sent) + ">");
  EXPECT_EQ(t.connection().stats().backoffs, 0u);
  EXPECT_GT(t.connection().stats().srtt, Duration());
  EXPECT_LT(t.connection().stats().srtt, 10_ms);
}

// The first copy had come, its ACK was lost. What that echo measures is the
// timeout, not the path: one such sample per lost ACK would let the RTO grow to
// its maximum.
TEST(TimeoutTrace, AnEchoOfTheFirstCopyIsNoSample) {
  Trace t = Trace::Established({.timestamps = true});
  const auto ack = [&](uint64_t to, uint32_t echo) {
    return ".  1:1(0) ack " + Num(to) + " <TS val 1200 ecr " + Num(echo) + ">";
  };
  t.At(1_ms).Send(500).Out("P. 1:501(500) ack 1");
  t.At(11_ms).In(ack(501, t.last_out().options.timestamps->val));
  const Duration srtt = t.connection().stats().srtt;
  const Duration rto = t.connection().stats().rto;
  t.Send(500).Out("P. 501:1001(500) ack 1");
  const uint32_t first = t.last_out().options.timestamps->val;
  t.OutAt(11_ms + rto, "P. 501:1001(500) ack 1");
  t.At(21_ms + rto).In(ack(1001, first));
  EXPECT_EQ(t.connection().stats().srtt, srtt);
  EXPECT_EQ(t.connection().stats().rto, 2 * rto);  // Until there is one.
  t.Send(500).Out("P. 1001:1501(500) ack 1");
  t.At(31_ms + rto).In(ack(1501, t.last_out().options.timestamps->val));
  EXPECT_EQ(t.connection().stats().backoffs, 0u);
  EXPECT_LT(t.connection().stats().rto, rto + 10_ms);
}

// TCP_USER_TIMEOUT of tcp(7): text that waits before a closed window is not
// delivered either, whether or not the peer answers the probes.
TEST(TimeoutTrace, UserTimeoutCountsBehindAClosedWindow) {
  for (const bool answers : {false, true}) {
    Trace::Setup setup;
    setup.options.user_timeout = 10_s;
    Trace t = Trace::Established(setup);
    t.In(".  1:1(0) ack 1 win 0").Send(100).OutNothing();
    for (int i = 0; i < 5; ++i) {  // The fifth after 6.2 s.
      t.ExpectOneWithin(4_s);
      if (answers) t.In(".  1:1(0) ack 1 win 0");
    }
    t.ExpectQuietUntil(9'999_ms).Expect(State::kEstablished);
    t.ExpectQuietUntil(10_s).Expect(State::kClosed);
    EXPECT_EQ(t.connection().error(), TcpError::kTimedOut);
  }
}

TEST(TimeoutTrace, UserTimeoutIsSetBehindAClosedWindow) {
  for (const bool had_one : {true, false}) {
    Trace::Setup setup;
    if (had_one) setup.options.user_timeout = 300_s;
    Trace t = Trace::Established(setup);
    t.In(".  1:1(0) ack 1 win 0").Send(100).OutNothing();
    for (int i = 0; i < 5; ++i) t.ExpectOneWithin(4_s);  // The last at 6.2 s.
    const Duration since = had_one ? Duration() : 7_s;
    // Without one before, nobody has counted until then.
    t.At(7_s).connection().SetUserTimeout(10_s, t.now());
    if (!had_one) t.ExpectOneWithin(6_s);
    t.ExpectQuietUntil(since + 9'999_ms).Expect(State::kEstablished);
    t.ExpectQuietUntil(since + 10_s).Expect(State::kClosed);
  }
}

// The time of what waited begins anew: it is under way now.
TEST(TimeoutTrace, UserTimeoutBeginsWhenTheWindowOpens) {
  Trace::Setup setup;
  setup.options.user_timeout = 10_s;
  Trace t = Trace::Established(setup);
  t.In(".  1:1(0) ack 1 win 0").Send(100).OutNothing();
  for (int i = 0; i < 5; ++i) t.ExpectOneWithin(4_s);
  t.At(9_s).In(".  1:1(0) ack 1").Out("P. 1:101(100) ack 1");
  for (int i = 0; i < 5; ++i) t.ExpectOneWithin(4_s);  // Sent again.
  t.ExpectQuietUntil(18'999_ms).Expect(State::kEstablished);
  t.ExpectQuietUntil(19_s).Expect(State::kClosed);
}

// -- NewReno, RFC 5681 3.2 and RFC 6582
// ----------------------------------------

// What lay in a data queue's slot was not read: options that may have been
// news. Such ACKs are not counted.
TEST(NewRenoTrace, CutOptionsMakeNoDuplicateAck) {
  Trace t = TenInFlight(10'000);
  t.At(10_ms);
  for (int i = 0; i < 3; ++i) {
    Segment seg = t.Parse(AckTo(0));
    seg.options_cut = true;
    (void)t.connection().OnSegment(seg, t.now());
    t.OutNothing();
  }
  EXPECT_EQ(t.connection().stats().duplicate_acks_in, 0u);
  for (int i = 0; i < 3; ++i) t.In(AckTo(0));
  t.Out(Full(0));
}

TEST(NewRenoTrace, ThirdDuplicateAckRetransmits) {
  Trace t = TenInFlight();
  t.At(10_ms).In(AckTo(0)).Out(Full(10));  // Limited transmit, RFC 3042.
  t.In(AckTo(0)).Out(Full(11));
  t.In(AckTo(0)).Out(Full(0));
  // Half of what was in flight, without limited transmit's. RFC 5681 3.2.
  EXPECT_EQ(t.connection().stats().ssthresh, 5000u);
  // From ten to five: one for two, the retransmission included. RFC 9937.
  t.In(AckTo(0)).OutNothing().In(AckTo(0)).Out(Full(12));
  t.In(AckTo(0)).OutNothing();
  // A full acknowledgment ends it.
  t.In(AckTo(12));
  EXPECT_EQ(t.connection().stats().cwnd, 5000u);
  t.Out(Full(13), Full(14), Full(15), Full(16));
}

// Duplicate ACKs are free: what they say was delivered is no more than was in
// flight. RFC 9937 6.2.
TEST(NewRenoTrace, DuplicatesWithoutEndLetNoMoreOut) {
  Trace t = TenInFlight();
  t.Send(1'000'000 - t.connection().queued_offset());
  t.At(10_ms).In(AckTo(0)).Out(Full(10));
  t.In(AckTo(0)).Out(Full(11));
  t.In(AckTo(0)).Out(Full(0));
  TxSegment out;
  for (int i = 0; i < 200; ++i) {
    t.In(AckTo(0));
    while (t.connection().PollTransmit(t.now(), {}, &out)) continue;
  }
  // With the two before, twelve are gone, if they are to be believed: five of
  // seventeen, which is ssthresh, are not.
  EXPECT_EQ(t.connection().sent_offset(), 17'000u);
  t.In(AckTo(12));
  while (t.connection().PollTransmit(t.now(), {}, &out)) continue;
  EXPECT_EQ(t.connection().stats().cwnd, 5000u);
}

// Two holes: a partial acknowledgment brings the second, without new
// duplicates.
TEST(NewRenoTrace, PartialAckRepairsTheNextHole) {
  Trace t = TenInFlight(10'000);
  t.At(10_ms).In(AckTo(0)).In(AckTo(0)).OutNothing();
  t.In(AckTo(0)).Out(Full(0));
  // Half of the flight is still out: PRR waits for one more to leave.
  t.In(AckTo(4)).OutNothing().In(AckTo(4)).Out(Full(4));
  t.In(AckTo(10));
  EXPECT_EQ(t.connection().stats().fast_recoveries, 1u);
  EXPECT_EQ(t.connection().stats().segments_retransmitted, 2u);
  EXPECT_EQ(t.connection().stats().timeouts, 0u);
}

TEST(NewRenoTrace, NoSecondRecoveryAfterATimeout) {
  Trace t = TenInFlight(11'000);
  t.OutAt(t.connection().stats().rto, Full(0));
  t.In(AckTo(10)).Out("P. 10001:11001(1000) ack 1");
  // Duplicates that our own repetition caused.
  t.In(AckTo(10)).In(AckTo(10)).In(AckTo(10)).OutNothing();
  EXPECT_EQ(t.connection().stats().fast_recoveries, 0u);
}

TEST(NewRenoTrace, WindowUpdatesAndTextAreNoDuplicates) {
  Trace t = TenInFlight(10'000);
  t.At(1_ms).In(".  1:1(0) ack 1 win 60000");
  t.In(".  1:1(0) ack 1 win 60001").In(".  1:1(0) ack 1 win 60002");
  t.In(".  1:1(0) ack 1 win 60003").In("P. 1:11(10) ack 1 win 60003");
  EXPECT_EQ(t.connection().stats().duplicate_acks_in, 0u);
}

// With SACK the blocks decide what a duplicate ACK is.
TEST(NewRenoTrace, SackBlocksMakeDuplicates) {
  Trace t = Trace::Established({.sack = true});
  t.Send(5000).Out(Full(0), Full(1), Full(2), Full(3), Full(4));
  // The peer got something twice: DSACK, RFC 2883. No duplicates.
  for (int i = 0; i < 3; ++i) t.In(".  1:1(0) ack 1001 <sack 1:1001>");
  t.OutNothing();
  EXPECT_EQ(t.connection().stats().duplicate_acks_in, 0u);
  // Out of order, and its window changes. A duplicate; with an RTT of nothing
  // there is no reordering to wait for.
  t.In(".  1:1(0) ack 1001 win 60000 <sack 2001:3001>").Out(Full(1));
  EXPECT_EQ(t.connection().stats().duplicate_acks_in, 1u);
}

// Text written meanwhile does not overtake what is to be sent again.
TEST(NewRenoTrace, RetransmissionsComeBeforeNewText) {
  Trace t = TenInFlight(10'000);
  t.OutAt(t.connection().stats().rto, Full(0));
  t.Send(10).OutNothing();
  t.In(AckTo(0));  // A duplicate: no F-RTO.
  t.In(AckTo(1)).Out(Full(1), Full(2));
}

TEST(NewRenoTrace, LostRetransmissionWaitsForTheTimer) {
  Trace t = TenInFlight(10'000);
  t.At(10_ms).In(AckTo(0)).In(AckTo(0)).In(AckTo(0)).Out(Full(0));
  t.OutAt(t.connection().stats().rto, Full(0));
}

// After an idle time of more than an RTO the window starts over. RFC 5681 4.1.
TEST(NewRenoTrace, IdleRestart) {
  Trace t = TenInFlight(10'000);
  t.At(1_ms).In(AckTo(10));
  EXPECT_GT(t.connection().stats().cwnd, 10'000u);
  t.At(10_s).Send(1000).Out("P. 10001:11001(1000) ack 1");
  EXPECT_EQ(t.connection().stats().cwnd, 10'000u);
}

// -- acknowledgments that are wrong
// ---------------------------------------------

TEST(AckFieldTrace, OfUnsentIsAnsweredAndDropped) {
  Trace t = Trace::Established();
  t.In("P. 1:11(10) ack 2").ExpectDrop(DropReason::kAckOfUnsent);
  t.Out(".  1:1(0) ack 1").ExpectNoSlotsInUse();
}

TEST(AckFieldTrace, OldOnesAreIgnoredButTheirTextCounts) {
  Trace t = TenInFlight(10'000);
  t.In(AckTo(5)).In("P. 1:11(10) ack 1").Out(".  10001:10001(0) ack 11");
  t.ExpectReadable(10);
  EXPECT_EQ(t.connection().acked_offset(), 5000u);
}

// RFC 5961 5.2: older than SND.UNA - MAX.SND.WND.
TEST(AckFieldTrace, TooOldIsChallenged) {
  Trace t = Trace::Established({.peer_wnd = 1000, .iss = SeqNum(0)});
  t.In("P. 1:11(10) ack 4000000000 win 1000");
  t.ExpectDrop(DropReason::kAckTooOld).Out(".  1:1(0) ack 1");
  t.ExpectNoSlotsInUse();
}

// -- sequence numbers that nothing renewed for 2 GiB
// -------------------------

// Sends 2.2 GiB in full segments, each acknowledged; returns how many bytes.
uint64_t MoveOn(Trace* t, uint32_t smss) {
  constexpr uint64_t kBytes = (uint64_t{2} << 30) + (200 << 20);
  const uint64_t from = t->connection().queued_offset();
  const uint64_t at_a_time = 1024 * uint64_t{smss};
  uint64_t sent = 0;
  TxSegment out;
  while (sent < kBytes) {
    sent += t->connection().Send(at_a_time);
    while (t->connection().acked_offset() < from + sent) {
      while (t->connection().PollTransmit(t->now(), t->limits(), &out)) {
      }
      const auto to = static_cast<uint32_t>(t->connection().sent_offset() + 1);
      t->In(".  1:1(0) ack " + Num(to));
    }
  }
  return from + sent;
}

Trace FarBehind(uint32_t smss) {
  Trace::Setup setup{.mss = static_cast<uint16_t>(smss), .peer_scale = 14};
  setup.options.send_queue_limit_bytes = 1024 * uint64_t{smss};
  Trace t = Trace::Established(setup);
  t.limits().max_tso_payload = 1024 * smss;
  return t;
}

// Nagle's rule looks at the end of the last small segment: of long ago.
TEST(LongAgoTrace, ASmallSegmentIsAllowed) {
  Trace t = FarBehind(60'000);
  t.Send(100).Out("P. 1:101(100) ack 1").In(".  1:1(0) ack 101");
  const uint64_t at = MoveOn(&t, 60'000) + 1;
  t.Send(100).Out("P. " + Num(static_cast<uint32_t>(at)) + ":" +
                  Num(static_cast<uint32_t>(at + 100)) + "(100) ack 1");
}

// RFC 6582's recover: the last recovery was long ago, or never.
TEST(LongAgoTrace, ALossIsRepairedByDuplicateAcks) {
  Trace t = FarBehind(60'000);
  const uint64_t at = MoveOn(&t, 60'000) + 1;
  t.Send(600'000).OutCount(1);
  const std::string ack = ".  1:1(0) ack " + Num(static_cast<uint32_t>(at));
  t.In(ack).In(ack).OutNothing().In(ack);
  t.Out(".  " + Num(static_cast<uint32_t>(at)) + ":" +
        Num(static_cast<uint32_t>(at + 60'000)) + "(60000) ack 1");
  EXPECT_EQ(t.connection().stats().fast_recoveries, 1u);
}

}  // namespace
}  // namespace devwire
