#include "transport/wire/icmp.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "transport/wire/arp.h"

namespace devwire {
namespace {

FourTuple Tuple(bool v4) {
  FourTuple t;
  t.local = *Endpoint::Parse(v4 ? "10.0.0.1:40000" : "[fd00::1]:40000");
  t.remote = *Endpoint::Parse(v4 ? "10.0.0.2:80" : "[fd00::2]:80");
  return t;
}

// A frame from a router (or host) to us, with this ICMP message.
std::vector<std::byte> IcmpFrame(bool v4, std::vector<std::byte> message) {
  const FourTuple t = Tuple(v4);
  std::vector<std::byte> frame(54);
  uint32_t at =
      EmitEthernet({.destination = *ParseMac("02:00:00:00:00:01"),
                    .source = *ParseMac("02:00:00:00:00:99"),
                    .ether_type = v4 ? kEtherTypeIpv4 : kEtherTypeIpv6},
                   frame.data());
  const auto bytes = static_cast<uint16_t>(message.size());
  InternetSum sum;
  if (v4) {
    Ipv4Header ip;
    ip.protocol = kProtocolIcmp;
    ip.total_length = static_cast<uint16_t>(20 + bytes);
    ip.source = t.remote.ip;
    ip.destination = t.local.ip;
    at += EmitIpv4(ip, frame.data() + at);
    WriteIpv4Checksum(frame.data() + 14, 20);
  } else {
    Ipv6Header ip;
    ip.next_header = kProtocolIcmpv6;
    ip.payload_length = bytes;
    ip.source = t.remote.ip;
    ip.destination = t.local.ip;
    at += EmitIpv6(ip, frame.data() + at);
    sum = PseudoHeaderSum(t.remote.ip, t.local.ip, kProtocolIcmpv6, bytes);
  }
  if (bytes >= 4) {
    StoreBe16(message.data() + 2, 0);
    sum.Add(message);
    StoreBe16(message.data() + 2, sum.Checksum());
  }
  frame.resize(at);
  frame.insert(frame.end(), message.begin(), message.end());
  return frame;
}

// An error that quotes the first bytes of a segment of ours.
std::vector<std::byte> Error(bool v4, uint8_t type, uint8_t code, uint32_t rest,
                             uint32_t quoted_bytes) {
  HeaderTemplate::Options o;
  o.tuple = Tuple(v4);
  TcpHeader h;
  h.seq = SeqNum(0x80000001);
  h.flags = kAck;
  std::byte segment[192];
  HeaderTemplate(o).Emit(h, {.payload_bytes = 1000}, segment);
  std::vector<std::byte> message(8 + quoted_bytes);
  Store8(message.data(), type);
  Store8(message.data() + 1, code);
  StoreBe32(message.data() + 4, rest);
  std::copy_n(segment + 14, quoted_bytes, message.data() + 8);
  return message;
}

ParsedFrame Parsed(const std::vector<std::byte>& frame) {
  ParsedFrame p;
  const auto n = static_cast<uint32_t>(frame.size());
  const ParseResult r = ParseFrame(frame.data(), n, n, &p);
  EXPECT_TRUE(r == ParseResult::kIcmp || r == ParseResult::kIcmpv6);
  return p;
}

TEST(IcmpTest, ErrorsNameTheConnection) {
  using Kind = IcmpError::Kind;
  struct Row {
    const char* name;
    bool v4;
    uint8_t type, code;
    uint32_t rest;
    Kind kind;
    uint32_t mtu;
  };
  const Row kRows[] = {
      {"network unreachable", true, 3, 0, 0, Kind::kUnreachable, 0},
      {"host unreachable", true, 3, 1, 0, Kind::kUnreachable, 0},
      {"protocol unreachable", true, 3, 2, 0, Kind::kRefused, 0},
      {"port unreachable", true, 3, 3, 0, Kind::kRefused, 0},
      {"fragmentation needed", true, 3, 4, 1400, Kind::kPacketTooBig, 1400},
      {"fragmentation needed, old", true, 3, 4, 0, Kind::kPacketTooBig, 0},
      {"prohibited", true, 3, 13, 0, Kind::kUnreachable, 0},
      {"time exceeded", true, 11, 0, 0, Kind::kTimeExceeded, 0},
      {"v6 no route", false, 1, 0, 0, Kind::kUnreachable, 0},
      {"v6 port", false, 1, 4, 0, Kind::kRefused, 0},
      {"v6 too big", false, 2, 0, 1280, Kind::kPacketTooBig, 1280},
      {"v6 time exceeded", false, 3, 0, 0, Kind::kTimeExceeded, 0},
  };
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    const uint32_t ip_bytes = row.v4 ? 20 : 40;
    const auto frame = IcmpFrame(
        row.v4, Error(row.v4, row.type, row.code, row.rest, ip_bytes + 8));
    const ParsedFrame p = Parsed(frame);
    EXPECT_TRUE(ChecksumsAreRight(frame.data(), p));
    IcmpError e;
    ASSERT_EQ(ParseIcmpError(frame.data(), p, &e), IcmpErrorResult::kError);
    EXPECT_EQ(e.kind, row.kind);
    EXPECT_EQ(e.code, row.code);
    EXPECT_EQ(e.mtu, row.mtu);
    EXPECT_EQ(e.tuple, Tuple(row.v4));
    EXPECT_EQ(e.seq, SeqNum(0x80000001));

    // RFC 792 promises 8 bytes of it; one less is not enough.
    const auto cut = IcmpFrame(
        row.v4, Error(row.v4, row.type, row.code, row.rest, ip_bytes + 7));
    EXPECT_EQ(ParseIcmpError(cut.data(), Parsed(cut), &e),
              IcmpErrorResult::kTooShort);
    const auto no_ip = IcmpFrame(
        row.v4, Error(row.v4, row.type, row.code, row.rest, ip_bytes - 1));
    EXPECT_EQ(ParseIcmpError(no_ip.data(), Parsed(no_ip), &e),
              IcmpErrorResult::kTooShort);
  }
}

TEST(IcmpTest, NotOurErrors) {
  IcmpError e;
  for (const bool v4 : {true, false}) {
    // Message types that are no errors for TCP: redirect, router advertisement.
    auto frame = IcmpFrame(v4, Error(v4, v4 ? 5 : 134, 0, 0, 48));
    EXPECT_EQ(ParseIcmpError(frame.data(), Parsed(frame), &e),
              IcmpErrorResult::kNotAnError);
    frame = IcmpFrame(v4, std::vector<std::byte>(7));
    EXPECT_EQ(ParseIcmpError(frame.data(), Parsed(frame), &e),
              IcmpErrorResult::kTooShort);
    // It quotes UDP, or another IP version.
    auto message = Error(v4, v4 ? 3 : 1, 0, 0, 48);
    Store8(message.data() + 8 + (v4 ? 9 : 6), kProtocolUdp);
    frame = IcmpFrame(v4, message);
    EXPECT_EQ(ParseIcmpError(frame.data(), Parsed(frame), &e),
              IcmpErrorResult::kNotAboutTcp);
    message = Error(v4, v4 ? 3 : 1, 0, 0, 48);
    Store8(message.data() + 8, 0x55);
    frame = IcmpFrame(v4, message);
    EXPECT_EQ(ParseIcmpError(frame.data(), Parsed(frame), &e),
              IcmpErrorResult::kNotAboutTcp);
  }
  // A fragment that is not the first has no ports.
  auto message = Error(true, 3, 1, 0, 28);
  StoreBe16(message.data() + 8 + 6, 0x0001);
  const auto frame = IcmpFrame(true, message);
  EXPECT_EQ(ParseIcmpError(frame.data(), Parsed(frame), &e),
            IcmpErrorResult::kNotAboutTcp);
}

// RFC 9293 3.9.2.2: a soft error, to be told (MUST-54, SHLD-25). ICMP type 12,
// ICMPv6 type 4.
TEST(IcmpTest, ParameterProblemIsASoftError) {
  for (const bool v4 : {true, false}) {
    const auto frame = IcmpFrame(v4, Error(v4, v4 ? 12 : 4, 0, 0, 48));
    IcmpError e;
    EXPECT_EQ(ParseIcmpError(frame.data(), Parsed(frame), &e),
              IcmpErrorResult::kError);
  }
}

TEST(IcmpTest, EchoReply) {
  for (const bool v4 : {true, false}) {
    for (const size_t data_bytes : {0u, 1u, 56u, 1400u}) {
      std::vector<std::byte> request(8 + data_bytes, std::byte{0x5a});
      Store8(request.data(), v4 ? kIcmpEchoRequest : kIcmpv6EchoRequest);
      Store8(request.data() + 1, 0);
      auto frame = IcmpFrame(v4, request);
      const ParsedFrame asked = Parsed(frame);
      ASSERT_TRUE(IsEchoRequest(frame.data(), asked));
      MakeEchoReply(frame.data(), asked);
      const ParsedFrame p = Parsed(frame);
      EXPECT_TRUE(ChecksumsAreRight(frame.data(), p));
      EXPECT_EQ(p.source_mac, asked.destination_mac);
      EXPECT_EQ(p.destination_mac, asked.source_mac);
      EXPECT_EQ(p.tuple.local, asked.tuple.remote);
      EXPECT_EQ(p.tuple.remote, asked.tuple.local);
      EXPECT_EQ(Load8(frame.data() + p.l4_offset),
                v4 ? kIcmpEchoReply : kIcmpv6EchoReply);
      EXPECT_EQ(
          std::vector<std::byte>(frame.begin() + p.l4_offset + 4, frame.end()),
          std::vector<std::byte>(request.begin() + 4, request.end()));
      EXPECT_FALSE(IsEchoRequest(frame.data(), p));
    }
    const auto runt = IcmpFrame(v4, std::vector<std::byte>(7));
    EXPECT_FALSE(IsEchoRequest(runt.data(), Parsed(runt)));
  }
}

TEST(ArpTest, BothWays) {
  ArpPacket arp;
  arp.operation = ArpPacket::Operation::kReply;
  arp.sender_mac = *ParseMac("02:00:00:00:00:01");
  arp.sender_ip = IpAddress::V4(10, 0, 0, 1);
  arp.target_mac = *ParseMac("02:00:00:00:00:02");
  arp.target_ip = IpAddress::V4(10, 0, 0, 2);
  std::byte at[kArpBytes];
  ASSERT_EQ(EmitArp(arp, at), kArpBytes);
  ArpPacket back;
  ASSERT_TRUE(ParseArp(at, kArpBytes, &back));
  EXPECT_EQ(back.operation, arp.operation);
  EXPECT_EQ(back.sender_mac, arp.sender_mac);
  EXPECT_EQ(back.sender_ip, arp.sender_ip);
  EXPECT_EQ(back.target_mac, arp.target_mac);
  EXPECT_EQ(back.target_ip, arp.target_ip);
  EXPECT_FALSE(ParseArp(at, kArpBytes - 1, &back));
}

TEST(ArpTest, OtherKindsAreRefused) {
  // Hardware type, protocol, address lengths, operation 0 and 3.
  const int kChanges[][2] = {{1, 6},  {2, 0x86}, {4, 8},
                             {5, 16}, {7, 0},    {7, 3}};
  for (const auto& change : kChanges) {
    std::byte at[kArpBytes];
    EmitArp(ArpPacket(), at);
    at[change[0]] = static_cast<std::byte>(change[1]);
    ArpPacket back;
    EXPECT_FALSE(ParseArp(at, kArpBytes, &back)) << change[0];
  }
}

}  // namespace
}  // namespace devwire
