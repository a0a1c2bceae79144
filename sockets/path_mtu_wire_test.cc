// A router on the way has a narrower link, and says so: what is in flight goes
// again from device memory, cut anew, and arrives. RFC 1191, RFC 8201.
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "gtest/gtest.h"
#include "memreg/host_memory.h"
#include "sockets/hand_peer.h"
#include "sockets/stack.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

constexpr uint64_t kSendFrom = 512 << 10;  // Behind the receive pool.
constexpr uint32_t kBytes = 60'000;
constexpr MacAddress kStackMac = {2, 0, 0, 0, 0, 1};
constexpr MacAddress kPeerMac = {2, 0, 0, 0, 0, 2};

struct Path {
  const char* name;
  const char* stack;
  const char* peer;
  uint32_t mtu;
  bool has_tso;
};

class PathMtuOnTheWire : public testing::TestWithParam<Path> {
 protected:
  PathMtuOnTheWire() {
    const std::string port = ",port=shm:" + CablePath() + ",mtu=1500" +
                             (GetParam().has_tso ? "" : ",tso=0");
    ConfigureSoftnic("dev=sn0,mac=02:00:00:00:00:01" + port +
                     ";dev=sn1,mac=02:00:00:00:00:02" + port);
    const IpAddress peer_ip = *IpAddress::Parse(GetParam().peer);
    StackOptions o;
    o.verbs_library = SoftnicPath();
    o.device = "sn0";
    o.address = *IpAddress::Parse(GetParam().stack);
    o.prefix_bits = o.address.is_v4() ? 24 : 64;
    o.nic_verifies_ipv6 = true;
    o.neighbors = {{peer_ip, kPeerMac}};
    stack = Stack::Open(o).value();
    memory = MemfdMemory::Allocate(1 << 20).value();
    pool = stack->BindMemory(*memory, {.receive_bytes = kSendFrom}).value();
    listener = stack->Listen({o.address, Port{7000}}, {.memory = pool}).value();
    peer = std::make_unique<HandPeer>(
        HandPeer::Options{.device = "sn1",
                          .ip = peer_ip,
                          .mtu = 1500,
                          .remote = listener->local(),
                          .remote_mac = kStackMac,
                          .path_mtu = GetParam().mtu,
                          .poll = [this] { stack->Poll(); }});
    CHECK(peer->Connect(Port{1000}, {}));
    CHECK(Until([this] {
      stream = listener->TryAccept().value();
      return stream != nullptr;
    }));
  }

  template <typename F>
  bool Until(F&& step) {
    const MonotonicClock clock;
    const Instant deadline = clock.Now() + 10_s;
    while (clock.Now() < deadline) {
      stack->Poll();
      peer->Poll();
      if (step()) return true;
    }
    return false;
  }

  std::unique_ptr<MemfdMemory> memory;
  std::unique_ptr<Stack> stack;
  PoolId pool{};
  std::unique_ptr<Listener> listener;
  std::unique_ptr<HandPeer> peer;
  std::unique_ptr<Stream> stream;
};

TEST_P(PathMtuOnTheWire, WhatIsInFlightGoesAgainAndArrives) {
  std::vector<std::byte> text(kBytes);
  for (uint32_t i = 0; i < kBytes; ++i) text[i] = PatternByte(3, i);
  ASSERT_TRUE(memory->CopyIn(kSendFrom, text).ok());
  const DeviceSpan span{kSendFrom, kBytes};
  ASSERT_EQ(*stream->SendDevice(pool, {&span, 1}, 5), SendOutcome::kQueued);
  // The initial window, and none of it arrives.
  ASSERT_TRUE(Until([&] { return peer->too_long().size() >= 10; }));
  EXPECT_EQ(peer->text().size(), 0u);
  EXPECT_EQ(stream->tcp_info()->tcpi_pmtu, 1500u);

  peer->SendTooBig(peer->too_long().front());
  uint64_t acked = 0;
  EXPECT_TRUE(Until([&] {
    if (peer->text().size() > acked) {
      acked = peer->text().size();
      peer->Send(0, 0);
    }
    return acked == kBytes;
  })) << peer->text().size()
      << " bytes arrived";
  EXPECT_TRUE(peer->text() == text);
  const TcpInfo info = *stream->tcp_info();
  EXPECT_EQ(info.tcpi_pmtu, GetParam().mtu);
  EXPECT_GE(info.tcpi_total_retrans, 10u);
  SendCompletion done;
  ASSERT_TRUE(Until([&] {
    return *stream->PollSendCompletions({&done, 1}) == 1;
  }));
  EXPECT_EQ(done.cookie, 5u);
  EXPECT_TRUE(done.delivered);
}

INSTANTIATE_TEST_SUITE_P(
    , PathMtuOnTheWire,
    testing::Values(Path{"Ipv4", "10.0.0.1", "10.0.0.2", 1000, true},
                    Path{"Ipv4WithoutTso", "10.0.0.1", "10.0.0.2", 1000, false},
                    Path{"Ipv4Narrow", "10.0.0.1", "10.0.0.2", 600, true},
                    Path{"Ipv6", "fd00::1", "fd00::2", 1280, true}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace devwire
