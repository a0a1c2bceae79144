// Listeners that share a port, and those that wait for data.
#include "sockets/listener.h"

#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sockets/errno_map.h"
#include "sockets/two_stacks.h"

namespace devwire {
namespace {

using ::testing::HasSubstr;

class ListenerTest : public testing::Test {
 protected:
  std::unique_ptr<Listener> Listen(bool reuse_port) {
    return *net_.server().stack->Listen({net_.server().address, Port{7100}},
                                        {.reuse_port = reuse_port});
  }
  // Established, as the client has it.
  std::unique_ptr<Stream> Connect() {
    auto stream =
        *net_.client().stack->StartConnect({net_.server().address, Port{7100}});
    EXPECT_TRUE(net_.Until([&] { return stream->ConnectStatus().ok(); }));
    return stream;
  }
  // What is accepted within `time`, or null.
  std::unique_ptr<Stream> AcceptWithin(Listener& listener, Duration time) {
    std::unique_ptr<Stream> stream;
    (void)net_.Until(
        [&] {
          stream = *listener.TryAccept();
          return stream != nullptr;
        },
        time);
    return stream;
  }
  uint64_t Rules() { return net_.server().Nic().rules; }

  TwoStacks net_{{}};
  const MonotonicClock clock_;
};

// -- SO_REUSEPORT -------------------------------------------------------------

TEST_F(ListenerTest, OneAloneHasItsPort) {
  const auto first = Listen(false);
  for (const bool reuse : {false, true}) {
    const auto second = net_.server().stack->Listen(
        {net_.server().address, Port{7100}}, {.reuse_port = reuse});
    EXPECT_EQ(ErrnoOf(second.status()), EADDRINUSE);
  }
}

// One flow rule for all of them: a NIC with two would deliver twice, or refuse.
TEST_F(ListenerTest, SharersHaveOneRuleAndSomeOfTheConnectionsEach) {
  const uint64_t before = Rules();
  std::vector<std::unique_ptr<Listener>> both;
  both.push_back(Listen(true));
  both.push_back(Listen(true));
  ASSERT_TRUE(net_.Until([&] { return Rules() == before + 1; }));
  std::vector<std::unique_ptr<Stream>> clients;
  for (int i = 0; i < 40; ++i) clients.push_back(Connect());
  std::array<int, 2> accepted = {};
  ASSERT_TRUE(net_.Until([&] {
    for (int i = 0; i < 2; ++i) {
      if (*both[i]->TryAccept() != nullptr) ++accepted[i];
    }
    return accepted[0] + accepted[1] == 40;
  }));
  EXPECT_GT(accepted[0], 0);
  EXPECT_GT(accepted[1], 0);

  both.erase(both.begin());
  const auto client = Connect();
  EXPECT_NE(AcceptWithin(*both[0], 10_s), nullptr) << "the other one has all";
  EXPECT_EQ(Rules(), before + 1);
  both.clear();
  EXPECT_TRUE(net_.Until([&] { return Rules() == before; }));
}

// -- TCP_DEFER_ACCEPT ---------------------------------------------------------

TEST_F(ListenerTest, DeferredUntilThereIsData) {
  const auto listener = Listen(false);
  ASSERT_TRUE(listener->SetDeferAccept(10_s).ok());
  const auto client = Connect();
  EXPECT_EQ(AcceptWithin(*listener, 50_ms), nullptr);
  const std::array<std::byte, 3> text = {};
  ASSERT_EQ(*client->SendHost(text), 3u);
  const auto accepted = AcceptWithin(*listener, 5_s);
  ASSERT_NE(accepted, nullptr);
  EXPECT_EQ(*accepted->ReadableBytes(), 3u);
}

TEST_F(ListenerTest, DeferredUntilThePeerHasNoMore) {
  const auto listener = Listen(false);
  ASSERT_TRUE(listener->SetDeferAccept(10_s).ok());
  const auto client = Connect();
  ASSERT_TRUE(client->CloseSend().ok());
  EXPECT_NE(AcceptWithin(*listener, 5_s), nullptr);
}

TEST_F(ListenerTest, DeferredForSoLongAtMost) {
  const auto listener = Listen(false);
  ASSERT_TRUE(listener->SetDeferAccept(200_ms).ok());
  const auto client = Connect();
  const Instant began = clock_.Now();
  const auto accepted = AcceptWithin(*listener, 5_s);
  ASSERT_NE(accepted, nullptr);
  EXPECT_GE(clock_.Now() - began, 150_ms);
  EXPECT_EQ(*accepted->ReadableBytes(), 0u);
}

TEST_F(ListenerTest, DeferredAndReset) {
  const auto listener = Listen(false);
  ASSERT_TRUE(listener->SetDeferAccept(100_ms).ok());
  Connect()->Abort("not wanted");
  EXPECT_EQ(AcceptWithin(*listener, 300_ms), nullptr);
  ASSERT_TRUE(listener->SetDeferAccept(Duration()).ok());
  const auto client = Connect();
  EXPECT_NE(AcceptWithin(*listener, 5_s), nullptr);
}

TEST_F(ListenerTest, ClosedWhileOneIsDeferred) {
  auto listener = Listen(false);
  ASSERT_TRUE(listener->SetDeferAccept(100_ms).ok());
  const auto client = Connect();
  listener.reset();
  EXPECT_TRUE(net_.Until(
      [&] { return ErrnoOf(client->SendHost({}).status()) == ECONNRESET; }));
  (void)net_.Until([] { return false; }, 200_ms);  // Its time comes, and goes.
}

TEST_F(ListenerTest, DeferTimesThatAreNone) {
  const auto listener = Listen(false);
  const absl::Status status = listener->SetDeferAccept(Duration() - 1_s);
  EXPECT_EQ(ErrnoOf(status), EINVAL);
  EXPECT_THAT(std::string(status.message()), HasSubstr("-1 s"));
  net_.server().stack.reset();
  EXPECT_FALSE(listener->SetDeferAccept(1_s).ok());
}

}  // namespace
}  // namespace devwire
