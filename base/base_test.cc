// The words every room uses: their arithmetic, limits and failures.
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>

#include "base/alloc_guard.h"
#include "base/bell.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/prng.h"
#include "base/ring.h"
#include "base/time.h"

namespace devwire {
namespace {

TEST(Time, LiteralsAndArithmetic) {
  EXPECT_EQ((5_ms).nanoseconds(), 5'000'000);
  EXPECT_EQ(1_s - 1_ms, 999_ms);
  Instant t = Instant::FromNanoseconds(10);
  EXPECT_EQ((t + 5_ns) - t, 5_ns);
  EXPECT_LT(t, Instant::Never());
}

TEST(Clock, MonotonicNeverGoesBack) {
  MonotonicClock clock;
  Instant a = clock.Now();
  EXPECT_LE(a, clock.Now());
}

TEST(Check, FailureNamesClaimAndValues) {
  EXPECT_DEATH(CHECK_EQ(1 + 1, 3) << "arithmetic",
               "1 \\+ 1 == 3 \\(2 vs 3\\) arithmetic");
}

TEST(Prng, SameSeedSameNumbers) {
  Prng a(7), b(7);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.Next64(), b.Next64());
  for (int i = 0; i < 1000; ++i) EXPECT_LT(a.Below(10), 10u);
}

TEST(Ring, RefusesWhenFullAndKeepsOrder) {
  Ring<int> r(3);
  ASSERT_EQ(r.capacity(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(r.Push(i));
  EXPECT_FALSE(r.Push(4));
  EXPECT_EQ(r.front(), 0);
  r.PopFront();
  EXPECT_TRUE(r.Push(4));
  EXPECT_EQ(r[3], 4);
}

TEST(Ring, EndsWhatItHolds) {
  const auto counted = std::make_shared<int>(1);
  {
    Ring<std::shared_ptr<int>> r(4);
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(r.Push(counted));
    r.PopFront();
    r.PopBack();
    EXPECT_EQ(counted.use_count(), 3);
    Ring<std::shared_ptr<int>> other(std::move(r));
    EXPECT_EQ(other.size(), 2u);
    EXPECT_EQ(counted.use_count(), 3);
    EXPECT_TRUE(other.Push(counted));
  }
  EXPECT_EQ(counted.use_count(), 1);
}

TEST(List, UnlinkFromTheMiddle) {
  struct Item : ListNode<Item> {};
  Item a, b, c;
  List<Item> list;
  list.PushBack(&a);
  list.PushBack(&b);
  list.PushBack(&c);
  b.Unlink();
  EXPECT_EQ(list.Next(&a), &c);
  EXPECT_EQ(list.PopFront(), &a);
  EXPECT_EQ(list.PopFront(), &c);
  EXPECT_EQ(list.PopFront(), nullptr);
}

TEST(AllocGuard, CountsAndAborts) {
  uint64_t before = AllocationsOnThisThread();
  // Called by name: the compiler may elide a new-expression.
  ::operator delete(::operator new(1));
  EXPECT_EQ(AllocationsOnThisThread(), before + 1);
  EXPECT_DEATH(
      {
        AllocFreeze freeze;
        ::operator delete(::operator new(1));
      },
      "heap allocation while frozen");
}

bool IsReadable(int fd) {
  pollfd wait = {fd, POLLIN, 0};
  return poll(&wait, 1, 0) == 1;
}

TEST(Bell, RingsOnceForASleeperOnly) {
  Bell bell;
  ASSERT_EQ(bell.Open(), 0);
  bell.Ring();
  EXPECT_FALSE(IsReadable(bell.fd()));  // Nobody sleeps.
  bell.Arm();
  EXPECT_FALSE(IsReadable(bell.fd()));
  bell.Ring();
  EXPECT_TRUE(IsReadable(bell.fd()));
  bell.Disarm();
  EXPECT_FALSE(IsReadable(bell.fd()));
  bell.Ring();
  EXPECT_FALSE(IsReadable(bell.fd()));
}

// A sleeper that looks once more after arming misses nothing.
TEST(Bell, NoWorkIsMissed) {
  Bell bell;
  ASSERT_EQ(bell.Open(), 0);
  constexpr int kRounds = 20'000;
  std::atomic<int> work{0};
  std::thread other([&] {
    for (int i = 1; i <= kRounds; ++i) {
      work.store(i, std::memory_order_relaxed);
      bell.Ring();
      if (i % 64 == 0) std::this_thread::yield();
    }
  });
  int seen = 0;
  while (seen < kRounds) {
    bell.Arm();
    if (work.load(std::memory_order_relaxed) == seen) {
      pollfd wait = {bell.fd(), POLLIN, 0};
      ASSERT_EQ(poll(&wait, 1, 10'000), 1) << seen;
    }
    bell.Disarm();
    seen = work.load(std::memory_order_relaxed);
  }
  other.join();
}

}  // namespace
}  // namespace devwire
