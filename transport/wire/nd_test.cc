// Neighbour solicitations and advertisements: what we write we read, and what
// RFC 4861 7.1 discards is discarded.
#include "transport/wire/nd.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace devwire {
namespace {

constexpr MacAddress kMac = {2, 0, 0, 0, 0, 1};
const IpAddress kUs = *IpAddress::Parse("fd00::1");
const IpAddress kPeer = *IpAddress::Parse("fd00::2");
const IpAddress kNobody = *IpAddress::Parse("::");

using Bytes = std::vector<std::byte>;

Bytes Frame(const NdMessage& message, const IpAddress& from,
            const IpAddress& to) {
  Bytes frame(kNdFrameBytes);
  EmitNd(message, {kMac, MulticastMac(to), from, to}, frame.data());
  return frame;
}

bool Reads(const Bytes& frame, NdMessage* out) {
  ParsedFrame parsed;
  const auto bytes = static_cast<uint32_t>(frame.size());
  return ParseFrame(frame.data(), bytes, bytes, &parsed) ==
             ParseResult::kIcmpv6 &&
         ParseNd(frame.data(), parsed, out);
}

bool ChecksumHolds(const Bytes& frame) {
  ParsedFrame parsed;
  const auto bytes = static_cast<uint32_t>(frame.size());
  return ParseFrame(frame.data(), bytes, bytes, &parsed) ==
             ParseResult::kIcmpv6 &&
         ChecksumsAreRight(frame.data(), parsed);
}

// RFC 4291 2.7.1's own example, and RFC 2464 7.
TEST(NdTest, SolicitedNodeAddressAndItsMac) {
  const IpAddress group =
      SolicitedNode(*IpAddress::Parse("4037::01:800:200e:8c6c"));
  EXPECT_EQ(group, *IpAddress::Parse("ff02::1:ff0e:8c6c"));
  EXPECT_EQ(MacToString(MulticastMac(group)), "33:33:ff:0e:8c:6c");
  EXPECT_EQ(AllNodes().ToString(), "ff02::1");
}

TEST(NdTest, WhatIsWrittenIsRead) {
  for (int flags = 0; flags < 8; ++flags) {
    NdMessage sent;
    sent.type = NdMessage::Type::kAdvertisement;
    sent.target = kPeer;
    sent.link_address = kMac;
    sent.is_router = (flags & 1) != 0;
    sent.is_solicited = (flags & 2) != 0;
    sent.overrides = (flags & 4) != 0;
    const Bytes frame = Frame(sent, kPeer, kUs);
    EXPECT_TRUE(ChecksumHolds(frame));
    NdMessage read;
    ASSERT_TRUE(Reads(frame, &read));
    EXPECT_EQ(read.type, sent.type);
    EXPECT_EQ(read.target, kPeer);
    EXPECT_EQ(read.link_address, kMac);
    EXPECT_EQ(read.is_router, sent.is_router);
    EXPECT_EQ(read.is_solicited, sent.is_solicited);
    EXPECT_EQ(read.overrides, sent.overrides);
  }
  NdMessage question{.target = kUs, .link_address = kMac};
  const Bytes frame = Frame(question, kPeer, SolicitedNode(kUs));
  EXPECT_TRUE(ChecksumHolds(frame));
  NdMessage read;
  ASSERT_TRUE(Reads(frame, &read));
  EXPECT_EQ(read.type, NdMessage::Type::kSolicitation);
  EXPECT_EQ(read.link_address, kMac);
}

TEST(NdTest, WhatTheRfcDiscardsIsDiscarded) {
  constexpr size_t kIp = 14;
  constexpr size_t kIcmp = 14 + 40;
  const auto set = [](size_t at, uint8_t value) {
    return [=](Bytes& frame) { frame[at] = std::byte{value}; };
  };
  const struct {
    const char* name;
    bool is_solicitation;
    IpAddress from, to;
    std::function<void(Bytes&)> damage;
    bool is_valid;
  } kRows[] = {
      {"as it should be", true, kPeer, SolicitedNode(kUs), {}, true},
      {"through a router", true, kPeer, kUs, set(kIp + 7, 254), false},
      {"code 1", true, kPeer, kUs, set(kIcmp + 1, 1), false},
      {"another type", true, kPeer, kUs, set(kIcmp, 134), false},
      {"multicast target", true, kPeer, kUs, set(kIcmp + 8, 0xff), false},
      {"option of length 0", true, kPeer, kUs, set(kIcmp + 25, 0), false},
      {"option too long", true, kPeer, kUs, set(kIcmp + 25, 2), false},
      {"an option that is not known", true, kPeer, kUs, set(kIcmp + 24, 99),
       true},
      {"a group's MAC", true, kPeer, kUs, set(kIcmp + 26, 1), false},
      {"unspecified, with a MAC", true, kNobody, SolicitedNode(kUs), {}, false},
      {"unspecified, option unknown", true, kNobody, SolicitedNode(kUs),
       set(kIcmp + 24, 99), true},
      {"unspecified, to one host", true, kNobody, kUs, set(kIcmp + 24, 99),
       false},
      {"solicited, to all", false, kPeer, AllNodes(), set(kIcmp + 4, 0x40),
       false},
      {"unsolicited, to all", false, kPeer, AllNodes(), set(kIcmp + 4, 0x20),
       true},
      {"too short", true, kPeer, kUs,
       [](Bytes& frame) {
         frame.resize(kIcmp + 20);
         frame[kIp + 5] = std::byte{20};
       },
       false},
  };
  for (const auto& row : kRows) {
    NdMessage message{.target = kUs, .link_address = kMac};
    if (!row.is_solicitation) message.type = NdMessage::Type::kAdvertisement;
    Bytes frame = Frame(message, row.from, row.to);
    if (row.damage) row.damage(frame);
    NdMessage read;
    EXPECT_EQ(Reads(frame, &read), row.is_valid) << row.name;
  }
}

}  // namespace
}  // namespace devwire
