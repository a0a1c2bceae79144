// FragPool: every way a slot moves between its owners, every bad token, and
// tokens that come back from many threads at once.
#include "memreg/frag_pool.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "base/alloc_guard.h"
#include "base/prng.h"
#include "gtest/gtest.h"
#include "memreg/frag.h"

namespace devwire {
namespace {

constexpr StreamId kAlice{1};
constexpr StreamId kBob{2};
constexpr PoolId kPool{3};

FragPool::Options Sizes(uint32_t slots, uint32_t bytes, uint32_t pieces = 0) {
  return {.id = kPool,
          .slot_count = slots,
          .slot_bytes = bytes,
          .max_lent_pieces = pieces};
}

Frag Piece(SlotIndex slot, uint32_t offset, uint32_t length) {
  return {.slot = slot, .offset = offset, .length = length, .pool = kPool};
}

void ExpectOwners(const FragPool& pool, FragPool::Owners want) {
  pool.CheckInvariants();
  EXPECT_EQ(pool.owners().free, want.free) << pool.OwnersString();
  EXPECT_EQ(pool.owners().posted, want.posted) << pool.OwnersString();
  EXPECT_EQ(pool.owners().reassembly, want.reassembly) << pool.OwnersString();
  EXPECT_EQ(pool.owners().application, want.application) << pool.OwnersString();
}

// Drains everything that came back.
std::vector<FragPool::Returned> DrainAll(FragPool& pool) {
  std::vector<FragPool::Returned> all;
  FragPool::Returned batch[3];
  while (const size_t n = pool.Drain(batch, 3)) {
    all.insert(all.end(), batch, batch + n);
  }
  return all;
}

// The plain life: posted, filled, lent whole, returned.
TEST(FragPool, OneSlotsLife) {
  FragPool pool(Sizes(4, 2048));
  const SlotIndex slot = *pool.Take();
  ExpectOwners(pool, {.free = 3, .posted = 1});
  pool.Receive(slot, 1448);
  ExpectOwners(pool, {.free = 3, .reassembly = 1});
  const FragToken token = *pool.Lend(Piece(slot, 0, 1448), kAlice);
  EXPECT_NE(token.value, 0u);
  EXPECT_EQ(FragPool::PoolOf(token), kPool);
  ExpectOwners(pool, {.free = 3, .application = 1});
  EXPECT_EQ(pool.Return(token, kAlice), ReturnResult::kReturned);
  // Not free before the owner has drained.
  ExpectOwners(pool, {.free = 3, .application = 1});
  const auto back = DrainAll(pool);
  ASSERT_EQ(back.size(), 1u);
  EXPECT_EQ(back[0].stream, kAlice);
  EXPECT_EQ(back[0].bytes, 1448u);
  EXPECT_TRUE(back[0].slot_freed);
  ExpectOwners(pool, {.free = 4});
}

// A receive that was flushed, or held no text.
TEST(FragPool, PostedSlotGoesStraightBack) {
  FragPool pool(Sizes(2, 64));
  pool.Free(*pool.Take());
  ExpectOwners(pool, {.free = 2});
}

TEST(FragPool, TakeAnswersNothingWhenAllSlotsAreOut) {
  FragPool pool(Sizes(2, 64));
  const SlotIndex a = *pool.Take();
  const SlotIndex b = *pool.Take();
  EXPECT_NE(a, b);
  EXPECT_FALSE(pool.Take().has_value());
  pool.Free(a);
  EXPECT_EQ(pool.Take(), a);
  pool.Free(a);
  pool.Free(b);
}

// A short read splits a frag; part of it was a duplicate. The slot is free
// only when all bytes are lent or discarded and all pieces are back.
TEST(FragPool, SlotLentInPiecesWaitsForAllOfThem) {
  FragPool pool(Sizes(1, 1000));
  const SlotIndex slot = *pool.Take();
  pool.Receive(slot, 1000);
  pool.Discard(Piece(slot, 0, 100));
  const FragToken first = *pool.Lend(Piece(slot, 100, 400), kAlice);
  EXPECT_EQ(pool.Return(first, kAlice), ReturnResult::kReturned);
  EXPECT_FALSE(DrainAll(pool)[0].slot_freed);
  ExpectOwners(pool, {.reassembly = 1});
  const FragToken second = *pool.Lend(Piece(slot, 500, 499), kAlice);
  ExpectOwners(pool, {.reassembly = 1});
  pool.Discard(Piece(slot, 999, 1));
  ExpectOwners(pool, {.application = 1});
  EXPECT_EQ(pool.Return(second, kAlice), ReturnResult::kReturned);
  EXPECT_TRUE(DrainAll(pool)[0].slot_freed);
  ExpectOwners(pool, {.free = 1});
}

TEST(FragPool, DiscardOfEverythingFreesAtOnce) {
  FragPool pool(Sizes(1, 1000));
  const SlotIndex slot = *pool.Take();
  pool.Receive(slot, 10);
  pool.Discard(Piece(slot, 0, 0));  // An empty frag is nothing.
  pool.Discard(Piece(slot, 0, 10));
  ExpectOwners(pool, {.free = 1});
}

TEST(FragPool, BadTokensAreNamedAndChangeNothing) {
  FragPool pool(Sizes(2, 100));
  FragPool other({.id = PoolId{4}, .slot_count = 2, .slot_bytes = 100});
  const SlotIndex slot = *pool.Take();
  pool.Receive(slot, 10);
  const FragToken token = *pool.Lend(Piece(slot, 0, 10), kAlice);

  EXPECT_EQ(pool.Return(token, kBob), ReturnResult::kForeignStream);
  EXPECT_EQ(other.Return(token, kAlice), ReturnResult::kUnknown);
  EXPECT_EQ(pool.Return(FragToken{0}, kAlice), ReturnResult::kUnknown);
  EXPECT_EQ(pool.Return(FragToken{UINT64_MAX}, kAlice), ReturnResult::kUnknown);
  // Forged: the next generation, a piece never lent, one out of range.
  EXPECT_EQ(pool.Return({token.value + 1}, kAlice), ReturnResult::kUnknown);
  EXPECT_EQ(pool.Return({token.value + (1u << 24)}, kAlice),
            ReturnResult::kUnknown);
  EXPECT_EQ(pool.Return({token.value + (uint64_t{4} << 24)}, kAlice),
            ReturnResult::kUnknown);
  ExpectOwners(pool, {.free = 1, .application = 1});

  EXPECT_EQ(pool.Return(token, kAlice), ReturnResult::kReturned);
  EXPECT_EQ(pool.Return(token, kAlice), ReturnResult::kStale);
  EXPECT_EQ(DrainAll(pool).size(), 1u);
  EXPECT_EQ(pool.Return(token, kAlice), ReturnResult::kStale);

  // The piece is lent again: the old token stays stale, also for its stream.
  const SlotIndex again = *pool.Take();
  pool.Receive(again, 10);
  const FragToken fresh = *pool.Lend(Piece(again, 0, 10), kAlice);
  EXPECT_NE(fresh, token);
  EXPECT_EQ(pool.Return(token, kAlice), ReturnResult::kStale);
  EXPECT_EQ(pool.Return(fresh, kAlice), ReturnResult::kReturned);
}

TEST(FragPool, LendRefusesAtItsLimitAndLosesNothing) {
  FragPool pool(Sizes(1, 100, 2));
  const SlotIndex slot = *pool.Take();
  pool.Receive(slot, 3);
  const FragToken a = *pool.Lend(Piece(slot, 0, 1), kAlice);
  const FragToken b = *pool.Lend(Piece(slot, 1, 1), kAlice);
  EXPECT_FALSE(pool.Lend(Piece(slot, 2, 1), kAlice).has_value());
  ExpectOwners(pool, {.reassembly = 1});
  EXPECT_EQ(pool.Return(a, kAlice), ReturnResult::kReturned);
  EXPECT_EQ(DrainAll(pool).size(), 1u);
  const FragToken c = *pool.Lend(Piece(slot, 2, 1), kAlice);
  EXPECT_EQ(pool.Return(b, kAlice), ReturnResult::kReturned);
  EXPECT_EQ(pool.Return(c, kAlice), ReturnResult::kReturned);
  EXPECT_EQ(DrainAll(pool).size(), 2u);
  ExpectOwners(pool, {.free = 1});
}

// A stream closes with frags lent: its slots come back, its tokens are stale,
// its neighbour's are not; a return that was in flight counts once.
TEST(FragPool, ReleaseAllTakesBackOneStreamOnly) {
  FragPool pool(Sizes(4, 100));
  std::array<FragToken, 4> token;
  for (uint32_t i = 0; i < 4; ++i) {
    const SlotIndex slot = *pool.Take();
    pool.Receive(slot, 5);
    token[i] = *pool.Lend(Piece(slot, 0, 5), i == 3 ? kBob : kAlice);
  }
  EXPECT_EQ(pool.Return(token[0], kAlice), ReturnResult::kReturned);
  EXPECT_EQ(pool.ReleaseAll(kAlice), 2u);
  ExpectOwners(pool, {.free = 2, .application = 2});
  EXPECT_EQ(pool.Return(token[1], kAlice), ReturnResult::kStale);
  EXPECT_EQ(DrainAll(pool).size(), 1u);
  ExpectOwners(pool, {.free = 3, .application = 1});
  EXPECT_EQ(pool.Return(token[3], kBob), ReturnResult::kReturned);
  EXPECT_EQ(pool.ReleaseAll(kBob), 0u);
}

// The generation field wraps without ever making an old token good again.
TEST(FragPool, GenerationWraps) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "one thread, 2^24 rounds: minutes under ThreadSanitizer";
#endif
  FragPool pool(Sizes(1, 1, 1));
  FragToken first;
  FragToken last;
  for (uint32_t i = 0; i < (1u << 24) + 5; ++i) {
    const SlotIndex slot = *pool.Take();
    pool.Receive(slot, 1);
    last = *pool.Lend(Piece(slot, 0, 1), kAlice);
    if (last.value << 16 == 0) FAIL() << "generation 0 after " << i;
    if (i == 10) first = last;
    ASSERT_EQ(pool.Return(last, kAlice), ReturnResult::kReturned);
    FragPool::Returned out;
    ASSERT_EQ(pool.Drain(&out, 1), 1u);
  }
  EXPECT_EQ(pool.Return(last, kAlice), ReturnResult::kStale);
  EXPECT_NE(pool.Return(first, kAlice), ReturnResult::kReturned);
}

TEST(FragPool, NothingAllocatesAfterConstruction) {
  FragPool pool(Sizes(8, 100));
  AllocFreeze freeze;
  for (int round = 0; round < 100; ++round) {
    const SlotIndex slot = *pool.Take();
    pool.Receive(slot, 2);
    const FragToken a = *pool.Lend(Piece(slot, 0, 1), kAlice);
    const FragToken b = *pool.Lend(Piece(slot, 1, 1), kAlice);
    EXPECT_EQ(pool.Return(b, kAlice), ReturnResult::kReturned);
    EXPECT_EQ(pool.Return(a, kAlice), ReturnResult::kReturned);
    FragPool::Returned out[4];
    EXPECT_EQ(pool.Drain(out, 4), 2u);
  }
}

TEST(FragPoolDeathTest, MisuseStops) {
  FragPool pool(Sizes(2, 100));
  const SlotIndex slot = *pool.Take();
  EXPECT_DEATH(pool.Receive(slot, 101), "bytes");
  EXPECT_DEATH(pool.Receive(SlotIndex{1}, 5), "kPosted");
  EXPECT_DEATH(pool.Discard(Piece(slot, 0, 1)), "kReassembly");
  pool.Receive(slot, 5);
  EXPECT_DEATH(pool.Free(slot), "kPosted");
  EXPECT_DEATH(pool.Discard(Piece(slot, 0, 6)), "pending_bytes");
  EXPECT_DEATH(pool.Lend(Piece(slot, 0, 6), kAlice), "pending_bytes");
  EXPECT_DEATH({ FragPool bad(Sizes(0, 1)); }, "slot_count");
  EXPECT_DEATH(
      {
        FragPool leaked(Sizes(1, 1));
        leaked.Take();
      },
      "slots in use: free 0 posted 1");
  pool.Discard(Piece(slot, 0, 5));
}

// Random moves against the invariants. One byte at a time at most, so that
// every state is met.
TEST(FragPool, RandomMovesKeepTheBooks) {
  Prng prng(20261123);
  std::printf("seed %llu\n", static_cast<unsigned long long>(prng.seed()));
  FragPool pool(Sizes(16, 8, 24));
  struct Held {
    SlotIndex slot;
    uint32_t next = 0, bytes = 0;
  };
  std::vector<SlotIndex> posted;
  std::vector<Held> queued;
  std::vector<std::pair<FragToken, StreamId>> lent;
  for (int step = 0; step < 50000; ++step) {
    switch (prng.Below(6)) {
      case 0:
        if (auto slot = pool.Take()) posted.push_back(*slot);
        break;
      case 1: {
        if (posted.empty()) break;
        const uint32_t bytes = 1 + prng.Below(8);
        if (prng.Chance(0.2)) {
          pool.Free(posted.back());
        } else {
          pool.Receive(posted.back(), bytes);
          queued.push_back({posted.back(), 0, bytes});
        }
        posted.pop_back();
        break;
      }
      case 2:
      case 3: {
        if (queued.empty()) break;
        Held& h = queued[prng.Below(queued.size())];
        const uint32_t take = 1 + prng.Below(h.bytes - h.next);
        const Frag frag = Piece(h.slot, h.next, take);
        if (prng.Chance(0.3)) {
          pool.Discard(frag);
        } else {
          const StreamId stream{static_cast<uint32_t>(prng.Below(3))};
          const auto token = pool.Lend(frag, stream);
          if (!token) break;
          lent.emplace_back(*token, stream);
        }
        h.next += take;
        if (h.next == h.bytes) {
          std::swap(h, queued.back());
          queued.pop_back();
        }
        break;
      }
      case 4: {
        if (lent.empty()) break;
        std::swap(lent[prng.Below(lent.size())], lent.back());
        const auto [token, stream] = lent.back();
        ASSERT_EQ(pool.Return(token, stream), ReturnResult::kReturned);
        ASSERT_EQ(pool.Return(token, stream), ReturnResult::kStale);
        lent.pop_back();
        break;
      }
      case 5: {
        if (prng.Chance(0.05)) {
          const StreamId stream{static_cast<uint32_t>(prng.Below(3))};
          const size_t before = lent.size();
          std::erase_if(lent, [&](auto& l) { return l.second == stream; });
          ASSERT_EQ(pool.ReleaseAll(stream), before - lent.size());
        }
        FragPool::Returned out[2];
        pool.Drain(out, 2);
        break;
      }
    }
    pool.CheckInvariants();
  }
  for (SlotIndex slot : posted) pool.Free(slot);
  for (const Held& h : queued) {
    pool.Discard(Piece(h.slot, h.next, h.bytes - h.next));
  }
  for (auto [token, stream] : lent) pool.Return(token, stream);
  DrainAll(pool);
  ExpectOwners(pool, {.free = 16});
}

// Four threads return tokens, some twice, while the owner lends, drains and
// closes a stream: each piece is counted once. Run under TSan as well.
TEST(FragPool, ReturnsFromManyThreads) {
  constexpr int kThreads = 4;
  constexpr uint32_t kRounds = 20000;
  FragPool pool(Sizes(32, 100));
  std::array<std::array<std::atomic<uint64_t>, 64>, kThreads> mailbox{};
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> returned{0};
  std::atomic<uint64_t> twice{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const StreamId stream{static_cast<uint32_t>(t)};
      while (true) {
        const bool last = stop.load();
        for (auto& box : mailbox[t]) {
          const uint64_t value = box.exchange(0);
          if (value == 0) continue;
          if (pool.Return({value}, stream) == ReturnResult::kReturned) {
            returned.fetch_add(1);
          }
          if (pool.Return({value}, stream) == ReturnResult::kReturned) {
            twice.fetch_add(1);
          }
        }
        if (last) return;
        std::this_thread::yield();
      }
    });
  }
  uint64_t lent = 0;
  uint64_t drained = 0;
  uint64_t released = 0;
  FragPool::Returned out[16];
  for (uint32_t round = 0; round < kRounds;) {
    drained += pool.Drain(out, 16);
    if (round % 1000 == 999) released += pool.ReleaseAll(StreamId{0});
    auto& box = mailbox[round % kThreads][(round / kThreads) % 64];
    if (pool.free_slots() == 0 || box.load() != 0) {
      std::this_thread::yield();
      continue;
    }
    const SlotIndex slot = *pool.Take();
    pool.Receive(slot, 100);
    box.store(
        pool.Lend(Piece(slot, 0, 100), StreamId{round % kThreads})->value);
    ++lent;
    ++round;
  }
  stop.store(true);
  for (std::thread& t : threads) t.join();
  drained += DrainAll(pool).size();
  EXPECT_EQ(lent, kRounds);
  EXPECT_EQ(drained, returned.load());
  EXPECT_EQ(returned.load() + released, lent);
  EXPECT_EQ(twice.load(), 0u);
  ExpectOwners(pool, {.free = 32});
}

}  // namespace
}  // namespace devwire
