// What a stream promises: tokens, windows, pools, endings, readiness.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/alloc_guard.h"
#include "base/clock.h"
#include "gtest/gtest.h"
#include "sockets/errno_map.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

constexpr uint64_t kSendFrom = 2 << 20;  // Behind the receive pool.

PatternSender::Options Bytes(uint64_t bytes) {
  return {.bytes = bytes, .offset = kSendFrom};
}

bool AllSlotsFree(TwoStacks& net) {
  return net.Until([&] { return net.SlotsHeld() == 0; });
}

// Lets `bytes` arrive at pair.server, and lends them.
std::vector<StreamFrag> Lend(TwoStacks& net, TwoStacks::Pair& pair,
                             uint64_t bytes) {
  PatternSender::Options options = Bytes(bytes);
  options.closes = false;
  PatternSender sender(*pair.client, net.client(), options);
  std::vector<StreamFrag> frags(256);
  size_t count = 0;
  uint64_t got = 0;
  EXPECT_TRUE(net.Until([&] {
    sender.Step();
    const auto received =
        pair.server->ReceiveFrags(std::span(frags).subspan(count), UINT64_MAX);
    count += received->frags;
    got += received->bytes;
    return got == bytes;
  }));
  frags.resize(count);
  return frags;
}

// -- tokens -------------------------------------------------------------------

TEST(Tokens, DoubleForgedStaleAndForeignReturnsAreRefused) {
  TwoStacks net({});
  TwoStacks::Pair one = net.Connect();
  TwoStacks::Pair two = net.Connect();
  const std::vector<StreamFrag> frags = Lend(net, one, 3000);
  ASSERT_GE(frags.size(), 2u);
  const FragToken token = frags[0].token;
  const auto give = [](Stream& s, FragToken t) {
    return s.ReturnTokens({&t, 1});
  };
  EXPECT_EQ(give(*two.server, token), ReturnResult::kForeignStream);
  EXPECT_EQ(give(*one.server, {token.value ^ (uint64_t{1} << 30)}),
            ReturnResult::kUnknown);
  EXPECT_EQ(give(*one.server, {0}), ReturnResult::kUnknown);
  EXPECT_EQ(give(*one.server, {UINT64_MAX}), ReturnResult::kUnknown);
  EXPECT_EQ(give(*one.server, token), ReturnResult::kReturned);
  EXPECT_EQ(give(*one.server, token), ReturnResult::kStale) << "twice";
  net.Poll();
  EXPECT_EQ(give(*one.server, token), ReturnResult::kStale);
  // Of a list, the first refusal is named and the rest is still returned.
  std::vector<FragToken> all = {token};
  for (size_t i = 1; i < frags.size(); ++i) all.push_back(frags[i].token);
  size_t bad = 99;
  EXPECT_EQ(one.server->ReturnTokens(all, &bad), ReturnResult::kStale);
  EXPECT_EQ(bad, 0u);
  EXPECT_TRUE(AllSlotsFree(net));
}

TEST(Tokens, ClosingTakesBackWhatIsLent) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  const std::vector<StreamFrag> frags = Lend(net, pair, 20'000);
  EXPECT_GT(net.SlotsHeld(), 0u);
  pair.server->Close();
  EXPECT_TRUE(AllSlotsFree(net));
  EXPECT_EQ(pair.server->ReturnTokens({&frags[0].token, 1}),
            ReturnResult::kStale);
}

TEST(Tokens, KeptFragsOutliveTheirStream) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  const std::vector<StreamFrag> frags = Lend(net, pair, 20'000);
  pair.server->Close({.keep_frags = true});
  for (int i = 0; i < 100; ++i) net.Poll();
  EXPECT_EQ(net.SlotsHeld(), frags.size());
  for (const StreamFrag& frag : frags) {
    EXPECT_EQ(pair.server->ReturnTokens({&frag.token, 1}),
              ReturnResult::kReturned);
  }
  EXPECT_TRUE(AllSlotsFree(net));
}

TEST(Tokens, KeptFragsAndAClosedStack) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  const std::vector<StreamFrag> frags = Lend(net, pair, 20'000);
  pair.server->Close({.keep_frags = true});
  net.server().stack.reset();
  EXPECT_EQ(pair.server->ReturnTokens({&frags[0].token, 1}),
            ReturnResult::kStale);
}

