// Calls from many threads at once, with Mode::kBusyThread, and what becomes of
// them when the stack is closed meanwhile: every caller gets an answer.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "sockets/command_ring.h"
#include "sockets/errno_map.h"
#include "sockets/two_stacks.h"

namespace devwire {
namespace {

constexpr uint64_t kSendFrom = 2 << 20;  // Behind the receive pool.

TwoStacks::Options BusyOptions() {
  TwoStacks::Options options;
  options.stack.mode = StackOptions::Mode::kBusyThread;
  return options;
}

// The mask of blocked signals of each thread of this process but ours.
std::vector<uint64_t> MasksOfOtherThreads() {
  std::vector<uint64_t> masks;
  const std::string own = std::to_string(getpid());
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == own) continue;
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("SigBlk:", 0) == 0) {
        masks.push_back(std::stoull(line.substr(7), nullptr, 16));
      }
    }
  }
  return masks;
}

// Threads that must all end: one that does not fails the program, since what
// it uses cannot be taken down under it.
class Threads {
 public:
  template <typename F>
  void Start(F f) {
    ends_.push_back(std::async(std::launch::async, std::move(f)));
  }
  void AwaitAll() {
    for (std::future<void>& end : ends_) {
      if (end.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
        ADD_FAILURE() << "a caller hangs";
        std::_Exit(1);
      }
    }
    ends_.clear();
  }

 private:
  std::vector<std::future<void>> ends_;
};

void AwaitCount(const std::atomic<int>& count, int wanted) {
  while (count.load() < wanted) std::this_thread::yield();
}

// -- the ring of commands -----------------------------------------------------

// Closed while producers are at work: what was taken in is run, the rest is
// refused, nobody waits.
TEST(CommandRingTest, RunsOrRefusesEveryCommandAroundItsClosing) {
  for (int round = 0; round < 50; ++round) {
    CommandRing ring;
    std::atomic<int> attempts{0};
    std::atomic<int> accepted{0};
    int ran = 0;  // The consumer's.
    Threads producers;
    for (int i = 0; i < 4; ++i) {
      producers.Start([&] {
        while (true) {
          Command command;
          command.run = [](Command* c) { ++*static_cast<int*>(c->argument); };
          command.argument = &ran;
          ++attempts;
          if (!ring.Execute(&command)) break;
          ++accepted;
        }
      });
    }
    if (round % 2 == 0) AwaitCount(attempts, 4);
    for (int i = 0; i < round; ++i) ring.RunSome(2);
    ring.Close();
    producers.AwaitAll();
    EXPECT_EQ(ran, accepted.load());
    EXPECT_EQ(attempts - accepted, 4) << "each refused once";
    EXPECT_EQ(ring.RunSome(1), 0u);
  }
}

// -- closing ------------------------------------------------------------------

TEST(Closing, AnswersThoseWhoWait) {
  TwoStacks net(BusyOptions());
  auto listener = *net.server().stack->Listen({net.server().address, Port{0}});
  auto poller = *net.server().stack->NewPoller();
  ASSERT_TRUE(poller->Add(*listener, Trigger::kLevel, 1).ok());
  std::atomic<int> started{0};
  Threads threads;
  threads.Start([&] {
    ++started;
    const auto stream = listener->Accept(3600_s);
    EXPECT_EQ(ErrnoOf(stream.status()), ESHUTDOWN) << stream.status();
  });
  threads.Start([&] {
    ++started;
    std::array<Poller::Ready, 4> ready;
    const auto count = poller->Wait(ready, 3600_s);
    EXPECT_EQ(ErrnoOf(count.status()), ESHUTDOWN) << count.status();
  });
  AwaitCount(started, 2);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // Both wait.
  net.server().stack.reset();
  threads.AwaitAll();
}

TEST(Closing, AnswersThoseInsideACall) {
  for (int round = 0; round < 8; ++round) {
    TwoStacks net(BusyOptions());
    std::vector<TwoStacks::Pair> pairs;
    for (int i = 0; i < 3; ++i) pairs.push_back(net.Connect());
    std::atomic<int> calls{0};
    Threads threads;
    for (TwoStacks::Pair& pair : pairs) {
      threads.Start([&, stream = pair.client.get()] {
        absl::Status status;
        while (status.ok()) {
          ++calls;
          std::array<StreamFrag, 4> frags;
          status = stream->ReceiveFrags(frags, 1).status();
          const DeviceSpan span{kSendFrom, 100};
          if (status.ok()) {
            status =
                stream->SendDevice(net.client().pool, {&span, 1}, 1).status();
          }
          std::array<SendCompletion, 8> done;
          if (status.ok()) status = stream->PollSendCompletions(done).status();
          if (status.ok()) status = stream->Info().status();
        }
        EXPECT_EQ(ErrnoOf(status), ESHUTDOWN) << status;
      });
    }
    AwaitCount(calls, 10 + 40 * round);
    net.client().stack.reset();
    threads.AwaitAll();
  }
}

