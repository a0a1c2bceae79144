// A flood of segments from random sources through softnic, while device memory
// is sent to the flooded listener and honest peers connect. RFC 4987; the same
// in virtual time, with goodput: transport/sim/syn_flood_test.cc.
#include <algorithm>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.h"
#include "gtest/gtest.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"
#include "transport/wire/frame.h"

namespace devwire {
namespace {

constexpr MacAddress kGatewayMac = {2, 0, 0, 0, 0, 254};

uint64_t FloodSegments() {
  const char* text = std::getenv("SYN_FLOOD_SEGMENTS");
  return text == nullptr ? 20'000 : std::strtoull(text, nullptr, 10);
}

// Sends through the client's NIC, beside its stack.
class Flooder {
 public:
  Flooder(TwoStacks& net, Port port)
      : target_{net.server().address, port},
        target_mac_(net.server().mac),
        host_({.device = net.client().device,
               .ip = net.client().address,
               .mtu = net.options().mtu,
               .slot_bytes = 2048,
               .slot_count = 64,
               .control_slots = 64}) {}

  // As many as the send queue takes, at most `most`. Returns how many.
  uint64_t Send(uint64_t most) {
    RxFrame frames[8];
    host_.io().RxBurst(frames);  // Completions of sends.
    uint64_t sent = 0;
    for (; sent < most; ++sent) {
      std::byte* at = host_.io().TxHeader();
      if (at == nullptr) break;
      host_.io().TxPost({.header_bytes = Write(at)});
    }
    host_.io().TxFlush();
    return sent;
  }

 private:
  uint32_t Write(std::byte* at) {
    const uint32_t r = prng_.Next32();
    const IpAddress source = IpAddress::V4(
        static_cast<uint8_t>(20 + r % 200), static_cast<uint8_t>(r >> 8),
        static_cast<uint8_t>(r >> 16), static_cast<uint8_t>(r >> 24));
    TcpHeader tcp;
    tcp.seq = SeqNum(prng_.Next32());
    tcp.wnd = 64240;
    tcp.flags = kSyn;
    if (prng_.Chance(0.1)) {  // Guesses at streams and cookies.
      tcp.flags = prng_.Chance(0.5) ? kAck : kRst | kAck;
      tcp.ack = SeqNum(prng_.Next32());
    } else {
      tcp.options.mss = 1460;
      tcp.options.sack_permitted = true;
      tcp.options.timestamps = {prng_.Next32(), 0};
      tcp.options.window_scale = 7;
    }
    const auto port = static_cast<uint16_t>(prng_.Next32() | 1);
    const HeaderTemplate headers({.source_mac = kGatewayMac,
                                  .destination_mac = target_mac_,
                                  .tuple = {{source, Port{port}}, target_}});
    return headers.Emit(tcp, {}, at);
  }

  const Endpoint target_;
  const MacAddress target_mac_;
  TestHost host_;
  Prng prng_{11};
};

uint64_t Event(Stack& stack, const std::string& name) {
  const StackCounters counters = *stack.Counters();
  for (const auto& event : counters.events) {
    if (event.name == name) return event.value;
  }
  return 0;
}

uint64_t Streams(Stack& stack) {
  const StackCounters counters = *stack.Counters();
  return counters.streams_opened - counters.streams_closed;
}

TEST(SynFlood, EstablishedStreamsEndEqualAndHonestPeersGetIn) {
  TwoStacks::Options options;
  options.stack.gateway = IpAddress::V4(10, 0, 0, 254);
  options.stack.neighbors = {{*options.stack.gateway, kGatewayMac}};
  options.stack.max_half_open = 32;
  // SYNs time out within a second.
  options.stack.tcp.rto_initial = 200_ms;
  options.stack.tcp.synack_retries = 1;
  TwoStacks net(options);
  auto listener = *net.server().stack->Listen({net.server().address, Port{7}},
                                              {.memory = net.server().pool});
  auto connect = [&] {
    return *net.client().stack->StartConnect(listener->local(),
                                             {.memory = net.client().pool});
  };
  TwoStacks::Pair pair;
  pair.client = connect();
  ASSERT_TRUE(net.Until([&] {
    if (pair.server == nullptr) pair.server = *listener->TryAccept();
    return pair.server != nullptr && pair.client->ConnectStatus().ok();
  }));
  // The host's and the listener's: that of the stream was waited for.
  const uint64_t own_rules = net.server().Nic().rules - 1;

  const uint64_t segments = FloodSegments();
  Flooder flooder(net, Port{7});
  // 200 bytes of the stream for each segment of the flood.
  PatternSender sender(*pair.client, net.client(),
                       {.bytes = 200 * segments, .offset = 2 << 20});
  PatternReceiver receiver(*pair.server, net.server(), 0);
  uint64_t flooded = 0;
  uint64_t most_streams = 0;
  Stack& server = *net.server().stack;
  bool is_received = false;
  std::deque<std::unique_ptr<Stream>> opening;
  std::vector<std::unique_ptr<Stream>> open;
  std::vector<std::unique_ptr<Stream>> accepted;
  ASSERT_TRUE(net.Until(
      [&] {
        flooded += flooder.Send(std::min<uint64_t>(16, segments - flooded));
        sender.Step();
        is_received = is_received || receiver.Step();
        // Eight honest peers in turn, spread over the flood.
        const uint64_t due = 8 * flooded / segments;
        if (opening.empty() && open.size() < due) opening.push_back(connect());
        if (!opening.empty() && opening.front()->ConnectStatus().ok()) {
          open.push_back(std::move(opening.front()));
          opening.pop_front();
        }
        if (auto stream = *listener->TryAccept()) {
          accepted.push_back(std::move(stream));
        }
        most_streams = std::max(most_streams, Streams(server));
        return is_received && flooded == segments && open.size() == 8 &&
               accepted.size() == 8;
      },
      600_s))
      << "flooded " << flooded << " received " << receiver.bytes() << " open "
      << open.size() << " accepted " << accepted.size();
  EXPECT_EQ(receiver.bytes(), 200 * segments);
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);

  // Nothing is kept beyond the half-open streams: 32, and the nine of peers.
  EXPECT_LE(most_streams, 32u + 9u);
  EXPECT_GT(Event(server, "kCookiesSent"), segments * 7 / 10);
  EXPECT_GE(Event(server, "kCookiesAccepted"), 7u);
  // SYNs that came without pressure had a rule at once: before it began, or
  // when the flood had paused because the machine was busy. No other did before
  // its handshake was complete.
  const StackCounters counters = *server.Counters();
  const uint64_t early = counters.streams_opened -
                         Event(server, "kCookiesAccepted") -
                         Event(server, "kRulesDeferred");
  EXPECT_LE(early, 17u + segments / 1000);
  EXPECT_LE(Event(server, "kRulesInstalled"), own_rules + 9u + early);
  // What SYNs left goes when they time out.
  EXPECT_TRUE(net.Until([&] { return Streams(server) == 9; }))
      << Streams(server);
  const auto rules_are_right = [&] {
    return net.server().Nic().rules == own_rules + 9u;
  };
  EXPECT_TRUE(net.Until(rules_are_right)) << net.server().Nic().rules;
  for (auto& stream : accepted) EXPECT_TRUE(stream->CloseSend().ok());
}

}  // namespace
}  // namespace devwire
