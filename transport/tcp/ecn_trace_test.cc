// Explicit congestion notification: RFC 3168 6.1, and DCTCP's echo, RFC 8257.
#include <gtest/gtest.h>

#include <string>

#include "transport/tcp/dctcp.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

std::string Num(uint64_t n) { return std::to_string(n); }
// The i-th segment of 1000 bytes, from 0, either way.
std::string Full(uint64_t i, const char* flags = ".  ") {
  return flags + Num(1 + 1000 * i) + ":" + Num(1001 + 1000 * i) +
         "(1000) ack 1";
}
std::string AckTo(uint64_t segments, const char* flags = ".  ") {
  return std::string(flags) + "1:1(0) ack " + Num(1 + 1000 * segments);
}

Trace::Setup With(EcnMode mode) {
  Trace::Setup setup;
  setup.options.ecn = mode;
  return setup;
}

Trace::Setup WithDctcp() {
  Trace::Setup setup = With(EcnMode::kOn);
  setup.options.congestion = &NewDctcp;
  return setup;
}

// A listener's Connection that got this SYN.
Trace Answering(EcnMode mode, const char* syn) {
  Trace t(With(mode));
  t.OpenPassive(syn);
  return t;
}

// -- handshake, RFC 3168 6.1.1
// ------------------------------------------------

TEST(EcnHandshakeTrace, AskedForAndGranted) {
  Trace t(With(EcnMode::kOn));
  t.OpenActive().Out("SEW 0:0(0)");
  EXPECT_EQ(t.last_out().ecn, kEcnNotEct);  // MUST NOT on a SYN.
  t.In("SE. 0:0(0) ack 1 <mss 1000>").Out(".  1:1(0) ack 1");
  EXPECT_TRUE(t.connection().stats().ecn);
}

// A host that only reflects our flags has not agreed. 6.1.1.2.
TEST(EcnHandshakeTrace, AskedForAndNotGranted) {
  for (const char* flags : {"S. ", "SW. ", "SEW. "}) {
    Trace t(With(EcnMode::kOn));
    t.OpenActive().Out("SEW 0:0(0)");
    t.In(std::string(flags) + "0:0(0) ack 1 <mss 1000>");
    t.Out(".  1:1(0) ack 1").Send(1000).Out(Full(0));
    EXPECT_EQ(t.last_out().ecn, kEcnNotEct);
    EXPECT_FALSE(t.connection().stats().ecn);
  }
}

// Linux's tcp_ecn 2, the default: never asked for.
TEST(EcnHandshakeTrace, NotAskedFor) {
  for (const EcnMode mode : {EcnMode::kOff, EcnMode::kWhenAsked}) {
    Trace t(With(mode));
    t.OpenActive().Out("S 0:0(0)");
    t.In("SE. 0:0(0) ack 1 <mss 1000>").Out(".  1:1(0) ack 1");
    EXPECT_FALSE(t.connection().stats().ecn);
  }
}

TEST(EcnHandshakeTrace, GrantedToAPeerThatAsks) {
  for (const EcnMode mode : {EcnMode::kOn, EcnMode::kWhenAsked}) {
    Trace t = Answering(mode, "SEW 0:0(0) <mss 1000>");
    t.Out("SE. 0:0(0) ack 1");
    EXPECT_EQ(t.last_out().ecn, kEcnNotEct);
    t.In(".  1:1(0) ack 1").Send(1000).Out(Full(0));
    EXPECT_EQ(t.last_out().ecn, kEcnEct0);
  }
}

TEST(EcnHandshakeTrace, NotGranted) {
  Answering(EcnMode::kOff, "SEW 0:0(0) <mss 1000>").Out("S. 0:0(0) ack 1");
  for (const char* syn : {"S 0:0(0)", "SE 0:0(0)", "SW 0:0(0)"}) {
    Answering(EcnMode::kOn, syn).Out("S. 0:0(0) ack 1");
  }
}

