// What an engine says to whom it does not know, and what it believes of them:
// ARP that nobody asked for, neighbours that moved, segments to nobody. In
// virtual time, frames written by hand.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "transport/sim/engine_host.h"
#include "transport/sim/run_clock.h"
#include "transport/wire/arp.h"
#include "transport/wire/frame.h"

namespace devwire {
namespace {

constexpr MacAddress kClientMac = {2, 0, 0, 0, 0, 1};
constexpr MacAddress kServerMac = {2, 0, 0, 0, 0, 2};
constexpr MacAddress kOtherMac = {2, 0, 0, 0, 0, 7};
const IpAddress kClient = IpAddress::V4(10, 0, 0, 1);
const IpAddress kServer = IpAddress::V4(10, 0, 0, 2);
const IpAddress kStranger = IpAddress::V4(10, 0, 0, 77);

EngineHost::Options HostOptions(bool is_client) {
  EngineHost::Options o;
  o.ip = is_client ? kClient : kServer;
  o.nic.limits.mac = is_client ? kClientMac : kServerMac;
  o.nic.limits.mtu = 1500;
  o.tcp.time_wait = 1_s;
  o.bytes_per_stream = 0;
  o.seed = o.nic.seed = 3 + is_client;
  return o;
}

SimFrame Arp(ArpPacket::Operation operation, const IpAddress& sender,
             const MacAddress& sender_mac, const IpAddress& target) {
  SimFrame frame(kMinEthernetFrameBytes);
  const uint32_t at = EmitEthernet({.destination = kClientMac,
                                    .source = sender_mac,
                                    .ether_type = kEtherTypeArp},
                                   frame.data());
  EmitArp({.operation = operation,
           .sender_mac = sender_mac,
           .sender_ip = sender,
           .target_mac = kClientMac,
           .target_ip = target},
          frame.data() + at);
  return frame;
}

uint16_t EtherType(const SimFrame& frame) {
  return LoadBe16(frame.data() + 12);
}
MacAddress Destination(const SimFrame& frame) {
  MacAddress mac;
  std::memcpy(mac.data(), frame.data(), mac.size());
  return mac;
}

// The client alone; what it sends is kept.
class Alone {
 public:
  Alone() : host_(HostOptions(true), clock_, out_, in_) { Run(10_ms); }
  ~Alone() { clock_.is_over = true; }

