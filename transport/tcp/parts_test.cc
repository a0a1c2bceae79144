// The mechanisms by themselves: RTT, NewReno, records, reassembly, window.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <vector>

#include "base/prng.h"
#include "transport/tcp/connection.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

using ::testing::ElementsAre;

constexpr Instant kStart = Instant::FromNanoseconds(5'000'000'000);

// -- RttEstimator -------------------------------------------------------------

RttEstimator::Options PlainRfc() {
  return {.rto_initial = 1_s, .rto_min = 1_ms, .rto_max = 60_s};
}

TEST(RttEstimator, FollowsRfc6298) {
  RttEstimator rtt(PlainRfc());
  EXPECT_EQ(rtt.rto(), 1_s);
  EXPECT_FALSE(rtt.srtt());
  rtt.OnSample(100_ms, kStart);  // (2.2)
  EXPECT_EQ(rtt.srtt(), 100_ms);
  EXPECT_EQ(rtt.rttvar(), 50_ms);
  EXPECT_EQ(rtt.rto(), 300_ms);
  rtt.OnSample(200_ms, kStart);  // (2.3)
  EXPECT_EQ(rtt.rttvar(), (3 * 50_ms + 100_ms) / 4);
  EXPECT_EQ(rtt.srtt(), (7 * 100_ms + 200_ms) / 8);
  EXPECT_EQ(rtt.rto(), *rtt.srtt() + 4 * rtt.rttvar());
  EXPECT_EQ(rtt.rtt_min(), 100_ms);
}

// A path that became longer is noticed: RFC 8985 6.2, step 1, has the minimum
// over a window of time.
TEST(RttEstimator, TheMinimumIsForgotten) {
  RttEstimator rtt({});
  rtt.OnSample(10_ms, kStart);
  for (int i = 1; i <= 149; ++i) rtt.OnSample(50_ms, kStart + i * 1_s);
  EXPECT_EQ(rtt.rtt_min(), 10_ms);
  rtt.OnSample(40_ms, kStart + 151_s);
  EXPECT_EQ(rtt.rtt_min(), 10_ms);
  for (int i = 152; i <= 300; ++i) rtt.OnSample(50_ms, kStart + i * 1_s);
  EXPECT_EQ(rtt.rtt_min(), 10_ms);
  rtt.OnSample(60_ms, kStart + 302_s);
  EXPECT_EQ(rtt.rtt_min(), 40_ms);
  rtt.OnSample(70_ms, kStart + 1000_s);  // Nothing was measured for long.
  EXPECT_EQ(rtt.rtt_min(), 70_ms);
}

TEST(RttEstimator, MarginIsNeverBelowTheMinimum) {
  RttEstimator rtt({});
  for (int i = 0; i < 100; ++i) rtt.OnSample(30_ms, kStart);
  EXPECT_EQ(rtt.rto(), 230_ms);
}

TEST(RttEstimator, BacksOffUpToTheMaximumUntilASample) {
  RttEstimator rtt({.rto_max = 60_s});
  for (int i = 0; i < 5; ++i) rtt.OnTimeout();
  EXPECT_EQ(rtt.rto(), 32_s);
  EXPECT_EQ(rtt.backoffs(), 5);
  rtt.OnTimeout();
  rtt.OnTimeout();
  EXPECT_EQ(rtt.rto(), 60_s);
  rtt.OnSample(1_ms, kStart);
  EXPECT_EQ(rtt.backoffs(), 0);
  EXPECT_EQ(rtt.rto(), 201_ms);
}

TEST(RttEstimator, SynRetransmittedMatterOnlyWithoutASample) {
  RttEstimator rtt({});
  rtt.OnSynRetransmitted();
  EXPECT_EQ(rtt.rto(), 3_s);
  rtt.OnSample(1_ms, kStart);
  rtt.OnSynRetransmitted();
  EXPECT_EQ(rtt.rto(), 201_ms);
}

// -- NewReno
// --------------------------------------------------------------------

TEST(NewReno, InitialWindow) {  // RFC 6928 2.
  struct Row {
    uint32_t smss;
    uint32_t iw;
  };
  for (Row row : {Row{536, 5360}, Row{1460, 14'600}, Row{8948, 17'896}}) {
    NewReno cc;
    cc.OnEstablished({.now = kStart, .smss = row.smss});
    EXPECT_EQ(cc.cwnd(), row.iw);
    EXPECT_EQ(cc.ssthresh(), UINT32_MAX);
  }
}

CongestionControl::Ack Acked(uint32_t bytes, bool limited = true) {
  return {.now = kStart, .acked_bytes = bytes, .is_cwnd_limited = limited};
}

TEST(NewReno, SlowStartThenOneSegmentPerWindow) {
  NewReno cc;
  cc.OnEstablished({.now = kStart, .smss = 1000});
  cc.OnLoss(20'000, kStart);
  EXPECT_EQ(cc.ssthresh(), 10'000u);
  EXPECT_EQ(cc.cwnd(), 10'000u);
  for (int i = 0; i < 10; ++i) cc.OnAck(Acked(1000));
  EXPECT_EQ(cc.cwnd(), 11'000u);
  cc.OnTimeout(11'000, true, kStart);
  EXPECT_EQ(cc.cwnd(), 1000u);
  EXPECT_EQ(cc.ssthresh(), 5500u);
  cc.OnTimeout(11'000, false, kStart);  // Again: ssthresh stays.
  EXPECT_EQ(cc.ssthresh(), 5500u);
  for (int i = 0; i < 4; ++i) cc.OnAck(Acked(1000));
  EXPECT_EQ(cc.cwnd(), 5000u);
  cc.OnAck(Acked(1000));  // Slow start ends at ssthresh.
  EXPECT_EQ(cc.cwnd(), 5500u);
}

TEST(NewReno, AnIdleWindowDoesNotGrow) {
  NewReno cc;
  cc.OnEstablished({.now = kStart, .smss = 1000});
  cc.OnAck(Acked(1000, false));
  EXPECT_EQ(cc.cwnd(), 10'000u);
}

TEST(NewReno, NeverBelowTwoSegmentsAfterLoss) {
  NewReno cc;
  cc.OnEstablished({.now = kStart, .smss = 1000});
  cc.OnLoss(1000, kStart);
  EXPECT_EQ(cc.ssthresh(), 2000u);
}

// What was before the loss, and no burst. RFC 4015 3.1 (0) and (9).
TEST(NewReno, UndoRestoresWhatWasBeforeTheLoss) {
  NewReno cc;
  cc.OnEstablished({.now = kStart, .smss = 1000});
  cc.OnLoss(8000, kStart);
  EXPECT_EQ(cc.cwnd(), 4000u);
  cc.OnUndo(8000, kStart);
  EXPECT_EQ(cc.cwnd(), 10'000u);
  EXPECT_EQ(cc.ssthresh(), UINT32_MAX);  // There was none.

  cc.OnLoss(40'000, kStart);
  for (int i = 0; i < 20; ++i) cc.OnAck(Acked(1000));
  const uint32_t before = cc.cwnd();
  cc.OnTimeout(20'000, true, kStart);
  cc.OnTimeout(20'000, false, kStart);  // The same loss: nothing to remember.
  cc.OnUndo(5000, kStart);
  EXPECT_EQ(cc.cwnd(), 15'000u);  // In flight, and an initial window.
  EXPECT_LT(cc.cwnd(), before);
  EXPECT_EQ(cc.ssthresh(), 20'000u);
}

// -- RetransmitQueue
// ----------------------------------------------------------------

SentSegment Sent(uint32_t seq, uint32_t len, Duration at = Duration()) {
  return {.seq = SeqNum(seq), .len = len, .xmit_ts = kStart + at};
}

TEST(RetransmitQueue, AcksTrimMarksAndTimes) {
  for (uint32_t base : {0u, 0x7fff'fff0u, 0xffff'fff0u}) {
    SCOPED_TRACE(base);
    RetransmitQueue queue(4);
    queue.Append(Sent(base, 10));
    queue.Append(Sent(base + 10, 10, 1_ms));
    queue.Append(Sent(base + 20, 10, 2_ms));
    queue.Append(Sent(base + 30, 10, 3_ms));
    EXPECT_TRUE(queue.full());
    queue.MarkFirstLost();
    EXPECT_EQ(queue.lost_bytes(), 10u);
    EXPECT_EQ(queue.NextLost()->seq, SeqNum(base));
    queue.OnRetransmitted(kStart + 5_ms);
    EXPECT_EQ(queue.NextLost(), nullptr);

    RetransmitQueue::Acked acked = queue.AckTo(SeqNum(base + 15));
    EXPECT_EQ(acked.segments, 1u);
    EXPECT_TRUE(acked.again_xmit_ts.has_value());
    EXPECT_EQ(acked.first_xmit_ts, kStart + 1_ms);
    EXPECT_EQ(queue.front().seq, SeqNum(base + 15));
    EXPECT_EQ(queue.front().len, 5u);
    queue.CheckInvariants(SeqNum(base + 15), SeqNum(base + 40));

    queue.MarkAllLost();
    EXPECT_EQ(queue.lost_bytes(), 25u);
    EXPECT_EQ(queue.NextLost()->seq, SeqNum(base + 15));
    queue.OnRetransmitted(kStart);
    EXPECT_EQ(queue.NextLost()->seq, SeqNum(base + 20));
    (void)queue.AckTo(SeqNum(base + 25));  // Cuts a lost one.
    EXPECT_EQ(queue.lost_bytes(), 15u);
    queue.CheckInvariants(SeqNum(base + 25), SeqNum(base + 40));
    EXPECT_EQ(queue.AckTo(SeqNum(base + 40)).segments, 2u);
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.lost_bytes(), 0u);
  }
}

// -- Reassembly against a model
// ---------------------------------------------------

class ReassemblyModel : public ::testing::Test {
 protected:
  Text Arrive(uint32_t from, uint32_t to, uint32_t first = 0) {
    Text text{.seq = base_ + from, .bytes = to - from};
    auto add = [&](uint32_t bytes) {
      if (bytes == 0) return;
      SlotIndex slot{next_slot_++};
      ledger_.Arrive(slot, bytes);
      text.frags[text.count++] = {.slot = slot, .length = bytes};
    };
    add(first);
    add(to - from - first);
    return text;
  }

  SlotLedger ledger_;
  SeqNum base_{0};
  uint32_t next_slot_ = 0;
};

TEST_F(ReassemblyModel, GiveUpTakesTheHighest) {
  Reassembly reassembly(8, ledger_);
  SackBlock duplicate;
  reassembly.Insert(Arrive(10, 20), &duplicate);
  reassembly.Insert(Arrive(20, 30), &duplicate);
  reassembly.Insert(Arrive(50, 60), &duplicate);
  EXPECT_EQ(reassembly.highest(), SeqNum(50));
  reassembly.GiveUpHighest();
  EXPECT_EQ(reassembly.highest(), SeqNum(20));
  reassembly.GiveUpHighest();
  reassembly.CheckInvariants(SeqNum(0));
  std::array<SackBlock, 4> blocks;
  ASSERT_EQ(reassembly.SackBlocks(blocks), 1u);
  EXPECT_EQ(blocks[0], (SackBlock{SeqNum(10), SeqNum(20)}));
  reassembly.GiveUpHighest();
  EXPECT_TRUE(reassembly.empty());
  EXPECT_EQ(ledger_.slots_in_use(), 0u);
}

TEST_F(ReassemblyModel, FullIsRefused) {
  Reassembly reassembly(2, ledger_);
  SackBlock duplicate;
  using Result = Reassembly::Result;
  EXPECT_EQ(reassembly.Insert(Arrive(10, 20), &duplicate), Result::kKept);
  EXPECT_EQ(reassembly.Insert(Arrive(30, 40), &duplicate), Result::kKept);
  EXPECT_EQ(reassembly.Insert(Arrive(50, 60), &duplicate), Result::kRefused);
  EXPECT_EQ(reassembly.Insert(Arrive(12, 18), &duplicate), Result::kDuplicate);
  // Covers both: their slots make room for its own.
  EXPECT_EQ(reassembly.Insert(Arrive(5, 45), &duplicate), Result::kKept);
  EXPECT_EQ(reassembly.frags(), 1u);
  reassembly.CheckInvariants(SeqNum(0));
}

// Random texts against a set of bytes: what is kept is exactly what arrived,
// ranges are its maximal runs, no byte of a slot is lost or used twice.
TEST_F(ReassemblyModel, RandomTexts) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    base_ = SeqNum(prng.Chance(0.5) ? prng.Next32() : 0xffff'ff80u);
    Reassembly reassembly(64, ledger_);
    std::set<uint32_t> present;
    uint32_t rcv_nxt = 0;
    for (int step = 0; step < 200; ++step) {
      if (prng.Chance(0.1)) {  // The hole is filled, and perhaps more.
        rcv_nxt += static_cast<uint32_t>(prng.Between(1, 60));
        Frag frag;
        while (reassembly.TakeNext(base_ + rcv_nxt, &frag)) {
          for (uint32_t i = 0; i < frag.length; ++i) {
            EXPECT_TRUE(present.contains(rcv_nxt + i));
          }
          ledger_.Lend(frag);
          ledger_.Return(frag);
          rcv_nxt += frag.length;
        }
        present.erase(present.begin(), present.lower_bound(rcv_nxt));
      } else if (prng.Chance(0.1) && !reassembly.empty()) {
        uint32_t from = reassembly.highest() - base_;
        reassembly.GiveUpHighest();
        present.erase(present.lower_bound(from), present.end());
      } else {
        uint32_t from = rcv_nxt + static_cast<uint32_t>(prng.Between(1, 400));
        uint32_t to = from + static_cast<uint32_t>(prng.Between(1, 60));
        uint32_t first = static_cast<uint32_t>(prng.Below(to - from));
        SackBlock duplicate;
        Reassembly::Result result =
            reassembly.Insert(Arrive(from, to, first), &duplicate);
        bool was_known = true;
        for (uint32_t i = from; i < to; ++i) was_known &= present.contains(i);
        EXPECT_EQ(result == Reassembly::Result::kDuplicate, was_known);
        for (SeqNum i = duplicate.left; i != duplicate.right; i += 1) {
          EXPECT_TRUE(present.contains(i - base_));
        }
        if (result == Reassembly::Result::kKept) {
          for (uint32_t i = from; i < to; ++i) present.insert(i);
        }
      }
      reassembly.CheckInvariants(base_ + rcv_nxt);
      ASSERT_EQ(reassembly.bytes(), present.size());
      for (uint32_t i : present) {
        ASSERT_NE(reassembly.RangeOf(base_ + i), nullptr);
      }
    }
    reassembly.Clear();
    ASSERT_EQ(ledger_.slots_in_use(), 0u);
  }
}

// -- ReceiveWindow
// ------------------------------------------------------------------

// Bytes that come one by one are rounded up until an eighth of the budget was
// given away; from then on what is told falls short of the edge, which stays.
TEST(ReceiveWindow, TheEdgeStaysWhereRoundingUpEnds) {
  ReceiveWindow window(
      {.limits = {.byte_budget = 1 << 20, .slot_quota = 1'000'000},
       .slot_bytes = 2048,
       .mss = 1448});
  SeqNum rcv_nxt(1);
  window.Start(rcv_nxt, 0);
  (void)window.Advertise(rcv_nxt, true);
  window.EnableScaling();
  (void)window.Advertise(rcv_nxt, false);
  bool fell_short = false;
  for (int i = 0; i < 300'000; ++i) {
    const SeqNum edge = window.edge();
    rcv_nxt += 1;
    window.Hold(1, 0);
    const uint32_t told = uint32_t{window.Advertise(rcv_nxt, false)}
                          << window.shift();
    ASSERT_TRUE(SeqGe(window.edge(), edge)) << i;
    fell_short |= told < window.rcv_wnd(rcv_nxt);
  }
  EXPECT_TRUE(fell_short);
}

// A peer behind a path that became narrow fills the slots long before the
// window. It is offered less, reaches the end of what it was promised, and
// loses no more; when its segments grow again, so does the window.
TEST(ReceiveWindow, OffersLessToAPeerWhoseSegmentsFoundNoSlots) {
  constexpr uint64_t kBudget = 6'000;
  constexpr uint32_t kQuota = 3;
  ReceiveWindow window(
      {.limits = {.byte_budget = kBudget, .slot_quota = kQuota},
       .slot_bytes = 8'960,
       .mss = 8'960});
  SeqNum rcv_nxt(1);
  window.Start(rcv_nxt, 0);
  (void)window.Advertise(rcv_nxt, false);
  // Sends as much as it may, and the application returns all tokens.
  const auto round = [&](uint32_t segment) {
    uint32_t left = window.rcv_wnd(rcv_nxt);
    uint32_t held = 0, refused = 0, slots = 0;
    while (left > 0) {
      const uint32_t bytes = std::min(segment, left);
      left -= bytes;
      if (refused > 0 || !window.HasRoomInOrder(1, 0)) {
        window.OnRefused(bytes);
        ++refused;
        continue;
      }
      window.Hold(bytes, 1);
      window.Measure(bytes);
      rcv_nxt += bytes;
      held += bytes;
      ++slots;
    }
    window.OnRead(held);
    window.Release(held, slots);
    (void)window.Advertise(rcv_nxt, false);
    EXPECT_GT(window.rcv_wnd(rcv_nxt), 0u);
    return refused;
  };
  EXPECT_EQ(window.rcv_wnd(rcv_nxt), kBudget);
  EXPECT_GT(round(581), 0u);
  for (int i = 0; i < 5; ++i) (void)round(581);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(round(581), 0u) << i;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(round(8'960), 0u) << i;
  EXPECT_EQ(window.rcv_wnd(rcv_nxt), kBudget);
}

// Whatever happens, the true edge never moves left, and what is offered beyond
// the budget is bounded.
TEST(ReceiveWindow, RandomHistoryKeepsItsPromises) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    ReceiveWindow window(
        {.limits = {.byte_budget = uint64_t{1000} << prng.Below(14),
                    .slot_quota = static_cast<uint32_t>(prng.Between(2, 300))},
         .slot_bytes = 2048,
         .mss = 1448});
    const uint64_t budget = window.limits().byte_budget;
    SeqNum rcv_nxt(prng.Next32());
    window.Start(rcv_nxt, 0);
    (void)window.Advertise(rcv_nxt, true);
    window.EnableScaling();
    std::vector<uint32_t> held;
    uint64_t held_bytes = 0;
    for (int step = 0; step < 500; ++step) {
      SeqNum edge = window.edge();
      if (prng.Chance(0.6)) {
        uint32_t bytes = static_cast<uint32_t>(prng.Between(1, 1448));
        bytes = std::min(bytes, window.rcv_wnd(rcv_nxt));
        if (bytes > 0 && window.HasRoomInOrder(1, 0)) {
          rcv_nxt += bytes;
          window.Hold(bytes, 1);
          window.Measure(bytes);
          held.push_back(bytes);
          held_bytes += bytes;
        }
      } else if (!held.empty()) {
        window.Release(held.back(), 1);
        held_bytes -= held.back();
        held.pop_back();
      }
      const bool is_due = window.IsUpdateDue(rcv_nxt);
      const uint32_t before = window.rcv_wnd(rcv_nxt);
      const uint16_t field = window.Advertise(rcv_nxt, false);
      EXPECT_TRUE(SeqGe(window.edge(), edge));
      EXPECT_LE(uint32_t{field} << window.shift(), window.rcv_wnd(rcv_nxt));
      EXPECT_LE(held_bytes + window.rcv_wnd(rcv_nxt),
                budget + budget / 8 + (1u << window.shift()));
      if (is_due) {
        EXPECT_GT(window.rcv_wnd(rcv_nxt), before);
      }
      if (held.empty()) {
        EXPECT_GT(field, 0) << "a reader gets on";
      }
    }
  }
}

TEST(ReceiveWindow, ShiftCoversTheBudget) {
  struct Row {
    uint64_t budget;
    int shift;
  };
  for (Row row : {Row{65535, 0}, Row{65536, 1}, Row{1 << 20, 5},
                  Row{uint64_t{1} << 40, 14}}) {
    ReceiveWindow window(
        {.limits = {.byte_budget = row.budget, .slot_quota = 1000}});
    EXPECT_EQ(window.wanted_shift(), row.shift);
  }
}

// -- names
// ----------------------------------------------------------------------------

TEST(Names, EveryEnumeratorHasItsOwn) {
  std::set<std::string> states, reasons;
  for (int i = 0; i < kStateCount; ++i) {
    states.insert(StateName(static_cast<State>(i)));
  }
  for (int i = 0; i < kDropReasonCount; ++i) {
    reasons.insert(DropReasonName(static_cast<DropReason>(i)));
  }
  EXPECT_EQ(states.size(), static_cast<size_t>(kStateCount));
  EXPECT_EQ(reasons.size(), static_cast<size_t>(kDropReasonCount));
  EXPECT_STREQ(StateName(State::kSynSent), "SYN-SENT");
}

TEST(States, EdgesOfFigure5) {
  EXPECT_TRUE(IsStateEdge(State::kSynSent, State::kSynReceived));
  EXPECT_TRUE(IsStateEdge(State::kFinWait1, State::kTimeWait));
  EXPECT_FALSE(IsStateEdge(State::kEstablished, State::kTimeWait));
  EXPECT_FALSE(IsStateEdge(State::kTimeWait, State::kEstablished));
  EXPECT_TRUE(IsStateEdge(State::kLastAck, State::kClosed));
  EXPECT_FALSE(IsStateEdge(State::kClosed, State::kClosed));
}

}  // namespace
}  // namespace devwire
