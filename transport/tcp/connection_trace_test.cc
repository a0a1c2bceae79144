// Opening and closing, in every way that RFC 9293 3.5 and 3.6 draw.
#include "gtest/gtest.h"
#include "transport/tcp/reset.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

constexpr Duration k2Msl = 60_s;  // Connection::Options::time_wait.

TEST(OpenTrace, ActiveOpenOffersEverything) {
  Trace t({.mss = 1460, .timestamps = true, .sack = true, .peer_scale = 7});
  t.OpenActive();
  t.Out("S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1000 ecr 0,wscale 5>");
  t.In(
      "S. 0:0(0) ack 1 win 65535 <mss 1400,sackOK,TS val 5 ecr 1000,wscale 7>");
  t.Out(".  1:1(0) ack 1 <TS val 1000 ecr 5>").Expect(State::kEstablished);
  EXPECT_EQ(t.connection().stats().smss, 1400u - 12);
  EXPECT_EQ(t.connection().stats().snd_wnd, 65535u);  // A SYN's: not scaled.
  t.In(".  1:1(0) ack 1 win 10");
  EXPECT_EQ(t.connection().stats().snd_wnd, 1280u);
}

// Options that the peer does not offer are off both ways.
TEST(OpenTrace, PlainPeerGetsPlainSegments) {
  Trace t({.mss = 1460, .timestamps = true, .sack = true, .peer_scale = 7});
  t.OpenActive();
  t.Out("S 0:0(0)");
  t.In("S. 0:0(0) ack 1 win 65535 <>");
  t.Out(".  1:1(0) ack 1 <>");
  EXPECT_EQ(t.connection().stats().smss, 536u);  // MUST-15.
  EXPECT_EQ(t.connection().stats().rcv_wind_shift, 0);
}

// RFC 7323 2.3: a shift above 14 counts as 14.
TEST(OpenTrace, AShiftAbove14CountsAs14) {
  for (int shift : {14, 15, 31, 255}) {
    Trace t({.mss = 1460, .peer_scale = 7});
    t.OpenActive().Out("S 0:0(0)");
    t.In("S. 0:0(0) ack 1 <mss 1460,wscale " + std::to_string(shift) + ">");
    t.Out(".  1:1(0) ack 1").In(".  1:1(0) ack 1 win 3");
    EXPECT_EQ(t.connection().stats().snd_wnd, 3u << 14);
  }
}

// A peer that announces next to nothing would have us send headers alone.
TEST(OpenTrace, ATinyMssIsNotTakenAtItsWord) {
  for (const char* mss : {"0", "1", "47"}) {
    Trace t({.mss = 1460});
    t.OpenActive().Out("S 0:0(0)");
    t.In(std::string("S. 0:0(0) ack 1 <mss ") + mss + ">");
    t.Out(".  1:1(0) ack 1");
    EXPECT_EQ(t.connection().stats().smss, 48u);  // Linux's tcp_min_snd_mss.
  }
}

TEST(OpenTrace, Ipv6sDefaultMss) {  // MUST-15.
  Trace::Setup setup{.mss = 1440};
  setup.options.default_mss = 1220;
  Trace t(setup);
  t.OpenActive().Out("S 0:0(0)");
  t.In("S. 0:0(0) ack 1 <>").Out(".  1:1(0) ack 1");
  EXPECT_EQ(t.connection().stats().smss, 1220u);
}

TEST(OpenTrace, PassiveOpenAnswersWhatWasOffered) {
  Trace t = Trace::SynReceived({.mss = 1200, .sack = true, .peer_scale = 3});
  EXPECT_TRUE(t.last_out().options.sack_permitted);
  EXPECT_FALSE(t.last_out().options.timestamps);
  EXPECT_EQ(t.last_out().options.window_scale, 5);
  EXPECT_EQ(t.last_out().options.mss, 1200);
  t.At(7_ms).In(".  1:1(0) ack 1 win 100").OutNothing();
  t.Expect(State::kEstablished).ExpectEvents("connected");
  EXPECT_EQ(t.connection().stats().snd_wnd, 800u);
  EXPECT_EQ(t.connection().stats().srtt, 7_ms);
}