// The first SYN may have been dropped for its flags. 6.1.1.1; once sent
// without, ECT must not be used whatever the SYN-ACK says.
TEST(EcnHandshakeTrace, SynAgainDoesWithout) {
  Trace t(With(EcnMode::kOn));
  t.OpenActive().Out("SEW 0:0(0)").OutAt(1_s, "S 0:0(0)");
  t.In("SE. 0:0(0) ack 1 <mss 1000>").Out(".  1:1(0) ack 1");
  EXPECT_FALSE(t.connection().stats().ecn);
}

// The same from the other side: 6.1.1.1, example (1) to (4).
TEST(EcnHandshakeTrace, PeersSynAgainDoesWithout) {
  Trace t = Answering(EcnMode::kWhenAsked, "SEW 0:0(0) <mss 1000>");
  t.Out("SE. 0:0(0) ack 1");
  t.In("S 0:0(0) <mss 1000>").Out("S. 0:0(0) ack 1");
  t.In("SEW 0:0(0) <mss 1000>").Out("S. 0:0(0) ack 1");
  EXPECT_FALSE(t.connection().stats().ecn);
}

TEST(EcnHandshakeTrace, SimultaneousOpen) {
  Trace t(With(EcnMode::kOn));
  t.OpenActive().Out("SEW 0:0(0)");
  t.In("SEW 0:0(0) <mss 1000>").Out("SE. 0:0(0) ack 1");
  t.In("SE. 0:0(0) ack 1 <mss 1000>").Out(".  1:1(0) ack 1");
  EXPECT_TRUE(t.connection().stats().ecn);
  Trace plain(With(EcnMode::kOn));
  plain.OpenActive().Out("SEW 0:0(0)");
  plain.In("S 0:0(0) <mss 1000>").Out("S. 0:0(0) ack 1");
  EXPECT_FALSE(plain.connection().stats().ecn);
}

// -- receiver, 6.1.3
// ----------------------------------------------------------

TEST(EcnReceiverTrace, EchoesUntilCwr) {
  Trace t = Trace::Established(With(EcnMode::kOn));
  t.InMarked(Full(0)).Out(AckTo(1, "E. "));
  t.In(Full(1)).Out(AckTo(2, "E. "));
  t.In(Full(2)).Out(AckTo(3, "E. "));
  t.In(Full(3, "W. ")).Out(AckTo(4));
  t.In(Full(4)).Out(AckTo(5));
  t.InMarked(Full(5, "W. ")).Out(AckTo(6, "E. "));  // CWR first, then CE.
  EXPECT_EQ(t.connection().stats().ce_segments_in, 2u);
}

// The echo goes with text too, and at once: no delayed ACK holds it.
TEST(EcnReceiverTrace, TheFirstEchoIsNotDelayed) {
  Trace t = Trace::Established(With(EcnMode::kOn));
  for (int i = 0; i < 16; ++i) t.In(Full(i)).Out(AckTo(i + 1));
  // The quick ACKs are used up.
  t.InMarked(Full(16)).Out(AckTo(17, "E. "));
  t.In(Full(17)).OutNothing();
  t.Send(1000).Out("E. 1:1001(1000) ack 18001");
}

// 6.1.5: CE outside of the window means nothing. 6.1.6: on a probe it does.
TEST(EcnReceiverTrace, OnlyTextInTheWindowCounts) {
  Trace::Setup setup = With(EcnMode::kOn);
  setup.options.receive.byte_budget = 2000;
  Trace t = Trace::Established(setup);
  t.InMarked(".  9001:9101(100) ack 1").Out(".  1:1(0) ack 1");
  t.In(Full(0)).Out(AckTo(1));
  t.InMarked(Full(0)).Out(AckTo(1));                 // Known.
  t.InMarked(".  1001:1001(0) ack 1").OutNothing();  // No text.
  t.In(Full(1)).Out(".  1:1(0) ack 2001 win 0");
  t.InMarked(".  2001:2002(1) ack 1").Out("E. 1:1(0) ack 2001 win 0");
}

TEST(EcnReceiverTrace, OutOfOrderTextIsEchoed) {
  Trace t = Trace::Established(With(EcnMode::kOn));
  t.InMarked(Full(1)).Out(AckTo(0, "E. "));
  t.In(Full(0)).Out(AckTo(2, "E. "));
}

