// Numbers that a stranger cannot guess: ISNs, timestamp offsets, SYN cookies,
// local ports.
#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>

#include "base/prng.h"
#include "gtest/gtest.h"
#include "transport/engine/iss.h"
#include "transport/engine/port_table.h"
#include "transport/engine/syn_cookie.h"

namespace devwire {
namespace {

constexpr HashKey kSecret{0x0706050403020100, 0x0f0e0d0c0b0a0908};

Instant At(Duration d) { return Instant() + d; }

FourTuple Tuple(uint16_t remote_port = 1000) {
  return {{IpAddress::V4(10, 0, 0, 1), Port{80}},
          {IpAddress::V4(10, 0, 0, 2), Port{remote_port}}};
}

// The reference vector of the SipHash paper, appendix A: key 00..0f, message
// 00..0e.
TEST(SipHash, ReferenceVector) {
  std::array<uint8_t, 15> message;
  std::iota(message.begin(), message.end(), uint8_t{0});
  EXPECT_EQ(SipHash24(kSecret, message), 0xa129ca6149be45e5u);
}

// RFC 6528 3: M counts 4 us, F depends on the whole 4-tuple and the secret.
TEST(InitialSequenceNumber, CountsFourMicrosecondsAboveAHash) {
  const SeqNum first = InitialSequenceNumber(Tuple(), kSecret, At(0_s));
  EXPECT_EQ(InitialSequenceNumber(Tuple(), kSecret, At(4_us)), first + 1);
  EXPECT_EQ(InitialSequenceNumber(Tuple(), kSecret, At(1_s)), first + 250'000);
  EXPECT_NE(InitialSequenceNumber(Tuple(1001), kSecret, At(0_s)), first);
  EXPECT_NE(InitialSequenceNumber(Tuple(), {1, 2}, At(0_s)), first);
  FourTuple other_local = Tuple();
  other_local.local.port = Port{81};
  EXPECT_NE(InitialSequenceNumber(other_local, kSecret, At(0_s)), first);
  EXPECT_NE(TimestampOffset(Tuple(), kSecret), first.raw()) << "one hash twice";
  EXPECT_NE(TimestampOffset(Tuple(), kSecret),
            TimestampOffset(Tuple(1001), kSecret));
}

// RFC 6437 3: 20 bits, not 0, the same for all packets of a flow.
TEST(FlowLabel, IsUniformAndNeverZero) {
  std::set<uint32_t> labels;
  for (uint16_t port = 1; port <= 1000; ++port) {
    const uint32_t label = FlowLabel(Tuple(port), kSecret);
    EXPECT_GT(label, 0u);
    EXPECT_LT(label, 1u << 20);
    EXPECT_EQ(FlowLabel(Tuple(port), kSecret), label);
    labels.insert(label);
  }
  EXPECT_GT(labels.size(), 990u);
}

TEST(SynCookie, BringsBackTheMssBelow) {
  const SeqNum irs(0xfffffff0);
  const struct {
    uint16_t offered, expected;
  } kRows[] = {{0, 536},     {535, 536},   {536, 536},   {1219, 536},
               {1220, 1220}, {1459, 1440}, {1460, 1460}, {4160, 4160},
               {8959, 8940}, {8960, 8960}, {65535, 8960}};
  for (const auto& row : kRows) {
    const SeqNum cookie =
        MakeSynCookie(Tuple(), kSecret, irs, row.offered, At(100_s));
    EXPECT_EQ(CheckSynCookie(Tuple(), kSecret, irs, cookie, At(100_s)),
              row.expected)
        << row.offered;
  }
}

TEST(SynCookie, IsGoodForItsEpochAndTheNext) {
  const SeqNum irs(7);
  // The epoch's number wraps at 256: 256 epochs are 15,360 s.
  for (const Duration start : {600_s, 15'300_s, 15'360_s}) {
    const SeqNum cookie =
        MakeSynCookie(Tuple(), kSecret, irs, 1460, At(start + 59_s));
    const auto check = [&](Duration after) {
      return CheckSynCookie(Tuple(), kSecret, irs, cookie, At(start + after));
    };
    EXPECT_EQ(check(59_s), 1460);
    EXPECT_EQ(check(119_s), 1460);
    EXPECT_EQ(check(120_s), std::nullopt);
    EXPECT_EQ(check(15'359_s), std::nullopt) << "nearly once around";
  }
}

TEST(SynCookie, AnythingElseIsRefused) {
  const SeqNum irs(7);
  const SeqNum cookie = MakeSynCookie(Tuple(), kSecret, irs, 1460, At(0_s));
  const auto check = [&](const FourTuple& tuple, const HashKey& key, SeqNum i,
                         SeqNum c) {
    return CheckSynCookie(tuple, key, i, c, At(0_s)).has_value();
  };
  EXPECT_TRUE(check(Tuple(), kSecret, irs, cookie));
  EXPECT_FALSE(check(Tuple(1001), kSecret, irs, cookie));
  EXPECT_FALSE(check(Tuple(), {1, 2}, irs, cookie));
  EXPECT_FALSE(check(Tuple(), kSecret, irs + 8, cookie));
  // 2^4 of 2^32 guesses hit: of a million, hardly any.
  Prng prng(3);
  int hits = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    hits += check(Tuple(), kSecret, irs, SeqNum(prng.Next32())) ? 1 : 0;
  }
  EXPECT_LE(hits, 2);
}

TEST(SynCookie, TicksCarryTheOptionsAndNeverRunAhead) {
  for (uint32_t ticks = 1000; ticks < 1200; ++ticks) {
    for (int scale = -1; scale <= 14; ++scale) {
      SynFacts facts;
      if (scale >= 0) facts.window_scale = static_cast<uint8_t>(scale);
      facts.sack_permitted = ticks % 2 == 0;
      facts.ecn = ticks % 3 == 0;
      const uint32_t coded = MakeCookieTicks(ticks, facts);
      EXPECT_LE(static_cast<int32_t>(coded - ticks), 0);
      EXPECT_LT(ticks - coded, 128u);
      SynFacts read;
      ReadCookieTicks(coded, &read);
      EXPECT_EQ(read, facts) << ticks << " " << scale;
    }
  }
  SynFacts beyond;
  beyond.window_scale = 20;  // RFC 7323 2.3.
  ReadCookieTicks(MakeCookieTicks(5, beyond), &beyond);
  EXPECT_EQ(beyond.window_scale, 14);
}

bool NoneTaken(Port) { return false; }

uint16_t Number(const std::optional<PortTable::Choice>& choice) {
  return choice.has_value() ? static_cast<uint16_t>(choice->port) : 0;
}

// RFC 6056 3.3.4: one destination's ports follow each other, so that each is
// reused as late as can be.
TEST(PortTable, PortsToOneDestinationFollowEachOther) {
  PortTable table(49152, 8, kSecret);
  const auto first = table.Choose(Tuple(), Instant(), NoneTaken);
  ASSERT_TRUE(first.has_value());
  EXPECT_TRUE(first->opened_block);
  const uint16_t start = static_cast<uint16_t>(first->block_start);
  EXPECT_EQ(start % 256, 0);
  std::set<uint16_t> seen = {Number(first)};
  uint16_t last = Number(first);
  for (int i = 1; i < 256; ++i) {
    const auto next = table.Choose(Tuple(), Instant(), NoneTaken);
    EXPECT_FALSE(next->opened_block);
    EXPECT_EQ(Number(next), start + (last + 1) % 256);
    last = Number(next);
    seen.insert(last);
  }
  EXPECT_EQ(seen.size(), 256u) << "each port of the block once";
}

// A peer that closed first keeps a port's last connection for a minute.
TEST(PortTable, PortsThatComeRoundTooSoonMakeABlockJoinIn) {
  constexpr int kRound = 256;
  for (const Duration gap : {1_ms, 1_s}) {
    PortTable table(49152, 8, kSecret);
    Instant now = Instant() + 1000_s;
    std::map<uint16_t, Instant> used;
    int opened = 0;
    Duration soonest = 1000_s;
    for (int i = 0; i < 5 * kRound; ++i) {
      now += gap;
      const auto choice = table.Choose(Tuple(), now, NoneTaken);
      opened += choice->opened_block ? 1 : 0;
      const auto last = used.find(Number(choice));
      if (last != used.end()) soonest = std::min(soonest, now - last->second);
      used[Number(choice)] = now;
    }
    if (gap == 1_ms) {  // Each round is over in a quarter of a second.
      EXPECT_GE(opened, 3);
      EXPECT_GE(soonest, gap * kRound);
    } else {
      EXPECT_EQ(opened, 1) << "one is enough";
      EXPECT_EQ(soonest, gap * kRound);
    }
  }
}

// What one destination learns tells nothing about another's port.
TEST(PortTable, OtherDestinationsAndSecretsGetOtherPorts) {
  std::set<uint16_t> by_destination;
  std::set<uint16_t> by_secret;
  std::set<uint16_t> blocks;
  PortTable table(49152, 8, kSecret);
  for (uint16_t i = 0; i < 100; ++i) {
    const FourTuple tuple = Tuple(static_cast<uint16_t>(1000 + i));
    by_destination.insert(Number(table.Choose(tuple, Instant(), NoneTaken)));
    PortTable other(49152, 8, {i, 1});
    const auto choice = other.Choose(Tuple(), Instant(), NoneTaken);
    by_secret.insert(Number(choice));
    blocks.insert(static_cast<uint16_t>(choice->block_start));
  }
  // Of 256 ports 100 draws hit about 83, of 64 blocks about 51.
  EXPECT_GT(by_destination.size(), 70u);
  EXPECT_GT(by_secret.size(), 90u);
  EXPECT_GT(blocks.size(), 40u);
}

TEST(PortTable, TakenPortsAndListenersAreSkippedThenABlockIsOpened) {
  PortTable table(65536 - 8, 2, kSecret);  // Two blocks of four ports.
  ASSERT_TRUE(table.AddListener(Port{65530}, 1, false));
  std::set<uint16_t> used;
  const auto is_used = [&](Port port) {
    return used.count(static_cast<uint16_t>(port)) > 0;
  };
  int opened = 0;
  for (int i = 0; i < 7; ++i) {
    const auto choice = table.Choose(Tuple(), Instant(), is_used);
    ASSERT_TRUE(choice.has_value()) << i;
    EXPECT_TRUE(used.insert(Number(choice)).second) << "in use already";
    opened += choice->opened_block ? 1 : 0;
  }
  EXPECT_EQ(opened, 2);
  EXPECT_EQ(used.count(65530), 0u) << "the listener's";
  EXPECT_FALSE(table.Choose(Tuple(), Instant(), is_used).has_value());
  EXPECT_EQ(table.FreeListenPort(), Port{65527}) << "below all blocks";
}

}  // namespace
}  // namespace devwire