// RFC 7323 2.2: the first window that is scaled is that of the next segment.
TEST(OpenTrace, ASynsWindowIsNotScaled) {
  Trace t({.mss = 1000, .peer_scale = 3});
  t.OpenPassive("S 0:0(0) win 1000 <mss 1000,wscale 3>");
  t.Out("S. 0:0(0) ack 1 win 65535");
  EXPECT_EQ(t.connection().stats().snd_wnd, 1000u);
  t.In(".  1:1(0) ack 1 win 1000");
  EXPECT_EQ(t.connection().stats().snd_wnd, 8000u);
  t.Send(10).Out("P. 1:11(10) ack 1 win 8576");  // 512 slots of 536 bytes.
}

// The text that rides on the third segment of the handshake counts.
TEST(OpenTrace, TextOnTheHandshakesAck) {
  Trace t = Trace::SynReceived({});
  t.In("P. 1:101(100) ack 1").Out(".  1:1(0) ack 101").ExpectReadable(100);
}

TEST(OpenTrace, TextAndFinOnTheSynAckCount) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  t.In("SF. 0:10(10) ack 1 <mss 1000>").Out(".  1:1(0) ack 12");
  t.ExpectReadable(10).Expect(State::kCloseWait);
}

// Text on a bare SYN is not queued; the peer sends it again.
TEST(OpenTrace, TextOnSynIsNotQueued) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  t.In("S 0:10(10) <mss 1000>").ExpectDrop(DropReason::kTextOnSyn);
  t.ExpectNoSlotsInUse().Out("S. 0:0(0) ack 1");
}

// RFC 9293 Figure 7. MUST-10.
TEST(OpenTrace, SimultaneousOpen) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  t.In("S 0:0(0) <mss 1000>")
      .Out("S. 0:0(0) ack 1")
      .Expect(State::kSynReceived);
  t.In("S. 0:0(0) ack 1 <mss 1000>").Expect(State::kEstablished);
  t.Out(".  1:1(0) ack 1");
}

// MUST-23: R2 for a SYN is three minutes at least. MUST-22: told at R1.
TEST(OpenTrace, SynsGoOnForThreeMinutes) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  for (int s : {1, 3, 7}) t.OutAt(s * 1_s, "S 0:0(0)");
  t.ExpectEvents("stalled");
  for (int s : {15, 31, 63, 127}) t.OutAt(s * 1_s, "S 0:0(0)");
  t.ExpectQuietUntil(180_s).Expect(State::kSynSent);
  t.ExpectQuietUntil(247_s).Expect(State::kClosed);
}

// MUST-11: where a reset in SYN-RECEIVED leads to depends on how it was come
// to. RFC 9293 3.10.7.4, second step.
TEST(OpenTrace, SynReceivedRemembersItsOpen) {
  Trace active({});
  active.OpenActive().Out("S 0:0(0)");
  active.In("S 0:0(0) <mss 1000>").Out("S. 0:0(0) ack 1");
  active.In("R 1:1(0)").Expect(State::kClosed);
  EXPECT_EQ(active.connection().error(), TcpError::kRefused);
  Trace passive = Trace::SynReceived({});
  passive.In("R 1:1(0)").Expect(State::kClosed);
  EXPECT_EQ(passive.connection().error(), TcpError::kReset);
}

TEST(OpenTrace, SynIsRetransmittedThenGivenUp) {
  Trace::Setup setup;
  setup.options.syn_retries = 2;
  Trace t(setup);
  t.OpenActive().Out("S 0:0(0)");
  t.OutAt(1_s, "S 0:0(0)").OutAt(3_s, "S 0:0(0)");
  t.ExpectQuietUntil(8_s).Expect(State::kClosed);
  t.ExpectEvents("error closed");
  EXPECT_EQ(t.connection().error(), TcpError::kTimedOut);
}

// RFC 6298 (5.7): after a retransmitted SYN, data starts with an RTO of 3 s.
TEST(OpenTrace, RetransmittedSynSetsTheDataTimer) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)").OutAt(1_s, "S 0:0(0)");
  t.In("S. 0:0(0) ack 1 <mss 1000>").Out(".  1:1(0) ack 1");
  EXPECT_EQ(t.connection().stats().rto, 3_s);
}

