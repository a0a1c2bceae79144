// Neighbour discovery of a stack, frame by frame: RFC 4861 7.1, 7.2.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "gtest/gtest.h"
#include "sockets/hand_peer.h"
#include "sockets/stack.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"
#include "transport/wire/byte_order.h"
#include "transport/wire/checksum.h"
#include "transport/wire/frame.h"
#include "transport/wire/ipv4.h"
#include "transport/wire/nd.h"

namespace devwire {
namespace {

const IpAddress kStack = *IpAddress::Parse("fd00::1");
const IpAddress kPeer = *IpAddress::Parse("fd00::2");
const IpAddress kNobody = *IpAddress::Parse("::");
constexpr MacAddress kPeerMac = {2, 0, 0, 0, 0, 2};

// A stack on sn0 that knows nobody, the peer on sn1.
class NdWire : public testing::Test {
 protected:
  void SetUp() override {
    const std::string port = ",port=shm:" + CablePath() + ",mtu=1500";
    ConfigureSoftnic("dev=sn0,mac=02:00:00:00:00:01" + port +
                     ";dev=sn1,mac=02:00:00:00:00:02" + port);
    StackOptions o;
    o.verbs_library = SoftnicPath();
    o.device = "sn0";
    o.address = kStack;
    o.prefix_bits = 64;
    stack_ = Stack::Open(o).value();
    peer_ = std::make_unique<HandPeer>(
        HandPeer::Options{.device = "sn1",
                          .ip = kPeer,
                          .mtu = 1500,
                          .remote = {kStack, Port{7000}},
                          .remote_mac = stack_->mac(),
                          .poll = [this] { stack_->Poll(); }});
  }

  std::vector<std::byte> Frame(const NdMessage& message,
                               const IpAddress& source,
                               const IpAddress& destination) const {
    std::vector<std::byte> frame(kNdFrameBytes);
    EmitNd(message,
           {.source_mac = kPeerMac,
            .destination_mac = stack_->mac(),
            .source = source,
            .destination = destination},
           frame.data());
    return frame;
  }
  std::vector<std::byte> Question(const IpAddress& source = kPeer) const {
    return Frame({.type = NdMessage::Type::kSolicitation,
                  .target = kStack,
                  .link_address = kPeerMac},
                 source, SolicitedNode(kStack));
  }

  // Of a host that has no address yet: such a one names no MAC (7.1.1).
  std::vector<std::byte> QuestionOfNobody() const {
    constexpr uint32_t kIp = 14, kIcmp = kIp + 40, kMessage = 24;
    std::vector<std::byte> frame = Question(kNobody);
    frame.resize(kIcmp + kMessage);
    StoreBe16(frame.data() + kIp + 4, kMessage);
    StoreBe16(frame.data() + kIcmp + 2, 0);
    InternetSum sum = PseudoHeaderSum(kNobody, SolicitedNode(kStack),
                                      kProtocolIcmpv6, kMessage);
    sum.Add({frame.data() + kIcmp, kMessage});
    StoreBe16(frame.data() + kIcmp + 2, sum.Checksum());
    return frame;
  }

  uint64_t Dropped(const std::string& reason) {
    const StackCounters counters = stack_->Counters().value();
    for (const auto& drop : counters.drops) {
      if (drop.name == reason) return drop.value;
    }
    return 0;
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
  // The next message that comes, and where from and to.
  struct Seen {
    NdMessage message;
    ParsedFrame parsed;
  };
  Seen Next() {
    Seen seen;
    EXPECT_TRUE(Until([&] { return peer_->nd_frames().size() > seen_; }));
    if (peer_->nd_frames().size() <= seen_) return seen;
    const std::vector<std::byte>& frame = peer_->nd_frames()[seen_++];
    const auto bytes = static_cast<uint32_t>(frame.size());
    EXPECT_EQ(ParseFrame(frame.data(), bytes, bytes, &seen.parsed),
              ParseResult::kIcmpv6);
    EXPECT_TRUE(ParseNd(frame.data(), seen.parsed, &seen.message));
    EXPECT_TRUE(ChecksumsAreRight(frame.data(), seen.parsed));
    return seen;
  }

  std::unique_ptr<Stack> stack_;
  std::unique_ptr<HandPeer> peer_;
  size_t seen_ = 0;
};

TEST_F(NdWire, AQuestionIsAnsweredToWhoAsked) {
  peer_->SendRaw(Question());
  const Seen seen = Next();
  EXPECT_EQ(seen.message.type, NdMessage::Type::kAdvertisement);
  EXPECT_EQ(seen.message.target, kStack);
  EXPECT_EQ(seen.message.link_address, stack_->mac());
  EXPECT_TRUE(seen.message.is_solicited);
  EXPECT_EQ(seen.parsed.tuple.local.ip, kPeer);
}

// RFC 4861 7.2.4: a host that tries whether the address is free has none yet.
TEST_F(NdWire, WhoWantsOurAddressIsToldAmongAll) {
  peer_->SendRaw(QuestionOfNobody());
  const Seen seen = Next();
  EXPECT_EQ(seen.message.type, NdMessage::Type::kAdvertisement);
  EXPECT_EQ(seen.message.target, kStack);
  EXPECT_FALSE(seen.message.is_solicited);
  EXPECT_EQ(seen.parsed.tuple.local.ip, AllNodes());
}

TEST_F(NdWire, AWrongChecksumIsNoQuestion) {
  std::vector<std::byte> frame = Question();
  frame[kNdFrameBytes - 1] ^= std::byte{1};
  peer_->SendRaw(frame);
  EXPECT_TRUE(Until([&] { return Dropped("kBadChecksum") == 1; }));
  EXPECT_TRUE(peer_->nd_frames().empty());
}

// Our own address, advertised by another, is no neighbour of ours.
TEST_F(NdWire, NobodyElseAdvertisesOurAddress) {
  peer_->SendRaw(Frame({.type = NdMessage::Type::kAdvertisement,
                        .target = kStack,
                        .link_address = kPeerMac,
                        .overrides = true},
                       kPeer, AllNodes()));
  EXPECT_TRUE(Until([&] { return Dropped("kOtherAddress") == 1; }));
}

// The group of those whose address ends as the one that is looked for.
TEST_F(NdWire, AnUnknownNeighbourIsAskedOfItsGroup) {
  const auto stream = stack_->StartConnect({kPeer, Port{80}}).value();
  const Seen seen = Next();
  EXPECT_EQ(seen.message.type, NdMessage::Type::kSolicitation);
  EXPECT_EQ(seen.message.target, kPeer);
  EXPECT_EQ(seen.message.link_address, stack_->mac());
  EXPECT_EQ(seen.parsed.tuple.local.ip, SolicitedNode(kPeer));
}

}  // namespace
}  // namespace devwire
