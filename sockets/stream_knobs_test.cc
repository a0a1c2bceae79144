// Knobs of one stream: each where it shows, beside a stream of the same stack
// that has none of its own.
#include <array>
#include <cerrno>
#include <cstddef>
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

// A listener on the server's port 7100, and connections to it.
class Knobs : public testing::Test {
 protected:
  explicit Knobs(const TwoStacks::Options& options = {}) : net(options) {}

  void Listen(const ListenOptions& options) {
    listener = net.server().stack->Listen(at, options).value();
  }
  TwoStacks::Pair Connect(const ConnectOptions& options) {
    TwoStacks::Pair pair;
    pair.client = net.client().stack->StartConnect(at, options).value();
    EXPECT_TRUE(net.Until([&] {
      if (pair.server == nullptr) pair.server = *listener->TryAccept();
      return pair.server != nullptr && pair.client->ConnectStatus().ok();
    }));
    return pair;
  }

  TwoStacks net;
  const Endpoint at{net.server().stack->address(), Port{7100}};
  std::unique_ptr<Listener> listener;
};

TEST_F(Knobs, OfAConnectAreItsStreamsAlone) {
  Listen({});
  StreamKnobs knobs;
  knobs.max_mss = 1000;
  knobs.initial_window_segments = 3;
  knobs.congestion = "newreno";
  knobs.delayed_ack_time = 7_ms;
  const TwoStacks::Pair own = Connect({.knobs = knobs});
  const TwoStacks::Pair plain = Connect({});
  TcpInfo info = *own.client->tcp_info();
  EXPECT_EQ(info.tcpi_advmss, 1000u);
  EXPECT_EQ(info.tcpi_snd_mss, 1000u - 12);
  EXPECT_EQ(info.tcpi_snd_cwnd, 3u);
  EXPECT_EQ(info.tcpi_ato, 7000u);
  EXPECT_EQ(own.client->Info()->congestion, "newreno");
  EXPECT_EQ(own.server->tcp_info()->tcpi_snd_mss, 1000u - 12) << "was told";
  info = *plain.client->tcp_info();
  EXPECT_EQ(info.tcpi_advmss, 1460u);
  EXPECT_EQ(info.tcpi_snd_mss, 1460u - 12);
  EXPECT_EQ(info.tcpi_snd_cwnd, 10u);
  EXPECT_EQ(info.tcpi_ato, 40'000u);
  EXPECT_EQ(plain.client->Info()->congestion, "cubic");
}

TEST_F(Knobs, OfAListenerAreInherited) {
  StreamKnobs knobs;
  knobs.max_mss = 900;
  knobs.initial_window_segments = 5;
  knobs.congestion = "newreno";
  knobs.sack = false;
  knobs.keepalive = KeepAliveOptions{};
  Listen({.knobs = knobs});
  const TwoStacks::Pair pair = Connect({});
  const TcpInfo info = *pair.server->tcp_info();
  EXPECT_EQ(info.tcpi_advmss, 900u);
  EXPECT_EQ(info.tcpi_snd_cwnd, 5u);
  EXPECT_EQ(info.tcpi_options & 2, 0) << "no SACK";
  EXPECT_EQ(pair.server->Info()->congestion, "newreno");
  EXPECT_EQ(pair.client->tcp_info()->tcpi_snd_mss, 900u - 12) << "was told";
  // The name beside the knobs goes first.
  listener.reset();
  Listen({.knobs = knobs, .congestion = "dctcp"});
  EXPECT_EQ(Connect({}).server->Info()->congestion, "dctcp");
}

// A window's budget holds also when the pool is shared out anew, and one
// stream's is not another's.
TEST_F(Knobs, BudgetsHold) {
  Listen({});
  StreamKnobs knobs;
  knobs.receive_budget_bytes = 8192;
  knobs.send_budget_bytes = 4096;
  const TwoStacks::Pair own = Connect({.knobs = knobs});
  const TwoStacks::Pair plain = Connect({});
  EXPECT_LE(own.client->tcp_info()->tcpi_rcv_wnd, 8192u);
  EXPECT_GT(plain.client->tcp_info()->tcpi_rcv_wnd, 8192u);
  const std::vector<std::byte> text(200'000);
  EXPECT_LE(*own.client->SendHost(text), 16u << 10) << "a buffer at least";
  EXPECT_GE(*plain.client->SendHost(text), 60'000u);
  // Much is read: the window follows the reader no further than its budget.
  std::vector<std::byte> to(200'000);
  uint64_t read = 0;
  uint64_t sent = 0;
  ASSERT_TRUE(net.Until([&] {
    sent += *own.server->SendHost(text);
    read += own.client->Read(to)->bytes;
    return read > 1'000'000;
  }));
  EXPECT_LE(own.client->tcp_info()->tcpi_rcv_wnd, 8192u);
}

TEST_F(Knobs, SynRetries) {
  Listen({});
  const TwoStacks::Pair pair = Connect({});  // The MAC address is known.
  StreamKnobs knobs;
  knobs.syn_retries = 2;
  knobs.rto_min = 5_ms;
  knobs.rto_initial = 20_ms;
  const auto stream =
      net.client().stack->StartConnect(at, {.knobs = knobs}).value();
  const MonotonicClock clock;
  const Instant start = clock.Now();
  while (stream->Info()->state == "SYN-SENT" && clock.Now() - start < 10_s) {
    net.client().stack->Poll();  // The server is deaf.
  }
  EXPECT_EQ(ErrnoOf(stream->ConnectStatus()), ETIMEDOUT);
  EXPECT_EQ(stream->tcp_info()->tcpi_total_retrans, 2u);
}

TEST_F(Knobs, UserTimeout) {
  Listen({});
  StreamKnobs knobs;
  knobs.user_timeout = 300_ms;
  TwoStacks::Pair own = Connect({.knobs = knobs});
  TwoStacks::Pair plain = Connect({});
  const std::array<std::byte, 5> text{};
  ASSERT_EQ(*own.client->SendHost(text), 5u);
  ASSERT_EQ(*plain.client->SendHost(text), 5u);
  const MonotonicClock clock;
  const Instant start = clock.Now();
  while (own.client->Info()->state == "ESTABLISHED" &&
         clock.Now() - start < 10_s) {
    net.client().stack->Poll();  // The server is deaf.
  }
  EXPECT_EQ(ErrnoOf(own.client->SendHost({}).status()), ETIMEDOUT);
  EXPECT_EQ(plain.client->Info()->state, "ESTABLISHED");
}

TEST_F(Knobs, OutOfRangeAreRefused) {
  StreamKnobs knobs;
  knobs.max_mss = 87;
  absl::Status status =
      net.client().stack->StartConnect(at, {.knobs = knobs}).status();
  EXPECT_EQ(ErrnoOf(status), EINVAL);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_mss is 87"));
  knobs = {};
  knobs.congestion = "vegas";
  status = net.server().stack->Listen(at, {.knobs = knobs}).status();
  EXPECT_EQ(ErrnoOf(status), EINVAL);
  EXPECT_THAT(std::string(status.message()), HasSubstr("vegas"));
}

}  // namespace
}  // namespace devwire