  void Send(SimFrame frame) { in_.Send(std::move(frame), clock_.Now()); }
  void Run(Duration time) {
    const Instant end = clock_.Now() + time;
    while (true) {
      int turns = 0;
      while (host_.Turn() && ++turns < 5'000) continue;
      while (auto frame = out_.Receive(clock_.Now())) {
        sent.push_back(*std::move(frame));
      }
      const Instant next = std::min(
          {host_.NextEvent(), out_.NextArrival(), in_.NextArrival(), end});
      if (clock_.Now() >= end) return;
      clock_.Set(std::max(next, clock_.Now()));
    }
  }
  EngineHost& host() { return host_; }
  Instant now() const { return clock_.Now(); }

  std::vector<SimFrame> sent;

 private:
  RunClock clock_;
  SimLink out_{{}, 1};
  SimLink in_{{}, 2};
  EngineHost host_;
};

// Who answers what nobody asked does not get what is sent to that address: it
// is asked for. Whoever answers then, does.
TEST(Strangers, AnArpReplyThatNobodyAskedForIsForgotten) {
  using Operation = ArpPacket::Operation;
  Alone alone;
  alone.Send(Arp(Operation::kReply, kStranger, kOtherMac, kClient));
  // Gratuitous ARP, both ways: RFC 5227 3.
  alone.Send(Arp(Operation::kReply, kStranger, kOtherMac, kStranger));
  alone.Send(Arp(Operation::kRequest, kStranger, kOtherMac, kStranger));
  alone.Run(10_ms);
  EXPECT_EQ(alone.sent.size(), 0u);
  alone.host().Connect({kStranger, Port{80}}, 1);
  alone.Run(100_ms);
  ASSERT_EQ(alone.sent.size(), 1u);
  EXPECT_EQ(EtherType(alone.sent[0]), kEtherTypeArp);
  EXPECT_EQ(Destination(alone.sent[0]), kBroadcastMac);
  alone.Send(Arp(Operation::kReply, kStranger, kServerMac, kClient));
  alone.Run(100_ms);
  ASSERT_EQ(alone.sent.size(), 2u);
  EXPECT_EQ(EtherType(alone.sent[1]), kEtherTypeIpv4);
  EXPECT_EQ(Destination(alone.sent[1]), kServerMac);
}

// Resets are no amplifier: none is longer than what it answers, and their rate
// has a limit.
TEST(Strangers, ResetsAreLimited) {
  Alone alone;
  const HeaderTemplate headers(
      {.source_mac = kServerMac,
       .destination_mac = kClientMac,
       .tuple = {{kServer, Port{1000}}, {kClient, Port{80}}}});
  TcpHeader tcp;
  tcp.flags = kSyn;
  SimFrame syn(kMaxTxHeaderBytes);
  const uint32_t bytes = headers.Emit(tcp, {}, syn.data());
  WriteTcpChecksum(syn.data(), headers.l4_offset(), bytes, {});
  syn.resize(std::max(bytes, kMinEthernetFrameBytes));

  // 20,000 in two seconds: a second's worth saved up, and two that pass.
  for (int i = 0; i < 20'000; ++i) {
    alone.Send(syn);
    alone.Run(100_us);
  }
  EXPECT_LE(alone.sent.size(), 3'010u);
  EXPECT_GE(alone.sent.size(), 2'900u);
  for (const SimFrame& frame : alone.sent) EXPECT_LE(frame.size(), syn.size());
  alone.Run(10_ms);
  alone.sent.clear();
  alone.Run(1_s);
  alone.Send(syn);
  alone.Run(10_ms);
  EXPECT_EQ(alone.sent.size(), 1u);
}

// The server's address moves to another MAC in the midst of a transfer, and
// nobody says so: when ACKs stop coming, its neighbour asks again, long before
// the entry is old.
TEST(Strangers, ANeighbourThatIsSilentIsAskedForAgain) {
  RunClock clock;
  SimLink near({}, 1);  // From the client to the switch,
  SimLink far({}, 2);   // from there to the server,
  SimLink back({}, 3);  // and back.
  EngineHost server(HostOptions(false), clock, back, far);
  EngineHost client(HostOptions(true), clock, near, back);
  server.Listen(Port{80});
  constexpr uint64_t kBytes = 10'000'000;
  client.Connect({kServer, Port{80}}, kBytes);
  const Instant start = clock.Now();
  const Instant moves_at = start + 100_ms;
  uint64_t lost = 0;
  uint64_t to_other = 0;
  while (server.bytes_read() < kBytes) {
    int turns = 0;
    while ((client.Turn() | server.Turn()) && ++turns < 5'000) continue;
    while (auto frame = near.Receive(clock.Now())) {
      if (clock.Now() < moves_at) {
        far.Send(*std::move(frame), clock.Now());
      } else if (EtherType(*frame) == kEtherTypeArp) {
        back.Send(
            Arp(ArpPacket::Operation::kReply, kServer, kOtherMac, kClient),
            clock.Now());
      } else if (Destination(*frame) == kOtherMac) {
        ++to_other;
        std::memcpy(frame->data(), kServerMac.data(), kServerMac.size());
        far.Send(*std::move(frame), clock.Now());
      } else {
        ++lost;
      }
    }
    const Instant next =
        std::min({client.NextEvent(), server.NextEvent(), near.NextArrival()});
    clock.Set(std::max(next, clock.Now()));
    ASSERT_LT(clock.Now() - start, 300_s) << client.ToString();
  }
  EXPECT_EQ(client.failure() + server.failure(), "");
  EXPECT_GT(lost, 3u);
  EXPECT_GT(to_other, 100u);
  EXPECT_LT(clock.Now() - start, 10_s) << "an entry lasts a minute";
  clock.is_over = true;
}

}  // namespace
}  // namespace devwire