TEST(OpenTrace, SynAckIsSentAgainForARepeatedSyn) {
  Trace t = Trace::SynReceived({});
  t.At(10_ms).In("S 0:0(0) <mss 1000>").Out("S. 0:0(0) ack 1");
  t.OutAt(1_s, "S. 0:0(0) ack 1");
}

TEST(OpenTrace, HeldHandshakeSendsNothing) {
  Trace t({});
  t.connection().HoldHandshake(true);
  Segment syn;
  syn.flags = kSyn;
  syn.seq = SeqNum(2'000'000);
  EXPECT_TRUE(t.connection().OpenPassive(syn, t.now()).is_accepted());
  t.ExpectQuietUntil(10_s);
  t.connection().HoldHandshake(false);
  t.Out("S. 0:0(0) ack 1");
}

TEST(OpenTrace, HeldActiveOpenAcksWhenReleased) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  t.connection().HoldHandshake(true);
  t.Send(10).In("S. 0:0(0) ack 1 <mss 1000>").ExpectQuietUntil(500_ms);
  t.connection().HoldHandshake(false);
  t.Out("P. 1:11(10) ack 1");
}

// RFC 5681 3.1: a SYN that was lost: IW is one segment. RFC 6928 2: not unless
// there was more than one retransmission.
TEST(OpenTrace, AfterTwoLostSynsTheWindowIsOneSegment) {
  Trace t({.mss = 1000});
  t.OpenActive().Out("S 0:0(0)");
  t.OutAt(1_s, "S 0:0(0)").OutAt(3_s, "S 0:0(0)");
  t.In("S. 0:0(0) ack 1 <mss 1000>").Out(".  1:1(0) ack 1");
  EXPECT_EQ(t.connection().cwnd(), 1000u);
}

TEST(ListenTrace, OnlyASynOpens) {
  struct Row {
    const char* name;
    uint8_t flags;
    DropReason reason;
    bool resets;
  };
  for (const Row& row :
       {Row{"RST", kRst, DropReason::kListenReset, false},
        Row{"ACK", kAck, DropReason::kListenAck, true},
        Row{"SYN ACK", kSyn | kAck, DropReason::kListenAck, true},
        Row{"FIN", kFin, DropReason::kListenWithoutSyn, false}}) {
    SCOPED_TRACE(row.name);
    Trace t({});
    Segment seg;
    seg.flags = row.flags;
    seg.ack = SeqNum(1'000'077);
    EXPECT_EQ(t.connection().OpenPassive(seg, t.now()).reason, row.reason);
    t.Expect(State::kClosed);
    if (row.resets) {
      t.Out("R 77:77(0)");
    } else {
      t.OutNothing();
    }
  }
}

TEST(SynSentTrace, WrongAckIsReset) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  t.In(".  0:0(0) ack 0").ExpectDrop(DropReason::kAckOutsideSynSent);
  t.Out("R 0:0(0)", "S 0:0(0)");
  t.In("S. 0:0(0) ack 2").Out("R 2:2(0)").Expect(State::kSynSent);
  t.In("R. 0:0(0) ack 2").ExpectDrop(DropReason::kAckOutsideSynSent);
  t.OutNothing();
}

TEST(SynSentTrace, WithoutRetriesTheResetIsAll) {
  Trace::Setup setup;
  setup.options.syn_retries = 0;
  Trace t(setup);
  t.OpenActive().Out("S 0:0(0)");
  t.In(".  0:0(0) ack 0").Out("R 0:0(0)").OutNothing();
}

// The peer has an older connection: RFC 9293 3.5.1, half-open discovery. The
// reset ends it, and the SYN does not wait for its timer; but it follows one
// such ACK only.
TEST(SynSentTrace, AfterAWrongAckTheSynGoesAgainOnce) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  t.In(".  0:0(0) ack 0").Out("R 0:0(0)", "S 0:0(0)");
  t.In(".  0:0(0) ack 0").Out("R 0:0(0)");
  t.OutAt(1_s, "S 0:0(0)");
  t.In("S. 0:0(0) ack 1").Out(". 1:1(0) ack 1");
  t.Expect(State::kEstablished);
}

