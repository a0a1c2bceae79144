// What RFC 9293 asks of IP below TCP (3.9.2), seen by a peer made by hand.
#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "gtest/gtest.h"
#include "sockets/hand_peer.h"
#include "sockets/stack.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"
#include "transport/wire/byte_order.h"
#include "transport/wire/checksum.h"
#include "transport/wire/frame.h"
#include "transport/wire/icmp.h"

namespace devwire {
namespace {

constexpr uint32_t kEthernet = kEthernetHeaderBytes;
const IpAddress kStack = IpAddress::V4(10, 0, 0, 1);
const IpAddress kPeer = IpAddress::V4(10, 0, 0, 2);

// A stack on sn0 that listens on port 7000, the peer on sn1; host streams.
class Net {
 public:
  explicit Net(const TcpKnobs& knobs = {}, uint32_t max_half_open = 128,
               const ListenOptions& listen = {}) {
    const std::string port = ",port=shm:" + CablePath() + ",mtu=1500";
    ConfigureSoftnic("dev=sn0,mac=02:00:00:00:00:01" + port +
                     ";dev=sn1,mac=02:00:00:00:00:02" + port);
    StackOptions o;
    o.verbs_library = SoftnicPath();
    o.device = "sn0";
    o.address = kStack;
    o.neighbors = {{kPeer, {2, 0, 0, 0, 0, 2}}};
    o.tcp = knobs;
    o.max_half_open = max_half_open;
    stack_ = Stack::Open(o).value();
    listener_ = stack_->Listen({kStack, Port{7000}}, listen).value();
    peer_ = std::make_unique<HandPeer>(
        HandPeer::Options{.device = "sn1",
                          .ip = kPeer,
                          .mtu = 1500,
                          .remote = listener_->local(),
                          .remote_mac = stack_->mac(),
                          .ecn = true,
                          .poll = [this] { stack_->Poll(); }});
  }

  void Connect(Port from = Port{1000}) {
    CHECK(peer_->Connect(from, {}));
    CHECK(Until([&] {
      stream_ = listener_->TryAccept().value();
      return stream_ != nullptr;
    }));
  }
  bool Until(const std::function<bool()>& step) {
    const MonotonicClock clock;
    const Instant deadline = clock.Now() + 10_s;
    while (clock.Now() < deadline) {
      stack_->Poll();
      peer_->Poll();
      if (step()) return true;
    }
    return false;
  }
  // The stack sends a byte, and the peer has its frame.
  std::vector<std::byte> FrameWithText() {
    const uint64_t before = peer_->segments_in();
    CHECK_EQ(*stream_->SendHost(std::array<std::byte, 1>()), 1u);
    CHECK(Until([&] { return peer_->segments_in() > before; }));
    return peer_->last_frame();
  }
  uint64_t Dropped(const std::string& reason) {
    const StackCounters counters = stack_->Counters().value();
    for (const auto& drop : counters.drops) {
      if (drop.name == reason) return drop.value;
    }
    return 0;
  }
  uint64_t Counted(const std::string& event) {
    const StackCounters counters = stack_->Counters().value();
    for (const auto& e : counters.events) {
      if (e.name == event) return e.value;
    }
    return 0;
  }
  Stack& stack() { return *stack_; }
  HandPeer& peer() { return *peer_; }
  Stream& stream() { return *stream_; }
  std::unique_ptr<Stream> TakeStream() { return std::move(stream_); }
  // The first SYN is never answered for: with room for one, the next gets a
  // cookie.
  bool LeaveHalfOpen();
  Listener& listener() { return *listener_; }

