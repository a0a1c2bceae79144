#include "transport/sim/sim_link.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "transport/packet_io.h"
#include "transport/wire/frame.h"

namespace devwire {
namespace {

constexpr int kFrames = 10'000;

SimFrame Numbered(uint32_t number, size_t bytes = 100) {
  SimFrame frame(bytes);
  std::memcpy(frame.data(), &number, sizeof(number));
  frame[12] = std::byte{8};  // IPv4, as far as the link looks.
  return frame;
}

struct Arrival {
  Instant at;
  uint32_t number;
  SimFrame frame;
  friend bool operator==(const Arrival&, const Arrival&) = default;
};

// Sends frames 0, 1, 2... one each `gap`, and collects all that arrives.
std::vector<Arrival> SendAll(SimLink& link, Duration gap,
                             int frames = kFrames) {
  std::vector<Arrival> arrivals;
  Instant now;
  const auto drain = [&](Instant until) {
    while (link.NextArrival() <= until &&
           link.NextArrival() != Instant::Never()) {
      const Instant at = link.NextArrival();
      const auto frame = link.Receive(at);
      uint32_t number;
      std::memcpy(&number, frame->data(), sizeof(number));
      arrivals.push_back({at, number, *frame});
    }
  };
  for (int i = 0; i < frames; ++i) {
    link.Send(Numbered(static_cast<uint32_t>(i)), now);
    now += gap;
    drain(now);
  }
  drain(Instant::FromNanoseconds(INT64_MAX - 1));
  return arrivals;
}

TEST(SimLinkTest, CleanWireOnlyDelays) {
  SimLink link({.delay = 5_ms}, 1);
  const auto arrivals = SendAll(link, 1_us);
  ASSERT_EQ(arrivals.size(), size_t{kFrames});
  for (int i = 0; i < kFrames; ++i) {
    EXPECT_EQ(arrivals[i].number, static_cast<uint32_t>(i));
    EXPECT_EQ(arrivals[i].at, Instant() + i * 1_us + 5_ms);
  }
  EXPECT_EQ(link.NextArrival(), Instant::Never());
  EXPECT_FALSE(link.Receive(Instant::FromNanoseconds(INT64_MAX)).has_value());
}

TEST(SimLinkTest, NothingArrivesEarly) {
  SimLink link({.delay = 5_ms}, 1);
  link.Send(Numbered(0), Instant());
  EXPECT_FALSE(link.Receive(Instant() + 5_ms - 1_ns).has_value());
  EXPECT_TRUE(link.Receive(Instant() + 5_ms).has_value());
}

TEST(SimLinkTest, SameSeedSameArrivals) {
  const LinkFaults all{.jitter = 2_ms,
                       .loss = 0.1,
                       .burst_loss = 0.01,
                       .duplicate = 0.1,
                       .reorder = 0.1,
                       .corrupt = 0.1,
                       .bits_per_second = 100'000'000};
  SimLink a(all, 7), b(all, 7), c(all, 8);
  const auto first = SendAll(a, 10_us);
  EXPECT_EQ(SendAll(b, 10_us), first);
  EXPECT_NE(SendAll(c, 10_us), first);
}

TEST(SimLinkTest, EachFaultAtItsRate) {
  struct Row {
    const char* name;
    LinkFaults faults;
    uint64_t SimLink::Stats::*counter;
  };
  const Row kRows[] = {
      {"loss", {.loss = 0.1}, &SimLink::Stats::lost},
      {"duplicate", {.duplicate = 0.1}, &SimLink::Stats::duplicated},
      {"reorder", {.reorder = 0.1}, &SimLink::Stats::reordered},
      {"corrupt", {.corrupt = 0.1}, &SimLink::Stats::corrupted},
  };
  for (const Row& row : kRows) {
    SimLink link(row.faults, 3);
    const auto arrivals = SendAll(link, 10_us);
    // Ten standard deviations.
    EXPECT_NEAR(static_cast<double>(link.stats().*row.counter), kFrames * 0.1,
                300)
        << row.name;
    EXPECT_EQ(arrivals.size(),
              kFrames - link.stats().lost + link.stats().duplicated)
        << row.name;
  }
}

TEST(SimLinkTest, ANarrowPathLosesLongFrames) {
  SimLink link({.path_mtu = 1000, .narrows_after = 10_ms}, 6);
  const Instant start = Instant::FromNanoseconds(1'000'000'000);
  link.Send(SimFrame(1515), start);
  for (const size_t bytes : {1515u, 1015u, 1014u, 60u}) {
    link.Send(SimFrame(bytes), start + 10_ms);
  }
  EXPECT_EQ(link.stats().lost, 2u);
  EXPECT_EQ(link.Receive(start + 1_s)->size(), 1515u);
  EXPECT_EQ(link.Receive(start + 1_s)->size(), 1014u);
  EXPECT_EQ(link.Receive(start + 1_s)->size(), 60u);
}

TEST(SimLinkTest, JitterKeepsTheOrderReorderingDoesNot) {
  SimLink jitter({.jitter = 10_ms}, 4);
  uint32_t last = 0;
  for (const Arrival& a : SendAll(jitter, 10_us)) {
    EXPECT_GE(a.number, last);
    last = a.number;
  }
  SimLink reorder({.reorder = 0.01}, 4);
  int overtaken = 0;
  last = 0;
  for (const Arrival& a : SendAll(reorder, 10_us)) {
    overtaken += a.number < last ? 1 : 0;
    last = std::max(last, a.number);
  }
  EXPECT_GT(overtaken, 50);
}

TEST(SimLinkTest, CorruptionIsOneBitBehindTheEthernetHeader) {
  SimLink link({.corrupt = 1}, 5);
  for (const Arrival& a : SendAll(link, 10_us, 1000)) {
    const SimFrame sent = Numbered(a.number);
    int bits = 0;
    for (size_t i = 0; i < sent.size(); ++i) {
      const int flipped =
          std::popcount(static_cast<unsigned>(sent[i] ^ a.frame[i]));
      if (i < 14) {
        EXPECT_EQ(flipped, 0) << i;
      }
      bits += flipped;
    }
    EXPECT_EQ(bits, 1);
  }
}

TEST(SimLinkTest, ArpIsNotCorrupted) {
  SimLink link({.corrupt = 1}, 5);
  SimFrame arp = Numbered(1);
  arp[13] = std::byte{6};
  link.Send(arp, Instant());
  EXPECT_EQ(link.stats().corrupted, 0u);
  EXPECT_EQ(*link.Receive(link.NextArrival()), arp);
}

TEST(SimLinkTest, BurstsAreLongerThanChance) {
  SimLink link({.burst_loss = 0.01, .burst_end = 0.2, .burst_max = 1_s}, 6);
  const auto arrivals = SendAll(link, 10_us);
  int bursts = 0;
  for (size_t i = 1; i < arrivals.size(); ++i) {
    bursts += arrivals[i].number > arrivals[i - 1].number + 1 ? 1 : 0;
  }
  // Five frames a burst on average.
  EXPECT_GT(link.stats().lost, 3u * static_cast<uint64_t>(bursts));
  EXPECT_GT(bursts, 20);
}

TEST(SimLinkTest, ABurstEndsByItself) {
  SimLink link({.burst_loss = 1, .burst_end = 0, .burst_max = 1_ms}, 6);
  link.Send(Numbered(0), Instant());
  LinkFaults faults = link.faults();
  faults.burst_loss = 0;
  link.set_faults(faults);
  link.Send(Numbered(1), Instant() + 1_ms);
  EXPECT_EQ(link.stats().lost, 2u);
  link.Send(Numbered(2), Instant() + 2_ms);
  EXPECT_EQ(link.stats().lost, 2u);
}

// 100 bytes and 24 of preamble, FCS and gap: 992 bits, 992 us at 1 Mbit/s.
TEST(SimLinkTest, RateAndQueue) {
  SimLink link({.delay = Duration(),
                .bits_per_second = 1'000'000,
                .queue_limit_frames = 10},
               1);
  for (uint32_t i = 0; i < 30; ++i) link.Send(Numbered(i), Instant());
  EXPECT_EQ(link.stats().queue_dropped, 20u);
  for (int i = 1; i <= 10; ++i) {
    EXPECT_EQ(link.NextArrival(), Instant() + i * 992_us);
    EXPECT_TRUE(link.Receive(link.NextArrival()).has_value());
  }
  // The queue has drained.
  link.Send(Numbered(0), Instant() + 1_s);
  EXPECT_EQ(link.NextArrival(), Instant() + 1_s + 992_us);
}

// A segment as a host of that family sends it.
SimFrame Emitted(const IpAddress& from, const IpAddress& to, Ecn ecn) {
  SimFrame frame(kMaxTxHeaderBytes);
  const HeaderTemplate headers(
      {.tuple = {.local = {from, Port{1}}, .remote = {to, Port{2}}}});
  TcpHeader tcp;
  tcp.flags = kAck;
  frame.resize(headers.Emit(tcp, {.ecn = ecn}, frame.data()));
  WriteTcpChecksum(frame.data(), headers.l4_offset(),
                   static_cast<uint32_t>(frame.size()), {});
  return frame;
}

// Of those that may be marked, those that find the queue so long.
TEST(SimLinkTest, MarksBeyondTheThreshold) {
  const IpAddress v6 = *IpAddress::Parse("fd00::1");
  const IpAddress v4 = IpAddress::V4(10, 0, 0, 1);
  for (const IpAddress& ip : {v4, v6}) {
    for (const Ecn ecn : {Ecn::kNotEct, Ecn::kEct0, Ecn::kEct1, Ecn::kCe}) {
      SimLink link({.bits_per_second = 1'000'000, .mark_threshold_frames = 5},
                   1);
      for (int i = 0; i < 20; ++i) link.Send(Emitted(ip, ip, ecn), Instant());
      EXPECT_EQ(link.stats().marked, ecn == Ecn::kNotEct ? 0u : 15u);
      for (int i = 0; i < 20; ++i) {
        const auto frame = link.Receive(link.NextArrival());
        const auto bytes = static_cast<uint32_t>(frame->size());
        ParsedFrame parsed;
        ASSERT_EQ(ParseFrame(frame->data(), bytes, bytes, &parsed),
                  ParseResult::kTcp);
        EXPECT_TRUE(ChecksumsAreRight(frame->data(), parsed));
        EXPECT_EQ(parsed.ecn, i < 5 || ecn == Ecn::kNotEct ? ecn : Ecn::kCe);
      }
    }
  }
}

TEST(SimLinkTest, Blackouts) {
  SimLink link({.blackout_period = 100_ms, .blackout_length = 20_ms}, 1);
  for (const Arrival& a : SendAll(link, 100_us)) {
    EXPECT_LT(a.number % 1000, 800u);
  }
  EXPECT_EQ(link.stats().lost, kFrames / 5u);
}

}  // namespace
}  // namespace devwire
