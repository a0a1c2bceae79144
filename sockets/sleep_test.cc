// Engines that sleep: in a thread of the library, and in an event loop of the
// caller's that sleeps on a poller's descriptor.
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gtest/gtest.h"
#include "sockets/two_stacks.h"

namespace devwire {
namespace {

using Mode = StackOptions::Mode;

TwoStacks::Options Sleeping(Mode mode, const std::string& faults = "") {
  TwoStacks::Options options;
  options.nic = ",mode=thread" + faults;
  options.stack.mode = mode;
  return options;
}

uint64_t EventCount(TwoStacks::Side& side, const std::string& name) {
  const auto counters = side.stack->Counters();
  EXPECT_TRUE(counters.ok()) << counters.status();
  for (const auto& event : counters->events) {
    if (event.name == name) return event.value;
  }
  return 0;
}

// An event loop as applications have one: it never calls the stack unless its
// descriptor says so.
class ForeignLoop {
 public:
  ForeignLoop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~ForeignLoop() { close(epoll_); }

  void Add(TwoStacks::Side& side, Stream& stream) {
    auto poller = side.stack->NewPoller();
    ASSERT_TRUE(poller.ok()) << poller.status();
    const Readiness all = kReadable | kWritable | kSendCompleted;
    ASSERT_TRUE((*poller)->Add(stream, all, Trigger::kEdge, 0).ok());
    const auto fd = (*poller)->EventFd();
    ASSERT_TRUE(fd.ok()) << fd.status();
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u64 = pollers_.size();
    ASSERT_EQ(epoll_ctl(epoll_, EPOLL_CTL_ADD, *fd, &event), 0);
    pollers_.push_back(*std::move(poller));
  }
  // Sleeps until some stack wants to be called, and calls it. False: nobody
  // did in ten seconds.
  bool Turn() {
    epoll_event events[8];
    const int count = epoll_wait(epoll_, events, 8, 10'000);
    for (int i = 0; i < count; ++i) {
      Poller::Ready ready[4];
      EXPECT_TRUE(pollers_[events[i].data.u64]->Wait(ready, Duration()).ok());
    }
    return count > 0;
  }

 private:
  const int epoll_;
  std::vector<std::unique_ptr<Poller>> pollers_;
};

class SleepTest : public testing::TestWithParam<Mode> {};

std::string NameOf(const testing::TestParamInfo<Mode>& info) {
  return info.param == Mode::kCallerPolls      ? "CallerPolls"
         : info.param == Mode::kSleepingThread ? "SleepingThread"
                                               : "BusyThread";
}
INSTANTIATE_TEST_SUITE_P(Modes, SleepTest,
                         testing::Values(Mode::kCallerPolls, Mode::kBusyThread,
                                         Mode::kSleepingThread),
                         NameOf);

// All bytes arrive, though nobody calls either stack unless told to.
TEST_P(SleepTest, AForeignLoopIsToldOfEverything) {
  TwoStacks net(Sleeping(GetParam()));
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(),
                       {.bytes = 8u << 20, .offset = 2 << 20});
  PatternReceiver receiver(*pair.server, net.server(), 0);
  ForeignLoop loop;
  loop.Add(net.client(), *pair.client);
  loop.Add(net.server(), *pair.server);
  bool sent = false;
  bool received = false;
  while (!sent || !received) {
    ASSERT_TRUE(loop.Turn()) << receiver.bytes() << " bytes received";
    sent = sender.Step();
    received = receiver.Step();
  }
  EXPECT_EQ(receiver.bytes(), 8u << 20);
  EXPECT_FALSE(receiver.first_wrong().has_value());
  if (GetParam() != Mode::kBusyThread) {
    EXPECT_GT(EventCount(net.client(), "sleeps"), 0u);
    EXPECT_GT(EventCount(net.server(), "sleeps"), 0u);
  }
}

// One byte there and back, many times; both engines sleep in between, and this
// thread wakes neither while it waits. The longest time there and back.
void PingPong(TwoStacks& net, int rounds, Duration* longest) {
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  auto at_client = net.client().stack->NewPoller();
  auto at_server = net.server().stack->NewPoller();
  ASSERT_TRUE(
      (*at_client)->Add(*pair.client, kReadable, Trigger::kEdge, 0).ok());
  ASSERT_TRUE(
      (*at_server)->Add(*pair.server, kReadable, Trigger::kEdge, 0).ok());
  struct Way {
    Stream* from;
    Stream* to;
    Poller* poller;
  };
  const Way ways[] = {{pair.client.get(), pair.server.get(), at_server->get()},
                      {pair.server.get(), pair.client.get(), at_client->get()}};
  const MonotonicClock clock;
  *longest = Duration();
  for (int i = 0; i < rounds; ++i) {
    // Until both have gone to sleep.
    std::this_thread::sleep_for(std::chrono::microseconds(500));
    const Instant begin = clock.Now();
    for (const Way& way : ways) {
      std::byte byte{static_cast<uint8_t>(i)};
      ASSERT_EQ(*way.from->SendHost({&byte, 1}), 1u);
      Poller::Ready ready[1];
      std::byte got{};
      size_t bytes = 0;
      while (bytes == 0) {
        ASSERT_EQ(*way.poller->Wait(ready, 10_s), 1u) << i;
        bytes = way.to->Read({&got, 1})->bytes;
      }
      ASSERT_EQ(got, byte);
    }
    *longest = std::max(*longest, clock.Now() - begin);
  }
}

TEST(SleepingThread, ManyShortSleeps) {
  TwoStacks net(Sleeping(Mode::kSleepingThread));
  Duration longest;
  PingPong(net, 200, &longest);
  EXPECT_GT(EventCount(net.client(), "sleeps"), 0u);
}

uint64_t LateWakes(TwoStacks& net) {
  return EventCount(net.client(), "late wake-ups") +
         EventCount(net.server(), "late wake-ups");
}

// The NIC forgets to wake us: the backstop does, and nothing is lost.
TEST(SleepingThread, LostEvents) {
  TwoStacks::Options options = Sleeping(Mode::kSleepingThread, ",lost_event=1");
  options.stack.wake_backstop = 2_ms;
  TwoStacks net(options);
  Duration longest;
  PingPong(net, 50, &longest);
  EXPECT_GT(LateWakes(net), 0u);
}

// One event in a hundred: who misses one waits for the backstop, four times
// there and back at the most (a byte and its ACK, each way), and no
// retransmission hides it: the RTO of a round trip is 200 ms.
TEST(SleepingThread, FewLostEvents) {
  TwoStacks::Options options =
      Sleeping(Mode::kSleepingThread, ",lost_event=0.01");
  options.stack.wake_backstop = 20_ms;
  TwoStacks net(options);
  Duration longest;
  const auto lost = [&] {
    return net.client().Nic().cq_events_dropped +
           net.server().Nic().cq_events_dropped;
  };
  for (int i = 0; i < 20 && lost() < 4; ++i) {
    PingPong(net, 200, &longest);
    EXPECT_LT(longest, 4 * options.stack.wake_backstop + 100_ms);
  }
  EXPECT_GE(lost(), 4u);
  RecordProperty("longest_round_trip_us", longest.nanoseconds() / 1000);
}

// Idle streams wake nobody: the stacks by their backstops alone, and their
// devices not at all.
TEST(SleepingThread, IdleStreamsLetItSleep) {
  TwoStacks net(Sleeping(Mode::kSleepingThread));
  std::vector<TwoStacks::Pair> pairs;
  for (int i = 0; i < 1000; ++i) {
    pairs.push_back(net.Connect(std::nullopt, std::nullopt));
  }
  const auto use = [] {
    rusage all = {};
    getrusage(RUSAGE_SELF, &all);
    return all;
  };
  const auto sleeps = [&] {
    return EventCount(net.client(), "sleeps") +
           EventCount(net.server(), "sleeps");
  };
  const auto cpu_us = [](const rusage& u) {
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1'000'000 +
           u.ru_utime.tv_usec + u.ru_stime.tv_usec;
  };
  const MonotonicClock clock;
  const int64_t backstop_us = StackOptions().wake_backstop.nanoseconds() / 1000;
  // Timers of the handshakes run out for nothing, one by one.
  bool is_quiet = false;
  for (int i = 0; i < 40 && !is_quiet; ++i) {
    const Instant start = clock.Now();
    const uint64_t sleeps_before = sleeps();
    const rusage before = use();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const rusage after = use();
    const auto slept = static_cast<long>(sleeps() - sleeps_before);
    const int64_t elapsed_us = (clock.Now() - start).nanoseconds() / 1000;
    // Also this thread's own sleep, and locks that somebody had to wait for.
    is_quiet = slept <= 2 * elapsed_us / backstop_us + 4 &&
               after.ru_nvcsw - before.ru_nvcsw <= slept + 10;
  }
  EXPECT_TRUE(is_quiet);
  // What a stack with its device takes of a core; there are two of each.
  const Instant start = clock.Now();
  const rusage before = use();
  std::this_thread::sleep_for(std::chrono::seconds(10));
  const int64_t used_us = cpu_us(use()) - cpu_us(before);
  const int64_t elapsed_us = (clock.Now() - start).nanoseconds() / 1000;
  const int64_t ppm = used_us * 1'000'000 / 2 / elapsed_us;
  RecordProperty("idle_cpu_ppm_of_a_core", absl::StrCat(ppm));
  EXPECT_LT(ppm, 5'000);
}

}  // namespace
}  // namespace devwire
