// Two engines, and a router between them whose next link is narrower: it says
// so by ICMP, or only drops. RFC 1191, RFC 8201; RFC 4821 where it is silent.
#include <gtest/gtest.h>

#include <string>

#include "transport/sim/engine_host.h"
#include "transport/sim/run_clock.h"
#include "transport/wire/icmp.h"

namespace devwire {
namespace {

constexpr MacAddress kClientMac = {2, 0, 0, 0, 0, 1};
constexpr MacAddress kServerMac = {2, 0, 0, 0, 0, 2};
constexpr MacAddress kRouterMac = {2, 0, 0, 0, 0, 9};

struct PathSetup {
  bool is_v4 = true;
  uint32_t link_mtu = 1500;
  uint32_t path_mtu = 1000;
  bool is_silent = false;   // It drops, and sends no ICMP.
  bool is_old = false;      // It does not say which MTU (RFC 1191 5).
  uint32_t seq_is_off = 0;  // What it quotes is not what it dropped: forged.
};

class PathRun {
 public:
  explicit PathRun(const PathSetup& setup)
      : setup_(setup),
        server_(HostOptions(false), clock_, down_, far_),
        client_(HostOptions(true), clock_, near_, down_) {
    server_.Listen(Port{80});
  }
  ~PathRun() { clock_.is_over = true; }