// In either mode: the pool outlives the engine, and what is returned too late
// is stale.
void ReturnWhileClosing(StackOptions::Mode mode) {
  TwoStacks::Options options;
  options.stack.mode = mode;
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(),
                       {.bytes = 300'000, .offset = kSendFrom});
  PatternReceiver receiver(*pair.server, net.server(), 0);
  receiver.keeps_tokens = true;
  ASSERT_TRUE(net.Until([&] {
    sender.Step();
    return receiver.Step();
  }));
  ASSERT_GT(receiver.tokens.size(), 100u);
  std::atomic<int> returned{0};
  std::atomic<int> stale{0};
  Threads threads;
  const size_t half = receiver.tokens.size() / 2;
  for (size_t part = 0; part < 2; ++part) {
    threads.Start([&, part] {
      for (size_t i = part * half; i < (part + 1) * half; ++i) {
        const ReturnResult result =
            pair.server->ReturnTokens({&receiver.tokens[i], 1});
        ++(result == ReturnResult::kReturned ? returned : stale);
        if (result != ReturnResult::kReturned) {
          EXPECT_EQ(result, ReturnResult::kStale);
        }
        std::this_thread::yield();
      }
    });
  }
  AwaitCount(returned, 10);
  net.server().stack.reset();
  threads.AwaitAll();
  EXPECT_EQ(static_cast<size_t>(returned + stale), 2 * half);
  EXPECT_EQ(pair.server->ReturnTokens({&receiver.tokens[0], 1}),
            ReturnResult::kStale);
}

TEST(Closing, MeetsReturnsOfOtherThreads) {
  for (int round = 0; round < 3; ++round) {
    ReturnWhileClosing(StackOptions::Mode::kBusyThread);
    ReturnWhileClosing(StackOptions::Mode::kCallerPolls);
  }
}

// -- binding ------------------------------------------------------------------

TEST(Binding, GoesOnBesideSendsAndQuestions) {
  TwoStacks net(BusyOptions());
  TwoStacks::Pair pair = net.Connect();
  Stack& stack = *net.client().stack;
  std::vector<std::unique_ptr<MemfdMemory>> memories;
  for (int i = 0; i < 24; ++i) {
    memories.push_back(*MemfdMemory::Allocate(256 << 10));
  }
  std::array<std::vector<PoolId>, 2> bound;
  std::atomic<int> binding{2};
  std::atomic<int> newest{static_cast<int>(net.client().pool)};
  Threads threads;
  for (size_t part = 0; part < 2; ++part) {
    threads.Start([&, part] {
      for (size_t i = part; i < memories.size(); i += 2) {
        // Every fourth is received into.
        PoolOptions options = {.slot_bytes = 2048};
        if (i % 4 != 0) options.receive_bytes = 0;
        const auto id = stack.BindMemory(*memories[i], options);
        if (!id.ok()) {
          ADD_FAILURE() << id.status();
          break;
        }
        bound[part].push_back(*id);
        newest = static_cast<int>(*id);
      }
      --binding;
    });
  }
  threads.Start([&] {
    const DeviceSpan span{0, 100};
    while (binding.load() > 0) {
      const PoolId memory{static_cast<uint16_t>(newest.load())};
      const auto sent = pair.client->SendDevice(memory, {&span, 1}, 1);
      EXPECT_TRUE(sent.ok()) << sent.status();
      std::array<SendCompletion, 8> done;
      EXPECT_TRUE(pair.client->PollSendCompletions(done).ok());
    }
  });
  threads.Start([&] {
    while (binding.load() > 0) {
      EXPECT_TRUE(stack.Use(net.client().pool).ok());
      EXPECT_EQ(ErrnoOf(stack.Use(PoolId{63}).status()), EFAULT);
      EXPECT_EQ(ErrnoOf(stack.Use(PoolId{1}).status()), EFAULT) << "internal";
    }
  });
  threads.AwaitAll();
  std::set<PoolId> ids = {net.client().pool};
  for (const auto& part : bound) ids.insert(part.begin(), part.end());
  EXPECT_EQ(ids.size(), 1 + memories.size()) << "each its own";
  for (const PoolId id : ids) {
    EXPECT_TRUE(stack.Use(id).ok()) << static_cast<int>(id);
  }
}

// Engines, their control threads and the writer of a capture: a signal to the
// process is the application's to take.
TEST(LibraryThreads, TakeNoSignalOfTheApplication) {
  TwoStacks net(BusyOptions());
  const std::string path = ::testing::TempDir() + "/signals.pcapng";
  ASSERT_TRUE(net.client().stack->StartCapture(path, 1 << 20).ok());
  // A thread that only just starts has every signal blocked, by pthread_create.
  // A sanitizer may have a thread of its own beside the five.
  const auto sees_crashes = [](uint64_t mask) {
    return (mask & uint64_t{1} << (SIGSEGV - 1)) == 0;
  };
  std::vector<uint64_t> masks;
  EXPECT_TRUE(net.Until([&] {
    masks = MasksOfOtherThreads();
    return std::count_if(masks.begin(), masks.end(), sees_crashes) == 5;
  }));
  for (const uint64_t mask : masks) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD, SIGALRM,
                             SIGPIPE, SIGRTMIN + 1}) {
      EXPECT_NE(mask & uint64_t{1} << (signal - 1), 0u) << signal;
    }
  }
  ASSERT_TRUE(net.client().stack->StopCapture().ok());
}

}  // namespace
}  // namespace devwire
