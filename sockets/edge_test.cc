// Edges of readiness that nobody sees come: who waits for one is told.
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "gtest/gtest.h"
#include "sockets/two_stacks.h"

namespace devwire {
namespace {

// An edge that ended and began again between two polls: the caller, who found
// nothing left and waits, is told.
class EdgeAgain : public testing::Test {
 protected:
  // What the client's poller has for us; the server is not polled.
  Readiness Edges() {
    std::array<Poller::Ready, 8> ready;
    Readiness all = 0;
    for (int polls = 0; polls < 100; ++polls) {
      for (size_t i = 0, n = *poller_->Wait(ready, 0_ms); i < n; ++i) {
        all |= ready[i].what;
      }
    }
    return all;
  }
  // What the client sent arrives, and the answers wait in its NIC.
  void PollServer() {
    const MonotonicClock clock;
    const Instant until = clock.Now() + 100_ms;  // Beyond a delayed ACK.
    while (clock.Now() < until) net_.server().stack->Poll();
  }

  explicit EdgeAgain(TwoStacks::Options options = {})
      : net_(std::move(options)) {}

  TwoStacks net_;
  TwoStacks::Pair pair_ = net_.Connect(std::nullopt, std::nullopt);
  std::unique_ptr<Poller> poller_ = *net_.client().stack->NewPoller();
};

TEST_F(EdgeAgain, Writable) {
  ASSERT_TRUE(poller_->Add(*pair_.client, kWritable, Trigger::kEdge, 1).ok());
  EXPECT_EQ(Edges(), kWritable);
  std::vector<std::byte> bytes(8 << 10);
  ASSERT_EQ(*pair_.client->SendHost(bytes), bytes.size());
  net_.client().stack->Poll();
  PollServer();
  while (*pair_.client->SendHost(bytes) == bytes.size()) continue;
  EXPECT_EQ(Edges(), kWritable) << "the 8 KiB were acknowledged";
}

// The send buffers are the stack's, not the stream's: what one stream holds of
// them another may wait for with nothing of its own in flight.
class SendMemory : public EdgeAgain {
 protected:
  SendMemory() : EdgeAgain({.stack = {.host_send_bytes = 32 << 10}}) {}
  Readiness EdgesWhileAcksCome() {
    Readiness all = 0;
    for (int flights = 0; flights < 4; ++flights) {
      PollServer();
      all |= Edges();
    }
    return all;
  }
  TwoStacks::Pair other_ = net_.Connect(std::nullopt, std::nullopt);
};

TEST_F(SendMemory, WhoFoundNoneIsToldOfTheNext) {
  std::vector<std::byte> bytes(64 << 10);
  const std::span<const std::byte> one(bytes.data(), 1);
  ASSERT_EQ(*other_.client->SendHost(bytes), 32u << 10) << "all there is";
  ASSERT_TRUE(poller_->Add(*pair_.client, kWritable, Trigger::kEdge, 1).ok());
  EXPECT_EQ(Edges(), kWritable);
  ASSERT_EQ(*pair_.client->SendHost(one), 0u);
  EXPECT_EQ(Edges(), 0) << "nobody has acknowledged anything";
  EXPECT_EQ(EdgesWhileAcksCome(), kWritable)
      << "the other's 32 KiB were acknowledged";
  EXPECT_EQ(*pair_.client->SendHost(one), 1u);
}

TEST_F(SendMemory, WhoDiesWaitingIsForgotten) {
  std::vector<std::byte> bytes(64 << 10);
  ASSERT_EQ(*other_.client->SendHost(bytes), 32u << 10);
  ASSERT_EQ(*pair_.client->SendHost(bytes), 0u);
  pair_.client->Abort("waiting");
  pair_.client.reset();
  EXPECT_EQ(EdgesWhileAcksCome(), 0);
  EXPECT_EQ(*other_.client->SendHost({bytes.data(), 1}), 1u);
}

TEST_F(EdgeAgain, SendCompleted) {
  ASSERT_TRUE(
      poller_->Add(*pair_.client, kSendCompleted, Trigger::kEdge, 1).ok());
  const DeviceSpan span = {.offset = 0, .length = 1000};
  const auto send_and_await_ack = [&](uint64_t cookie) {
    ASSERT_EQ(*pair_.client->SendDevice(net_.client().pool, {&span, 1}, cookie),
              SendOutcome::kQueued);
    net_.client().stack->Poll();
    PollServer();
  };
  send_and_await_ack(1);
  EXPECT_EQ(Edges(), kSendCompleted);
  send_and_await_ack(2);
  std::array<SendCompletion, 8> done;
  ASSERT_EQ(*pair_.client->PollSendCompletions(done), 1u);
  EXPECT_EQ(Edges(), kSendCompleted) << "the second";
  EXPECT_EQ(*pair_.client->PollSendCompletions(done), 1u);
}

}  // namespace
}  // namespace devwire
