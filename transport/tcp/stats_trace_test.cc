// What a connection says of itself, as Linux means it in tcp_info: what is in
// flight and how, what was delivered and how fast, how disordered it was, and
// what timeouts cost.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "transport/tcp/delivery_rate.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

std::string Num(uint64_t n) { return std::to_string(n); }
std::string AckTo(uint64_t segments) {
  return ".  1:1(0) ack " + Num(1 + 1000 * segments);
}
// Segments [left, right) of 1000 bytes.
std::string Sack(uint64_t ack, uint64_t left, uint64_t right) {
  return AckTo(ack) + " <sack " + Num(1 + 1000 * left) + ":" +
         Num(1 + 1000 * right) + ">";
}

// Established at 100 ms, which is the RTT, and ten segments sent then.
Trace TenInFlight(uint64_t queued = 10, bool sack = true) {
  Trace t({.sack = sack});
  t.OpenActive().OutCount(1);
  t.At(100_ms).In(std::string("S. 0:0(0) ack 1 <mss 1000") +
                  (sack ? ",sackOK>" : ">"));
  t.OutCount(1).Send(1000 * queued).OutCount(10);
  return t;
}

Connection::Stats Of(Trace& t) { return t.connection().stats(); }
using CaState = Connection::Stats::CaState;

// -- what is in flight --------------------------------------------------------

TEST(StatsTrace, SackedLostAndSentAgain) {
  Trace t = TenInFlight();
  EXPECT_EQ(Of(t).in_flight, 10u);
  t.At(200_ms).In(Sack(0, 2, 4));
  EXPECT_EQ(Of(t).sacked, 2u);
  EXPECT_EQ(Of(t).lost, 0u);
  EXPECT_EQ(Of(t).ca_state, CaState::kDisorder);
  // Both ahead of three SACKed ones are lost, and one of them is sent again:
  // lost_out counts it until it arrives.
  t.In(Sack(0, 2, 5)).OutCount(1);
  EXPECT_EQ(Of(t).sacked, 3u);
  EXPECT_EQ(Of(t).lost, 2u);
  EXPECT_EQ(Of(t).sent_again, 1u);
  EXPECT_EQ(Of(t).ca_state, CaState::kRecovery);
  t.At(300_ms).In(AckTo(10));
  EXPECT_EQ(Of(t).in_flight, 0u);
  EXPECT_EQ(Of(t).sacked + Of(t).lost + Of(t).sent_again, 0u);
  EXPECT_EQ(Of(t).ca_state, CaState::kOpen);
}

// Linux counts duplicate ACKs as if they were SACKs.
TEST(StatsTrace, DuplicateAcksCountAsSacked) {
  Trace t = TenInFlight(10, /*sack=*/false);
  t.At(200_ms).In(AckTo(0)).In(AckTo(0));
  EXPECT_EQ(Of(t).sacked, 2u);
  EXPECT_EQ(Of(t).delivered_segments, 3u);
  EXPECT_EQ(Of(t).ca_state, CaState::kDisorder);
}

// A tail loss probe is sent again without being thought lost.
TEST(StatsTrace, AProbeIsNotLost) {
  Trace t = TenInFlight();
  t.At(200_ms).In(AckTo(9)).OutAt(500_ms, ".  9001:10001(1000) ack 1");
  EXPECT_EQ(Of(t).sent_again, 1u);
  EXPECT_EQ(Of(t).lost, 0u);
}

// -- what was delivered -------------------------------------------------------

TEST(StatsTrace, DeliveredCountsTheSynAndEachSegmentOnce) {
  Trace t = TenInFlight();
  EXPECT_EQ(Of(t).delivered_segments, 1u);
  t.At(200_ms).In(Sack(2, 4, 6));
  EXPECT_EQ(Of(t).delivered_segments, 1u + 2 + 2);
  t.At(201_ms).In(AckTo(6));
  EXPECT_EQ(Of(t).delivered_segments, 1u + 6);
  EXPECT_EQ(Of(t).delivered_ce, 0u);
}