  // One stream of `bytes` to the server. Returns what failed, or "".
  std::string Transfer(uint64_t bytes) {
    client_.Connect({Ip(false), Port{80}}, bytes);
    ++streams_;
    const Instant end = clock_.Now() + 300_s;
    while (true) {
      int turns = 0;
      while ((client_.Turn() | server_.Turn()) && ++turns < 5'000) continue;
      Forward();
      if (turns >= 5'000) return "busy loop";
      if (!client_.failure().empty()) return client_.failure();
      if (!server_.failure().empty()) return server_.failure();
      if (client_.is_done(streams_) && server_.is_done(streams_)) return "";
      const Instant next = std::min(
          {client_.NextEvent(), server_.NextEvent(), near_.NextArrival()});
      if (next > end) return "does not come to an end: " + client_.ToString();
      clock_.Set(std::max(next, clock_.Now()));
    }
  }

  uint64_t dropped() const { return dropped_; }
  Engine& client() { return client_.engine(); }
  uint64_t lowered() {
    return client().counters().value(EngineEvent::kPathMtusLowered);
  }
  IpAddress Ip(bool is_client) const {
    if (setup_.is_v4) return IpAddress::V4(10, 0, 0, is_client ? 1 : 2);
    return *IpAddress::Parse(is_client ? "fd00::1" : "fd00::2");
  }

 private:
  EngineHost::Options HostOptions(bool is_client) const {
    EngineHost::Options o;
    o.ip = Ip(is_client);
    o.nic.limits.mac = is_client ? kClientMac : kServerMac;
    o.nic.limits.mtu = setup_.link_mtu;
    o.nic.limits.rx_checksum_ipv6 = true;
    o.tcp.time_wait = 1_s;
    o.bytes_per_stream = 0;  // The server's.
    o.seed = o.nic.seed = 3 + is_client;
    return o;
  }

  void Forward() {
    while (auto frame = near_.Receive(clock_.Now())) {
      if (frame->size() - kEthernetHeaderBytes <= setup_.path_mtu) {
        far_.Send(*std::move(frame), clock_.Now());
        continue;
      }
      ++dropped_;
      if (!setup_.is_silent) down_.Send(TooBig(*frame), clock_.Now());
    }
  }

  // RFC 792 and 1191 4; RFC 4443 3.2.
  SimFrame TooBig(const SimFrame& dropped) const {
    const uint32_t quoted = setup_.is_v4 ? 20 + 8 : 40 + 20;
    const uint32_t bytes = kIcmpHeaderBytes + quoted;
    const uint32_t mtu = setup_.is_old ? 0 : setup_.path_mtu;
    SimFrame frame(kEthernetHeaderBytes + (setup_.is_v4 ? 20 : 40) + bytes);
    std::byte* at = frame.data();
    at += EmitEthernet(
        {.destination = kClientMac,
         .source = kRouterMac,
         .ether_type = setup_.is_v4 ? kEtherTypeIpv4 : kEtherTypeIpv6},
        at);
    std::byte* icmp = at + (setup_.is_v4 ? 20 : 40);
    std::copy_n(dropped.data() + kEthernetHeaderBytes, quoted,
                icmp + kIcmpHeaderBytes);
    std::byte* seq = icmp + kIcmpHeaderBytes + (setup_.is_v4 ? 20 : 40) + 4;
    StoreBe32(seq, LoadBe32(seq) + setup_.seq_is_off);
    InternetSum sum;
    if (setup_.is_v4) {
      Ipv4Header ip;
      ip.protocol = kProtocolIcmp;
      ip.total_length = static_cast<uint16_t>(20 + bytes);
      ip.source = IpAddress::V4(10, 0, 0, 9);
      ip.destination = Ip(true);
      EmitIpv4(ip, at);
      WriteIpv4Checksum(at, 20);
      Store8(icmp, kIcmpUnreachable);
      Store8(icmp + 1, 4);
      StoreBe16(icmp + 6, static_cast<uint16_t>(mtu));
    } else {
      Ipv6Header ip;
      ip.next_header = kProtocolIcmpv6;
      ip.payload_length = static_cast<uint16_t>(bytes);
      ip.source = *IpAddress::Parse("fd00::9");
      ip.destination = Ip(true);
      EmitIpv6(ip, at);
      Store8(icmp, kIcmpv6PacketTooBig);
      StoreBe32(icmp + 4, mtu);
      sum = PseudoHeaderSum(ip.source, ip.destination, kProtocolIcmpv6, bytes);
    }
    sum.Add({icmp, bytes});
    StoreBe16(icmp + 2, sum.Checksum());
    return frame;
  }

  const PathSetup setup_;
  RunClock clock_;
  SimLink near_{{}, 1};  // From the client to the router,
  SimLink far_{{}, 2};   // from there to the server,
  SimLink down_{{}, 3};  // and back, past it.
  EngineHost server_;
  EngineHost client_;
  size_t streams_ = 0;
  uint64_t dropped_ = 0;
};

TEST(PathMtuSim, ARouterThatSaysSoCostsOneRoundTrip) {
  const PathSetup kSetups[] = {
      {.path_mtu = 1000},
      {.path_mtu = 576},
      {.link_mtu = 9000, .path_mtu = 1500},
      {.is_v4 = false, .path_mtu = 1280},
      {.is_v4 = false, .link_mtu = 9000, .path_mtu = 1500},
  };
  for (const PathSetup& setup : kSetups) {
    SCOPED_TRACE(setup.path_mtu);
    PathRun run(setup);
    ASSERT_EQ(run.Transfer(200'000), "");
    EXPECT_EQ(run.lowered(), 1u);
    EXPECT_EQ(run.client().path_mtus().Mtu(run.Ip(false)), setup.path_mtu);
    // The first flight, and no more.
    EXPECT_GE(run.dropped(), 1u);
    EXPECT_LE(run.dropped(), 10u);
    // The next stream to there knows.
    const uint64_t before = run.dropped();
    ASSERT_EQ(run.Transfer(50'000), "");
    EXPECT_EQ(run.dropped(), before);
  }
}

TEST(PathMtuSim, AnOldRouterIsMetByPlateaus) {
  PathRun run({.path_mtu = 1000, .is_old = true});
  ASSERT_EQ(run.Transfer(100'000), "");
  EXPECT_EQ(run.client().path_mtus().Mtu(run.Ip(false)), 552u)
      << "1492, 1006, then the floor";
}

// RFC 5927 4.1: what quotes nothing in flight is not believed.
TEST(PathMtuSim, AForgedMessageIsNotBelieved) {
  PathRun run({.path_mtu = 1000, .seq_is_off = 1u << 20});
  ASSERT_EQ(run.Transfer(20'000), "");  // The black hole's way.
  EXPECT_EQ(run.lowered(), 0u);
  EXPECT_EQ(run.client().path_mtus().Mtu(run.Ip(false)), 1500u);
}

TEST(PathMtuSim, ASilentRouterIsFoundOut) {
  const PathSetup kSetups[] = {
      {.path_mtu = 1200, .is_silent = true},
      {.path_mtu = 600, .is_silent = true},
      {.is_v4 = false, .path_mtu = 1280, .is_silent = true},
  };
  for (const PathSetup& setup : kSetups) {
    SCOPED_TRACE(setup.path_mtu);
    PathRun run(setup);
    ASSERT_EQ(run.Transfer(100'000), "");
    EXPECT_EQ(run.lowered(), 0u);
  }
}

}  // namespace
}  // namespace devwire