TEST(SynSentTrace, ResetRefusesOnlyWithOurAck) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  t.In("R 0:0(0)").ExpectDrop(DropReason::kResetWithoutAck);
  t.Expect(State::kSynSent);
  t.In("R. 0:0(0) ack 1").Expect(State::kClosed).ExpectEvents("error closed");
  EXPECT_EQ(t.connection().error(), TcpError::kRefused);
  t.OutNothing();
}

TEST(SynSentTrace, NeitherSynNorReset) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  t.In(".  0:0(0) ack 1").ExpectDrop(DropReason::kNotSynNorRst).OutNothing();
}

TEST(SynReceivedTrace, WrongAckIsReset) {
  Trace t = Trace::SynReceived({});
  t.In(".  1:1(0) ack 2").Out("R 2:2(0)").Expect(State::kSynReceived);
  t.In(".  1:1(0) ack 0").Out("R 0:0(0)").Expect(State::kSynReceived);
}

TEST(SynReceivedTrace, ResetEndsIt) {
  Trace t = Trace::SynReceived({});
  t.In("R 1:1(0)").Expect(State::kClosed).ExpectEvents("error closed");
  t.OutNothing();
}

TEST(SynReceivedTrace, CloseWaitsForEstablished) {
  Trace t = Trace::SynReceived({});
  t.Close().OutNothing();
  t.In(".  1:1(0) ack 1").Expect(State::kFinWait1).Out("F. 1:1(0) ack 1");
}

// RFC 7323 2.2: a SYN's window is never scaled, also when a bare ACK with a
// scaled one went out in between (./dev sim --seed 823775: a client whose last
// ACK of the handshake was lost sends a keep-alive).
TEST(SynReceivedTrace, ASynAckAfterABareAckIsNotScaled) {
  Trace t = Trace::SynReceived({.mss = 1000, .peer_scale = 3});
  const uint16_t wnd = t.last_out().wnd;
  t.At(500_ms).In(".  0:0(0) ack 1").Out(".  1:1(0) ack 1");
  t.OutAt(1_s, "S. 0:0(0) ack 1");
  EXPECT_EQ(t.last_out().wnd, wnd);
}

TEST(CloseTrace, WeCloseFirst) {  // RFC 9293 Figure 12, left.
  Trace t = Trace::Established();
  t.At(0_ms).Close().Out("F. 1:1(0) ack 1").Expect(State::kFinWait1);
  t.At(5_ms).In(".  1:1(0) ack 2").OutNothing().Expect(State::kFinWait2);
  t.In("P. 1:11(10) ack 2").Out(".  2:2(0) ack 11").ExpectReadable(10);
  t.In("F. 11:11(0) ack 2").Out(".  2:2(0) ack 12").Expect(State::kTimeWait);
  EXPECT_FALSE(t.connection().is_at_end());  // 10 bytes are still to be read.
  t.Recv();
  EXPECT_TRUE(t.connection().is_at_end());
  t.ExpectQuietUntil(5_ms + k2Msl).Expect(State::kClosed);
  t.ExpectEvents("readable peer-closed closed");
  EXPECT_EQ(t.connection().error(), TcpError::kNone);
}

TEST(CloseTrace, PeerClosesFirst) {
  Trace t = Trace::Established();
  t.In("F. 1:1(0) ack 1").Out(".  1:1(0) ack 2").Expect(State::kCloseWait);
  t.Send(100).Out("P. 1:101(100) ack 2");
  t.Close().Out("F. 101:101(0) ack 2").Expect(State::kLastAck);
  t.In(".  2:2(0) ack 101").Expect(State::kLastAck).OutNothing();
  t.In(".  2:2(0) ack 102").Expect(State::kClosed).OutNothing();
}

// FIN-WAIT-1 x FIN: both sides close at once. RFC 9293 3.6; 3.10.7.4, eighth.
TEST(CloseTrace, SimultaneousClose) {
  Trace t = Trace::Established();
  t.At(0_ms).Close().Out("F. 1:1(0) ack 1").Expect(State::kFinWait1);
  t.At(5_ms).In("F. 1:1(0) ack 1");
  t.Out(".  2:2(0) ack 2").Expect(State::kClosing);
  t.At(9_ms).In(".  2:2(0) ack 2").OutNothing().Expect(State::kTimeWait);
  t.ExpectQuietUntil(9_ms + k2Msl).Expect(State::kClosed);
}