TEST(StatsTrace, DeliveredByAnAckWithEce) {
  Trace::Setup setup{.sack = true};
  setup.options.ecn = EcnMode::kOn;
  Trace t = Trace::Established(setup);
  t.Send(10'000).OutCount(10);
  t.At(100_ms).In(AckTo(3));
  EXPECT_EQ(Of(t).delivered_ce, 0u);
  EXPECT_EQ(Of(t).ca_state, CaState::kOpen);
  t.In("E. 1:1(0) ack 5001");
  EXPECT_EQ(Of(t).delivered_ce, 2u);
  EXPECT_EQ(Of(t).ca_state, CaState::kCwr);
  t.At(200_ms).In(AckTo(10));
  EXPECT_EQ(Of(t).delivered_ce, 2u);
  EXPECT_EQ(Of(t).ca_state, CaState::kOpen);
}

// ECN_SEEN: text that could be marked came.
TEST(StatsTrace, EctSeen) {
  Trace::Setup setup;
  setup.options.ecn = EcnMode::kOn;
  Trace t = Trace::Established(setup);
  t.In(".  1:101(100) ack 1");
  EXPECT_FALSE(Of(t).ect_was_seen);
  t.InMarked(".  101:201(100) ack 1");
  EXPECT_TRUE(Of(t).ect_was_seen);
}

// -- how fast -----------------------------------------------------------------

// Ten segments in one burst, acknowledged one round trip later: 10,000 bytes in
// 100 ms, at whatever speed the ACKs come.
TEST(DeliveryRateTrace, ABurstCountsOverItsRoundTrip) {
  Trace t = TenInFlight(/*queued=*/30);
  t.At(200_ms).In(AckTo(10)).OutCount(20);
  EXPECT_NEAR(static_cast<double>(Of(t).delivery_rate), 100'000, 1000);
  // Nothing was there to send before the first; then text was always waiting.
  EXPECT_TRUE(Of(t).delivery_rate_is_app_limited);
  t.At(300_ms).In(AckTo(20)).In(AckTo(30));
  EXPECT_FALSE(Of(t).delivery_rate_is_app_limited);
  EXPECT_NEAR(static_cast<double>(Of(t).delivery_rate), 200'000, 2000);
}

// Two ACKs at once say no more than one: P of the first was sent when the same
// was delivered.
TEST(DeliveryRateTrace, CompressedAcksDoNotLookFast) {
  Trace t = TenInFlight(/*queued=*/30);
  t.At(200_ms);
  for (uint64_t i = 1; i <= 10; ++i) t.In(AckTo(i));
  EXPECT_NEAR(static_cast<double>(Of(t).delivery_rate), 100'000, 1000);
}

// What the application sends slowly tells nothing of the path, and does not
// replace what was measured before.
TEST(DeliveryRateTrace, AnApplicationWithLittleToSay) {
  Trace t = TenInFlight(/*queued=*/20);
  t.At(200_ms).In(AckTo(10)).OutCount(10);
  t.At(300_ms).In(AckTo(20));
  const uint64_t rate = Of(t).delivery_rate;
  EXPECT_NEAR(static_cast<double>(rate), 100'000, 1000);
  for (int i = 0; i < 3; ++i) {
    const Duration at = 400_ms + i * 100_ms;
    t.At(at).Send(1000).OutCount(1);
    t.At(at + 100_ms).In(AckTo(21 + static_cast<uint64_t>(i)));
    EXPECT_EQ(Of(t).delivery_rate, rate);
  }
}

TEST(DeliveryRateTrace, BeforeTheFirstAckThereIsNone) {
  Trace t = TenInFlight();
  EXPECT_EQ(Of(t).delivery_rate, 0u);
  EXPECT_TRUE(Of(t).delivery_rate_is_app_limited);
}

// An ACK that comes sooner than any did before was held back and let go with
// others: no rate.
TEST(DeliveryRate, NoRateFromLessThanARoundTrip) {
  DeliveryRate rate;
  const Instant start = Instant() + 1_s;
  const DeliveryRate::Newest first{rate.OnSent(start, /*is_idle=*/true), start};
  RateSample sample = rate.OnDelivered(start + 1_ms, 5000, first, 10_ms);
  EXPECT_EQ(sample.interval, Duration());
  EXPECT_EQ(sample.bytes_per_second(), 0u);
  EXPECT_EQ(sample.total_delivered, 5000u);
  EXPECT_EQ(rate.latest().bytes_per_second(), 0u);
}

// Where more than 4 GiB were delivered, and 18 minutes have passed.
TEST(DeliveryRate, ItsShortNumbersWrap) {
  DeliveryRate rate;
  Instant now = Instant() + 1_s;
  for (int i = 0; i < 20; ++i) {
    const DeliveryRate::Newest sent{rate.OnSent(now, /*is_idle=*/true), now};
    now = now + 100_s;
    const RateSample sample =
        rate.OnDelivered(now, 1'000'000'000, sent, 100_ms);
    EXPECT_EQ(sample.delivered, 1'000'000'000u);
    EXPECT_EQ(sample.prior_delivered,
              uint64_t{1'000'000'000} * static_cast<uint64_t>(i));
    EXPECT_NEAR(static_cast<double>(sample.bytes_per_second()), 1e7, 10);
  }
}

// A congestion control gets each sample, in recovery too.
class Recorder final : public CongestionControl {
 public:
  const char* name() const override { return "recorder"; }
  void OnAck(const Ack&) override {}
  void OnRateSample(const RateSample& sample) override {
    samples.push_back(sample);
  }
  static std::vector<RateSample> samples;

 protected:
  uint32_t OnCongestion(Signal, uint32_t, Instant) override { return 5000; }
};
std::vector<RateSample> Recorder::samples;

TEST(DeliveryRateTrace, ACongestionControlGetsEverySample) {
  Recorder::samples.clear();
  Trace::Setup setup{.sack = true};
  setup.options.congestion = [] {
    return std::unique_ptr<CongestionControl>(new Recorder);
  };
  Trace t = Trace::Established(setup);
  t.Send(10'000).OutCount(10);
  t.At(100_ms).In(AckTo(2));
  t.At(101_ms).In(Sack(2, 4, 7)).OutCount(2);
  t.At(102_ms).In(AckTo(2));  // Nothing delivered.
  ASSERT_EQ(Recorder::samples.size(), 2u);
  EXPECT_EQ(Recorder::samples[0].newly_delivered, 2000u);
  EXPECT_EQ(Recorder::samples[0].newly_lost, 0u);
  EXPECT_EQ(Recorder::samples[0].pipe, 8000u);
  EXPECT_EQ(Recorder::samples[1].newly_delivered, 3000u);
  EXPECT_EQ(Recorder::samples[1].newly_lost, 2000u);
  EXPECT_EQ(Recorder::samples[1].total_delivered, 5000u);
  EXPECT_EQ(Recorder::samples[1].prior_delivered, 0u);
}

// -- what held the sender back ------------------------------------------------

Duration Busy(Trace& t) { return Of(t).sender_time.busy(t.now()); }
Duration WindowLimited(Trace& t) {
  return Of(t).sender_time.rwnd_limited(t.now());
}
Duration BufferLimited(Trace& t) {
  return Of(t).sender_time.sndbuf_limited(t.now());
}

// From the first text until all is acknowledged, FIN included; not while idle.
TEST(SenderTimeTrace, BusyUntilAllIsAcknowledged) {
  Trace t = TenInFlight(/*queued=*/10);
  EXPECT_EQ(Busy(t), Duration()) << "nor by the handshake";
  t.At(150_ms);
  EXPECT_EQ(Busy(t), 50_ms);
  t.At(200_ms).In(AckTo(10)).OutNothing();
  t.At(500_ms);
  EXPECT_EQ(Busy(t), 100_ms);
  t.Close().OutCount(1);
  t.At(520_ms).In(".  1:1(0) ack 10002").OutNothing();
  t.At(900_ms);
  EXPECT_EQ(Busy(t), 120_ms);
  EXPECT_EQ(WindowLimited(t) + BufferLimited(t), Duration());
}

TEST(SenderTimeTrace, AWindowThatIsTooSmall) {
  Trace t = Trace::Established({.peer_wnd = 2500});
  t.Send(4000).OutCount(2);
  t.At(30_ms).In(AckTo(1)).OutCount(1);  // 500 bytes of room, never a segment.
  EXPECT_EQ(WindowLimited(t), 30_ms);
  t.At(50_ms).In(AckTo(2) + " win 4000").OutCount(1);
  t.At(80_ms);
  EXPECT_EQ(WindowLimited(t), 50_ms);
  t.In(AckTo(4)).OutNothing();
  t.At(100_ms);
  EXPECT_EQ(Busy(t), 80_ms);
  // Closed: waiting for it to open is busy too.
  t.In(AckTo(4) + " win 0").Send(10).OutNothing();
  t.At(110_ms);
  EXPECT_EQ(WindowLimited(t), 60_ms);
  EXPECT_EQ(Busy(t), 90_ms);
}

// A small congestion window is not the peer's fault.
TEST(SenderTimeTrace, CongestionControlIsNeither) {
  Trace t = TenInFlight(/*queued=*/100);
  t.At(200_ms);
  EXPECT_EQ(Busy(t), 100_ms);
  EXPECT_EQ(WindowLimited(t) + BufferLimited(t), Duration());
}

TEST(SenderTimeTrace, ABufferThatIsTooSmall) {
  Trace::Setup setup;
  setup.options.send_queue_limit_bytes = 4000;
  Trace t = Trace::Established(setup);
  EXPECT_EQ(t.connection().Send(10'000), 4000u);
  t.OutCount(4);
  t.At(20_ms).In(AckTo(1)).OutNothing();  // A quarter is free: room again.
  EXPECT_EQ(BufferLimited(t), 20_ms);
  t.At(50_ms).Send(500).OutCount(1);
  t.At(60_ms).In(AckTo(4)).OutNothing();
  EXPECT_EQ(BufferLimited(t), 20_ms) << "the user had no more";
  EXPECT_EQ(Busy(t), 60_ms);
}

// The same where the caller keeps the limit.
TEST(SenderTimeTrace, ABufferThatTheCallerKeeps) {
  Trace t = Trace::Established();
  t.Send(2000).OutCount(2);
  t.At(10_ms);
  t.connection().OnSendRefused(t.now());
  t.At(30_ms);
  EXPECT_EQ(BufferLimited(t), 20_ms);
  t.connection().OnSendRoom(t.now());
  t.At(40_ms);
  EXPECT_EQ(BufferLimited(t), 20_ms);
  EXPECT_EQ(Busy(t), 40_ms);
}

TEST(SenderTimeTrace, EndsWithTheConnection) {
  Trace t = Trace::Established();
  t.Send(2000).OutCount(2);
  t.At(10_ms).Abort().OutCount(1);
  t.OutNothing().At(30_ms);
  EXPECT_EQ(Busy(t), 10_ms);
}

// -- how disordered -----------------------------------------------------------

// Segment 0 was overtaken by 1 to 4, as Linux measures it: from its beginning
// to the highest that arrived.
TEST(StatsTrace, ReorderingIsMeasuredInSegments) {
  Trace t = TenInFlight();
  EXPECT_EQ(Of(t).reordering, 3u);
  t.At(200_ms).In(Sack(0, 1, 3));
  EXPECT_EQ(Of(t).reorderings_seen, 0u);
  t.In(AckTo(3));
  EXPECT_EQ(Of(t).reorderings_seen, 1u);
  EXPECT_EQ(Of(t).reordering, 3u);
  t.At(201_ms).In(Sack(3, 9, 10)).In(Sack(3, 4, 5));
  EXPECT_EQ(Of(t).reorderings_seen, 2u);
  EXPECT_EQ(Of(t).reordering, 6u);
}

// One block of three segments, and one byte.
TEST(StatsTrace, DsacksCountSegments) {
  Trace t = TenInFlight();
  t.At(200_ms).In(AckTo(5) + " <sack 1:3001>");
  EXPECT_EQ(Of(t).dsack_segments, 3u);
  t.In(AckTo(6) + " <sack 5001:5002>");
  EXPECT_EQ(Of(t).dsack_segments, 4u);
  EXPECT_EQ(Of(t).dsacks_in, 2u);
}

// -- timeouts -----------------------------------------------------------------

TEST(StatsTrace, TimeoutsAndTheTimeTheyTook) {
  Trace t = TenInFlight(10, /*sack=*/false);
  t.OutAt(400_ms, ".  1:1001(1000) ack 1");
  EXPECT_EQ(Of(t).rto_recoveries, 1u);
  EXPECT_EQ(Of(t).rto_since, t.now());
  t.OutAt(1000_ms, ".  1:1001(1000) ack 1");  // Again: the same recovery.
  EXPECT_EQ(Of(t).timeouts, 2u);
  EXPECT_EQ(Of(t).rto_recoveries, 1u);
  EXPECT_EQ(Of(t).rto_time, Duration());
  t.At(1100_ms).In(AckTo(10));
  EXPECT_EQ(Of(t).rto_time, 700_ms);
  EXPECT_EQ(Of(t).rto_since, Instant());
}

TEST(StatsTrace, TheSynsTimeoutsCountToo) {
  Trace t({});
  t.OpenActive().OutCount(1).OutAt(1_s, "S 0:0(0)");
  EXPECT_EQ(Of(t).rto_recoveries, 1u);
  t.At(1100_ms).In("S. 0:0(0) ack 1 <mss 1000>").OutCount(1);
  EXPECT_EQ(Of(t).rto_time, 100_ms);
}

// tcpi_probes is icsk_probes_out: unanswered ones. tcp_ack() of Linux sets it
// to 0; the header says "without an answer".
TEST(StatsTrace, AnsweredProbesAreNotCounted) {
  Trace t = Trace::Established();
  t.In(".  1:1(0) ack 1 win 0").Send(100).OutNothing();
  for (int i = 0; i < 5; ++i) {
    t.ExpectOneWithin(100_s).In(".  1:1(0) ack 1 win 0");
  }
  EXPECT_EQ(t.connection().stats().probes, 0u);
}

// Linux counts window probes in tcpi_probes, not in tcpi_retransmits.
TEST(StatsTrace, ProbesAreNoRetransmissions) {
  Trace t = Trace::Established();
  t.In(".  1:1(0) ack 1 win 0").Send(100).OutNothing();
  for (int i = 0; i < 3; ++i) t.ExpectOneWithin(100_s);
  EXPECT_EQ(t.connection().stats().retries, 0u);
}

}  // namespace
}  // namespace devwire
