// Receiving: order, duplicates, acknowledgments, SACK, the window and slots.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "transport/tcp/trace.h"
#include "transport/tcp/window_tuner.h"

namespace devwire {
namespace {

using ::testing::ElementsAre;

MATCHER_P2(FragIs, slot, length, "") {
  return arg.slot == SlotIndex{slot.index} &&
         arg.length == static_cast<uint32_t>(length);
}

// The peer's opening segments are acknowledged one by one; skip those.
// Leaves 16001 as the next sequence number.
Trace PastQuickAcks(const Trace::Setup& setup = {}) {
  Trace t = Trace::Established(setup);
  for (int i = 0; i < 16; ++i) {
    std::string from = std::to_string(1 + 1000 * i);
    std::string to = std::to_string(1001 + 1000 * i);
    t.In(".  " + from + ":" + to + "(1000) ack 1");
    t.Out(".  1:1(0) ack " + to);
  }
  t.Recv();
  t.Release().OutNothing();
  t.ExpectEvents("readable");
  return t;
}

TEST(AckTrace, OpeningSegmentsAtOnceThenEverySecond) {
  Trace t = PastQuickAcks();
  t.In(".  16001:17001(1000) ack 1").OutNothing();
  t.In(".  17001:18001(1000) ack 1").Out(".  1:1(0) ack 18001");
  t.At(10_ms).In(".  18001:19001(1000) ack 1").OutNothing();
  t.OutAt(50_ms, ".  1:1(0) ack 19001");  // 40 ms later.
  t.In(".  19001:19002(1) ack 1").OutNothing();
  t.OutAt(90_ms, ".  1:1(0) ack 19002");
}

// A peer that was silent begins anew, with a small window: no delayed ACK holds
// it up.
TEST(AckTrace, AfterALongPauseAtOnceAgain) {
  Trace t = PastQuickAcks();
  t.In(".  16001:17001(1000) ack 1").OutNothing();
  t.OutAt(40_ms, ".  1:1(0) ack 17001");
  t.At(2_s).In(".  17001:18001(1000) ack 1").Out(".  1:1(0) ack 18001");
  t.In(".  18001:19001(1000) ack 1").Out(".  1:1(0) ack 19001");
}

// RFC 5681 4.2: it is what the peer waits for.
TEST(AckTrace, TextThatFillsAHoleIsAcknowledgedAtOnce) {
  Trace t = PastQuickAcks();
  t.In(".  16001:16011(10) ack 1").OutNothing();
  t.In(".  16021:16031(10) ack 1").OutCount(2);  // One is a duplicate.
  t.In(".  16011:16021(10) ack 1").Out(".  1:1(0) ack 16031");
}

// A peer whose cwnd is used up waits for it, and pushed what it sent last.
TEST(AckTrace, PushedTextIsAcknowledgedWhenItIsRead) {
  Trace t = PastQuickAcks();
  t.In(".  16001:17001(1000) ack 1").OutNothing();
  t.Recv();
  t.OutNothing();
  t.In("P. 17001:17501(500) ack 1").OutNothing();
  t.Recv(400);
  t.OutNothing();  // A part of it.
  t.Recv();
  t.Out(".  1:1(0) ack 17501");
  t.In(".  17501:18501(1000) ack 1").OutNothing();
  t.Recv();
  t.OutNothing();  // That push was acknowledged.
}

// Answers take the ACK along; when one does not come, pushes count again.
TEST(AckTrace, WhoAnswersAcknowledgesPushedTextWithTheAnswer) {
  Trace t = PastQuickAcks();
  t.In("P. 16001:16101(100) ack 1").OutNothing();
  t.Send(10).Out("P. 1:11(10) ack 16101");
  t.Recv();
  t.In("P. 16101:16201(100) ack 11").OutNothing();
  t.Recv();
  t.OutNothing();
  t.OutAt(40_ms, ".  11:11(0) ack 16201");
  t.In("P. 16201:16301(100) ack 11").OutNothing();
  t.Recv();
  t.Out(".  11:11(0) ack 16301");
}

// TCP_QUICKACK, tcp(7), but it stays until turned off.
TEST(AckTrace, QuickAckAcknowledgesEachSegment) {
  Trace t = PastQuickAcks();
  t.connection().SetQuickAck(true);
  t.In(".  16001:16101(100) ack 1").Out(".  1:1(0) ack 16101");
  t.In(".  16101:16201(100) ack 1").Out(".  1:1(0) ack 16201");
  t.connection().SetQuickAck(false);
  t.In(".  16201:16301(100) ack 1").OutNothing();
}

TEST(AckTrace, TextTakesTheAckAlong) {
  Trace t = PastQuickAcks();
  t.In("P. 16001:16101(100) ack 1").OutNothing();
  t.Send(10).Out("P. 1:11(10) ack 16101");
  t.ExpectQuietUntil(40_ms);
}

TEST(AckTrace, ABatchTakesOneAck) {
  Trace t = PastQuickAcks();
  t.In(".  16001:17001(1000) ack 1").In(".  17001:18001(1000) ack 1");
  t.In(".  18001:19001(1000) ack 1").In(".  19001:20001(1000) ack 1");
  t.Out(".  1:1(0) ack 20001").ExpectQuietUntil(1_s);
}

// A loss within a batch: the peer needs three duplicates to see it, so each
// segment above the hole owes one, though all came in one poll. RFC 5681 4.2.
TEST(AckTrace, EachSegmentAboveAHoleOwesADuplicateAck) {
  Trace t = PastQuickAcks();
  t.In(".  16001:17001(1000) ack 1").In(".  18001:19001(1000) ack 1");
  t.In(".  19001:20001(1000) ack 1").In(".  20001:21001(1000) ack 1");
  t.Out(".  1:1(0) ack 17001", ".  1:1(0) ack 17001", ".  1:1(0) ack 17001",
        ".  1:1(0) ack 17001");
  t.ExpectQuietUntil(1_s);
}

// RFC 5681 4.2, SHLD-19: every second full segment, also when full segments
// became smaller.
TEST(AckTrace, EverySecondSegmentWhenTheyBecomeSmaller) {
  Trace t = Trace::Established({.mss = 1460});
  int seq = 1;
  const auto in = [&](int bytes) {
    t.In(". " + std::to_string(seq) + ":" + std::to_string(seq + bytes) + "(" +
         std::to_string(bytes) + ") ack 1");
    seq += bytes;
    int acks = 0;
    TxSegment out;
    while (t.connection().PollTransmit(t.now(), {}, &out)) ++acks;
    t.Recv();
    t.Release();
    while (t.connection().PollTransmit(t.now(), {}, &out)) ++acks;
    return acks;
  };
  for (int i = 0; i < 40; ++i) (void)in(1460);
  int acks = 0;
  for (int i = 0; i < 40; ++i) acks += in(536);
  EXPECT_GE(acks, 19);
}

// A hole delays delivery, not storage: frags stay where the NIC put them.
TEST(ReceiveTrace, OutOfOrderFragsAreReadInSequence) {
  Trace t = Trace::Established({.mss = 1000, .sack = true});
  t.At(0_us).In(".  1001:2001(1000) ack 1", Slot{7});
  t.Out(".  1:1(0) ack 1 <sack 1001:2001>").ExpectReadable(0);
  t.At(9_us).In(".  1:1001(1000) ack 1", Slot{3});
  t.Out(".  1:1(0) ack 2001 <>").ExpectReadable(2000);
  EXPECT_THAT(t.Recv(),
              ElementsAre(FragIs(Slot{3}, 1000), FragIs(Slot{7}, 1000)));
}

TEST(ReceiveTrace, AShortReadSplitsAFrag) {
  Trace t = Trace::Established();
  t.In("P. 1:101(100) ack 1", Slot{3});
  std::vector<Frag> first = t.Recv(30);
  EXPECT_THAT(first, ElementsAre(Frag{SlotIndex{3}, 0, 30}));
  t.ExpectReadable(70);
  EXPECT_THAT(t.Recv(), ElementsAre(Frag{SlotIndex{3}, 30, 70}));
  t.ExpectReadable(0);
  EXPECT_EQ(t.connection().stats().held_slots, 1u);
  t.Release(1);
  EXPECT_EQ(t.connection().stats().held_slots, 1u);
  t.Release();
  EXPECT_EQ(t.connection().stats().held_slots, 0u);
}

// A header shorter than the split: a few bytes lie in a slot of their own.
TEST(ReceiveTrace, LinearBytesComeFirst) {
  Trace t = Trace::Established();
  t.In("P. 1:101(100) ack 1", Slot{3}, 12);
  std::vector<Frag> frags = t.Recv();
  ASSERT_EQ(frags.size(), 2u);
  EXPECT_EQ(frags[0].length, 12u);
  EXPECT_THAT(frags[1], FragIs(Slot{3}, 88));
  t.Release().ExpectNoSlotsInUse();
}

TEST(ReceiveTrace, LinearBytesOutOfOrderAndTrimmed) {
  Trace t = Trace::Established({.sack = true});
  t.In("P. 11:111(100) ack 1", Slot{3}, 12).Out(".  1:1(0) ack 1");
  t.In("P. 1:21(20) ack 1", Slot{4}).Out(".  1:1(0) ack 111");
  std::vector<Frag> frags = t.Recv();  // 20, then 2 of 12, then 88.
  ASSERT_EQ(frags.size(), 3u);
  EXPECT_THAT(frags[0], FragIs(Slot{4}, 20));
  EXPECT_EQ(frags[1].length, 2u);
  EXPECT_EQ(frags[1].offset, 10u);
  EXPECT_THAT(frags[2], FragIs(Slot{3}, 88));
}

TEST(ReceiveTrace, DuplicateGivesItsSlotBackAndIsAcknowledged) {
  Trace t = PastQuickAcks();
  t.In(".  15001:16001(1000) ack 1").ExpectDrop(DropReason::kDuplicateText);
  t.ExpectNoSlotsInUse().Out(".  1:1(0) ack 16001 <>");
}

TEST(ReceiveTrace, OverlapIsTrimmed) {
  Trace t = PastQuickAcks();
  t.In(".  15501:16501(1000) ack 1", Slot{5}).Out(".  1:1(0) ack 16501");
  EXPECT_THAT(t.Recv(), ElementsAre(Frag{SlotIndex{5}, 500, 500}));
}

TEST(ReceiveTrace, TextRightOfTheWindowIsTrimmedOrDropped) {
  Trace::Setup setup;
  setup.options.receive.byte_budget = 5000;
  Trace t = Trace::Established(setup);
  t.In(".  4501:5501(1000) ack 1").Out(".  1:1(0) ack 1");
  EXPECT_EQ(t.connection().stats().out_of_order_bytes, 500u);
  t.In(".  5001:6001(1000) ack 1").ExpectDrop(DropReason::kOutsideWindow);
  t.Out(".  1:1(0) ack 1");
  EXPECT_EQ(t.ledger().slots_in_use(), 1u);
}

TEST(ReceiveTrace, SegmentWithoutAckIsDropped) {
  Trace t = Trace::Established();
  t.In("P 1:11(10)").ExpectDrop(DropReason::kWithoutAck).OutNothing();
  t.ExpectNoSlotsInUse();
}

// RFC 6093 2.1: urgent text is text. MUST-32, MUST-33: the user learns that
// there is some, and how much is left.
TEST(UrgentTrace, IsReadInLineAndItsEndIsTold) {
  Trace t = Trace::Established();
  t.In("PU. 1:11(10) ack 1 win 1000 urg 5").Out(".  1:1(0) ack 11");
  t.ExpectReadable(10).ExpectEvents("readable urgent");
  EXPECT_EQ(t.connection().urgent_bytes(), 5u);  // MUST-62: behind the last.
  t.Recv(3);
  EXPECT_EQ(t.connection().urgent_bytes(), 2u);
  t.Recv();
  EXPECT_EQ(t.connection().urgent_bytes(), 0u);
}

// MUST-33: how much is left counts from what was read, not from what came.
TEST(UrgentTrace, WhatIsLeftCountsFromWhatWasRead) {
  Trace t = Trace::Established();
  t.In("P. 1:101(100) ack 1").Out(".  1:1(0) ack 101");
  t.Recv(60);
  t.In("PU. 101:201(100) ack 1 win 1000 urg 30").Out(".  1:1(0) ack 201");
  EXPECT_EQ(t.connection().urgent_bytes(), 70u);
  t.Recv(69);
  EXPECT_EQ(t.connection().urgent_bytes(), 1u);
}

// The pointer may run ahead of the text, by any length (MUST-31), and goes only
// forward.
TEST(UrgentTrace, ThePointerAdvances) {
  Trace t = Trace::Established();
  t.In("U. 1:1(0) ack 1 win 65535 urg 60000").OutNothing();
  t.ExpectEvents("urgent");
  EXPECT_EQ(t.connection().urgent_bytes(), 60'000u);
  t.In("PU. 1:11(10) ack 1 win 65535 urg 100").Out(".  1:1(0) ack 11");
  t.ExpectEvents("readable");
  t.In("PU. 11:21(10) ack 1 win 65535 urg 65535").Out(".  1:1(0) ack 21");
  t.ExpectEvents("readable urgent");
  EXPECT_EQ(t.connection().urgent_bytes(), 65'545u);
}

// An end that was read long ago is no news.
TEST(UrgentTrace, AnOldPointerIsIgnored) {
  Trace t = Trace::Established();
  t.In("P. 1:11(10) ack 1").Out(".  1:1(0) ack 11");
  t.Recv();
  t.ExpectEvents("readable");
  t.In("U. 11:11(0) ack 1 win 65535 urg 0").OutNothing();
  t.ExpectEvents("");
}

// MUST-66: RST and URG count although the window is closed.
TEST(UrgentTrace, ZeroWindowTakesUrgAndRst) {
  Trace::Setup setup;
  setup.options.receive = {.byte_budget = 1000, .slot_quota = 8};
  Trace t = Trace::Established(setup);
  t.In(".  1:1001(1000) ack 1").Out(".  1:1(0) ack 1001 win 0");
  t.ExpectEvents("readable");
  t.In("U. 1001:1001(0) ack 1 win 65535 urg 7").ExpectEvents("urgent");
  EXPECT_EQ(t.connection().urgent_bytes(), 1007u);
  t.In("R 1001:1001(0)").Expect(State::kClosed);
}

// RFC 2018 section 4: the block of the latest arrival first.
TEST(SackTrace, MostRecentFirst) {
  Trace t = Trace::Established({.sack = true});
  t.In(".  1001:2001(1000) ack 1").Out(".  1:1(0) ack 1 <sack 1001:2001>");
  t.In(".  3001:4001(1000) ack 1")
      .Out(".  1:1(0) ack 1 <sack 3001:4001 1001:2001>");
  t.In(".  5001:6001(1000) ack 1")
      .Out(".  1:1(0) ack 1 <sack 5001:6001 3001:4001 1001:2001>");
  t.In(".  2001:3001(1000) ack 1")
      .Out(".  1:1(0) ack 1 <sack 1001:4001 5001:6001>");
  t.In(".  1:1001(1000) ack 1").Out(".  1:1(0) ack 4001 <sack 5001:6001>");
  t.In(".  4001:5001(1000) ack 1").Out(".  1:1(0) ack 6001 <>");
}

TEST(SackTrace, ThreeBlocksBesideTimestamps) {
  Trace t = Trace::Established({.timestamps = true, .sack = true});
  for (int i = 1; i <= 5; ++i) {
    std::string from = std::to_string(2000 * i + 1);
    t.In(".  " + from + ":" + std::to_string(2000 * i + 1001) + "(1000) ack 1");
    t.Out(".  1:1(0) ack 1");
  }
  EXPECT_EQ(t.last_out().options.sack_block_count, 3);
}

// Never on text: it would lengthen the header beyond the peer's split.
TEST(SackTrace, NotOnSegmentsWithText) {
  Trace t = Trace::Established({.sack = true});
  t.In(".  1001:2001(1000) ack 1").Send(10);
  // The text carries no blocks and is no duplicate ACK; a bare one follows.
  t.Out("P. 1:11(10) ack 1 <>", ".  11:11(0) ack 1 <sack 1001:2001>");
}

TEST(SackTrace, NotWithoutTheOption) {
  Trace t = Trace::Established({.sack = false});
  t.In(".  1001:2001(1000) ack 1").Out(".  1:1(0) ack 1 <>");
}

// RFC 2883 section 4.
TEST(DsackTrace, DuplicateBelowTheAck) {
  Trace t = PastQuickAcks({.sack = true});
  t.In(".  15001:16001(1000) ack 1");
  t.Out(".  1:1(0) ack 16001 <sack 15001:16001>");
  t.In(".  16001:17001(1000) ack 1").In(".  17001:18001(1000) ack 1");
  t.Out(".  1:1(0) ack 18001 <>");  // Reported once.
}

TEST(DsackTrace, DuplicateAboveTheAck) {
  Trace t = Trace::Established({.sack = true});
  t.In(".  1001:2001(1000) ack 1").Out(".  1:1(0) ack 1 <sack 1001:2001>");
  t.In(".  1501:2501(1000) ack 1")
      .Out(".  1:1(0) ack 1 <sack 1501:2001 1001:2501>");
  t.In(".  1001:2001(1000) ack 1").ExpectDrop(DropReason::kDuplicateText);
  t.Out(".  1:1(0) ack 1 <sack 1001:2001 1001:2501>");
}

TEST(DsackTrace, AHoleFilledWithTooMuch) {
  Trace t = Trace::Established({.sack = true});
  t.In(".  1001:2001(1000) ack 1").Out(".  1:1(0) ack 1 <sack 1001:2001>");
  t.In(".  1:1501(1500) ack 1");
  t.Out(".  1:1(0) ack 2001 <sack 1001:1501>").ExpectReadable(2000);
}

// -- timestamps, RFC 7323 ----------------------------------------------------

TEST(PawsTrace, OlderTimestampIsDroppedAndAcknowledged) {
  Trace t = Trace::Established({.timestamps = true});
  t.In("P. 1:11(10) ack 1 <TS val 1100 ecr 1000>").Out(".  1:1(0) ack 11");
  t.In("P. 11:21(10) ack 1 <TS val 1099 ecr 1000>");
  t.ExpectDrop(DropReason::kPaws).Out(".  1:1(0) ack 11").ExpectReadable(10);
  // A reset is not subject to it. RFC 7323 5.2.
  t.In("R 11:11(0) <TS val 1 ecr 0>").Expect(State::kClosed);
}

TEST(PawsTrace, TheCircleWraps) {
  Trace t = Trace::Established({.timestamps = true});
  t.In("P. 1:11(10) ack 1 <TS val 2147484000 ecr 1000>");
  t.Out(".  1:1(0) ack 11 <TS val 1000 ecr 2147484000>");
  t.In("P. 11:21(10) ack 1 <TS val 4294967295 ecr 1000>");
  t.Out(".  1:1(0) ack 21 <TS val 1000 ecr 4294967295>");
  t.In("P. 21:31(10) ack 1 <TS val 3 ecr 1000>");
  t.Out(".  1:1(0) ack 31 <TS val 1000 ecr 3>");
}

// RFC 7323 5.5: after 24 days TS.Recent proves nothing.
TEST(PawsTrace, StaleTimestampDoesNotLockOut) {
  Trace t = Trace::Established({.timestamps = true});
  t.At(86'400_s * 25).In("P. 1:11(10) ack 1 <TS val 999 ecr 1000>");
  t.Out(".  1:1(0) ack 11 <TS val 2160001000 ecr 999>");
}

// As Linux, against the SHOULD of RFC 7323 3.2.
TEST(PawsTrace, SegmentsWithoutTheOptionAreTaken) {
  Trace t = Trace::Established({.timestamps = true});
  t.In("P. 1:11(10) ack 1 <>").Out(".  1:1(0) ack 11").ExpectReadable(10);
}

// RFC 7323 4.3: of a run of delayed segments the first one's is echoed.
// A blind attacker needs a sequence number near RCV.NXT and half of all
// timestamps; were TS.Recent his, PAWS would drop whatever the peer sends from
// then on. He lacks an acknowledgment that we take. RFC 5961 5.
TEST(PawsTrace, AForgedSegmentDoesNotSetTsRecent) {
  Trace t = Trace::Established({.timestamps = true});
  t.At(10_ms).In("P. 1:11(10) ack 1").Out(".  1:1(0) ack 11");
  t.At(20_ms).In(".  6:16(10) ack 999 <TS val 900000 ecr 0>");
  t.ExpectDrop(DropReason::kAckOfUnsent).Out(".  1:1(0) ack 11");
  t.At(30_ms).In("P. 11:21(10) ack 1").ExpectDrop(DropReason::kNone);
  t.Out(".  1:1(0) ack 21");
}

TEST(TimestampsTrace, EchoesTheOldestUnacknowledged) {
  Trace t = PastQuickAcks({.timestamps = true});
  t.In(".  16001:17001(1000) ack 1 <TS val 2000 ecr 1000>").OutNothing();
  t.In(".  17001:18001(1000) ack 1 <TS val 2005 ecr 1000>");
  t.Out(".  1:1(0) ack 18001 <TS val 1000 ecr 2000>");
  // Out of order: not echoed, and not taken.
  t.In(".  19001:20001(1000) ack 1 <TS val 2050 ecr 1000>");
  t.Out(".  1:1(0) ack 18001 <TS val 1000 ecr 2000>");
}

// -- window and slots, docs/memory.md ----------------------------------------

Trace::Setup Quota(uint32_t slots, uint64_t bytes = 1 << 20) {
  Trace::Setup setup;
  setup.sack = true;
  setup.options.receive = {.byte_budget = bytes, .slot_quota = slots};
  return setup;
}

// Text that is held closes the window; released, it opens in one step.
TEST(WindowTrace, ClosesAtTheByteBudgetAndOpensAgain) {
  Trace t = Trace::Established(Quota(100, 4000));
  t.In(".  1:1001(1000) ack 1").Out(".  1:1(0) ack 1001 win 3000");
  t.In(".  1001:2001(1000) ack 1").Out(".  1:1(0) ack 2001 win 2000");
  t.In(".  2001:3001(1000) ack 1").Out(".  1:1(0) ack 3001 win 1000");
  t.In(".  3001:4001(1000) ack 1").Out(".  1:1(0) ack 4001 win 0");
  // A zero-window probe: its slot comes back, it is answered.
  t.In(".  4001:4002(1) ack 1").ExpectDrop(DropReason::kOutsideWindow);
  t.Out(".  1:1(0) ack 4001 win 0");
  EXPECT_EQ(t.ledger().slots_in_use(), 4u);
  t.Recv();
  t.OutNothing();
  t.Release(1).Out(".  1:1(0) ack 4001 win 1000");
  t.Release(1).Out(".  1:1(0) ack 4001 win 2000");
  t.Release(1).OutNothing();  // Not twice as much: with the next ACK.
  t.Release(1).Out(".  1:1(0) ack 4001 win 4000");
}

// A FIN is part of the sequence space: beyond the edge it was not taken in, and
// has to come again, as the text before it.
TEST(WindowTrace, AFinBeyondTheEdgeComesAgain) {
  Trace t = Trace::Established(Quota(100, 4000));
  t.In(".  1:3001(3000) ack 1").Out(".  1:1(0) ack 3001 win 1000");
  t.In("F. 3001:5001(2000) ack 1").Out(".  1:1(0) ack 4001 win 0");
  t.Recv();
  t.Release().Out(".  1:1(0) ack 4001 win 4000");
  t.In(".  4001:5001(1000) ack 1").Expect(State::kEstablished);
  t.Out(".  1:1(0) ack 5001");
  t.In("F. 5001:5001(0) ack 1").Expect(State::kCloseWait);
  t.Out(".  1:1(0) ack 5002");
}

// Silly window: less than a segment (and half the buffer) is not offered.
TEST(WindowTrace, SmallReleasesDoNotMoveTheEdge) {
  Trace t = Trace::Established(Quota(100, 4000));
  for (int i = 0; i < 4; ++i) {
    t.In(".  " + std::to_string(1 + 1000 * i) + ":" +
         std::to_string(1001 + 1000 * i) + "(1000) ack 1");
  }
  t.Out(".  1:1(0) ack 4001 win 0");
  t.Recv(500);
  t.Release().OutNothing();
  // Nor does an ACK that goes anyway: here, of a probe.
  t.In(".  4001:4002(1) ack 1").Out(".  1:1(0) ack 4001 win 0");
  t.Recv(499);
  t.Release().OutNothing();
  t.Recv(1);
  t.Release().Out(".  1:1(0) ack 4001 win 1000");
}

// The quota counts slots at the measured bytes per slot, which starts low and
// follows the peer's segments.
TEST(WindowTrace, TheMeasureFollowsThePeer) {
  Trace t = Trace::Established(Quota(10));
  EXPECT_EQ(t.connection().stats().rcv_wnd, 5360u);  // 10 * 536.
  SeqNum edge = t.connection().tcb().rcv_nxt + 5360;
  for (int i = 0; i < 16; ++i) {
    t.In(".  " + std::to_string(1 + 1000 * i) + ":" +
         std::to_string(1001 + 1000 * i) + "(1000) ack 1");
    t.Recv();
    t.Release().Out(".  1:1(0) ack " + std::to_string(1001 + 1000 * i));
    SeqNum now = t.connection().tcb().rcv_nxt + t.connection().stats().rcv_wnd;
    EXPECT_TRUE(SeqGe(now, edge));
    edge = now;
  }
  EXPECT_GT(t.connection().stats().rcv_wnd, 8000u);
}

// -- the window follows its reader: WindowTuner -------------------------------

// A peer that fills the window in every round trip of 10 ms, and a reader that
// reads it or does not. Returns the window, in bytes, after each.
std::vector<uint32_t> WindowsOver(int rounds, bool reads, bool timestamps) {
  Trace::Setup setup{.timestamps = timestamps, .peer_scale = 7};
  setup.options.receive_initial_bytes = 10'000;
  setup.options.receive.slot_quota = setup.options.max_slot_quota = 2048;
  Trace t = Trace::Established(setup);
  std::vector<uint32_t> windows;
  uint32_t next = 1;
  for (int round = 1; round <= rounds; ++round) {
    t.At(round * 10_ms);
    const uint32_t segments = t.connection().stats().rcv_wnd / 1000;
    const uint32_t sent_at = 1000 + static_cast<uint32_t>(round - 1) * 10;
    for (uint32_t i = 0; i < segments; ++i, next += 1000) {
      std::string text = ".  " + std::to_string(next) + ":" +
                         std::to_string(next + 1000) + "(1000) ack 1";
      if (timestamps) {
        const std::string stamp = std::to_string(sent_at);
        text += " <TS val " + stamp + " ecr " + stamp + ">";
      }
      t.In(text);
    }
    if (reads) {
      t.Recv();
      t.Release();
    }
    if (segments > 0) t.ExpectOneWithin(0_s);
    windows.push_back(t.connection().stats().rcv_wnd);
  }
  return windows;
}

// It doubles at least, every second round, until all the budget is offered: the
// clock of the timestamps takes 10 ms for 11.
TEST(WindowTuningTrace, AReaderThatKeepsUpGetsAllItNeeds) {
  for (const bool timestamps : {true, false}) {
    SCOPED_TRACE(timestamps);
    const std::vector<uint32_t> windows = WindowsOver(12, true, timestamps);
    for (size_t i = 2; i + 2 < windows.size(); ++i) {
      EXPECT_GE(windows[i + 2], std::min(2 * windows[i], 1'000'000u)) << i;
    }
    EXPECT_GE(windows.back(), 1'000'000u);
    EXPECT_LE(windows.back(), 1'200'000u);
  }
}

TEST(WindowTuningTrace, AReaderThatReadsNothingGetsNoMore) {
  const std::vector<uint32_t> windows = WindowsOver(5, false, true);
  for (const uint32_t wnd : windows) EXPECT_LT(wnd, 10'000u);
}

// A peer with little to say does not blow it up.
TEST(WindowTuningTrace, ASlowPeerKeepsItSmall) {
  Trace::Setup setup{.timestamps = true, .peer_scale = 7};
  setup.options.receive_initial_bytes = 10'000;
  Trace t = Trace::Established(setup);
  for (uint32_t i = 0; i < 100; ++i) {
    t.At(static_cast<int64_t>(i + 1) * 50_ms);
    const std::string stamp = std::to_string(1000 + i * 50);
    t.In("P. " + std::to_string(1 + 1000 * i) + ":" +
         std::to_string(1001 + 1000 * i) + "(1000) ack 1 <TS val " + stamp +
         " ecr " + stamp + ">");
    t.Recv();
    t.Release();
    t.ExpectOneWithin(40_ms);
  }
  EXPECT_LE(t.connection().stats().rcv_wnd, 10'240u);
}

// A GPU that keeps what it was handed: the window is as large as the memory
// allows, however long that takes.
TEST(WindowTuningTrace, AReaderThatKeepsItsFragsMayHaveAllItsMemory) {
  Trace::Setup setup{.timestamps = true, .peer_scale = 7};
  setup.options.receive_initial_bytes = 10'000;
  setup.options.receive = {.byte_budget = 100'000, .slot_quota = 512};
  Trace t = Trace::Established(setup);
  for (uint32_t i = 0; i < 100; ++i) {
    t.At(static_cast<int64_t>(i + 1) * 50_ms);
    ASSERT_GE(t.connection().stats().rcv_wnd, 1000u) << i;
    t.In("P. " + std::to_string(1 + 1000 * i) + ":" +
         std::to_string(1001 + 1000 * i) + "(1000) ack 1");
    EXPECT_EQ(t.Recv().size(), 1u);
    t.ExpectOneWithin(40_ms);
  }
  EXPECT_LT(t.connection().stats().rcv_wnd, 1000u);
  t.Release().OutCount(1);
}

TEST(WindowTuner, TwiceWhatWasReadAndMoreWhileItGrows) {
  Instant now = Instant() + 1_s;
  WindowTuner tuner(20'000, 1000);
  tuner.Start(now, SeqNum(1), 20'000, 1_ms);
  EXPECT_FALSE(tuner.IsRoundOver(now));
  now = now + 1_ms;
  ASSERT_TRUE(tuner.IsRoundOver(now));
  tuner.OnRead(10'000);  // As much as is expected at first.
  EXPECT_FALSE(tuner.EndRound({.now = now, .rcv_nxt = SeqNum(1)}));
  now = now + 1_ms;
  tuner.OnRead(20'000);
  EXPECT_TRUE(tuner.EndRound({.now = now, .rcv_nxt = SeqNum(1)}));
  EXPECT_EQ(tuner.space(), 20'000u);
  // Twice that and 16 segments, and three times it for having doubled.
  EXPECT_EQ(tuner.window_bytes(), 3u * 56'000);
}

TEST(WindowTuner, EchoesOfTimestampsMakeTheRound) {
  const Instant now = Instant() + 1_s;
  WindowTuner tuner(20'000, 1000);
  tuner.Start(now, SeqNum(1), 20'000, Duration());
  WindowTuner::Round round{.now = now, .has_timestamps = true};
  EXPECT_FALSE(tuner.EndRound(round));
  EXPECT_EQ(tuner.rtt(), Duration());
  round.echo_ms = 79;  // In ticks, so up to 80 ms.
  (void)tuner.EndRound(round);
  EXPECT_EQ(tuner.rtt(), 80_ms);
  round.echo_ms = 159;
  (void)tuner.EndRound(round);
  EXPECT_EQ(tuner.rtt(), 90_ms);
  round.echo_ms = 10'000;  // The peer had nothing to say.
  (void)tuner.EndRound(round);
  EXPECT_LE(tuner.rtt(), 102_ms);
  for (int i = 0; i < 100; ++i) {
    round.echo_ms = 0;  // Less than the clock can tell.
    (void)tuner.EndRound(round);
  }
  EXPECT_LE(tuner.rtt(), 2_ms);
}

// Without them a window of text is what a round trip is at most.
TEST(WindowTuner, WithoutTimestampsAWindowOfText) {
  Instant now = Instant() + 1_s;
  WindowTuner tuner(20'000, 1000);
  tuner.Start(now, SeqNum(1), 10'000, Duration());
  now = now + 30_ms;
  (void)tuner.EndRound(
      {.now = now, .rcv_nxt = SeqNum(10'000), .rcv_wnd = 10'000});
  EXPECT_EQ(tuner.rtt(), Duration());
  (void)tuner.EndRound(
      {.now = now, .rcv_nxt = SeqNum(10'001), .rcv_wnd = 10'000});
  EXPECT_EQ(tuner.rtt(), 30_ms);
  now = now + 40_ms;  // Longer says nothing; shorter does.
  (void)tuner.EndRound(
      {.now = now, .rcv_nxt = SeqNum(20'001), .rcv_wnd = 10'000});
  EXPECT_EQ(tuner.rtt(), 30_ms);
  now = now + 20_ms;
  (void)tuner.EndRound({.now = now, .rcv_nxt = SeqNum(30'001)});
  EXPECT_EQ(tuner.rtt(), 20_ms);
}

// One-byte segments against a full window: the promise proves wrong. Text in
// the window is dropped unacknowledged; a reader that reads gets on.
TEST(SlotTrace, OneByteSegmentsRunOutOfSlots) {
  Trace t = Trace::Established(Quota(8));
  int next = 1;
  auto byte = [&] {
    t.In("P. " + std::to_string(next) + ":" + std::to_string(next + 1) +
         "(1) ack 1");
  };
  for (; next <= 8; ++next) {
    byte();
    t.Out(".  1:1(0) ack " + std::to_string(next + 1));
  }
  byte();
  t.ExpectDrop(DropReason::kOutOfSlots).Out(".  1:1(0) ack 9");
  EXPECT_EQ(t.connection().stats().dropped_for_slots_bytes, 1u);
  EXPECT_EQ(t.ledger().slots_in_use(), 8u);
  for (int round = 0; round < 100; ++round) {
    t.Recv(1);
    t.Release();
    byte();
    t.ExpectDrop(DropReason::kNone);
    ++next;
  }
  EXPECT_EQ(t.connection().stats().bytes_received, 108u);
}

// Out-of-order frags are given up from the highest down; a reserve is kept for
// the next in-order segment.
TEST(SlotTrace, OutOfOrderYieldsToInOrder) {
  Trace t = Trace::Established(Quota(4));
  t.In(".  101:111(10) ack 1", Slot{1}).In(".  201:211(10) ack 1", Slot{2});
  t.In(".  301:311(10) ack 1", Slot{3});
  const char* kThree = ".  1:1(0) ack 1 <sack 301:311 201:211 101:111>";
  t.Out(kThree, kThree, kThree);
  // The fourth slot is the reserve.
  t.In(".  401:411(10) ack 1", Slot{4}).ExpectDrop(DropReason::kOutOfSlots);
  t.Out(".  1:1(0) ack 1");
  t.In(".  1:11(10) ack 1", Slot{5}).ExpectDrop(DropReason::kNone);
  t.Out(".  1:1(0) ack 11 <sack 301:311 201:211 101:111>");
  // No slot is left: the highest one goes.
  t.In(".  11:21(10) ack 1", Slot{6}).ExpectDrop(DropReason::kNone);
  t.Out(".  1:1(0) ack 21 <sack 201:211 101:111>");
  // A lower one takes the place of a higher one.
  t.Recv();
  t.Release();
  t.In(".  301:311(10) ack 1", Slot{7}).In(".  51:61(10) ack 1", Slot{8});
  const char* kLower = ".  1:1(0) ack 21 <sack 51:61 201:211 101:111>";
  t.Out(kLower, kLower);
  EXPECT_EQ(t.connection().stats().given_up_frags, 2u);
}

TEST(SlotTrace, AReaderThatNeverReturnsKeepsAZeroWindow) {
  Trace t = Trace::Established(Quota(4));
  for (int i = 0; i < 4; ++i) {
    t.In(".  " + std::to_string(1 + 536 * i) + ":" +
         std::to_string(537 + 536 * i) + "(536) ack 1");
  }
  t.Recv();
  t.Out(".  1:1(0) ack 2145 win 0");
  t.ExpectQuietUntil(100_s);
  t.Release(2).Out(".  1:1(0) ack 2145 win 1072");
}

TEST(SlotTrace, QuotaChangesWithTheOtherStreams) {
  Trace t = Trace::Established(Quota(10));
  t.In(".  1:1001(1000) ack 1").Out(".  1:1(0) ack 1001");
  const uint32_t wnd = t.connection().stats().rcv_wnd;
  t.connection().SetReceiveLimits({.byte_budget = 1 << 20, .slot_quota = 2});
  EXPECT_EQ(t.connection().stats().rcv_wnd, wnd);  // Never to the left.
  t.In(".  1001:2001(1000) ack 1").Out(".  1:1(0) ack 2001");
  t.In(".  2001:3001(1000) ack 1").ExpectDrop(DropReason::kOutOfSlots);
  t.Out(".  1:1(0) ack 2001");
  t.connection().SetReceiveLimits({.byte_budget = 1 << 20, .slot_quota = 100});
  t.Out(".  1:1(0) ack 2001");  // The window more than doubled.
  EXPECT_GT(t.connection().stats().rcv_wnd, 50'000u);
}

// The engine's pool is at its reserve: ACK and window count, text does not.
TEST(SlotTrace, TextDroppedByTheEngine) {
  Trace t = Trace::Established();
  t.Send(100).Out("P. 1:101(100) ack 1");
  t.InTextDropped("P. 1:11(10) ack 101 win 777");
  t.ExpectDrop(DropReason::kPoolReserve).Out(".  101:101(0) ack 1");
  EXPECT_EQ(t.connection().acked_offset(), 100u);
  EXPECT_EQ(t.connection().stats().snd_wnd, 777u);
  t.In("P. 1:11(10) ack 101").Out(".  101:101(0) ack 11");
}

TEST(SlotTrace, HolesBeyondTheTableAreRefused) {
  Trace::Setup setup = Quota(512);
  setup.mss = 100;
  Trace t = Trace::Established(setup);
  for (size_t i = 0; i < Reassembly::kMaxRanges; ++i) {
    size_t at = 11 + 20 * i;
    t.In(".  " + std::to_string(at) + ":" + std::to_string(at + 10) +
         "(10) ack 1");
    t.ExpectDrop(DropReason::kNone);
  }
  t.In(".  4001:4011(10) ack 1").ExpectDrop(DropReason::kTooManyHoles);
}

// A scaled window is rounded up, so that its edge does not seem to move left,
// until rounding has given away an eighth of the budget.
TEST(WindowTrace, ScaledEdgeStays) {
  Trace::Setup setup = Quota(2000, 1 << 20);
  setup.peer_scale = 7;
  setup.options.max_slot_quota = 2000;
  Trace t = Trace::Established(setup);
  uint64_t edge = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    t.In("P. " + std::to_string(1 + 333 * i) + ":" +
         std::to_string(334 + 333 * i) + "(333) ack 1");
    t.ExpectOneWithin(40_ms);
    uint64_t now = 333 * (i + 1) + (uint64_t{t.last_out().wnd} << 5);
    ASSERT_GE(now, edge) << "segment " << i;
    edge = now;
  }
  ASSERT_EQ(t.connection().stats().rcv_wind_shift, 5);
  EXPECT_LT(edge, (1u << 20) + (1u << 17));
}

// -- sequence numbers around the circle ---------------------------------------

TEST(WrapTrace, BothDirectionsPassTheEndOfTheCircle) {
  for (uint32_t base :
       {0x7fff'fffau, 0xffff'fffau, 0x7fff'f000u, 0xffff'f000u}) {
    SCOPED_TRACE(base);
    Trace t = Trace::Established({.mss = 1000,
                                  .sack = true,
                                  .iss = SeqNum(base),
                                  .peer_iss = SeqNum(base)});
    t.Send(3000).Out(".  1:1001(1000) ack 1", ".  1001:2001(1000) ack 1",
                     "P. 2001:3001(1000) ack 1");
    t.In(".  1001:2001(1000) ack 2001");
    t.Out(".  3001:3001(0) ack 1 <sack 1001:2001>");
    t.In(".  1:1001(1000) ack 3001").Out(".  3001:3001(0) ack 2001 <>");
    t.In(".  501:1501(1000) ack 3001").ExpectDrop(DropReason::kDuplicateText);
    t.Out(".  3001:3001(0) ack 2001 <sack 501:1501>");
    EXPECT_EQ(t.connection().acked_offset(), 3000u);
  }
}

}  // namespace
}  // namespace devwire