// One segment acknowledges our FIN and carries the peer's.
TEST(CloseTrace, FinWithAckOfFin) {
  Trace t = Trace::Established();
  t.Close().Out("F. 1:1(0) ack 1");
  t.In("F. 1:1(0) ack 2").Out(".  2:2(0) ack 2").Expect(State::kTimeWait);
}

TEST(CloseTrace, FinFollowsQueuedTextAndRidesOnIt) {
  Trace t = Trace::Established();
  t.Send(1500).Close();
  t.Out(".  1:1001(1000) ack 1", "FP. 1001:1501(500) ack 1");
  t.In(".  1:1(0) ack 1001").Expect(State::kFinWait1);
  t.In(".  1:1(0) ack 1502").Expect(State::kFinWait2);
  EXPECT_EQ(t.connection().acked_offset(), 1500u);
}

TEST(CloseTrace, LostFinIsSentAgain) {
  Trace t = Trace::Established();
  t.Close().Out("F. 1:1(0) ack 1");
  t.OutAt(200_ms + 1_ns, "F. 1:1(0) ack 1");
  t.In(".  1:1(0) ack 2").Expect(State::kFinWait2);
}

TEST(CloseTrace, SendAfterCloseTakesNothing) {
  Trace t = Trace::Established();
  t.Close();
  EXPECT_EQ(t.connection().Send(1), 0u);
}

// The FIN comes before text that it follows.
TEST(CloseTrace, FinOutOfOrder) {
  Trace t = Trace::Established();
  t.In("F. 11:21(10) ack 1").Out(".  1:1(0) ack 1").Expect(State::kEstablished);
  t.In(".  1:11(10) ack 1").Out(".  1:1(0) ack 22").Expect(State::kCloseWait);
  t.ExpectReadable(20);
}

TEST(CloseTrace, TextAfterFinIsDropped) {
  Trace t = Trace::Established();
  t.In("F. 1:1(0) ack 1").Out(".  1:1(0) ack 2");
  t.In("P. 2:12(10) ack 1").ExpectDrop(DropReason::kTextAfterFin);
  t.Out(".  1:1(0) ack 2").ExpectNoSlotsInUse();
}

TEST(CloseTrace, TextBeyondAnEarlyFinIsTrimmed) {
  Trace t = Trace::Established();
  t.In("F. 11:21(10) ack 1").Out(".  1:1(0) ack 1");
  t.In(".  21:31(10) ack 1").ExpectDrop(DropReason::kTextAfterFin);
  t.Out(".  1:1(0) ack 1");
}

TEST(TimeWaitTrace, LastsTwoMsl) {  // MUST-13.
  Trace t = Trace::Established();
  t.Close().Out("F. 1:1(0) ack 1");
  t.At(1_ms).In("F. 1:1(0) ack 2").Out(".  2:2(0) ack 2");
  t.ExpectQuietUntil(k2Msl).Expect(State::kTimeWait);
  t.ExpectQuietUntil(k2Msl + 1_ms).Expect(State::kClosed);
}

TEST(TimeWaitTrace, FinAgainRestartsTheWait) {
  Trace t = Trace::Established();
  t.Close().Out("F. 1:1(0) ack 1");
  t.In("F. 1:1(0) ack 2").Out(".  2:2(0) ack 2");
  t.At(30_s).In("F. 1:1(0) ack 2").Out(".  2:2(0) ack 2");
  t.ExpectQuietUntil(30_s + k2Msl - 1_ns).Expect(State::kTimeWait);
  t.ExpectQuietUntil(30_s + k2Msl).Expect(State::kClosed);
}

TEST(TimeWaitTrace, ResetEndsIt) {
  Trace t = Trace::Established();
  t.Close().Out("F. 1:1(0) ack 1");
  t.In("F. 1:1(0) ack 2").Out(".  2:2(0) ack 2");
  t.In("R 2:2(0)").Expect(State::kClosed).OutNothing();
  EXPECT_EQ(t.connection().error(), TcpError::kNone);
}

