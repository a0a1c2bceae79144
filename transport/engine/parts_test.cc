// The engine's own mechanisms, one by one: demux, timers, neighbours, routes,
// ports, and the queue of what is to be sent.
#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "base/prng.h"
#include "gtest/gtest.h"
#include "transport/engine/demux.h"
#include "transport/engine/iss.h"
#include "transport/engine/move_filter.h"
#include "transport/engine/neighbor.h"
#include "transport/engine/path_mtu.h"
#include "transport/engine/port_table.h"
#include "transport/engine/route.h"
#include "transport/engine/send_queue.h"
#include "transport/engine/slot_shares.h"
#include "transport/engine/timer_heap.h"

namespace devwire {
namespace {

Instant At(Duration d) { return Instant() + d; }

FourTuple Tuple(uint16_t local, uint16_t remote, uint8_t host = 2) {
  return {{IpAddress::V4(10, 0, 0, 1), Port{local}},
          {IpAddress::V4(10, 0, 0, host), Port{remote}}};
}

// -- initial sequence numbers, RFC 9293 3.4.1 ---------------------------------

// The reference's own vector: key 00..0f, message 00..0e.
TEST(Iss, SipHashAsPublished) {
  std::array<uint8_t, 15> message;
  for (uint8_t i = 0; i < message.size(); ++i) message[i] = i;
  const HashKey key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
  EXPECT_EQ(SipHash24(key, message), 0xa129ca6149be45e5u);
}

// MUST-8: one for every 4 us, and it wraps.
TEST(Iss, FollowsTheClock) {
  const HashKey secret{1, 2};
  const SeqNum first = InitialSequenceNumber(Tuple(1, 2), secret, At(0_s));
  EXPECT_EQ(InitialSequenceNumber(Tuple(1, 2), secret, At(4_us)), first + 1);
  EXPECT_EQ(InitialSequenceNumber(Tuple(1, 2), secret, At(1_s)),
            first + 250'000);
  EXPECT_EQ(
      InitialSequenceNumber(Tuple(1, 2), secret, At(4_us * (int64_t{1} << 32))),
      first);
}

// MUST-9, SHLD-1: a stranger who knows the 4-tuple knows nothing.
TEST(Iss, DependsOnTheTupleAndTheSecret) {
  const HashKey secret{1, 2};
  std::map<uint32_t, int> seen;
  for (uint16_t port = 1; port <= 100; ++port) {
    for (uint8_t host = 2; host < 5; ++host) {
      const FourTuple tuple = Tuple(80, port, host);
      ++seen[InitialSequenceNumber(tuple, secret, At(0_s)).raw()];
      ++seen[InitialSequenceNumber(tuple, {1, 3}, At(0_s)).raw()];
      ++seen[TimestampOffset(tuple, secret)];
    }
  }
  EXPECT_EQ(seen.size(), 900u);
}

TEST(Demux, FindsWhatWasInsertedAndNothingElse) {
  Demux demux(4, 1);
  EXPECT_TRUE(demux.Insert(Tuple(80, 1000), 7));
  EXPECT_FALSE(demux.Insert(Tuple(80, 1000), 8)) << "twice";
  EXPECT_EQ(demux.Find(Tuple(80, 1000)), 7u);
  EXPECT_EQ(demux.Find(Tuple(80, 1001)), std::nullopt);
  EXPECT_EQ(demux.Find(Tuple(80, 1000, 3)), std::nullopt);
  demux.Erase(Tuple(80, 1001));  // Not there: nothing happens.
  demux.Erase(Tuple(80, 1000));
  EXPECT_EQ(demux.Find(Tuple(80, 1000)), std::nullopt);
}

TEST(Demux, RefusesMoreThanItsLimit) {
  Demux demux(2, 1);
  EXPECT_TRUE(demux.Insert(Tuple(1, 1), 1));
  EXPECT_TRUE(demux.Insert(Tuple(1, 2), 2));
  EXPECT_FALSE(demux.Insert(Tuple(1, 3), 3));
  demux.Erase(Tuple(1, 1));
  EXPECT_TRUE(demux.Insert(Tuple(1, 3), 3));
}

// Long probe chains with holes in them: against a plain map.
TEST(Demux, AgreesWithAMapUnderRandomUse) {
  constexpr uint64_t kSeed = 11;
  SCOPED_TRACE(kSeed);
  Prng prng(kSeed);
  Demux demux(300, prng.Next64());
  std::map<FourTuple, uint32_t> model;
  for (uint32_t i = 0; i < 20000; ++i) {
    const FourTuple tuple = Tuple(static_cast<uint16_t>(prng.Below(20)),
                                  static_cast<uint16_t>(prng.Below(30)));
    if (prng.Chance(0.5)) {
      const bool is_new = model.size() < 300 && !model.contains(tuple);
      EXPECT_EQ(demux.Insert(tuple, i), is_new);
      if (is_new) model[tuple] = i;
    } else {
      demux.Erase(tuple);
      model.erase(tuple);
    }
    ASSERT_EQ(demux.size(), model.size());
  }
  for (uint16_t l = 0; l < 20; ++l) {
    for (uint16_t r = 0; r < 30; ++r) {
      const auto it = model.find(Tuple(l, r));
      EXPECT_EQ(demux.Find(Tuple(l, r)),
                it == model.end() ? std::nullopt : std::optional(it->second));
    }
  }
}

TEST(TimerHeap, PopsInOrderAndOnlyWhatIsDue) {
  TimerHeap timers(4);
  timers.Set(0, At(30_ms));
  timers.Set(1, At(10_ms));
  timers.Set(2, At(20_ms));
  EXPECT_EQ(timers.NextDeadline(), At(10_ms));
  uint32_t id;
  EXPECT_FALSE(timers.PopDue(At(9_ms), &id));
  ASSERT_TRUE(timers.PopDue(At(25_ms), &id));
  EXPECT_EQ(id, 1u);
  ASSERT_TRUE(timers.PopDue(At(25_ms), &id));
  EXPECT_EQ(id, 2u);
  EXPECT_FALSE(timers.PopDue(At(25_ms), &id));
}

TEST(TimerHeap, ALaterDeadlineReplacesAnEarlierOne) {
  TimerHeap timers(2);
  timers.Set(0, At(10_ms));
  timers.Set(0, At(50_ms));
  uint32_t id;
  EXPECT_FALSE(timers.PopDue(At(49_ms), &id));
  EXPECT_EQ(timers.NextDeadline(), At(50_ms));
  timers.Set(0, At(20_ms));
  ASSERT_TRUE(timers.PopDue(At(20_ms), &id));
  EXPECT_FALSE(timers.PopDue(At(99_s), &id)) << "it fires once";
}

TEST(TimerHeap, AStoppedTimerDoesNotFire) {
  TimerHeap timers(2);
  timers.Set(0, At(10_ms));
  timers.Set(0, Instant::Never());
  uint32_t id;
  EXPECT_FALSE(timers.PopDue(At(99_s), &id));
  EXPECT_EQ(timers.NextDeadline(), Instant::Never());
}

TEST(TimerHeap, AgreesWithASearchUnderRandomUse) {
  constexpr uint64_t kSeed = 5;
  SCOPED_TRACE(kSeed);
  Prng prng(kSeed);
  TimerHeap timers(50);
  std::vector<Instant> model(50, Instant::Never());
  Instant now;
  for (int i = 0; i < 5000; ++i) {
    const uint32_t which = static_cast<uint32_t>(prng.Below(50));
    model[which] = prng.Chance(0.2)
                       ? Instant::Never()
                       : now + Duration::Nanoseconds(prng.Between(0, 1000));
    timers.Set(which, model[which]);
    now += Duration::Nanoseconds(prng.Between(0, 20));
    uint32_t id;
    while (timers.PopDue(now, &id)) {
      ASSERT_LE(model[id], now);
      model[id] = Instant::Never();
    }
    ASSERT_GT(*std::min_element(model.begin(), model.end()), now);
  }
}

// RFC 9293 MUST-46, MUST-57, MUST-63; RFC 1122 3.2.1.3.
TEST(Route, WhoCanBeAPeer) {
  const Route route{.address = IpAddress::V4(10, 0, 4, 1), .prefix_bits = 22};
  const auto can = [&](const char* ip) {
    return route.CanBePeer(*IpAddress::Parse(ip));
  };
  EXPECT_TRUE(can("10.0.4.2"));
  EXPECT_TRUE(can("10.0.5.0"));
  EXPECT_TRUE(can("10.0.8.255")) << "not our prefix";
  EXPECT_TRUE(can("fd00::1"));
  for (const char* ip :
       {"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.1.1",
        "255.255.255.255", "10.0.4.0", "10.0.7.255", "ff02::1", "::", "::1"}) {
    EXPECT_FALSE(can(ip)) << ip;
  }
  // RFC 3021: a link of two has no broadcast.
  const Route pair{.address = IpAddress::V4(10, 0, 0, 0), .prefix_bits = 31};
  EXPECT_TRUE(pair.CanBePeer(IpAddress::V4(10, 0, 0, 1)));
}

TEST(Route, OnLinkGatewayAndNone) {
  Route route{IpAddress::V4(10, 0, 0, 1), 20, std::nullopt};
  const IpAddress near = IpAddress::V4(10, 0, 15, 9);
  const IpAddress far = IpAddress::V4(10, 0, 16, 9);
  EXPECT_EQ(route.NextHop(near), near);
  EXPECT_EQ(route.NextHop(far), std::nullopt);
  route.gateway = IpAddress::V4(10, 0, 0, 254);
  EXPECT_EQ(route.NextHop(far), route.gateway);
  EXPECT_EQ(route.NextHop(*IpAddress::Parse("fd00::1")), std::nullopt);
}

constexpr MacAddress kMac = {2, 0, 0, 0, 0, 9};

std::optional<IpAddress> Asked(NeighborTable& table, Instant now) {
  const auto request = table.PollRequest(now);
  if (!request.has_value()) return std::nullopt;
  return request->ip;
}

// RFC 1122 2.3.2.1: requests are repeated, at most once a second.
TEST(Neighbor, AsksThreeTimesThenFails) {
  NeighborTable table({});
  const IpAddress ip = IpAddress::V4(10, 0, 0, 9);
  const uint32_t index = *table.Acquire(ip, At(0_s));
  for (int i = 0; i < 3; ++i) {
    const Instant now = At(i * 1_s);
    EXPECT_EQ(Asked(table, now), ip) << i;
    EXPECT_EQ(Asked(table, now), std::nullopt) << i;
    EXPECT_EQ(table.NextDeadline(), now + 1_s);
    EXPECT_EQ(table.PollFailed(), std::nullopt);
  }
  EXPECT_EQ(Asked(table, At(3_s)), std::nullopt);
  EXPECT_EQ(table.PollFailed(), ip);
  EXPECT_EQ(table.PollFailed(), std::nullopt);
  EXPECT_EQ(table.entry(index).state, NeighborTable::State::kFailed);
  // The next stream asks anew.
  EXPECT_EQ(table.Acquire(ip, At(4_s)), index);
  EXPECT_EQ(Asked(table, At(4_s)), ip);
}

// RFC 9293 MUST-20 (b): R1 makes the next hop a question again, at once.
TEST(Neighbor, DoubtAsksAgainAndKeepsTheAddress) {
  NeighborTable table({});
  const IpAddress ip = IpAddress::V4(10, 0, 0, 2);
  const uint32_t index = *table.Acquire(ip, At(0_s));
  ASSERT_EQ(table.PollRequest(At(0_s))->ip, ip);
  EXPECT_TRUE(table.OnAnswer(ip, {2, 0, 0, 0, 0, 2}, false, At(0_s)));
  EXPECT_FALSE(table.PollRequest(At(1_s)).has_value());
  table.OnDoubt(index, At(1_s));
  EXPECT_EQ(table.PollRequest(At(1_s))->ip, ip);
  EXPECT_TRUE(table.entry(index).has_mac());
  table.OnDoubt(index, At(1_s));  // Asked already.
  EXPECT_FALSE(table.PollRequest(At(1_s)).has_value());
}

TEST(Neighbor, OnlyAQuestionForUsMakesAnEntry) {
  NeighborTable table({});
  const IpAddress ip = IpAddress::V4(10, 0, 0, 9);
  EXPECT_FALSE(table.OnAnswer(ip, kMac, /*create=*/false, At(0_s)));
  const uint32_t index = *table.Acquire(ip, At(0_s));
  EXPECT_FALSE(table.entry(index).has_mac());
  EXPECT_TRUE(table.OnAnswer(ip, kMac, false, At(0_s)));
  EXPECT_EQ(table.entry(index).mac, kMac);
  EXPECT_FALSE(table.OnAnswer(ip, kMac, false, At(1_s))) << "nothing new";
  // Gratuitous: it moved.
  EXPECT_TRUE(table.OnAnswer(ip, {2, 0, 0, 0, 0, 10}, false, At(1_s)));
}

TEST(Neighbor, AKnownNeighbourIsAskedAgainAndKeptWhenSilent) {
  NeighborTable table({});
  const IpAddress ip = IpAddress::V4(10, 0, 0, 9);
  const uint32_t index = *table.Acquire(ip, At(0_s));
  table.OnAnswer(ip, kMac, false, At(0_s));
  EXPECT_EQ(Asked(table, At(59_s)), std::nullopt);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Asked(table, At((60 + i) * 1_s)), ip);
  EXPECT_EQ(Asked(table, At(63_s)), std::nullopt);
  EXPECT_EQ(table.PollFailed(), std::nullopt);
  EXPECT_TRUE(table.entry(index).has_mac());
  table.Release(index);
  EXPECT_EQ(Asked(table, At(200_s)), std::nullopt) << "unused: forgotten";
  EXPECT_EQ(table.entry(index).state, NeighborTable::State::kNone);
}

TEST(Neighbor, StaticEntriesStayAndTheRestIsTakenInTurn) {
  NeighborTable table({.max_entries = 2});
  const IpAddress v6 = *IpAddress::Parse("fd00::2");
  ASSERT_TRUE(table.AddStatic(v6, kMac));
  EXPECT_FALSE(table.AddStatic(IpAddress::V4(1, 1, 1, 1), kMac)) << "full";
  EXPECT_TRUE(table.entry(*table.Acquire(v6, At(0_s))).has_mac());
  EXPECT_FALSE(table.OnAnswer(v6, {1}, true, At(0_s)));
  EXPECT_FALSE(table.OnAdvertisement(v6, MacAddress{2}, true, true, At(0_s)));
  EXPECT_FALSE(table.OnSolicitation(v6, {2}, At(0_s)));
  const IpAddress other = *IpAddress::Parse("fd00::3");
  ASSERT_TRUE(table.Acquire(other, At(0_s)).has_value());
  EXPECT_EQ(Asked(table, At(0_s)), other);
  EXPECT_EQ(table.Acquire(IpAddress::V4(1, 1, 1, 1), At(0_s)), std::nullopt)
      << "all in use";
}

constexpr MacAddress kOtherMac = {2, 0, 0, 0, 0, 10};
const IpAddress kV6 = *IpAddress::Parse("fd00::9");

// RFC 4861 7.2.5, appendix C: what an advertisement does in each state.
TEST(Neighbor, AdvertisementsInEachState) {
  using State = NeighborTable::State;
  enum Mac { kNone, kSame, kOther };
  const struct {
    State before;
    Mac mac;
    bool is_solicited, overrides;
    State after;
    bool takes_mac;
  } kRows[] = {
      {State::kIncomplete, kNone, true, true, State::kIncomplete, false},
      {State::kIncomplete, kOther, true, false, State::kReachable, true},
      {State::kIncomplete, kOther, false, false, State::kStale, true},
      {State::kReachable, kOther, true, false, State::kStale, false},
      {State::kReachable, kOther, false, true, State::kStale, true},
      {State::kReachable, kOther, true, true, State::kReachable, true},
      {State::kReachable, kSame, false, true, State::kReachable, false},
      {State::kStale, kOther, false, false, State::kStale, false},
      {State::kStale, kNone, true, false, State::kReachable, false},
      {State::kStale, kSame, true, true, State::kReachable, false},
      {State::kProbing, kSame, true, true, State::kReachable, false},
      {State::kProbing, kOther, false, true, State::kStale, true},
      {State::kProbing, kOther, true, false, State::kProbing, false},
  };
  for (size_t i = 0; i < std::size(kRows); ++i) {
    const auto& row = kRows[i];
    SCOPED_TRACE(i);
    NeighborTable table({});
    const uint32_t index = *table.Acquire(kV6, At(0_s));
    if (row.before == State::kReachable || row.before == State::kProbing) {
      table.OnAdvertisement(kV6, kMac, true, true, At(0_s));
    } else if (row.before == State::kStale) {
      table.OnSolicitation(kV6, kMac, At(0_s));
    }
    if (row.before == State::kProbing) table.PollRequest(At(60_s));
    ASSERT_EQ(table.entry(index).state, row.before);
    std::optional<MacAddress> mac;
    if (row.mac != kNone) mac = row.mac == kSame ? kMac : kOtherMac;
    EXPECT_EQ(table.OnAdvertisement(kV6, mac, row.is_solicited, row.overrides,
                                    At(60_s)),
              row.takes_mac);
    EXPECT_EQ(table.entry(index).state, row.after);
    EXPECT_EQ(table.entry(index).mac == kOtherMac, row.takes_mac);
  }
  NeighborTable table({});
  EXPECT_FALSE(table.OnAdvertisement(kV6, kMac, true, true, At(0_s)));
  EXPECT_EQ(table.NextDeadline(), Instant::Never()) << "nobody had asked";
}

// RFC 4861 7.2.3: who asks says where it is, and is to be found there, though
// that was not confirmed yet. What it says again changes nothing.
TEST(Neighbor, WhoAsksTellsOfItsMac) {
  using State = NeighborTable::State;
  NeighborTable table({});
  EXPECT_TRUE(table.OnSolicitation(kV6, kMac, At(0_s)));
  const uint32_t index = *table.Acquire(kV6, At(0_s));
  EXPECT_EQ(table.entry(index).mac, kMac);
  EXPECT_EQ(table.entry(index).state, State::kStale);
  table.OnAdvertisement(kV6, kMac, true, true, At(1_s));
  EXPECT_FALSE(table.OnSolicitation(kV6, kMac, At(2_s)));
  EXPECT_EQ(table.entry(index).state, State::kReachable);
  EXPECT_TRUE(table.OnSolicitation(kV6, kOtherMac, At(3_s)));
  EXPECT_EQ(table.entry(index).mac, kOtherMac);
  EXPECT_EQ(table.entry(index).state, State::kStale);
}

// RFC 4861 7.3.3: to the MAC it had, then to the group; and it is kept.
TEST(Neighbor, Ipv6ProbesTheKnownMacThenAll) {
  NeighborTable table({});
  const uint32_t index = *table.Acquire(kV6, At(0_s));
  EXPECT_EQ(table.PollRequest(At(0_s))->mac, std::nullopt);
  EXPECT_TRUE(table.OnSolicitation(kV6, kMac, At(0_s))) << "it asked as well";
  EXPECT_TRUE(table.entry(index).has_mac());
  EXPECT_FALSE(table.PollRequest(At(4_s)).has_value());
  for (int i = 0; i < 6; ++i) {
    const auto request = table.PollRequest(At((5 + i) * 1_s));
    ASSERT_TRUE(request.has_value()) << i;
    EXPECT_EQ(request->mac, i < 3 ? std::optional(kMac) : std::nullopt) << i;
  }
  EXPECT_FALSE(table.PollRequest(At(11_s)).has_value());
  EXPECT_EQ(table.PollFailed(), std::nullopt);
  EXPECT_TRUE(table.entry(index).has_mac());
}

TEST(PathMtu, IsLoweredKeptAndForgotten) {
  PathMtuTable table({.link_mtu = 9000});
  const IpAddress peer = IpAddress::V4(10, 0, 0, 9);
  EXPECT_EQ(table.Mtu(peer), 9000u);
  EXPECT_EQ(table.OnTooBig(peer, 9000, At(0_s)), std::nullopt);
  EXPECT_EQ(table.OnTooBig(peer, 1400, At(0_s)), 1400u);
  EXPECT_EQ(table.OnTooBig(peer, 1450, At(1_s)), std::nullopt) << "not lower";
  EXPECT_EQ(table.Mtu(peer), 1400u);
  EXPECT_EQ(table.Mtu(IpAddress::V4(10, 0, 0, 8)), 9000u);
  EXPECT_EQ(table.OnTooBig(peer, 68, At(2_s)), 552u) << "the floor";
  EXPECT_EQ(table.NextDeadline(), At(602_s));
  EXPECT_EQ(table.PollExpired(At(601_s)), std::nullopt);
  EXPECT_EQ(table.PollExpired(At(602_s)), peer);
  EXPECT_EQ(table.PollExpired(At(602_s)), std::nullopt);
  EXPECT_EQ(table.Mtu(peer), 9000u);
}

// RFC 8201 4: never below 1280.
TEST(PathMtu, Ipv6HasAFloorOfItsOwn) {
  PathMtuTable table({});
  const IpAddress peer = *IpAddress::Parse("fd00::9");
  // RFC 8201 4: one that reports less than 1280 "must" be discarded.
  EXPECT_EQ(table.OnTooBig(peer, 600, At(0_s)), std::nullopt);
  EXPECT_EQ(table.OnTooBig(peer, 0, At(0_s)), std::nullopt);
  EXPECT_EQ(table.Mtu(peer), 1500u);
  EXPECT_EQ(table.OnTooBig(peer, 1280, At(0_s)), 1280u);
}

// RFC 1191 5 and 7.1: a router that does not say, and the table of plateaus.
TEST(PathMtu, OldRoutersAreMetByPlateaus) {
  PathMtuTable table({});
  const IpAddress peer = IpAddress::V4(10, 0, 0, 9);
  EXPECT_EQ(table.OnTooBig(peer, 0, At(0_s)), 1492u);
  EXPECT_EQ(table.OnTooBig(peer, 0, At(0_s)), 1006u);
  EXPECT_EQ(table.OnTooBig(peer, 0, At(0_s)), 552u);
  EXPECT_EQ(table.OnTooBig(peer, 0, At(0_s)), std::nullopt);
}

TEST(PathMtu, AtTheLimitTheOldestGoes) {
  PathMtuTable table({.max_paths = 2});
  for (uint8_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(table.OnTooBig(IpAddress::V4(10, 0, 0, i), 1400, At(i * 1_s)),
              1400u);
  }
  EXPECT_EQ(table.Mtu(IpAddress::V4(10, 0, 0, 1)), 1500u);
  EXPECT_EQ(table.Mtu(IpAddress::V4(10, 0, 0, 3)), 1400u);
}

TEST(SendQueue, GathersAcrossSpansAndReportsWhatFits) {
  SendQueue queue(8);
  queue.Push({.addr = 1000, .length = 10, .lkey = 1});
  queue.Push({.addr = 5000, .length = 3, .lkey = 2});
  queue.Push({.addr = 9000, .length = 100, .lkey = 3});
  TxPiece pieces[2];
  size_t count;
  EXPECT_EQ(queue.Gather(4, 9, pieces, &count), 9u);
  ASSERT_EQ(count, 2u);
  EXPECT_EQ(pieces[0].addr, 1004u);
  EXPECT_EQ(pieces[0].length, 6u);
  EXPECT_EQ(pieces[1].addr, 5000u);
  EXPECT_EQ(pieces[1].length, 3u);
  EXPECT_EQ(pieces[1].lkey, 2u);
  EXPECT_EQ(queue.Gather(4, 50, pieces, &count), 9u) << "pieces ran out";
  EXPECT_EQ(queue.Gather(13, 50, pieces, &count), 50u);
  EXPECT_EQ(pieces[0].addr, 9000u);
  EXPECT_EQ(queue.Gather(0, 1, pieces, &count), 1u) << "a retransmission";
  EXPECT_EQ(pieces[0].addr, 1000u);
}

// All bytes acknowledged is not enough: a retransmission may be in flight.
// Which memory a frame failed for is only known when it is of one.
TEST(SendQueue, AFrameIsOfOneMemoryBesideHostBuffers) {
  SendQueue queue(8);
  queue.Push({.addr = 1000, .length = 10, .lkey = 5, .is_host = true});
  queue.Push({.addr = 2000, .length = 10, .lkey = 7});
  queue.Push({.addr = 3000, .length = 10, .lkey = 5, .is_host = true});
  queue.Push({.addr = 2500, .length = 10, .lkey = 7});
  queue.Push({.addr = 9000, .length = 10, .lkey = 8});
  EXPECT_EQ(queue.GatherableBytes(0, 100), 40u);
  EXPECT_EQ(queue.GatherableBytes(15, 100), 25u);
  EXPECT_EQ(queue.GatherableBytes(40, 100), 10u);
}

TEST(SendQueue, DoneNeedsTheAckAndTheWorkRequest) {
  SendQueue queue(8);
  queue.Push({.addr = 0, .length = 10, .cookie = 1});
  queue.Push({.addr = 10, .length = 10, .cookie = 2});
  queue.Posted(0, 15, 7);
  queue.Posted(5, 5, 9);  // Again, of the first span only.
  EXPECT_EQ(queue.Done(9, 99, false), nullptr);
  EXPECT_EQ(queue.Done(20, 8, false), nullptr);
  const SendQueue::Span* span = queue.Done(20, 9, false);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(span->cookie, 1u);
  queue.PopDone();
  EXPECT_EQ(queue.front_end(), 20u);
  EXPECT_EQ(queue.Done(15, 9, false), nullptr);
  // Abandoned: no acknowledgment will come; the work request still counts.
  EXPECT_EQ(queue.Done(0, 6, true), nullptr);
  ASSERT_NE(queue.Done(0, 7, true), nullptr);
  queue.PopDone();
  EXPECT_TRUE(queue.empty());
}

TEST(SendQueue, AHostSpanGrowsInPlace) {
  SendQueue queue(2);
  queue.Push({.addr = 100, .length = 5, .is_host = true});
  queue.GrowNewest(7);
  EXPECT_EQ(queue.end(), 12u);
  TxPiece pieces[2];
  size_t count;
  EXPECT_EQ(queue.Gather(2, 10, pieces, &count), 10u);
  EXPECT_EQ(count, 1u);
}

// RFC 6056: the port to a destination does not follow from that to another, nor
// from another host's.
TEST(PortTable, ActiveOpensTakeRandomPorts) {
  const auto nobody = [](Port) { return false; };
  PortTable one(49152, 8, {1, 2});
  PortTable other(49152, 8, {3, 4});
  int same = 0;
  int next = 0;
  std::optional<Port> last;
  for (int i = 0; i < 100; ++i) {
    FourTuple to;
    to.remote = {IpAddress::V4(10, 0, 0, static_cast<uint8_t>(i)), Port{80}};
    const Port port = one.Choose(to, Instant(), nobody)->port;
    same += port == other.Choose(to, Instant(), nobody)->port ? 1 : 0;
    const int number = static_cast<uint16_t>(port);
    if (last) {
      const int distance = number - static_cast<uint16_t>(*last);
      next += distance == 0 || distance == 1 ? 1 : 0;
    }
    last = port;
  }
  EXPECT_LT(same, 20);
  EXPECT_LT(next, 20);
}

TEST(PortTable, ListenersTakePortsBelowTheBlocks) {
  PortTable ports(49152, 8, {1, 2});
  EXPECT_EQ(ports.FreeListenPort(), Port{49151});
  EXPECT_TRUE(ports.AddListener(Port{49151}, 0, false));
  EXPECT_FALSE(ports.AddListener(Port{49151}, 1, false)) << "twice";
  EXPECT_EQ(ports.FreeListenPort(), Port{49150});
  ports.RemoveListener(Port{49151}, 0);
  EXPECT_EQ(ports.FreeListenPort(), Port{49151});
}

// SO_REUSEPORT: a 4-tuple belongs to one of those that share a port, and each
// of them has some.
TEST(PortTable, ListenersThatSayItShareAPort) {
  PortTable ports(49152, 8, {1, 2});
  EXPECT_TRUE(ports.AddListener(Port{80}, 5, true));
  EXPECT_FALSE(ports.AddListener(Port{80}, 6, false)) << "one alone";
  EXPECT_TRUE(ports.AddListener(Port{80}, 7, true));
  EXPECT_EQ(ports.FirstListener(Port{80}), 5u);
  std::map<uint32_t, int> streams;
  for (int i = 0; i < 1000; ++i) {
    const FourTuple here = Tuple(80, static_cast<uint16_t>(i + 1));
    const auto chosen = ports.FindListener(here);
    ASSERT_TRUE(chosen.has_value());
    EXPECT_EQ(ports.FindListener(here), chosen);
    ++streams[*chosen];
  }
  EXPECT_EQ(streams.size(), 2u);
  EXPECT_GT(streams[5], 400);
  EXPECT_GT(streams[7], 400);
  ports.RemoveListener(Port{80}, 5);
  EXPECT_EQ(ports.FirstListener(Port{80}), 7u);
  ports.RemoveListener(Port{80}, 7);
  EXPECT_EQ(ports.FirstListener(Port{80}), std::nullopt);
  EXPECT_TRUE(ports.AddListener(Port{80}, 8, false)) << "nobody shares now";
}

// Blocks from 1024 on leave none below them: others do, and active opens
// leave those alone.
TEST(PortTable, ListenersFindAPortWhereTheBlocksBeginAt1024) {
  PortTable ports(1024, 15, {1, 2});
  EXPECT_EQ(ports.FreeListenPort(), Port{32767});
  PortTable all(1024, 8, {1, 2});
  const auto port = all.FreeListenPort();
  ASSERT_EQ(port, Port{65535});
  ASSERT_TRUE(all.AddListener(*port, 0, false));
  EXPECT_EQ(all.FreeListenPort(), Port{65534});
  std::vector<bool> chosen(65536);
  const auto is_taken = [&](Port p) {
    return chosen[static_cast<uint16_t>(p)];
  };
  int count = 0;
  while (const auto choice = all.Choose(Tuple(0, 80), Instant(), is_taken)) {
    EXPECT_NE(choice->port, *port);
    chosen[static_cast<uint16_t>(choice->port)] = true;
    if (++count == 1000) break;
  }
  EXPECT_EQ(count, 1000);
}

// -- frames around a move
// ------------------------------------------------------

MoveFilter::Frame OnControl(uint16_t identification = 0) {
  return {.stream = 1,
          .identification = identification,
          .payload_bytes = 0,
          .is_on_control_queue = true};
}
MoveFilter::Frame OnData(uint16_t identification = 0) {
  MoveFilter::Frame frame = OnControl(identification);
  frame.is_on_control_queue = false;
  return frame;
}
TcpHeader AckOf(uint32_t ack) {
  TcpHeader header;
  header.seq = SeqNum(5);
  header.ack = SeqNum(ack);
  header.flags = kAck;
  header.wnd = 100;
  return header;
}

TEST(MoveFilter, ACopyIsOneOnWhicheverQueueItComesLast) {
  MoveFilter filter;
  EXPECT_FALSE(filter.IsCopy(OnControl(), AckOf(7)));
  EXPECT_TRUE(filter.IsCopy(OnData(), AckOf(7)));
  EXPECT_FALSE(filter.IsCopy(OnData(), AckOf(8)));
  EXPECT_TRUE(filter.IsCopy(OnControl(), AckOf(8)));
}

// What the peer repeats is no copy, on one queue or on both.
TEST(MoveFilter, RepetitionsCountAsOftenAsTheyCame) {
  MoveFilter filter;
  const TcpHeader ack = AckOf(7);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(filter.IsCopy(OnControl(), ack));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(filter.IsCopy(OnData(), ack));
  EXPECT_FALSE(filter.IsCopy(OnData(), ack));
  // Counted up by the peer: told apart across the queues too.
  EXPECT_FALSE(filter.IsCopy(OnControl(1), ack));
  EXPECT_FALSE(filter.IsCopy(OnData(2), ack));
  // More than a byte counts.
  for (int i = 0; i < 300; ++i) {
    EXPECT_FALSE(filter.IsCopy(OnControl(3), ack));
  }
}

TEST(MoveFilter, WhatDiffersIsNoCopy) {
  MoveFilter filter;
  const TcpHeader ack = AckOf(7);
  EXPECT_FALSE(filter.IsCopy(OnControl(), ack));
  std::vector<TcpHeader> others(5, ack);
  others[0].seq = SeqNum(6);
  others[1].ack = SeqNum(8);
  others[2].wnd = 101;
  others[3].flags = kAck | kFin;
  others[4].options.timestamps = {1, 2};
  for (const TcpHeader& other : others) {
    EXPECT_FALSE(filter.IsCopy(OnData(), other));
  }
  MoveFilter::Frame frame = OnData();
  frame.payload_bytes = 1;
  EXPECT_FALSE(filter.IsCopy(frame, ack));
  frame = OnData();
  frame.stream = 2;
  EXPECT_FALSE(filter.IsCopy(frame, ack));
}

// -- shares of host memory
// -----------------------------------------------------

TEST(SlotShares, OneThatNeverGivesBackLeavesRoomForTheNext) {
  SlotShares shares(100);
  uint32_t held[3] = {};
  while (shares.MayTake(held[0])) shares.OnTaken(&held[0]);
  EXPECT_EQ(held[0], 50u);
  while (shares.MayTake(held[1])) shares.OnTaken(&held[1]);
  EXPECT_EQ(held[1], 33u);
  EXPECT_FALSE(shares.MayTake(held[0])) << "its share became less";
  // 17 are left: a third of 50, as much as its share of a quarter but eight.
  while (held[0] + held[1] + held[2] < 100 && shares.MayTake(held[2])) {
    shares.OnTaken(&held[2]);
  }
  EXPECT_EQ(held[2], 17u);
  EXPECT_EQ(shares.users(), 3u);
  shares.OnFreed(&held[1], 33);
  EXPECT_EQ(shares.users(), 2u);
  EXPECT_TRUE(shares.MayTake(held[1]));
}

// More streams than slots: each may have one.
TEST(SlotShares, AtLeastOneEach) {
  SlotShares shares(2);
  uint32_t held[4] = {};
  for (uint32_t& h : held) {
    ASSERT_TRUE(shares.MayTake(h));
    shares.OnTaken(&h);
    EXPECT_FALSE(shares.MayTake(h));
  }
}

}  // namespace
}  // namespace devwire
