// Trouble of the hardware under sixteen streams: those on sound memory end with
// every byte right, and no slot is lost.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "sockets/errno_map.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

constexpr size_t kStreams = 16;
constexpr uint64_t kBytes = 150'000;  // Per stream and direction.
constexpr uint64_t kSendFrom = 4 << 20;
constexpr uint64_t kSendArea = 128 << 10;  // Of one stream.

TwoStacks::Options With(const std::string& nic) {
  return {.memory_bytes = 8 << 20, .receive_bytes = kSendFrom, .nic = nic};
}

// Streams between the two stacks, each sending both ways at once.
class Load {
 public:
  explicit Load(TwoStacks& net, size_t streams = kStreams) : net_(net) {
    for (size_t i = 0; i < streams; ++i) pairs_.push_back(net.Connect());
  }

  // Moves everything; `step` is called after each poll, with how much of it
  // was received.
  void Run(const std::function<void(uint64_t percent)>& step = {}) {
    for (size_t i = 0; i < pairs_.size(); ++i) {
      Start(*pairs_[i].client, net_.client(), *pairs_[i].server, net_.server(),
            i);
      Start(*pairs_[i].server, net_.server(), *pairs_[i].client, net_.client(),
            i + 100);
    }
    ASSERT_TRUE(net_.Until([&] {
      bool is_over = true;
      uint64_t received = 0;
      for (Flow& flow : flows_) {
        is_over &= flow.sender->Step();
        flow.is_at_end = flow.is_at_end || flow.receiver->Step();
        is_over &= flow.is_at_end;
        received += flow.receiver->bytes();
      }
      if (step) step(100 * received / (flows_.size() * kBytes));
      return is_over;
    }));
    for (const Flow& flow : flows_) {
      EXPECT_EQ(flow.receiver->bytes(), kBytes);
      EXPECT_EQ(flow.receiver->first_wrong(), std::nullopt);
      EXPECT_EQ(flow.sender->completed(), kBytes);
    }
    EXPECT_TRUE(net_.Until([&] { return net_.SlotsHeld() == 0; }));
  }

  // Delivered through host memory, of all that was received.
  uint64_t host_bytes() const {
    uint64_t bytes = 0;
    for (const Flow& flow : flows_) bytes += flow.receiver->host_bytes();
    return bytes;
  }

 private:
  struct Flow {
    std::unique_ptr<PatternSender> sender;
    std::unique_ptr<PatternReceiver> receiver;
    bool is_at_end = false;
  };

  void Start(Stream& from, TwoStacks::Side& from_side, Stream& to,
             TwoStacks::Side& to_side, uint64_t number) {
    flows_.push_back(
        {.sender = std::make_unique<PatternSender>(
             from, from_side,
             PatternSender::Options{
                 .stream_number = number,
                 .bytes = kBytes,
                 .offset = kSendFrom + number % 100 * kSendArea}),
         .receiver = std::make_unique<PatternReceiver>(to, to_side, number)});
  }

  TwoStacks& net_;
  std::vector<TwoStacks::Pair> pairs_;
  std::vector<Flow> flows_;
};

// A frame from a port of larger MTU is no business of any queue: the receiving
// port drops and counts it.
TEST(Trouble, OversizeFrames) {
  TwoStacks::Options options = With("");
  options.client_mtu = 9000;
  TwoStacks net(options);
  Load load(net);
  TestHost giant({.device = net.client().device, .ip = net.client().address});
  TestHost target({.device = net.server().device,
                   .ip = net.server().address,
                   .mtu = 1500,
                   .slot_bytes = 2048});
  constexpr uint64_t kFrames = 20;
  uint64_t sent = 0;
  load.Run([&](uint64_t percent) {
    for (; sent < kFrames && kFrames * percent >= 100 * sent; ++sent) {
      ASSERT_TRUE(giant.Send({.to = &target, .payload_bytes = 4000}));
      giant.io().TxFlush();
    }
  });
  EXPECT_EQ(sent, kFrames);
  EXPECT_TRUE(
      net.Until([&] { return net.server().Nic().rx_too_long == kFrames; }));
  EXPECT_EQ(load.host_bytes(), 0u);
}