// RFC 6191 2, case by case: which SYN opens anew from TIME-WAIT.
TEST(TimeWaitTrace, WhichSynReopens) {
  struct Row {
    const char* name;
    bool had_timestamps;
    const char* syn;
    bool reopens;
  };
  const Row rows[] = {
      {"newer", true, "S 0:0(0) <mss 1000,TS val 2000 ecr 0>", true},
      {"equal, beyond", true, "S 9:9(0) <mss 1000,TS val 1000 ecr 0>", true},
      {"equal, old", true, "S 1:1(0) <mss 1000,TS val 1000 ecr 0>", false},
      {"older", true, "S 9:9(0) <mss 1000,TS val 999 ecr 0>", false},
      {"none, beyond", true, "S 2:2(0) <mss 1000>", true},
      {"none, old", true, "S 1:1(0) <mss 1000>", false},
      {"first ones", false, "S 1:1(0) <mss 1000,TS val 1 ecr 0>", true},
      {"never, beyond", false, "S 9:9(0) <mss 1000>", true},
      {"never, old", false, "S 0:0(0) <mss 1000>", false},
      {"no bare SYN", true, "S. 9:9(0) ack 1 <TS val 2000 ecr 0>", false},
      {"a reset", true, "SR 9:9(0) <TS val 2000 ecr 0>", false}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    Trace t({.timestamps = true});
    t.OpenActive().Out("S 0:0(0)");
    t.In(row.had_timestamps ? "S. 0:0(0) ack 1 <mss 1000,TS val 1000 ecr 1000>"
                            : "S. 0:0(0) ack 1 <mss 1000>");
    t.Out(".  1:1(0) ack 1").Close().Out("F. 1:1(0) ack 1");
    t.In(row.had_timestamps ? "F. 1:1(0) ack 2 <TS val 1000 ecr 1000>"
                            : "F. 1:1(0) ack 2 <>");
    t.Out(".  2:2(0) ack 2");
    t.Expect(State::kTimeWait);
    EXPECT_EQ(t.connection().MayBeReopenedBy(t.Parse(row.syn)), row.reopens);
  }
}

TEST(TimeWaitTrace, ReopenedByUsAfterASecond) {
  Trace t = Trace::Established({.timestamps = true});
  t.Close().Out("F. 1:1(0) ack 1");
  EXPECT_FALSE(t.connection().MayBeReopened(t.now() + 100_s));
  t.In("F. 1:1(0) ack 2").Out(".  2:2(0) ack 2");
  t.At(999_ms);
  EXPECT_FALSE(t.connection().MayBeReopened(t.now()));
  t.At(1_s);
  EXPECT_TRUE(t.connection().MayBeReopened(t.now()));
  t.connection().EndTimeWait();
  t.Expect(State::kClosed).OutNothing().ExpectEvents("peer-closed closed");
}

// Nobody holds it any more: it gives up sooner. Linux's tcp_orphan_retries.
TEST(OrphanTrace, GivesUpAfterFewerRetries) {
  Trace::Setup setup;
  setup.options.orphan_retries = 1;
  Trace t = Trace::Established(setup);
  t.Send(1000).ShutdownReceive().Close().Out("FP. 1:1001(1000) ack 1");
  const Duration rto = t.connection().stats().rto;
  t.OutAt(rto, "FP. 1:1001(1000) ack 1");
  t.ExpectQuietUntil(3 * rto).Expect(State::kClosed);
  EXPECT_EQ(t.connection().error(), TcpError::kTimedOut);
}

TEST(FinWait2Trace, OrphanDoesNotWaitForever) {
  Trace t = Trace::Established();
  t.ShutdownReceive().Close().Out("F. 1:1(0) ack 1");
  t.In(".  1:1(0) ack 2").Expect(State::kFinWait2);
  t.ExpectQuietUntil(60_s).Expect(State::kClosed);
}

// The same when nobody reads on only after FIN-WAIT-2 was reached.
TEST(FinWait2Trace, NorDoesOneThatStopsReadingLater) {
  Trace t = Trace::Established();
  t.Close().Out("F. 1:1(0) ack 1").In(".  1:1(0) ack 2");
  t.Expect(State::kFinWait2).ExpectQuietUntil(300_s).Expect(State::kFinWait2);
  t.ShutdownReceive().ExpectQuietUntil(359_s).Expect(State::kFinWait2);
  t.ExpectQuietUntil(361_s).Expect(State::kClosed);
}

