// What a stack says of its connections beyond their handles: whom it is
// connected with, and what no peer has acknowledged yet.
#include <array>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

// Of both stacks of a test.
class Observer final : public ConnectionObserver {
 public:
  void OnConnected(uint32_t index, const Endpoint& local,
                   const Endpoint& remote) override {
    EXPECT_LT(index, 8u);
    open.insert(local.ToString() + " " + remote.ToString());
    indices.insert(index);
  }
  void OnEnded(uint32_t index) override {
    const auto found = indices.find(index);
    ASSERT_NE(found, indices.end());
    indices.erase(found);
  }

  std::set<std::string> open;
  std::multiset<uint32_t> indices;
};

TwoStacks::Options With(Observer* observer) {
  TwoStacks::Options options;
  options.stack.connection_observer = observer;
  options.stack.max_connections = 8;
  options.stack.max_half_open = 4;
  return options;
}

TEST(Connections, TheObserverKnowsThemUntilThePeerWaitsForNothing) {
  Observer seen;
  TwoStacks net(With(&seen));
  TwoStacks::Pair pair = net.Connect();
  const std::string client = pair.client->local().ToString();
  const std::string server = pair.client->remote().ToString();
  EXPECT_EQ(seen.open,
            (std::set{client + " " + server, server + " " + client}));
  EXPECT_EQ(seen.indices.size(), 2u);

  pair.client.reset();  // Its peer may still send.
  ASSERT_TRUE(
      net.Until([&] { return pair.server->Info()->state == "CLOSE-WAIT"; }));
  EXPECT_EQ(seen.indices.size(), 2u);
  pair.server.reset();  // CLOSED here, TIME-WAIT there.
  EXPECT_TRUE(net.Until([&] { return seen.indices.empty(); }));
}

TEST(Connections, TheObserverKnowsThoseThatNobodyHasAccepted) {
  Observer seen;
  TwoStacks net(With(&seen));
  auto listener =
      net.server().stack->Listen({net.server().address, Port{9000}});
  ASSERT_TRUE(listener.ok()) << listener.status();
  auto stream =
      net.client().stack->StartConnect({net.server().address, Port{9000}});
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_TRUE(net.Until([&] { return seen.indices.size() == 2; }));
  listener->reset();  // Resets it.
  EXPECT_TRUE(net.Until([&] { return seen.indices.empty(); }));
}

TEST(Connections, TheObserverSeesTheEndOfTheStack) {
  Observer seen;
  TwoStacks net(With(&seen));
  TwoStacks::Pair pair = net.Connect();
  net.server().stack.reset();
  EXPECT_EQ(seen.indices.size(), 1u);
  net.client().stack.reset();
  EXPECT_TRUE(seen.indices.empty());
}

TEST(Connections, UndeliveredCountsWhatAClosedStreamStillSends) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  Stack& stack = *net.client().stack;
  ASSERT_TRUE(net.Until([&] { return *stack.Undelivered() == 0; }));
  const std::vector<std::byte> bytes(1000);
  ASSERT_EQ(*pair.client->SendHost(bytes), bytes.size());
  EXPECT_EQ(*stack.Undelivered(), bytes.size());
  pair.client.reset();
  EXPECT_EQ(*stack.Undelivered(), bytes.size() + 1);  // The FIN.
  EXPECT_TRUE(net.Until([&] { return *stack.Undelivered() == 0; }));
}

TEST(Connections, OfAPeerThatIsGoneNothingIsUndelivered) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  const std::vector<std::byte> bytes(1000);
  ASSERT_EQ(*pair.client->SendHost(bytes), bytes.size());
  pair.client->Abort("enough");
  EXPECT_EQ(*net.client().stack->Undelivered(), 0u);
}

// As many as there are ports, and more than may be open at a time.
TEST(Connections, OneAfterAnotherByTurnsEitherEndClosesFirst) {
  TwoStacks::Options options;
  options.stack.max_connections = 32;
  options.stack.max_half_open = 4;
  TwoStacks net(options);
  for (int i = 0; i < 20'000; ++i) {
    TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
    ASSERT_NE(pair.client, nullptr) << i;
    const std::vector<std::byte> bytes(100);
    ASSERT_TRUE(pair.client->SendHost(bytes).ok());
    auto& first = i % 2 == 0 ? pair.client : pair.server;
    first.reset();
    ASSERT_TRUE(net.Until([&] {
      auto& last = i % 2 == 0 ? pair.server : pair.client;
      std::array<std::byte, 200> into;
      const auto got = last->Read(into);
      return !got.ok() || got->end_of_stream;
    })) << i;
  }
}

}  // namespace
}  // namespace devwire
