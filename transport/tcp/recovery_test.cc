// The parts of loss recovery by themselves: marks of the retransmission queue
// against a model, RACK's reordering window, PRR, undo.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <utility>
#include <vector>

#include "base/prng.h"
#include "transport/tcp/prr.h"
#include "transport/tcp/rack.h"
#include "transport/tcp/retransmit_queue.h"
#include "transport/tcp/sack_scoreboard.h"
#include "transport/tcp/undo.h"

namespace devwire {
namespace {

constexpr Instant kStart = Instant::FromNanoseconds(1'000'000'000);

// -- RetransmitQueue against a model ------------------------------------------

// Segments of 1 to 3 bytes, in a queue that wraps, numbered across 2^32.
class QueueModel {
 public:
  explicit QueueModel(uint64_t seed)
      : prng_(seed), una_(SeqNum(0xffff'ff00u)), queue_(64), rack_(una_) {}

  void Step() {
    now_ += 1_ms;
    Rack::Arrival arrival{.now = now_, .rtt_min = 2_ms};
    switch (prng_.Below(8)) {
      case 0:
      case 1:
        return Send();
      case 2:
        return Ack(&arrival);
      case 3:
      case 4:
        return Sack(&arrival);
      case 5:
        return Detect();
      case 6:
        return Retransmit();
      case 7:
        return Timeout();
    }
  }

  void Check() {
    queue_.CheckInvariants(una_, end());
    ASSERT_EQ(queue_.size(), segments_.size());
    uint32_t sacked = 0;
    for (size_t i = 0; i < segments_.size(); ++i) {
      ASSERT_EQ(queue_[i].is_sacked, segments_[i].is_sacked) << i;
      ASSERT_EQ(queue_[i].is_lost, segments_[i].is_lost) << i;
      sacked += segments_[i].is_sacked ? segments_[i].len : 0;
    }
    ASSERT_EQ(queue_.sacked_bytes(), sacked);
  }

 private:
  SeqNum end() const {
    return segments_.empty() ? una_ : segments_.back().end();
  }
  bool IsOverdue(const SentSegment& s) const {
    return rack_.IsOvertaken(s) && rack_.LossTime(s) <= now_;
  }

  void Send() {
    for (uint64_t n = prng_.Below(10); n > 0 && !queue_.full(); --n) {
      SentSegment sent{.seq = end(),
                       .len = static_cast<SeqLen>(1 + prng_.Below(3)),
                       .xmit_ts = now_};
      segments_.push_back(sent);
      queue_.Append(sent);
    }
  }
  void Ack(Rack::Arrival* arrival) {
    size_t count = prng_.Below(segments_.size() + 1) / 2;
    if (count == 0) return;
    una_ = segments_[count - 1].end();
    segments_.erase(segments_.begin(),
                    segments_.begin() + static_cast<std::ptrdiff_t>(count));
    EXPECT_EQ(queue_.AckTo(una_, &rack_, arrival).segments, count);
  }
  void Sack(Rack::Arrival* arrival) {
    if (segments_.size() < 2) return;
    const size_t left = 1 + prng_.Below(segments_.size() - 1);
    const size_t right = left + 1 + prng_.Below(segments_.size() - left);
    uint32_t bytes = 0;
    for (size_t i = left; i < right; ++i) {
      if (!segments_[i].is_sacked) bytes += segments_[i].len;
      segments_[i].is_sacked = true;
      segments_[i].is_lost = false;
    }
    // Its edges may cut segments: those it covers partly do not count.
    const SeqNum from = segments_[left].seq;
    const SeqNum cut = segments_[left - 1].len > 1 ? from - 1 : from;
    EXPECT_EQ(
        queue_.MarkSacked(cut, segments_[right - 1].end(), &rack_, arrival),
        bytes);
  }
  void Detect() {
    uint32_t bytes = 0;
    for (size_t i = 0; i < segments_.size(); ++i) {
      if (!queue_[i].is_in_flight() || !IsOverdue(queue_[i])) continue;
      segments_[i].is_lost = true;
      bytes += segments_[i].len;
    }
    const RetransmitQueue::Lost lost = queue_.MarkOverdueLost(rack_, now_);
    EXPECT_EQ(lost.bytes, bytes);
    EXPECT_GT(lost.next, now_);
  }
  void Retransmit() {
    for (uint64_t n = prng_.Below(4); n > 0; --n) {
      const SentSegment* next = queue_.NextLost();
      size_t i = 0;
      while (i < segments_.size() && !segments_[i].is_lost) ++i;
      ASSERT_EQ(next == nullptr, i == segments_.size());
      if (next == nullptr) return;
      ASSERT_EQ(next->seq, segments_[i].seq) << "not the oldest";
      segments_[i].is_lost = false;
      queue_.OnRetransmitted(now_);
    }
    if (segments_.empty() || !queue_.back().is_in_flight()) return;
    if (prng_.Chance(0.2)) queue_.OnLastRetransmitted(now_);
  }
  void Timeout() {
    if (segments_.empty() || prng_.Chance(0.7)) return;
    if (prng_.Chance(0.5)) {
      for (size_t i = 0; i < segments_.size(); ++i) {
        if (!queue_[i].is_in_flight()) continue;
        if (i == 0 || rack_.LossTime(queue_[i]) <= now_) {
          segments_[i].is_lost = true;
        }
      }
      queue_.MarkLostOnTimeout(rack_, now_);
    } else {  // It reneged.
      for (SentSegment& s : segments_) s.is_sacked = false, s.is_lost = true;
      queue_.ForgetSacked();
      queue_.MarkAllLost();
    }
  }

  Prng prng_;
  Instant now_ = kStart;
  SeqNum una_;
  RetransmitQueue queue_;
  Rack rack_;
  std::vector<SentSegment> segments_;
};

TEST(RetransmitQueueRandom, MarksAreThoseOfAModel) {
  const char* given = std::getenv("DEVWIRE_SEED");
  const uint64_t first = given ? std::strtoull(given, nullptr, 10) : 1;
  for (uint64_t seed = first; seed < first + (given ? 1 : 200); ++seed) {
    SCOPED_TRACE("DEVWIRE_SEED=" + std::to_string(seed));
    QueueModel model(seed);
    for (int i = 0; i < 500; ++i) {
      model.Step();
      ASSERT_NO_FATAL_FAILURE(model.Check());
      ASSERT_FALSE(testing::Test::HasFailure());
    }
  }
}

// Cut anew at any moment: nothing in flight is forgotten, what was too long is
// lost, unless it is SACKed, and pieces go out oldest first.
TEST(RetransmitQueueRandom, RecutKeepsEveryByte) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    RetransmitQueue queue(32);
    const SeqNum una(0xffff'ff00u);
    Rack rack(una);
    Rack::Arrival arrival{.now = kStart, .rtt_min = 2_ms};
    SeqNum end = una;
    while (!queue.full() && !prng.Chance(0.05)) {
      SentSegment sent{.seq = end,
                       .len = static_cast<uint32_t>(1 + prng.Below(1000)),
                       .xmit_ts = kStart};
      queue.Append(sent);
      end = sent.end();
    }
    if (queue.empty()) continue;
    for (int marks = 0; marks < 8; ++marks) {
      const size_t i = prng.Below(queue.size());
      if (prng.Chance(0.5)) {
        (void)queue.MarkSacked(queue[i].seq, queue[i].end(), &rack, &arrival);
      } else {
        queue.MarkFirstLost();
        if (queue.NextLost() != nullptr) queue.OnRetransmitted(kStart + 1_ms);
      }
    }
    const uint32_t sacked = queue.sacked_bytes();
    const auto most = static_cast<uint32_t>(50 + prng.Below(1000));
    const bool is_short = queue.Recut(most);
    queue.CheckInvariants(una, end);
    EXPECT_EQ(queue.sacked_bytes(), sacked);
    if (queue.free_records() > 0 && queue.lost_bytes() > 0) {
      EXPECT_TRUE(is_short);
    }
    for (size_t i = 0; i < queue.size(); ++i) {
      if (queue[i].len <= most || queue[i].is_sacked) continue;
      EXPECT_TRUE(queue[i].is_lost) << i;
      EXPECT_TRUE(queue.full()) << i;
    }
    while (const SentSegment* next = queue.NextLost()) {
      if (next->len > most) break;
      queue.OnRetransmitted(kStart + 2_ms);
      queue.CheckInvariants(una, end);
    }
    (void)queue.AckTo(end, &rack, &arrival);
    queue.CheckInvariants(end, end);
    EXPECT_TRUE(queue.is_calm());
  }
}

// No peer gets more work out of us than its blocks and our segments are worth:
// a segment is SACKed once, and runs of SACKed ones are leapt over.
TEST(SackWork, IsBoundedWhateverThePeerSends) {
  constexpr uint32_t kRecords = 1024;
  constexpr uint32_t kBlocks = 20'000;
  struct Row {
    const char* name;
    // Of block `n`, the first and the last record.
    std::function<std::pair<uint32_t, uint32_t>(uint32_t n, Prng& prng)> block;
  };
  const Row rows[] = {
      {"all, again and again",
       [](uint32_t, Prng&) { return std::pair(1u, kRecords - 1); }},
      {"every second one, from the right, then pairs, then all",
       [](uint32_t n, Prng&) {
         const uint32_t i = kRecords - 1 - 2 * (n % (kRecords / 2 - 1));
         return std::pair(i, n < kRecords ? i : kRecords - 1);
       }},
      {"from everywhere to the end",
       [](uint32_t n, Prng&) {
         return std::pair(1 + n % (kRecords - 1), kRecords - 1);
       }},
      {"anything",
       [](uint32_t, Prng& prng) {
         const auto a = static_cast<uint32_t>(1 + prng.Below(kRecords - 1));
         const auto b = static_cast<uint32_t>(1 + prng.Below(kRecords - 1));
         return std::pair(std::min(a, b), std::max(a, b));
       }},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    Prng prng(5);
    RetransmitQueue queue(kRecords);
    Rack rack(SeqNum(0));
    Rack::Arrival arrival{.now = kStart + 1_ms, .rtt_min = 1_ms};
    for (uint32_t i = 0; i < kRecords; ++i) {
      queue.Append({.seq = SeqNum(i * 1000), .len = 1000, .xmit_ts = kStart});
    }
    for (uint32_t n = 0; n < kBlocks; ++n) {
      const auto [first, last] = row.block(n, prng);
      (void)queue.MarkSacked(queue[first].seq, queue[last].end(), &rack,
                             &arrival);
    }
    queue.CheckInvariants(SeqNum(0), SeqNum(kRecords * 1000));
    EXPECT_LE(queue.sack_steps(), kRecords + 4 * kBlocks);
  }
}

// -- Rack, RFC 8985 6.2 -------------------------------------------------------

SentSegment Sent(uint32_t seq, Duration at) {
  return {.seq = SeqNum(seq), .len = 1000, .xmit_ts = kStart + at};
}

Rack::Round RoundOf(Duration rtt_min, Duration srtt) {
  return {.snd_una = SeqNum(1000),
          .snd_nxt = SeqNum(9000),
          .rtt_min = rtt_min,
          .srtt = srtt};
}

// Step 4: grows by a quarter per round with a DSACK, up to SRTT; 16 recoveries
// without one bring it back.
TEST(Rack, DsacksWidenTheReorderingWindow) {
  Rack rack(SeqNum(0));
  Rack::Arrival ack{.now = kStart + 100_ms};
  rack.OnDelivered(Sent(1000, 0_ms), &ack);
  rack.OnDelivered(Sent(0, 0_ms), &ack);  // Overtaken.
  EXPECT_TRUE(rack.reordering_seen());
  Rack::Round round = RoundOf(100_ms, 160_ms);
  round.is_in_recovery = true;
  rack.UpdateReorderingWindow(round);
  EXPECT_EQ(rack.reo_wnd(), 25_ms);
  round.has_dsack = true;
  rack.UpdateReorderingWindow(round);
  rack.UpdateReorderingWindow(round);  // The same round: once.
  EXPECT_EQ(rack.reo_wnd(), 50_ms);
  for (uint32_t i = 1; i < 10; ++i) {
    round.snd_una = round.snd_nxt;
    round.snd_nxt += 1000;
    rack.UpdateReorderingWindow(round);
  }
  EXPECT_EQ(rack.reo_wnd(), 160_ms);
  round.has_dsack = false;
  for (int i = 0; i < 15; ++i) rack.OnRecoveryEnded();
  rack.UpdateReorderingWindow(round);
  EXPECT_EQ(rack.reo_wnd(), 160_ms);
  rack.OnRecoveryEnded();
  rack.UpdateReorderingWindow(round);
  EXPECT_EQ(rack.reo_wnd(), 25_ms);
}

TEST(Rack, NoWindowForDupThreshOrInRecoveryUnlessReorderingWasSeen) {
  Rack rack(SeqNum(0));
  Rack::Arrival ack{.now = kStart + 100_ms};
  rack.OnDelivered(Sent(1000, 0_ms), &ack);
  Rack::Round round = RoundOf(100_ms, 100_ms);
  round.segs_sacked = 2;
  rack.UpdateReorderingWindow(round);
  EXPECT_EQ(rack.reo_wnd(), 25_ms);
  round.segs_sacked = 3;
  rack.UpdateReorderingWindow(round);
  EXPECT_EQ(rack.reo_wnd(), Duration());
  round.segs_sacked = 0;
  round.is_in_recovery = true;
  rack.UpdateReorderingWindow(round);
  EXPECT_EQ(rack.reo_wnd(), Duration());
}

// What was sent again for nothing had been overtaken; in a recovery it may have
// been a timeout's.
TEST(Rack, ADsackOutsideOfARecoveryIsReordering) {
  Rack rack(SeqNum(0));
  Rack::Arrival ack{.now = kStart + 100_ms};
  rack.OnDelivered(Sent(1000, 0_ms), &ack);
  Rack::Round round = RoundOf(100_ms, 300_ms);
  round.segs_sacked = 3;
  round.has_dsack = round.is_in_recovery = true;
  rack.UpdateReorderingWindow(round);
  EXPECT_EQ(rack.reo_wnd(), Duration());
  round.snd_una = round.snd_nxt;  // The next round.
  round.is_in_recovery = false;
  rack.UpdateReorderingWindow(round);
  EXPECT_TRUE(rack.reordering_seen());
  EXPECT_EQ(rack.reo_wnd(), 75_ms);
}

// Step 2: an ACK that may be the first transmission's tells nothing.
TEST(Rack, AmbiguousRetransmissionsAreIgnored) {
  Rack rack(SeqNum(0));
  SentSegment again = Sent(0, 100_ms);
  again.was_retransmitted = true;
  const SentSegment before = Sent(1000, 50_ms);
  Rack::Arrival too_soon{.now = kStart + 110_ms, .rtt_min = 20_ms};
  rack.OnDelivered(again, &too_soon);
  EXPECT_FALSE(rack.IsOvertaken(before));
  Rack::Arrival old_echo{.now = kStart + 150_ms,
                         .echo_ms = MillisecondsOf(kStart + 99_ms),
                         .rtt_min = 20_ms};
  rack.OnDelivered(again, &old_echo);
  EXPECT_FALSE(rack.IsOvertaken(before));
  Rack::Arrival its_echo{.now = kStart + 150_ms,
                         .echo_ms = MillisecondsOf(kStart + 100_ms),
                         .rtt_min = 20_ms};
  rack.OnDelivered(again, &its_echo);
  EXPECT_TRUE(rack.IsOvertaken(before));
  EXPECT_EQ(rack.rtt(), 50_ms);
}

// Bursts share a time; their sequence numbers tell the order. Across 2^32.
TEST(Rack, TiesAreBrokenBySequenceNumber) {
  Rack rack(SeqNum(0xffff'ff00u));
  Rack::Arrival ack{.now = kStart + 10_ms};
  rack.OnDelivered(Sent(0xffff'ff00u, 0_ms), &ack);
  EXPECT_TRUE(rack.IsOvertaken(Sent(0xffff'fb18u, 0_ms)));
  EXPECT_FALSE(rack.IsOvertaken(Sent(0xffff'ff00u + 1000, 0_ms)));
}

// -- Prr, RFC 9937 6 ----------------------------------------------------------

TEST(Prr, ProportionalWhileAboveSsthresh) {
  Prr prr;
  prr.Start(/*recover_fs=*/10'000, /*ssthresh=*/7000);
  prr.OnAck({.delivered = 1000, .pipe = 9000, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 1000u);  // The fast retransmission is forced.
  prr.OnSent(1000);
  prr.OnAck({.delivered = 1000, .pipe = 9000, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 1000u);  // 2 * 700, in segments, - 1000.
  prr.OnSent(1000);
  prr.OnAck({.delivered = 900, .pipe = 8000, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 1000u);  // 2030, in segments, - 2000.
  prr.OnSent(1000);
  prr.OnAck({.delivered = 1000, .pipe = 8000, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 0u);  // 2730, in segments, - 3000.
}

// Far below it, after many losses: what was delivered, and a segment more for a
// safe ACK, up to ssthresh.
TEST(Prr, BelowSsthreshAsMuchAsIsDelivered) {
  Prr prr;
  prr.Start(20'000, 10'000);
  prr.OnAck({.delivered = 1000, .pipe = 4000, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 1000u);
  prr.OnSent(1000);
  prr.OnAck({.delivered = 2000, .pipe = 4000, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 2000u);
  prr.OnSent(2000);
  prr.OnAck({.delivered = 1000, .pipe = 4000, .is_safe = true, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 2000u);
  prr.OnAck({.delivered = 4000, .pipe = 9500, .is_safe = true, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 500u);
}

TEST(Prr, NothingDeliveredNothingSent) {
  Prr prr;
  prr.Start(20'000, 10'000);
  prr.OnAck({.pipe = 15'000, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 1000u);  // The reordering timer's retransmission.
  prr.OnSent(1000);
  prr.OnAck({.pipe = 5000, .smss = 1000});
  EXPECT_EQ(prr.snd_cnt(), 0u);
}

// -- Undo ---------------------------------------------------------------------

TEST(Undo, DsacksMustCoverEverythingSentAgain) {
  Undo undo;
  EXPECT_FALSE(undo.OnDsack({SeqNum(0), SeqNum(1000)}, SeqNum(0)));
  undo.Start(SeqNum(5000));
  EXPECT_FALSE(undo.OnDsack({SeqNum(5000), SeqNum(6000)}, SeqNum(6000)))
      << "nothing was sent again";
  undo.OnRetransmitted(1000, 1);
  undo.OnRetransmitted(1000, 2);
  EXPECT_FALSE(undo.OnDsack({SeqNum(5000), SeqNum(6000)}, SeqNum(6000)));
  EXPECT_FALSE(undo.OnDsack({SeqNum(4000), SeqNum(5000)}, SeqNum(6000)))
      << "of an earlier one";
  EXPECT_TRUE(undo.OnDsack({SeqNum(6000), SeqNum(7000)}, SeqNum(7000)));
}

TEST(Undo, NotLongAfterTheRecovery) {
  Undo undo;
  undo.Start(SeqNum(5000));
  undo.OnRetransmitted(1000, 1);
  undo.OnRecoveryEnded(SeqNum(9000));
  EXPECT_FALSE(undo.OnDsack({SeqNum(5000), SeqNum(6000)}, SeqNum(9001)));
  EXPECT_FALSE(undo.OnDsack({SeqNum(5000), SeqNum(6000)}, SeqNum(9000)));
}

TEST(Undo, OnlyTheFirstAdvanceTells) {
  Undo undo;
  undo.Start(SeqNum(5000));
  undo.OnRetransmitted(1000, 500);
  EXPECT_FALSE(undo.OnAdvance(500));  // The same tick: no proof.
  EXPECT_FALSE(undo.OnAdvance(499));
  undo.Start(SeqNum(5000));
  undo.OnRetransmitted(1000, 0);  // Ticks wrap.
  EXPECT_TRUE(undo.OnAdvance(0xffff'ffffu));
}

}  // namespace
}  // namespace devwire