// Text for a stream that nobody reads any more: a reset. RFC 9293 3.6.1.
TEST(FinWait2Trace, TextForAnOrphanIsReset) {
  Trace t = Trace::Established();
  t.ShutdownReceive().Close().Out("F. 1:1(0) ack 1");
  t.In("P. 1:11(10) ack 2").ExpectDrop(DropReason::kTextAfterClose);
  t.Out("R. 2:2(0) ack 1").Expect(State::kClosed).ExpectNoSlotsInUse();
}

// RFC 9293 3.6.1 resets for text that nobody will read. Text that was read and
// acknowledged before is none: the peer's FIN comes with a retransmission of it
// (its ACK was lost), so the close is orderly. Linux's tcp_rcv_state_process():
// only when end_seq - fin lies after rcv_nxt.
TEST(FinWait2Trace, OldTextWithTheFinIsNoReasonToReset) {
  Trace t = Trace::Established();
  t.In("P. 1:11(10) ack 1").Out(".  1:1(0) ack 11");  // This ACK is lost.
  t.Recv();
  t.Release();
  t.Close().ShutdownReceive().Out("F. 1:1(0) ack 11");
  t.In("FP. 1:11(10) ack 2").Expect(State::kTimeWait);
  t.Out(".  2:2(0) ack 12").ExpectEvents("readable peer-closed");
}

TEST(CloseTrace, ShutdownReceiveAcknowledgesWithoutKeeping) {
  Trace t = Trace::Established();
  t.In("P. 1:11(10) ack 1").Out(".  1:1(0) ack 11");
  t.ShutdownReceive().ExpectNoSlotsInUse().ExpectReadable(0);
  t.In("P. 11:21(10) ack 1").ExpectDrop(DropReason::kTextUnread);
  t.Out(".  1:1(0) ack 21").ExpectNoSlotsInUse();
}

// The application still holds a part of a frag whose rest is discarded.
TEST(CloseTrace, ShutdownReceiveWithASplitFragOut) {
  Trace t = Trace::Established();
  t.In("P. 1:101(100) ack 1", Slot{3}).Out(".  1:1(0) ack 101");
  t.Recv(30);
  t.ShutdownReceive();
  EXPECT_EQ(t.connection().stats().held_slots, 1u);
  EXPECT_EQ(t.connection().stats().held_bytes, 30u);
  t.Release().ExpectNoSlotsInUse();
  EXPECT_EQ(t.connection().stats().held_slots, 0u);
}

// The same without the FIN's ACK.
TEST(CloseTrace, OldTextWithTheFinClosesBothInFinWait1) {
  Trace t = Trace::Established();
  t.In("P. 1:11(10) ack 1").Out(".  1:1(0) ack 11");
  t.Recv();
  t.Release();
  t.Close().ShutdownReceive().Out("F. 1:1(0) ack 11");
  t.In("FP. 1:11(10) ack 1").Expect(State::kClosing);
}

// A part of a frag is with the application when the connection is aborted, and
// nobody reads on.
TEST(AbortTrace, ShutdownReceiveAfterAbortWithASplitFragOut) {
  Trace t = Trace::Established();
  t.In("P. 1:101(100) ack 1").Out(".  1:1(0) ack 101");
  t.Recv(40);
  t.Abort().Out("R. 1:1(0) ack 101");
  t.ShutdownReceive().Expect(State::kClosed);
  t.Release().ExpectNoSlotsInUse();
}

TEST(AbortTrace, ResetsWhatIsSynchronized) {
  Trace t = Trace::Established();
  t.In("P. 1:11(10) ack 1").Out(".  1:1(0) ack 11");
  t.Abort().Out("R. 1:1(0) ack 11").Expect(State::kClosed).ExpectNoSlotsInUse();
  t.ExpectEvents("readable error closed");
  EXPECT_EQ(t.connection().error(), TcpError::kAborted);
  EXPECT_TRUE(t.connection().is_finished());
  t.In("P. 11:21(10) ack 1").ExpectDrop(DropReason::kClosed);
}