 private:
  std::unique_ptr<Stack> stack_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<HandPeer> peer_;
  std::unique_ptr<Stream> stream_;
};

uint8_t Dscp(const std::vector<std::byte>& frame) {
  return static_cast<uint8_t>(Load8(frame.data() + kEthernet + 1) >> 2);
}
uint8_t Ttl(const std::vector<std::byte>& frame) {
  return Load8(frame.data() + kEthernet + 8);
}

// MUST-48, MUST-49, SHLD-21, SHLD-22.
TEST(OnTheWire, DscpAndTtl) {
  TcpKnobs knobs;
  knobs.ttl = 7;
  knobs.dscp = 10;
  knobs.no_delay = true;
  Net net(knobs);
  net.Connect();
  std::vector<std::byte> frame = net.FrameWithText();
  EXPECT_EQ(Ttl(frame), 7);
  EXPECT_EQ(Dscp(frame), 10);
  ASSERT_TRUE(net.stream().SetDscp(46).ok());
  frame = net.FrameWithText();
  EXPECT_EQ(Dscp(frame), 46);
  EXPECT_EQ(Ttl(frame), 7);
}

// An ICMP error of a router, about `frame` of the stack's.
std::vector<std::byte> IcmpAbout(const std::vector<std::byte>& frame,
                                 uint8_t type, uint8_t code,
                                 const HandPeer& peer) {
  constexpr uint32_t kQuoted = kMinIpv4HeaderBytes + 8;
  std::vector<std::byte> message(kIcmpHeaderBytes + kQuoted);
  Store8(message.data(), type);
  Store8(message.data() + 1, code);
  std::copy_n(frame.data() + kEthernet, kQuoted,
              message.data() + kIcmpHeaderBytes);
  InternetSum sum;
  sum.Add(message);
  StoreBe16(message.data() + 2, sum.Checksum());

  std::vector<std::byte> out(kEthernet + kMinIpv4HeaderBytes);
  EmitEthernet({.destination = {2, 0, 0, 0, 0, 1},
                .source = peer.mac(),
                .ether_type = kEtherTypeIpv4},
               out.data());
  Ipv4Header ip;
  ip.protocol = kProtocolIcmp;
  ip.total_length = static_cast<uint16_t>(kMinIpv4HeaderBytes + message.size());
  ip.source = IpAddress::V4(10, 0, 0, 254);
  ip.destination = kStack;
  EmitIpv4(ip, out.data() + kEthernet);
  WriteIpv4Checksum(out.data() + kEthernet, kMinIpv4HeaderBytes);
  out.insert(out.end(), message.begin(), message.end());
  return out;
}

// MUST-54, MUST-56, SHLD-25: told, and nothing more; also of what the RFC calls
// hard errors (decision 11).
TEST(OnTheWire, SoftIcmpErrorsAreReportedAndEndNothing) {
  struct Row {
    const char* name;
    uint8_t type, code;
    Reports reports;
  };
  const Row rows[] = {{"net unreachable", 3, 0, kReportUnreachable},
                      {"host unreachable", 3, 1, kReportUnreachable},
                      {"port unreachable", 3, 3, kReportUnreachable},
                      {"source route failed", 3, 5, kReportUnreachable},
                      {"time exceeded", 11, 0, kReportTimeExceeded}};
  Net net;
  net.Connect();
  const std::vector<std::byte> frame = net.FrameWithText();
  EXPECT_EQ(*net.stream().TakeReports(), 0u);
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    net.peer().SendRaw(IcmpAbout(frame, row.type, row.code, net.peer()));
    Reports reports = 0;
    EXPECT_TRUE(net.Until([&] {
      reports |= *net.stream().TakeReports();
      return reports != 0;
    }));
    EXPECT_EQ(reports, row.reports);
    EXPECT_EQ(net.stream().Info()->state, "ESTABLISHED");
  }
}

// A SYN from `source` to `destination`, sent to this MAC address.
std::vector<std::byte> Syn(const IpAddress& source,
                           const IpAddress& destination,
                           const MacAddress& mac) {
  HeaderTemplate::Options o;
  o.source_mac = {2, 0, 0, 0, 0, 2};
  o.destination_mac = mac;
  o.tuple = {{source, Port{2000}}, {destination, Port{7000}}};
  TcpHeader syn;
  syn.flags = kSyn;
  syn.wnd = 1000;
  std::vector<std::byte> frame(128);
  const HeaderTemplate header(o);
  const uint32_t bytes = header.Emit(syn, {}, frame.data());
  WriteTcpChecksum(frame.data(), header.l4_offset(), bytes, {});
  frame.resize(bytes);
  return frame;
}

bool Net::LeaveHalfOpen() {
  const uint64_t before = stack_->Counters()->streams_opened;
  return Until([&] {
    peer_->SendRaw(Syn(kPeer, kStack, stack_->mac()));
    return stack_->Counters()->streams_opened == before + 1;
  });
}

// RFC 4987 3.6: with timestamps a cookie keeps what the SYN offered, ECN too.
TEST(OnTheWire, ACookieKeepsWhatTheSynOffered) {
  Net net({}, /*max_half_open=*/1);
  ASSERT_TRUE(net.LeaveHalfOpen());
  net.Connect();
  EXPECT_EQ(net.Counted("kCookiesAccepted"), 1u);
  EXPECT_TRUE(net.stream().Info()->ecn);
  EXPECT_EQ(net.stream().tcp_info()->tcpi_snd_wscale, 7);
  EXPECT_EQ(net.stream().Info()->snd_mss, 1460u - 12);
}

// RFC 9293 SHLD-14: its SYN-ACK has the window of a stream that is alone, and
// what is offered is not taken back when the stream gets its share.
TEST(OnTheWire, ACookieKeepsTheWindowThatItOffered) {
  Net net({}, /*max_half_open=*/1);
  std::vector<std::unique_ptr<Stream>> others;
  for (uint16_t i = 0; i < 600; ++i) {  // 24 KiB for each.
    net.Connect(Port{static_cast<uint16_t>(3000 + i)});
    others.push_back(net.TakeStream());
  }
  ASSERT_TRUE(net.LeaveHalfOpen());
  net.Connect();
  ASSERT_EQ(net.Counted("kCookiesAccepted"), 1u);
  EXPECT_EQ(net.peer().last().wnd, 65535);
  constexpr uint32_t kSegment = 1448;
  net.peer().Send(0, kSegment);
  ASSERT_TRUE(net.Until([&] { return net.peer().acked() == kSegment; }));
  EXPECT_GE(kSegment + net.peer().window(), 65535u);
  // Which is not to say that it may hold more of the pool than the others.
  for (uint32_t sent = kSegment; sent < 40 * kSegment; sent += kSegment) {
    net.peer().Send(sent, kSegment);
    net.stack().Poll();
  }
  EXPECT_TRUE(net.Until([&] { return net.Dropped("kOutOfSlots") > 0; }));
}

// A listener's own knobs: the SYN-ACK has them, by a cookie as by a stream.
TEST(OnTheWire, TheSynAckHasTheListenersKnobs) {
  StreamKnobs knobs;
  knobs.ttl = 9;
  knobs.dscp = 12;
  knobs.max_mss = 900;
  knobs.window_scale = false;
  for (const bool by_cookie : {false, true}) {
    SCOPED_TRACE(by_cookie ? "by a cookie" : "by a stream");
    Net net({}, /*max_half_open=*/1, {.knobs = knobs});
    ASSERT_TRUE(!by_cookie || net.LeaveHalfOpen());
    net.Connect();
    EXPECT_EQ(net.Counted("kCookiesAccepted"), by_cookie ? 1u : 0u);
    EXPECT_EQ(Ttl(net.peer().last_frame()), 9);
    EXPECT_EQ(Dscp(net.peer().last_frame()), 12);
    EXPECT_EQ(net.peer().last().options.mss, 900);
    EXPECT_EQ(net.peer().last().options.window_scale, std::nullopt);
    EXPECT_EQ(net.stream().Info()->snd_mss, 900u - 12);
    EXPECT_EQ(Ttl(net.FrameWithText()), 9);
  }
}

// MUST-57, MUST-63: neither answered nor remembered.
TEST(OnTheWire, SynsOfAndForManyAreIgnored) {
  Net net;
  net.Connect();
  const MacAddress ours{2, 0, 0, 0, 0, 1};
  const MacAddress all{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  const IpAddress broadcast = IpAddress::V4(10, 0, 0, 255);
  const IpAddress multicast = IpAddress::V4(224, 0, 0, 1);
  struct Row {
    const char* reason;
    std::vector<std::byte> frame;
  };
  const Row rows[] = {{"kOtherMac", Syn(kPeer, broadcast, all)},
                      {"kOtherAddress", Syn(kPeer, broadcast, ours)},
                      {"kOtherAddress", Syn(kPeer, multicast, ours)},
                      {"kBadSource", Syn(multicast, kStack, ours)},
                      {"kBadSource", Syn(broadcast, kStack, ours)},
                      {"kBadSource", Syn(IpAddress(), kStack, ours)}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.reason);
    const uint64_t before = net.Dropped(row.reason);
    net.peer().SendRaw(row.frame);
    EXPECT_TRUE(net.Until([&] { return net.Dropped(row.reason) > before; }));
  }
  EXPECT_EQ(net.listener().TryAccept().value(), nullptr);
}

}  // namespace
}  // namespace devwire