// -- windows and pools --------------------------------------------------------

// A reader that returns nothing stops its sender, and loses nothing.
TEST(Window, ZeroWindowAndItsReopening) {
  TwoStacks::Options options;
  options.stack.tcp.receive_budget_bytes = 64 << 10;
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(), Bytes(400'000));
  PatternReceiver receiver(*pair.server, net.server(), 0);
  receiver.keeps_tokens = true;
  const MonotonicClock clock;
  const Instant until = clock.Now() + 600_ms;  // Probes go out meanwhile.
  net.Until([&] {
    sender.Step();
    receiver.Step();
    return clock.Now() > until;
  });
  EXPECT_LE(receiver.bytes(), (64u << 10) + 2000);
  EXPECT_GT(receiver.bytes(), 32u << 10);
  EXPECT_EQ(pair.server->ReturnTokens(receiver.tokens),
            ReturnResult::kReturned);
  receiver.keeps_tokens = false;
  bool end = false;
  ASSERT_TRUE(net.Until([&] {
    const bool sent = sender.Step();
    end = end || receiver.Step();
    return sent && end;
  }));
  EXPECT_EQ(receiver.bytes(), 400'000u);
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);
  EXPECT_TRUE(AllSlotsFree(net));
}

// A send that is longer than the queue does not end in a pause: the next one is
// taken while the last bytes of it are under way.
TEST(Sending, TheNextSendIsTakenBeforeALongOneIsDone) {
  constexpr uint32_t kLong = 1 << 20;
  TwoStacks::Options options;
  options.stack.tcp.receive_budget_bytes = 64 << 10;  // Keeps cwnd small.
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  PatternReceiver receiver(*pair.server, net.server(), 0);
  const DeviceSpan span{kSendFrom, kLong};
  const auto send = [&] {
    return *pair.client->SendDevice(net.client().pool, {&span, 1}, 0);
  };
  ASSERT_EQ(send(), SendOutcome::kQueued);
  EXPECT_EQ(send(), SendOutcome::kWouldBlock);
  ASSERT_TRUE(net.Until([&] {
    receiver.Step();
    return send() == SendOutcome::kQueued;
  }));
  SendCompletion done[2];
  EXPECT_EQ(*pair.client->PollSendCompletions(done), 0u);
  EXPECT_LT(receiver.bytes(), kLong);
}

// One reader sits on its frags; the other streams of the pool go on.
TEST(Pool, AHoarderSlowsNobodyBelowTheirShare) {
  TwoStacks::Options options;
  options.receive_bytes = 512 << 10;  // 256 slots.
  TwoStacks net(options);
  TwoStacks::Pair hoarder = net.Connect();
  TwoStacks::Pair other = net.Connect();
  PatternSender to_hoarder(*hoarder.client, net.client(), Bytes(1 << 20));
  PatternSender::Options second = Bytes(1 << 20);
  second.offset += 1 << 20;
  PatternSender to_other(*other.client, net.client(), second);
  PatternReceiver hoards(*hoarder.server, net.server(), 0);
  hoards.keeps_tokens = true;
  PatternReceiver reads(*other.server, net.server(), 0);
  bool end = false;
  ASSERT_TRUE(net.Until([&] {
    to_hoarder.Step();
    hoards.Step();
    to_other.Step();
    end = end || reads.Step();
    return end;
  })) << reads.bytes();
  EXPECT_EQ(reads.first_wrong(), std::nullopt);
  EXPECT_LT(hoards.bytes(), 1u << 20);
  hoards.keeps_tokens = false;
  EXPECT_EQ(hoarder.server->ReturnTokens(hoards.tokens),
            ReturnResult::kReturned);
  end = false;
  ASSERT_TRUE(net.Until([&] {
    to_hoarder.Step();
    end = end || hoards.Step();
    return end;
  }));
  EXPECT_EQ(hoards.first_wrong(), std::nullopt);
  EXPECT_TRUE(AllSlotsFree(net));
}

TEST(Pool, TwoRegionsTwoStreams) {
  TwoStacks net({});
  auto second = *MemfdMemory::Allocate(2 << 20);
  const PoolId pool = *net.server().stack->BindMemory(
      *second, {.slot_bytes = 2048, .receive_bytes = 2 << 20});
  TwoStacks::Pair into_first = net.Connect();
  TwoStacks::Pair into_second = net.Connect(net.client().pool, std::nullopt);
  into_second.server->Close();
  auto listener = *net.server().stack->Listen(
      {net.server().address, Port{9000}}, {.memory = pool});
  auto client = *net.client().stack->StartConnect(listener->local(), {});
  std::unique_ptr<Stream> server;
  ASSERT_TRUE(net.Until([&] {
    server = *listener->TryAccept();
    return server != nullptr;
  }));
  PatternSender one(*into_first.client, net.client(), Bytes(200'000));
  PatternSender::Options other = Bytes(200'000);
  other.offset += 1 << 20;
  other.stream_number = 5;
  PatternSender two(*client, net.client(), other);
  TwoStacks::Side second_side;
  second_side.memory = std::move(second);
  PatternReceiver first(*into_first.server, net.server(), 0);
  PatternReceiver later(*server, second_side, 5);
  bool end_first = false;
  bool end_second = false;
  ASSERT_TRUE(net.Until([&] {
    one.Step();
    two.Step();
    end_first = end_first || first.Step();
    end_second = end_second || later.Step();
    return end_first && end_second;
  }));
  EXPECT_EQ(first.first_wrong(), std::nullopt);
  EXPECT_EQ(later.first_wrong(), std::nullopt);
  EXPECT_EQ(first.device_bytes(), 200'000u);
  EXPECT_EQ(later.device_bytes(), 200'000u);
  EXPECT_GE((*net.server().stack->Use(pool)).slot_fills, 138u);
  net.server().stack.reset();  // Before the memory that it has bound.
}

// -- rules --------------------------------------------------------------------

// No room for rules: the control queue, linear frags, and nothing wrong.
TEST(Steering, WithoutRoomForRulesBytesComeThroughHostMemory) {
  TwoStacks net({.nic = ",rules=3"});
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(), Bytes(300'000));
  PatternReceiver receiver(*pair.server, net.server(), 0);
  bool end = false;
  ASSERT_TRUE(net.Until([&] {
    sender.Step();
    end = end || receiver.Step();
    return end;
  }));
  EXPECT_EQ(receiver.host_bytes(), 300'000u);
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);
  const StreamInfo info = *pair.server->Info();
  EXPECT_FALSE(info.steered);
  EXPECT_EQ(info.steering, "the NIC refused the rule");
  EXPECT_EQ(info.linear_bytes, 300'000u);
  EXPECT_TRUE(AllSlotsFree(net));
}

// As many regions as may be bound to receive into, each with streams of both
// header shapes: none goes without a data queue.
TEST(Steering, EveryRegionThatIsBoundHasItsQueues) {
  constexpr size_t kRegions = 20;  // One is the fixture's.
  TwoStacks::Options options;
  options.stack.max_receive_pools = kRegions;
  TwoStacks net(options);
  std::vector<std::unique_ptr<MemfdMemory>> memory;
  std::vector<PoolId> pools = {net.server().pool};
  const auto bind = [&](std::optional<uint64_t> receive_bytes) {
    memory.push_back(*MemfdMemory::Allocate(64 * 2048));
    return net.server().stack->BindMemory(*memory.back(),
                                          {.receive_bytes = receive_bytes});
  };
  while (pools.size() < kRegions) pools.push_back(*bind(std::nullopt));
  const absl::Status status = bind(std::nullopt).status();
  EXPECT_EQ(ErrnoOf(status), ENOBUFS) << status;
  EXPECT_NE(status.message().find("max_receive_pools"), std::string::npos);
  EXPECT_TRUE(bind(0).ok()) << "to send from";
  for (const PoolId pool : pools) {
    auto listener = *net.server().stack->Listen({net.server().address, Port{0}},
                                                {.memory = pool});
    auto client = *net.client().stack->StartConnect(listener->local(), {});
    std::unique_ptr<Stream> server;
    ASSERT_TRUE(net.Until([&] {
      server = *listener->TryAccept();
      return server != nullptr;
    }));
    EXPECT_EQ(server->Info()->steering, "steered to its data queue");
  }
  net.server().stack.reset();  // Before the memory that it has bound.
}

// Slots that hold a frame's payload behind timestamps, but not without: the
// stream says why its payload comes through host memory.
TEST(Steering, AStreamWithoutADataQueueSaysWhy) {
  TwoStacks::Options options;
  options.stack.tcp.timestamps = false;
  TwoStacks net(options);
  auto memory = *MemfdMemory::Allocate(1 << 20);
  const PoolId pool =
      *net.server().stack->BindMemory(*memory, {.slot_bytes = 1448});
  auto listener = *net.server().stack->Listen({net.server().address, Port{0}},
                                              {.memory = pool});
  auto client = *net.client().stack->StartConnect(listener->local(), {});
  std::unique_ptr<Stream> server;
  ASSERT_TRUE(net.Until([&] {
    server = *listener->TryAccept();
    return server != nullptr;
  }));
  const StreamInfo info = *server->Info();
  EXPECT_FALSE(info.steered);
  EXPECT_NE(info.steering.find("no data queue: slots of 1448 bytes"),
            std::string::npos)
      << info.steering;
  net.server().stack.reset();  // Before the memory that it has bound.
}

TEST(Steering, SlowRulesHoldTheHandshakeNotTheBytes) {
  TwoStacks net({.nic = ",rule_latency_us=5000"});
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(), Bytes(100'000));
  PatternReceiver receiver(*pair.server, net.server(), 0);
  bool end = false;
  ASSERT_TRUE(net.Until([&] {
    sender.Step();
    end = end || receiver.Step();
    return end;
  }));
  EXPECT_EQ(receiver.device_bytes(), 100'000u);
  EXPECT_TRUE(AllSlotsFree(net));
}

// -- host streams -------------------------------------------------------------

uint64_t Event(Stack& stack, const std::string& name) {
  const StackCounters counters = *stack.Counters();
  for (const auto& event : counters.events) {
    if (event.name == name) return event.value;
  }
  return 0;
}

// The NIC takes longer than StackOptions::rule_wait: the handshake goes on
// without the rule, and the stream is steered when it is in.
TEST(Steering, AHandshakeWaitsForItsRuleOnlySoLong) {
  TwoStacks::Options options;
  options.nic = ",rule_latency_us=100000";
  options.stack.rule_wait = 1_ms;
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  EXPECT_GE(Event(*net.server().stack, "kHandshakesWithoutRule"), 1u);
  PatternSender::Options early = Bytes(1000);
  early.closes = false;
  PatternSender first(*pair.client, net.client(), early);
  PatternReceiver receiver(*pair.server, net.server(), 0);
  ASSERT_TRUE(net.Until([&] { return receiver.Step(), first.Step(); }));
  EXPECT_TRUE(net.Until([&] { return pair.server->Info()->steered; }));
  EXPECT_EQ(receiver.bytes(), 1000u);
}

// A reader that takes single bytes and returns none meets the end of the pool's
// pieces: the bytes stay readable, and come when pieces are back.
TEST(Pool, WhenAllPiecesAreLentTheBytesWait) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(), Bytes(50'000));
  PatternReceiver receiver(*pair.server, net.server(), 0);
  receiver.keeps_tokens = true;
  receiver.max_frags = 1;
  receiver.max_bytes = 1;
  bool is_at_end = false;
  ASSERT_TRUE(net.Until([&] {
    sender.Step();
    is_at_end = receiver.Step();
    return Event(*net.server().stack, "kLendRefused") > 0;
  }));
  EXPECT_FALSE(is_at_end);
  EXPECT_GT(pair.server->Info()->bytes_readable, 0u);
  EXPECT_EQ(pair.server->ReturnTokens(receiver.tokens),
            ReturnResult::kReturned);
  receiver.tokens.clear();
  receiver.keeps_tokens = false;
  receiver.max_bytes = UINT64_MAX;
  ASSERT_TRUE(net.Until([&] {
    sender.Step();
    return receiver.Step();
  }));
  EXPECT_EQ(receiver.bytes(), 50'000u);
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);
  EXPECT_TRUE(AllSlotsFree(net));
}

TEST(HostStream, CopiesInAndOut) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  std::vector<std::byte> out(300'000);
  for (size_t i = 0; i < out.size(); ++i) out[i] = PatternByte(9, i);
  std::vector<std::byte> in(out.size());
  size_t sent = 0;
  size_t got = 0;
  bool end = false;
  ASSERT_TRUE(net.Until([&] {
    if (sent < out.size()) {
      sent += *pair.client->SendHost(std::span(out).subspan(
          sent, std::min<size_t>(7000, out.size() - sent)));
      if (sent == out.size()) {
        EXPECT_TRUE(pair.client->CloseSend().ok());
      }
    }
    const auto read = pair.server->Read(std::span(in).subspan(got));
    got += read->bytes;
    end = read->end_of_stream;
    return end;
  }));
  EXPECT_EQ(got, out.size());
  EXPECT_TRUE(in == out);
  EXPECT_EQ(ErrnoOf(pair.client->SendHost(out).status()), EPIPE);
  EXPECT_TRUE(AllSlotsFree(net));
}

// -- endings ------------------------------------------------------------------

TEST(Ending, HalfCloseLetsTheOtherDirectionGoOn) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  ASSERT_TRUE(pair.client->CloseSend().ok());
  PatternReceiver at_server(*pair.server, net.server(), 0);
  ASSERT_TRUE(net.Until([&] { return at_server.Step(); }));
  PatternSender back(*pair.server, net.server(), Bytes(50'000));
  PatternReceiver at_client(*pair.client, net.client(), 0);
  ASSERT_TRUE(net.Until([&] {
    back.Step();
    return at_client.Step();
  }));
  EXPECT_EQ(at_client.bytes(), 50'000u);
  EXPECT_EQ(at_client.first_wrong(), std::nullopt);
}

TEST(Ending, AbortCompletesSendsAsUndelivered) {
  TwoStacks::Options options;
  options.stack.tcp.receive_budget_bytes = 16 << 10;
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  PatternSender::Options bytes = Bytes(64 << 10);
  bytes.closes = false;
  PatternSender sender(*pair.client, net.client(), bytes);
  for (int i = 0; i < 200; ++i) {
    net.Poll();
    sender.Step();
  }
  pair.client->Abort("test");
  ASSERT_TRUE(net.Until([&] { return sender.Step(); }));
  EXPECT_GT(sender.undelivered(), 0u);
  EXPECT_EQ(sender.undelivered() + sender.completed(), 64u << 10);
  const absl::Status aborted =
      pair.client->SendHost(std::array<std::byte, 1>()).status();
  EXPECT_EQ(ErrnoOf(aborted), ECONNABORTED);
  EXPECT_NE(aborted.message().find("Abort() was called here: test"),
            std::string::npos)
      << aborted;
  pair.client->Abort("too late");
  EXPECT_EQ(pair.client->SendHost({}).status(), aborted);
  // The peer hears of it.
  std::array<StreamFrag, 64> frags;
  absl::Status status;
  ASSERT_TRUE(net.Until([&] {
    const auto got = pair.server->ReceiveFrags(frags, UINT64_MAX);
    status = got.status();
    for (size_t i = 0; got.ok() && i < got->frags; ++i) {
      pair.server->ReturnTokens({&frags[i].token, 1});
    }
    return !status.ok();
  }));
  EXPECT_EQ(ErrnoOf(status), ECONNRESET) << status;
  EXPECT_NE(status.message().find("connect again"), std::string::npos);
  EXPECT_TRUE(AllSlotsFree(net));
}

TEST(Ending, AStackClosedWithStreamsOpenLosesNothing) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  const std::vector<StreamFrag> frags = Lend(net, pair, 30'000);
  PatternSender sender(*pair.server, net.server(), Bytes(500'000));
  sender.Step();
  net.server().stack.reset();
  EXPECT_EQ(pair.server->ReturnTokens({&frags[0].token, 1}),
            ReturnResult::kStale);
  std::array<StreamFrag, 4> more;
  const absl::Status status = pair.server->ReceiveFrags(more, 1).status();
  EXPECT_EQ(ErrnoOf(status), ESHUTDOWN) << status;
  EXPECT_TRUE(net.Until([&] {
    return ErrnoOf(pair.client->SendHost({}).status()) == ECONNRESET;
  }));
}

// The handles of a connection that was reset are still held when the client
// connects again from the same port: letting go of them is no business of the
// new one.
TEST(Ending, AnOldHandleLeavesTheNextStreamOfItsPortsAlone) {
  TwoStacks net({});
  auto listener = *net.server().stack->Listen(
      {net.server().address, Port{7000}}, {.memory = net.server().pool});
  const auto connect = [&] {
    TwoStacks::Pair pair;
    pair.client = *net.client().stack->StartConnect(
        listener->local(),
        {.memory = net.client().pool, .local_port = Port{2000}});
    EXPECT_TRUE(net.Until([&] {
      if (pair.server == nullptr) pair.server = *listener->TryAccept();
      return pair.server != nullptr;
    }));
    return pair;
  };
  TwoStacks::Pair old = connect();
  old.server->Abort("test");
  ASSERT_TRUE(net.Until([&] {
    return ErrnoOf(old.client->SendHost({}).status()) == ECONNRESET;
  }));
  TwoStacks::Pair pair = connect();
  old.client.reset();
  old.server.reset();
  for (int i = 0; i < 10; ++i) net.Poll();
  PatternSender sender(*pair.client, net.client(), Bytes(50'000));
  PatternReceiver receiver(*pair.server, net.server(), 0);
  bool is_at_end = false;
  EXPECT_TRUE(net.Until([&] {
    const bool is_sent = sender.Step();
    is_at_end = is_at_end || receiver.Step();
    return is_sent && is_at_end;
  }));
  EXPECT_EQ(receiver.bytes(), 50'000u);
  EXPECT_EQ(sender.undelivered(), 0u);
}

// More sends are done than completions fit, and nobody polls them: the engine
// rests until somebody does.
TEST(Ending, CompletionsThatNobodyPollsAreNoWork) {
  constexpr uint32_t kSends = 600;  // Of which 512 completions are kept.
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  PatternReceiver receiver(*pair.server, net.server(), 0);
  const DeviceSpan span{.offset = kSendFrom, .length = 10};
  uint32_t sent = 0;
  ASSERT_TRUE(net.Until([&] {
    while (sent < kSends &&
           *pair.client->SendDevice(net.client().pool, {&span, 1}, sent) ==
               SendOutcome::kQueued) {
      ++sent;
    }
    receiver.Step();
    return sent == kSends && pair.client->Info()->bytes_unacked == 0 &&
           pair.client->Info()->bytes_unsent == 0;
  }));
  EXPECT_TRUE(net.Until([&] {
    net.server().stack->Poll();
    return !net.client().stack->Poll();
  }));
  std::vector<SendCompletion> done(kSends);
  uint32_t completed = 0;
  EXPECT_TRUE(net.Until([&] {
    completed += static_cast<uint32_t>(*pair.client->PollSendCompletions(done));
    return completed == kSends;
  }));
}

// -- readiness ----------------------------------------------------------------

TEST(PollerTest, LevelsRepeatAndEdgesDoNot) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  TwoStacks::Pair edge_pair = net.Connect();
  auto poller = *net.server().stack->NewPoller();
  ASSERT_TRUE(poller->Add(*pair.server, kReadable, Trigger::kLevel, 1).ok());
  ASSERT_TRUE(
      poller->Add(*edge_pair.server, kReadable, Trigger::kEdge, 2).ok());
  EXPECT_EQ(ErrnoOf(poller->Add(*pair.server, kReadable, Trigger::kLevel, 1)),
            EEXIST);
  std::array<Poller::Ready, 8> ready;
  EXPECT_EQ(*poller->Wait(ready, 0_ms), 0u);
  PatternSender::Options bytes = Bytes(1000);
  bytes.closes = false;
  PatternSender one(*pair.client, net.client(), bytes);
  bytes.offset += 1 << 20;
  PatternSender two(*edge_pair.client, net.client(), bytes);
  ASSERT_TRUE(net.Until([&] { return one.Step() & two.Step(); }));
  size_t levels = 0;
  size_t edges = 0;
  for (int i = 0; i < 5; ++i) {
    const size_t count = *poller->Wait(ready, 1_ms);
    for (size_t k = 0; k < count; ++k) {
      EXPECT_EQ(ready[k].what & kReadable, kReadable);
      (ready[k].user_data == 1 ? levels : edges) += 1;
    }
  }
  EXPECT_EQ(levels, 5u);
  EXPECT_EQ(edges, 1u);
  PatternReceiver receiver(*pair.server, net.server(), 0);
  receiver.Step();
  EXPECT_EQ(*poller->Wait(ready, 1_ms), 0u) << "the level ended";
  ASSERT_TRUE(poller->Remove(*pair.server).ok());
  EXPECT_EQ(ErrnoOf(poller->Remove(*pair.server)), ENOENT);
}

// A stream of another stack may have the number of one of ours.
TEST(PollerTest, StreamsAndListenersOfAnotherStackAreRefused) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  auto listener =
      *net.client().stack->Listen({net.client().address, Port{80}}, {});
  auto poller = *net.server().stack->NewPoller();
  const absl::Status answers[] = {
      poller->Add(*pair.client, kReadable, Trigger::kLevel, 1),
      poller->Add(*listener, Trigger::kLevel, 2),
      poller->Remove(*pair.client),
      poller->Remove(*listener),
  };
  for (const absl::Status& status : answers) {
    EXPECT_EQ(ErrnoOf(status), EINVAL) << status;
    EXPECT_NE(status.message().find("another stack"), std::string::npos);
    EXPECT_NE(status.message().find("NewPoller"), std::string::npos);
  }
}

// -- threads ------------------------------------------------------------------

// Library threads run both engines; this thread only uses the API.
TEST(BusyThread, TransfersAndReturnsTokensFromAnotherThread) {
  TwoStacks::Options options;
  options.stack.mode = StackOptions::Mode::kBusyThread;
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(), Bytes(500'000));
  PatternReceiver receiver(*pair.server, net.server(), 0);
  receiver.keeps_tokens = true;
  bool end = false;
  ASSERT_TRUE(net.Until([&] {
    const bool sent = sender.Step();
    end = end || receiver.Step();
    std::vector<FragToken> tokens;
    tokens.swap(receiver.tokens);
    std::thread([&] {
      EXPECT_EQ(pair.server->ReturnTokens(tokens), ReturnResult::kReturned);
    }).join();
    return sent && end;
  }));
  EXPECT_EQ(receiver.bytes(), 500'000u);
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);
  EXPECT_TRUE(AllSlotsFree(net));
}

TEST(BusyThread, PollerWakesAndConnectCanBeCancelled) {
  TwoStacks::Options options;
  options.stack.mode = StackOptions::Mode::kBusyThread;
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  auto poller = *net.server().stack->NewPoller();
  ASSERT_TRUE(poller->Add(*pair.server, kReadable, Trigger::kLevel, 7).ok());
  std::thread later([&] {
    PatternSender sender(*pair.client, net.client(), Bytes(10));
    net.Until([&] { return sender.Step(); });
  });
  std::array<Poller::Ready, 4> ready;
  EXPECT_EQ(*poller->Wait(ready, 10_s), 1u);
  EXPECT_EQ(ready[0].user_data, 7u);
  later.join();

  CancelFlag cancel;
  std::thread canceller([&] { cancel.Cancel(); });
  const auto connected = net.client().stack->Connect(
      {IpAddress::V4(10, 0, 0, 77), Port{1}}, {.cancel = &cancel});
  canceller.join();
  EXPECT_EQ(ErrnoOf(connected.status()), ECANCELED);
}

// -- fork ---------------------------------------------------------------------

TEST(Fork, EveryCallInAChildSaysSoAndTheParentGoesOn) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  const Endpoint at{net.client().address, Port{80}};
  auto listener = *net.client().stack->Listen(at, {});
  auto poller = *net.client().stack->NewPoller();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::array<StreamFrag, 1> frags;
    std::array<std::byte, 1> bytes;
    std::array<SendCompletion, 1> done;
    std::array<Poller::Ready, 1> ready;
    FragToken token;
    Stack& stack = *net.client().stack;
    const DeviceSpan span{0, 1};
    int wrong = 0;
    const auto dead = [&](const absl::Status& status) {
      const bool is_right = ErrnoOf(status) == EOWNERDEAD &&
                            status.message().find(
                                "belongs to the parent process: open one in "
                                "the child") != absl::string_view::npos;
      if (!is_right)
        std::fprintf(stderr, "call %d: %s\n", wrong, status.ToString().c_str());
      wrong += !is_right;
    };
    dead(pair.client->ReceiveFrags(frags, 1).status());
    dead(pair.client->Read(bytes).status());
    dead(pair.client->SendDevice(net.client().pool, {&span, 1}, 1).status());
    dead(pair.client->SendHost({}).status());
    dead(pair.client->PollSendCompletions(done).status());
    dead(pair.client->CloseSend());
    dead(pair.client->ConnectStatus());
    dead(pair.client->WaitConnected(1_s));
    dead(pair.client->Info().status());
    dead(stack.Counters().status());
    dead(stack.BindMemory(*net.client().memory, {}).status());
    dead(stack.BindMemory(*net.client().memory->Export(), {}).status());
    dead(stack.Use(net.client().pool).status());
    dead(stack.Listen(at).status());
    dead(stack.Connect({net.server().address, Port{1}}).status());
    dead(stack.StartConnect({net.server().address, Port{1}}).status());
    dead(stack.NewPoller().status());
    dead(stack.StartCapture("/dev/null", 1 << 20));
    dead(stack.StopCapture());
    dead(listener->TryAccept().status());
    dead(listener->Accept(1_s).status());
    dead(poller->Add(*pair.client, kReadable, Trigger::kLevel, 1));
    dead(poller->Add(*listener, Trigger::kLevel, 1));
    dead(poller->Remove(*pair.client));
    dead(poller->Remove(*listener));
    dead(poller->Wait(ready, 1_s).status());
    wrong += stack.Poll();
    wrong += pair.client->ReturnTokens({&token, 1}) != ReturnResult::kUnknown;
    pair.client->Abort("in the child");
    pair.client.reset();
    listener.reset();
    poller.reset();
    net.client().stack.reset();
    // One of the child's own works.
    ChangeSoftnic("dev=child");
    StackOptions o;
    o.verbs_library = SoftnicPath();
    o.device = "child";
    o.address = IpAddress::V4(10, 0, 0, 3);
    const auto own = Stack::Open(o);
    wrong += !own.ok() || !(*own)->Listen({o.address, Port{80}}).ok();
    _exit(wrong);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
  PatternSender sender(*pair.client, net.client(), Bytes(10'000));
  PatternReceiver receiver(*pair.server, net.server(), 0);
  EXPECT_TRUE(net.Until([&] {
    sender.Step();
    return receiver.Step();
  }));
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);
}

// -- cost ---------------------------------------------------------------------

// Steady state: not one allocation from SendDevice to ReturnTokens.
TEST(Cost, NoAllocationPerSegment) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  std::array<StreamFrag, 64> frags;
  std::array<SendCompletion, 16> done;
  const DeviceSpan span{kSendFrom, 16 << 10};
  uint64_t received = 0;
  uint64_t completed = 0;
  const auto turn = [&] {
    (void)pair.client->SendDevice(net.client().pool, {&span, 1}, 1);
    net.Poll();
    const absl::StatusOr<Received> got =
        pair.server->ReceiveFrags(frags, UINT64_MAX);
    received += got->bytes;
    for (size_t i = 0; i < got->frags; ++i) {
      pair.server->ReturnTokens({&frags[i].token, 1});
    }
    completed += *pair.client->PollSendCompletions(done);
  };
  for (int i = 0; i < 500; ++i) turn();
  const uint64_t received_before = received;
  const uint64_t before = AllocationsOnThisThread();
  const MonotonicClock clock;
  const Instant deadline = clock.Now() + 20_s;
  const auto is_enough = [&] {
    return received - received_before > 1u << 20 && completed > 100;
  };
  while (!is_enough() && clock.Now() < deadline) turn();
  EXPECT_EQ(AllocationsOnThisThread() - before, 0u);
  EXPECT_TRUE(is_enough()) << received - received_before << ", " << completed;
}

}  // namespace
}  // namespace devwire