// What it discards was not received: there is no end of the stream, also where
// both had closed.
TEST(AbortTrace, LeavesNoEndOfWhatWasNotRead) {
  Trace t = Trace::Established();
  t.In("F. 1:11(10) ack 1").Out(".  1:1(0) ack 12").Close();
  t.Out("F. 1:1(0) ack 12").In(".  12:12(0) ack 2").Expect(State::kClosed);
  EXPECT_EQ(t.connection().error(), TcpError::kNone);
  t.ExpectReadable(10).Abort().OutNothing().ExpectReadable(0);
  EXPECT_FALSE(t.connection().is_at_end());

  Trace u = Trace::Established();
  u.In("F. 1:1(0) ack 1").Out(".  1:1(0) ack 2");
  EXPECT_TRUE(u.connection().is_at_end());
  u.Abort().Out("R. 1:1(0) ack 2");
  EXPECT_TRUE(u.connection().is_at_end());  // All of it was received.
}

TEST(AbortTrace, SynSentGoesSilently) {
  Trace t({});
  t.OpenActive().Out("S 0:0(0)");
  t.Abort().OutNothing().Expect(State::kClosed);
}

TEST(ResetTrace, ExactResetEndsItAndTextStaysReadable) {
  Trace t = Trace::Established();
  t.In("P. 1:11(10) ack 1").Out(".  1:1(0) ack 11");
  t.In("R 11:11(0)").Expect(State::kClosed).OutNothing();
  EXPECT_EQ(t.connection().error(), TcpError::kReset);
  EXPECT_EQ(t.Recv().size(), 1u);
}

// RFC 9293 SHLD-2: the text of a reset says why, to people; it is not read.
TEST(ResetTrace, MayCarryText) {
  Trace t = Trace::Established();
  t.In("R 1:11(10)").Expect(State::kClosed).ExpectNoSlotsInUse().OutNothing();
  t.ExpectReadable(0);
  EXPECT_EQ(t.connection().error(), TcpError::kReset);
}

// RFC 5961 3.2: in the window, but not at RCV.NXT.
TEST(ResetTrace, InexactResetIsChallenged) {
  Trace t = Trace::Established();
  t.In("R 2:2(0)").ExpectDrop(DropReason::kResetChallenged);
  t.Out(".  1:1(0) ack 1").Expect(State::kEstablished);
  // No more than one in 500 ms.
  t.At(499_ms).In("R 3:3(0)").OutNothing();
  t.At(500_ms).In("R 3:3(0)").Out(".  1:1(0) ack 1");
}

TEST(ResetTrace, ResetOutsideTheWindowIsIgnored) {
  Trace t = Trace::Established();
  t.In("R 0:0(0)").ExpectDrop(DropReason::kResetOutsideWindow).OutNothing();
  t.In("R 70000:70000(0)").OutNothing().Expect(State::kEstablished);
}

// RFC 5961 4.2, RFC 9293 3.5.1: half-open discovery by a challenge ACK.
TEST(ResetTrace, SynIsChallenged) {
  Trace t = Trace::Established();
  t.In("S 9:9(0)").ExpectDrop(DropReason::kSynChallenged);
  t.Out(".  1:1(0) ack 1").Expect(State::kEstablished);
  t.At(1_s).In("S 4000000:4000000(0)").Out(".  1:1(0) ack 1");
  t.In("R 1:1(0)").Expect(State::kClosed);
}

TEST(ResetTrace, UnknownSegmentsGetAResetTheySent) {
  Segment seg;
  seg.seq = SeqNum(100);
  seg.payload_bytes = 10;
  seg.flags = kSyn | kFin;
  std::optional<TxSegment> reset = ResetForUnknown(seg);
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->seq, SeqNum(0));
  EXPECT_EQ(reset->ack, SeqNum(112));
  EXPECT_EQ(reset->flags, kRst | kAck);
  seg.flags = kAck;
  seg.ack = SeqNum(7);
  reset = ResetForUnknown(seg);
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->seq, SeqNum(7));
  EXPECT_EQ(reset->flags, kRst);
  seg.flags = kRst;
  EXPECT_FALSE(ResetForUnknown(seg));
}

}  // namespace
}  // namespace devwire