TEST(EcnReceiverTrace, WithoutAgreementMarksAreIgnored) {
  Trace t = Trace::Established();
  t.InMarked(Full(0)).Out(AckTo(1));
}

// -- sender, 6.1.2
// ------------------------------------------------------------

// Established with ECN, and ten segments sent.
Trace TenInFlight(const Trace::Setup& setup) {
  Trace t = Trace::Established(setup);
  t.Send(100'000);
  t.Out(Full(0), Full(1), Full(2), Full(3), Full(4), Full(5), Full(6), Full(7),
        Full(8), Full(9));
  EXPECT_EQ(t.last_out().ecn, kEcnEct0);
  return t;
}

TEST(EcnSenderTrace, HalvesOncePerWindowAndSaysSo) {
  Trace t = TenInFlight(With(EcnMode::kOn));
  t.At(10_ms).In(AckTo(1, "E. ")).OutNothing();
  EXPECT_EQ(t.connection().stats().cwnd, 5000u);
  EXPECT_EQ(t.connection().stats().ssthresh, 5000u);
  t.In(AckTo(5, "E. ")).OutNothing();  // The same window of data.
  EXPECT_EQ(t.connection().stats().cwnd, 5000u);
  t.In(AckTo(6, "E. ")).Out(Full(10, "W. "));  // The first new text: CWR.
  t.In(AckTo(10, "E. ")).Out(Full(11), Full(12), Full(13), Full(14));
  EXPECT_EQ(t.connection().stats().cwnd, 5000u);
  // Text after CWR was marked too: a new window, a new reduction.
  t.In(AckTo(11, "E. ")).OutNothing();
  EXPECT_EQ(t.connection().stats().cwnd, 2500u);
  t.In(AckTo(14)).Out(Full(15, "W. "), Full(16));
  EXPECT_EQ(t.connection().stats().ecn_reductions, 2u);
}

// CWR tells of a loss as well; the retransmission is not ECT and has no CWR.
// 6.1.2, 6.1.5.
TEST(EcnSenderTrace, LossIsAReductionToo) {
  Trace t = TenInFlight(With(EcnMode::kOn));
  t.At(10_ms);
  for (int i = 0; i < 3; ++i) t.In(AckTo(0));
  t.Out(Full(0));
  EXPECT_TRUE(t.last_out().retransmission);
  EXPECT_EQ(t.last_out().ecn, kEcnNotEct);
  const uint32_t cwnd = t.connection().stats().cwnd;
  t.In(AckTo(10, "E. "));  // Of the window that was answered already.
  EXPECT_LE(t.connection().stats().cwnd, cwnd);
  EXPECT_EQ(t.connection().stats().ecn_reductions, 0u);
  TxSegment out;
  while (t.connection().PollTransmit(t.now(), {}, &out) &&
         out.stream_offset != 10'000) {
    EXPECT_EQ(out.flags & kCwr, 0);
  }
  EXPECT_EQ(out.stream_offset, 10'000u);
  EXPECT_EQ(out.flags & kCwr, kCwr);
}

// A NIC may put CWR on every piece of a TSO send: it travels alone.
TEST(EcnSenderTrace, CwrIsNoTsoSend) {
  Trace t = Trace::Established(With(EcnMode::kOn));
  t.limits().max_tso_payload = 60'000;
  t.Send(100'000).Out(".  1:10001(10000) ack 1");
  t.At(10_ms).In(AckTo(1, "E. ")).OutNothing();
  t.In(AckTo(10)).Out(Full(10, "W. "), ".  11001:16001(5000) ack 1");
}

// 6.1.6: a window probe is not ECT. Nor is a bare ACK, or a FIN without text.
TEST(EcnSenderTrace, OnlyNewTextIsEct) {
  Trace t = Trace::Established(With(EcnMode::kOn));
  EXPECT_EQ(t.last_out().ecn, kEcnNotEct);
  t.Send(1000).Out(Full(0)).In(AckTo(1)).In(".  1:1(0) ack 1001 win 0");
  t.Send(10).ExpectOneWithin(10_s);
  EXPECT_EQ(t.last_out().payload_bytes, 1u);
  EXPECT_EQ(t.last_out().ecn, kEcnNotEct);
  Trace fin = Trace::Established(With(EcnMode::kOn));
  fin.Close().Out("F. 1:1(0) ack 1");
  EXPECT_EQ(fin.last_out().ecn, kEcnNotEct);
}

// Marks with a window of one segment: one segment per RTO. 6.1.2.
TEST(EcnSenderTrace, OneSegmentAndStillMarked) {
  Trace::Setup setup = With(EcnMode::kOn);
  setup.options.initial_window_segments = 1;
  Trace t = Trace::Established(setup);
  t.Send(10'000).Out(Full(0));
  t.At(10_ms).In(AckTo(1, "E. "));
  const Duration rto = t.connection().stats().rto;
  t.ExpectQuietUntil(10_ms + rto - 1_ns);
  t.OutAt(10_ms + rto, Full(1, "W. "));
}

// -- DCTCP, RFC 8257
// ----------------------------------------------------------

// 3.2: each change of the mark is told at once, and what came before it by an
// ACK of its own.
TEST(DctcpTrace, EchoesEveryMark) {
  Trace t = Trace::Established(WithDctcp());
  for (int i = 0; i < 16; ++i) t.In(Full(i)).Out(AckTo(i + 1));
  t.In(Full(16)).OutNothing();  // Delayed.
  t.InMarked(Full(17)).Out(AckTo(17), AckTo(18, "E. "));
  t.InMarked(Full(18)).InMarked(Full(19)).Out(AckTo(20, "E. "));
  t.InMarked(Full(20)).OutNothing();
  t.In(Full(21)).Out(AckTo(21, "E. "), AckTo(22));
  t.In(Full(22)).OutNothing();  // CWR plays no part; ACKs are delayed again.
}

// Several changes within one poll of the engine.
TEST(DctcpTrace, ManyChangesAtOnce) {
  Trace t = Trace::Established(WithDctcp());
  t.In(Full(0)).InMarked(Full(1)).In(Full(2)).InMarked(Full(3));
  t.Out(AckTo(1), AckTo(2, "E. "), AckTo(3), AckTo(4, "E. "));
  for (int i = 4; i < 24; i += 2) t.In(Full(i)).InMarked(Full(i + 1));
  t.In(Full(24));
  // At most eight runs are told apart; the latest are merged.
  TxSegment out;
  int acks = 0;
  for (; t.connection().PollTransmit(t.now(), {}, &out); ++acks) {
    if (acks < 8) {
      EXPECT_EQ(out.flags, acks % 2 == 0 ? kAck : kAck | kEce) << acks;
    }
  }
  EXPECT_EQ(acks, 9);
  EXPECT_EQ(out.flags, kAck);
  EXPECT_EQ(out.ack, t.connection().tcb().rcv_nxt);
}

// 3.3: cwnd = cwnd * (1 - alpha / 2), alpha being 1 at first.
// Alpha falls with each round trip without a mark, wherever the numbers start.
TEST(DctcpTrace, RoundTripsEndAtEveryIss) {
  for (uint32_t iss : {1'000'000u, 0x7fff'ff00u, 0xc000'0000u, 0xffff'ff00u}) {
    SCOPED_TRACE(iss);
    Trace::Setup setup = WithDctcp();
    setup.iss = SeqNum(iss);
    Trace t = Trace::Established(setup);
    uint64_t acked = 0;
    for (int round = 0; round < 16; ++round) {
      t.Send(2000).OutCount(2);
      acked += 2;
      t.At((round + 1) * 10_ms).In(AckTo(acked));
    }
    const uint32_t before = t.connection().stats().cwnd;
    t.Send(2000).OutCount(2);
    t.At(200_ms).In(AckTo(acked + 1, "E. "));
    // Alpha is (15/16)^16 at most, 0.36; half of it is taken off, not a half.
    EXPECT_GT(t.connection().stats().cwnd, before * 3 / 4);
  }
}

TEST(DctcpTrace, WindowShrinksByAlpha) {
  Trace t = TenInFlight(WithDctcp());
  t.At(10_ms).In(AckTo(1, "E. "));
  EXPECT_EQ(t.connection().stats().cwnd, 5000u);
}

}  // namespace
}  // namespace devwire