// Completion errors and queue pairs in error, on both sides: the queues are
// remade, and TCP repairs.
TEST(Trouble, CompletionAndQueueErrors) {
  TwoStacks net(With(""));
  Load load(net);
  // The tenth work request from when so much was received.
  const std::array<std::pair<uint64_t, const char*>, 4> faults = {{
      {10, "dev=sn1,cqe_error_at=10"},
      {30, "dev=sn1,qp_error_at=10"},
      {50, "dev=sn0,qp_error_at=10"},
      {70, "dev=sn0,cqe_error_at=10"},
  }};
  size_t next = 0;
  load.Run([&](uint64_t percent) {
    if (next == faults.size() || percent < faults[next].first) return;
    ChangeSoftnic(faults[next++].second);
  });
  EXPECT_EQ(next, faults.size());
  EXPECT_GT(net.server().Nic().flushed, 0u);
  EXPECT_GT(net.client().Nic().flushed, 0u);
}

// Rules that take 5 ms each, in a table of 64.
TEST(Trouble, SlowRulesInASmallTable) {
  TwoStacks net(With(",rule_latency_us=5000,rules=64"));
  Load load(net);
  EXPECT_GE(net.server().Nic().rules, kStreams);
  load.Run();
  EXPECT_EQ(load.host_bytes(), 0u) << "a stream had no rule of its own";
}

// More streams than the table has room for: those without a rule are served
// by the control queue.
TEST(Trouble, MoreStreamsThanRules) {
  TwoStacks net(With(",rule_latency_us=5000,rules=12"));
  Load load(net);
  EXPECT_EQ(net.server().Nic().rules, 12u);
  load.Run();
  EXPECT_GT(load.host_bytes(), 0u);
  EXPECT_LT(load.host_bytes(), 2 * kStreams * kBytes);
}

TEST(Trouble, LateGatherAndLateScatter) {
  TwoStacks net(With(",late_gather=50us,late_scatter=200us,loss=0.005"));
  Load load(net);
  load.Run();
  EXPECT_GT(net.server().Nic().late_scatters, 0u);
  EXPECT_EQ(load.host_bytes(), 0u);
}

