// How a stack reacts to frames that belong to no stream of its own, made by
// hand: what it answers, and under which name it drops.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "sockets/hand_peer.h"
#include "sockets/stack.h"
#include "transport/verbs/verbs_fixture.h"
#include "transport/wire/byte_order.h"
#include "transport/wire/checksum.h"
#include "transport/wire/frame.h"
#include "transport/wire/icmp.h"
#include "transport/wire/ipv4.h"

namespace devwire {
namespace {

constexpr size_t kIp = 14;  // Behind the Ethernet header.
constexpr size_t kTcp = kIp + 20;

// The stack on sn0 at 10.0.0.1/24, without a gateway; it listens on port 7000.
// The peer on sn1 has a connection to it, so that the cable is up.
class Reaction : public testing::Test {
 protected:
  Reaction() {
    const std::string port = ",port=shm:" + CablePath();
    ConfigureSoftnic("dev=sn0,mac=02:00:00:00:00:01" + port +
                     ";dev=sn1,mac=02:00:00:00:00:02" + port);
    StackOptions o;
    o.verbs_library = SoftnicPath();
    o.device = "sn0";
    o.address = IpAddress::V4(10, 0, 0, 1);
    o.neighbors = {{IpAddress::V4(10, 0, 0, 2), {2, 0, 0, 0, 0, 2}}};
    stack_ = *Stack::Open(o);
    listener_ = *stack_->Listen({stack_->address(), Port{7000}});
    peer_ = std::make_unique<HandPeer>(
        HandPeer::Options{.device = "sn1",
                          .ip = IpAddress::V4(10, 0, 0, 2),
                          .mtu = 1500,
                          .remote = listener_->local(),
                          .remote_mac = stack_->mac(),
                          .poll = [this] { stack_->Poll(); }});
    EXPECT_TRUE(peer_->Connect(Port{1000}, {}));
  }

  // A SYN to the listener from elsewhere, its checksums right.
  std::vector<std::byte> SynFrom(const IpAddress& source) {
    std::vector<std::byte> frame = peer_->FrameOf(0, 0, {.flags = kSyn});
    std::memcpy(frame.data() + kIp + 12, source.bytes.data(), 4);
    StoreBe16(frame.data() + kTcp, 2000);
    WriteIpv4Checksum(frame.data() + kIp, 20);
    const uint32_t bytes = static_cast<uint32_t>(frame.size());
    StoreBe16(frame.data() + kTcp + 16,
              PseudoHeaderSum(source, stack_->address(), /*protocol=*/6,
                              bytes - static_cast<uint32_t>(kTcp))
                  .Folded());
    WriteTcpChecksum(frame.data(), kTcp, bytes, {});
    return frame;
  }
  // Sends it; whether that counts once more under `name`.
  bool Counts(const std::vector<std::byte>& frame, const std::string& name) {
    const uint64_t before = Count(name);
    peer_->SendRaw(frame);
    return Eventually([&] {
      stack_->Poll();
      return Count(name) == before + 1;
    });
  }
  uint64_t Count(const std::string& name) {
    const StackCounters counters = *stack_->Counters();
    for (const auto& drop : counters.drops) {
      if (drop.name == name) return drop.value;
    }
    for (const auto& event : counters.events) {
      if (event.name == name) return event.value;
    }
    return 0;
  }

  std::unique_ptr<Stack> stack_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<HandPeer> peer_;
};

// No gateway: what is off the link cannot be answered.
TEST_F(Reaction, SynFromAPeerWithoutARoute) {
  EXPECT_TRUE(Counts(SynFrom(IpAddress::V4(192, 168, 9, 9)), "kNoRoute"));
  EXPECT_EQ(Count("kNoNeighborRoom"), 0u);
}

// RFC 1122 3.2.1.3: these never are a source.
TEST_F(Reaction, SourcesThatCannotBe) {
  for (const IpAddress& ip :
       {IpAddress::V4(0, 1, 2, 3), IpAddress::V4(127, 0, 0, 1),
        IpAddress::V4(224, 0, 0, 1), IpAddress::V4(255, 255, 255, 255)}) {
    SCOPED_TRACE(ip.ToString());
    EXPECT_TRUE(Counts(SynFrom(ip), "kBadSource"));
  }
  std::vector<std::byte> group = SynFrom(IpAddress::V4(10, 0, 0, 3));
  group[6] |= std::byte{1};
  EXPECT_TRUE(Counts(group, "kBadSource"));
}

// RFC 1122 4.2.3.10: TCP to a broadcast address is dropped.
TEST_F(Reaction, SynToEverybody) {
  std::vector<std::byte> frame = SynFrom(IpAddress::V4(10, 0, 0, 3));
  std::memset(frame.data(), 0xff, 6);
  EXPECT_TRUE(Counts(frame, "kOtherMac"));
}

TEST_F(Reaction, EchoIsAnswered) {
  constexpr size_t kData = 100;
  std::vector<std::byte> frame = SynFrom(IpAddress::V4(10, 0, 0, 2));
  frame.resize(kTcp + kIcmpHeaderBytes + kData);
  std::memset(frame.data() + kTcp, 0, frame.size() - kTcp);
  StoreBe16(frame.data() + kIp + 2, static_cast<uint16_t>(frame.size() - kIp));
  frame[kIp + 9] = std::byte{1};  // ICMP
  WriteIpv4Checksum(frame.data() + kIp, 20);
  frame[kTcp] = std::byte{kIcmpEchoRequest};
  // All else is zero: the checksum is the complement of the type's word.
  StoreBe16(frame.data() + kTcp + 2,
            static_cast<uint16_t>(~(kIcmpEchoRequest << 8)));
  EXPECT_TRUE(Counts(frame, "kEchoRepliesSent"));
  frame[kTcp + 20] = std::byte{1};
  EXPECT_TRUE(Counts(frame, "kBadChecksum"));
}

}  // namespace
}  // namespace devwire