// Half of the streams receive into a region that is revoked: they end, by
// name, and the others do not notice.
TEST(Trouble, ARevokedRegionEndsItsStreamsAlone) {
  constexpr size_t kDoomed = kStreams / 2;
  TwoStacks net(With(""));
  auto second = *MemfdMemory::Allocate(2 << 20);
  const PoolId pool = *net.server().stack->BindMemory(
      *second, {.slot_bytes = 2048, .receive_bytes = 2 << 20});
  Load sound(net, kStreams - kDoomed);
  auto listener = *net.server().stack->Listen(
      {net.server().address, Port{9000}}, {.memory = pool});
  std::array<TwoStacks::Pair, kDoomed> doomed;
  for (TwoStacks::Pair& pair : doomed) {
    pair.client = *net.client().stack->StartConnect(listener->local(), {});
    ASSERT_TRUE(net.Until([&] {
      pair.server = *listener->TryAccept();
      return pair.server != nullptr;
    }));
  }
  // Of the next frame that carries payload; the wire is quiet until then.
  ChangeSoftnic("dev=sn1,revoke_at=1");
  std::vector<std::byte> bytes(50'000);
  ASSERT_TRUE(doomed[0].client->SendHost(bytes).ok());
  net.Poll();
  sound.Run();
  for (TwoStacks::Pair& pair : doomed) {
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
    EXPECT_EQ(ErrnoOf(status), EIO) << status;
    EXPECT_NE(status.message().find("revoked"), std::string::npos) << status;
    EXPECT_NE(status.message().find(
                  "memory " + std::to_string(static_cast<uint16_t>(pool))),
              std::string::npos)
        << status;
    EXPECT_NE(status.message().find("bind it again"), std::string::npos);
  }
  const MemoryUse use = *net.server().stack->Use(pool);
  EXPECT_EQ(use.owners.reassembly + use.owners.application, 0u);
  net.server().stack.reset();  // Before the memory that it has bound.
}

// Moves `bytes` of zeros through a stream without device memory.
class HostFlow {
 public:
  HostFlow(TwoStacks& net, size_t bytes)
      : pair_(net.Connect(std::nullopt, std::nullopt)), left_(bytes) {}

  bool Step() {
    std::vector<std::byte> bytes(std::min<size_t>(left_, 16 << 10));
    const auto sent = pair_.client->SendHost(bytes);
    if (!sent.ok()) status_ = sent.status();
    left_ -= sent.value_or(0);
    std::vector<std::byte> out(16 << 10);
    const auto got = pair_.server->Read(out);
    read_ += got.ok() ? got->bytes : 0;
    return left_ == 0;
  }
  uint64_t read() const { return read_; }
  const absl::Status& status() const { return status_; }

 private:
  TwoStacks::Pair pair_;
  size_t left_;
  uint64_t read_ = 0;
  absl::Status status_;
};

// Half of the streams send from memory that is revoked, in frames that gather
// host bytes as well: they end, by name. Those that send from sound memory, or
// host bytes, do not notice; nothing more is taken from what is gone.
TEST(Trouble, RevokedSendMemoryEndsItsSendersAlone) {
  constexpr size_t kDoomed = kStreams / 2;
  constexpr uint64_t kHostBytes = 300'000;
  TwoStacks net(With(""));
  Stack& client = *net.client().stack;
  auto second = *MemfdMemory::Allocate(2 << 20);
  const PoolId gone = *client.BindMemory(*second, {});
  auto listener =
      *client.Listen({net.client().address, Port{9000}}, {.memory = gone});
  Load sound(net, kStreams - kDoomed);
  std::array<TwoStacks::Pair, kDoomed> doomed;
  for (TwoStacks::Pair& pair : doomed) pair = net.Connect();
  HostFlow host(net, kHostBytes);
  host.Step();
  // Of the next frame with device memory in it.
  ChangeSoftnic("dev=sn0,revoke_send_at=1");
  const DeviceSpan span{.offset = 0, .length = 1000};
  for (TwoStacks::Pair& pair : doomed) {
    ASSERT_TRUE(pair.client->SendHost(std::array<std::byte, 100>()).ok());
    ASSERT_TRUE(pair.client->SendDevice(gone, {&span, 1}, 1).ok());
  }
  ASSERT_TRUE(net.Until([&] {
    host.Step();
    return host.read() == kHostBytes;
  })) << host.status();
  sound.Run();
  const auto expect_revoked = [&](const absl::Status& status) {
    EXPECT_EQ(ErrnoOf(status), EIO) << status;
    EXPECT_NE(status.message().find("memory 3 was revoked"), std::string::npos)
        << status;
    EXPECT_NE(status.message().find("bind"), std::string::npos) << status;
  };
  for (TwoStacks::Pair& pair : doomed) {
    expect_revoked(pair.client->SendHost({}).status());
    std::array<SendCompletion, 2> done;
    EXPECT_EQ(*pair.client->PollSendCompletions(done), 1u);
    EXPECT_FALSE(done[0].delivered);
  }
  // Whoever comes to it from now on is told at once.
  const uint64_t errors = net.client().Nic().tx_errors;
  TwoStacks::Pair late = net.Connect();
  expect_revoked(late.client->SendDevice(gone, {&span, 1}, 1).status());
  expect_revoked(
      client.Listen({net.client().address, Port{9001}}, {.memory = gone})
          .status());
  expect_revoked(
      client.StartConnect({net.server().address, Port{9001}}, {.memory = gone})
          .status());
  expect_revoked(listener->TryAccept().status());
  auto refused = *net.server().stack->StartConnect(listener->local(), {});
  EXPECT_TRUE(net.Until(
      [&] { return ErrnoOf(refused->ConnectStatus()) == ECONNREFUSED; }));
  EXPECT_EQ(net.client().Nic().tx_errors, errors);
  net.client().stack.reset();  // Before the memory that it has bound.
}

// The softnic_device processes of this one.
std::vector<pid_t> DeviceProcesses() {
  std::ifstream in("/proc/self/task/" + std::to_string(getpid()) + "/children");
  std::vector<pid_t> out;
  for (pid_t child = 0; in >> child;) out.push_back(child);
  return out;
}

// The NIC dies under the stack, with sends posted and a reader waiting: every
// call says so, by name, and the stack can be closed.
TEST(Trouble, ADeviceThatDiesEndsEverythingByName) {
  TwoStacks net(With(",mode=process"));
  Stack& server = *net.server().stack;
  TwoStacks::Pair pair = net.Connect();
  TwoStacks::Pair closed = net.Connect();
  const Endpoint at{net.server().address, Port{9000}};
  auto listener = *server.Listen(at, {.memory = net.server().pool});
  auto poller = *server.NewPoller();
  ASSERT_TRUE(poller->Add(*pair.server, kReadable, Trigger::kEdge, 1).ok());
  ASSERT_TRUE(poller->Add(*listener, Trigger::kEdge, 2).ok());
  const DeviceSpan span{.offset = kSendFrom, .length = 100'000};
  const PoolId pool = net.server().pool;
  ASSERT_TRUE(pair.server->SendDevice(pool, {&span, 1}, 1).ok());
  ASSERT_TRUE(closed.server->SendDevice(pool, {&span, 1}, 1).ok());
  server.Poll();
  closed.server.reset();
  const std::vector<pid_t> devices = DeviceProcesses();
  ASSERT_EQ(devices.size(), 2u);
  for (const pid_t device : devices) kill(device, SIGKILL);

  const auto expect_failed = [](const absl::Status& status) {
    EXPECT_EQ(ErrnoOf(status), EIO) << status;
    EXPECT_NE(status.message().find("sn1 has failed"), std::string::npos)
        << status;
  };
  std::array<StreamFrag, 4> frags;
  absl::Status status;
  ASSERT_TRUE(net.Until([&] {
    status = pair.server->ReceiveFrags(frags, UINT64_MAX).status();
    return !status.ok();
  }));
  expect_failed(status);
  std::array<Poller::Ready, 4> ready;
  EXPECT_EQ(*poller->Wait(ready, 1_s), 2u);
  // What the NIC was done with comes back, undelivered; what it was not, not.
  std::array<SendCompletion, 2> done;
  absl::StatusOr<size_t> count = pair.server->PollSendCompletions(done);
  if (count.ok()) {
    EXPECT_EQ(*count, 1u);
    EXPECT_FALSE(done[0].delivered);
    count = pair.server->PollSendCompletions(done);
  }
  expect_failed(count.status());
  expect_failed(pair.server->SendDevice(pool, {&span, 1}, 2).status());
  expect_failed(pair.server->SendHost({}).status());
  expect_failed(pair.server->CloseSend());
  expect_failed(listener->TryAccept().status());
  expect_failed(listener->Accept(1_s).status());
  expect_failed(server.Listen({net.server().address, Port{9001}}).status());
  expect_failed(server.StartConnect({net.client().address, Port{1}}).status());
  expect_failed(server.BindMemory(*net.server().memory, {}).status());
  EXPECT_TRUE(pair.server->Info().ok());
  EXPECT_TRUE(server.Counters().ok());
  EXPECT_TRUE(net.Until([&] { return !server.Poll(); })) << "a busy loop";
  net.server().stack.reset();
  EXPECT_EQ(ErrnoOf(pair.server->SendHost({}).status()), ESHUTDOWN);
}

}  // namespace
}  // namespace devwire
