#include "transport/wire/frame.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/alloc_guard.h"
#include "base/prng.h"
#include "transport/wire/icmp.h"

namespace devwire {
namespace {

HeaderTemplate::Options V4() {
  HeaderTemplate::Options o;
  o.source_mac = *ParseMac("02:00:00:00:00:01");
  o.destination_mac = *ParseMac("02:00:00:00:00:02");
  o.tuple.local = *Endpoint::Parse("10.0.0.1:40000");
  o.tuple.remote = *Endpoint::Parse("10.0.0.2:80");
  return o;
}

HeaderTemplate::Options V6() {
  HeaderTemplate::Options o = V4();
  o.tuple.local = *Endpoint::Parse("[fd00::1]:40000");
  o.tuple.remote = *Endpoint::Parse("[fd00::2]:80");
  o.flow_label = 0xabcde;
  return o;
}

TcpHeader Ack() {
  TcpHeader h;
  h.source_port = 40000;
  h.destination_port = 80;
  h.seq = SeqNum(0xfffffff0);
  h.ack = SeqNum(6);
  h.flags = kAck;
  h.wnd = 0xabcd;
  return h;
}

TcpHeader AckWithTimestamps() {
  TcpHeader h = Ack();
  h.options.timestamps = Timestamps{1, 0x80000000};
  return h;
}

TcpHeader AckWithSack() {
  TcpHeader h = AckWithTimestamps();
  h.options.sack_block_count = 3;
  for (uint32_t i = 0; i < 3; ++i) {
    h.options.sack_blocks[i] = {SeqNum(100 * i), SeqNum(100 * i + 50)};
  }
  return h;
}

// A whole frame with payload bytes 1, 2, 3... and right checksums.
std::vector<std::byte> Frame(const HeaderTemplate::Options& options,
                             const TcpHeader& tcp, uint32_t payload_bytes) {
  std::vector<std::byte> frame(192 + payload_bytes);
  const HeaderTemplate t(options);
  const uint32_t bytes =
      t.Emit(tcp, {.payload_bytes = payload_bytes}, frame.data());
  frame.resize(bytes + payload_bytes);
  for (uint32_t i = 0; i < payload_bytes; ++i) {
    frame[bytes + i] = static_cast<std::byte>(i + 1);
  }
  WriteTcpChecksum(frame.data(), t.l4_offset(), bytes,
                   std::span(frame).subspan(bytes));
  return frame;
}

// Puts `option_bytes` of no-operation options behind the IPv4 header.
std::vector<std::byte> WithIpOptions(std::vector<std::byte> frame,
                                     uint32_t option_bytes) {
  frame.insert(frame.begin() + 34, option_bytes, std::byte{1});
  std::byte* ip = frame.data() + 14;
  Store8(ip, static_cast<uint8_t>(0x45 + option_bytes / 4));
  StoreBe16(ip + 2, static_cast<uint16_t>(LoadBe16(ip + 2) + option_bytes));
  WriteIpv4Checksum(ip, 20 + option_bytes);
  return frame;
}

ParseResult Parse(const std::vector<std::byte>& frame, uint32_t available,
                  ParsedFrame* out) {
  // A copy of exactly the bytes that may be read, for the sanitizer to watch.
  const std::vector<std::byte> visible(
      frame.begin(), frame.begin() + std::min<size_t>(available, frame.size()));
  return ParseFrame(visible.data(), static_cast<uint32_t>(visible.size()),
                    static_cast<uint32_t>(frame.size()), out);
}

TEST(FrameTest, WhatIsEmittedIsParsed) {
  struct Row {
    const char* name;
    HeaderTemplate::Options options;
    TcpHeader tcp;
    uint32_t header_bytes;
  };
  HeaderTemplate::Options vlan = V4();
  vlan.vlan_tci = 0x2123;
  HeaderTemplate::Options vlan6 = V6();
  vlan6.vlan_tci = 5;
  TcpHeader syn = Ack();
  syn.flags = kSyn | kEce | kCwr;
  syn.options.mss = 1460;
  syn.options.sack_permitted = true;
  syn.options.timestamps = Timestamps{7, 0};
  syn.options.window_scale = 14;
  TcpHeader urgent = Ack();
  urgent.flags = kAck | kUrg | kPsh | kFin;
  urgent.urgent_pointer = 9;
  const Row kRows[] = {
      {"IPv4 plain", V4(), Ack(), 54},
      {"IPv4 timestamps", V4(), AckWithTimestamps(), 66},
      {"IPv4 SACK", V4(), AckWithSack(), 94},
      {"IPv4 SYN", V4(), syn, 74},
      {"IPv4 urgent", V4(), urgent, 54},
      {"IPv6 plain", V6(), Ack(), 74},
      {"IPv6 timestamps", V6(), AckWithTimestamps(), 86},
      {"IPv6 SACK", V6(), AckWithSack(), 114},
      {"VLAN IPv4", vlan, AckWithTimestamps(), 70},
      {"VLAN IPv6", vlan6, AckWithTimestamps(), 90},
  };
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    for (const uint32_t payload : {0u, 1u, 1000u, 8948u}) {
      const auto frame = Frame(row.options, row.tcp, payload);
      ParsedFrame p;
      ASSERT_EQ(Parse(frame, ~0u, &p), ParseResult::kTcp);
      EXPECT_EQ(p.header_bytes, row.header_bytes);
      EXPECT_EQ(p.payload_bytes, payload);
      EXPECT_EQ(p.tcp, row.tcp);
      EXPECT_EQ(p.tuple.remote, row.options.tuple.local);
      EXPECT_EQ(p.tuple.local, row.options.tuple.remote);
      EXPECT_EQ(p.source_mac, row.options.source_mac);
      EXPECT_EQ(p.destination_mac, row.options.destination_mac);
      EXPECT_EQ(p.vlan_tci, row.options.vlan_tci);
      EXPECT_EQ(p.ttl, 64);
      EXPECT_EQ(p.options_cut_bytes, 0);
      EXPECT_FALSE(p.options_malformed);
      EXPECT_TRUE(ChecksumsAreRight(frame.data(), p));
    }
  }
}

TEST(FrameTest, EcnAndIdentification) {
  for (const auto& options : {V4(), V6()}) {
    for (const Ecn ecn : {Ecn::kNotEct, Ecn::kEct1, Ecn::kEct0, Ecn::kCe}) {
      HeaderTemplate::Options marked = options;
      marked.dscp = 46;
      std::byte at[192];
      const uint32_t n = HeaderTemplate(marked).Emit(
          Ack(), {.ecn = ecn, .identification = 0xffff}, at);
      ParsedFrame p;
      ASSERT_EQ(ParseFrame(at, n, n, &p), ParseResult::kTcp);
      EXPECT_EQ(p.ecn, ecn);
      if (!options.tuple.local.ip.is_v4()) continue;
      Ipv4Header ip;
      ASSERT_EQ(ParseIpv4(at + 14, 20, &ip), Ipv4Result::kOk);
      EXPECT_EQ(ip.tos >> 2, 46);
      EXPECT_EQ(ip.identification, 0xffff);
      EXPECT_TRUE(Ipv4ChecksumIsRight(at + 14, 20));
    }
  }
}

// What a NIC is handed: the pseudo header's sum, without the length for TSO.
TEST(FrameTest, ChecksumFieldForTheNic) {
  std::byte at[192];
  const HeaderTemplate t(V4());
  const auto field = [&at] { return LoadBe16(at + 34 + 16); };
  const IpAddress& a = V4().tuple.local.ip;
  const IpAddress& b = V4().tuple.remote.ip;
  t.Emit(Ack(), {.payload_bytes = 100}, at);
  EXPECT_EQ(field(), PseudoHeaderSum(a, b, 6, 120).Folded());
  t.Emit(Ack(), {.payload_bytes = 60000, .is_tso = true}, at);
  EXPECT_EQ(field(), PseudoHeaderSum(a, b, 6, 0).Folded());
  EXPECT_EQ(LoadBe16(at + 16), 60040);
  // Beyond 65,535 the length field cannot tell: the NIC writes it.
  t.Emit(Ack(), {.payload_bytes = 70000, .is_tso = true}, at);
  EXPECT_EQ(LoadBe16(at + 16), 0);
}

TEST(FrameTest, NeighbourMoved) {
  HeaderTemplate t(V4());
  t.set_destination_mac(*ParseMac("02:00:00:00:00:77"));
  std::byte at[192];
  const uint32_t n = t.Emit(Ack(), {}, at);
  ParsedFrame p;
  ASSERT_EQ(ParseFrame(at, n, n, &p), ParseResult::kTcp);
  EXPECT_EQ(MacToString(p.destination_mac), "02:00:00:00:00:77");
  EXPECT_EQ(MacToString(p.source_mac), "02:00:00:00:00:01");
}

// Ethernet pads to 60 bytes: the payload's length is what IP says.
TEST(FrameTest, PaddingIsNotPayload) {
  for (const uint32_t payload : {0u, 1u, 5u, 6u}) {
    auto frame = Frame(V4(), Ack(), payload);
    frame.resize(std::max<size_t>(frame.size(), kMinEthernetFrameBytes));
    ParsedFrame p;
    ASSERT_EQ(Parse(frame, ~0u, &p), ParseResult::kTcp);
    EXPECT_EQ(p.payload_bytes, payload);
    EXPECT_TRUE(ChecksumsAreRight(frame.data(), p));
  }
}

// A header slot of any size: what is visible is right, what is not is said.
TEST(FrameTest, EveryCut) {
  HeaderTemplate::Options vlan = V4();
  vlan.vlan_tci = 1;
  for (const auto& options : {V4(), V6(), vlan}) {
    const auto frame = Frame(options, AckWithSack(), 500);
    const uint32_t l4 = HeaderTemplate(options).l4_offset();
    const uint32_t l3 = l4 - (options.tuple.local.ip.is_v4() ? 20 : 40);
    for (uint32_t available = 0; available <= frame.size(); ++available) {
      SCOPED_TRACE(available);
      ParsedFrame p;
      const ParseResult result = Parse(frame, available, &p);
      if (available < l4) {
        EXPECT_EQ(result, ParseResult::kIpHeaderCut);
        continue;
      }
      EXPECT_EQ(p.tuple.remote.ip, options.tuple.local.ip);
      EXPECT_EQ(p.l3_offset, l3);
      if (available < l4 + 4) {
        EXPECT_EQ(result, ParseResult::kPortsCut);
        EXPECT_EQ(p.tuple.local.port, Port{0});
        continue;
      }
      EXPECT_EQ(p.tuple.local, options.tuple.remote);
      if (available < l4 + 20) {
        EXPECT_EQ(result, ParseResult::kTcpHeaderCut);
        continue;
      }
      ASSERT_EQ(result, ParseResult::kTcp);
      EXPECT_EQ(p.tcp.seq, AckWithSack().seq);
      EXPECT_EQ(p.payload_bytes, 500u);
      EXPECT_EQ(p.header_bytes, l4 + 60);
      const uint32_t cut = available < l4 + 60 ? l4 + 60 - available : 0;
      EXPECT_EQ(p.options_cut_bytes, cut);
      EXPECT_FALSE(p.options_malformed);
      // nop, nop, TS end at 32; the SACK option is whole or not there.
      EXPECT_EQ(p.tcp.options.timestamps.has_value(), available >= l4 + 32);
      EXPECT_EQ(p.tcp.options.sack_block_count, cut == 0 ? 3 : 0);
    }
  }
}

TEST(FrameTest, FetchedOptionsCompleteACutHeader) {
  const auto frame = Frame(V4(), AckWithSack(), 0);
  ParsedFrame p;
  ASSERT_EQ(Parse(frame, 66, &p), ParseResult::kTcp);
  EXPECT_EQ(p.options_cut_bytes, 28);
  ParseFetchedOptions(std::span(frame).subspan(54, 40), &p);
  EXPECT_EQ(p.options_cut_bytes, 0);
  EXPECT_EQ(p.tcp, AckWithSack());
}

// The split table of docs/wire.md.
TEST(FrameTest, SplitTable) {
  struct Row {
    const char* name;
    TcpHeader tcp;
    uint32_t split;
    uint32_t payload;
    PayloadSplit expected;
  };
  const Row kRows[] = {
      {"equal", AckWithTimestamps(), 66, 1448, {0, 0, 1448}},
      {"equal, no text", AckWithTimestamps(), 66, 0, {0, 0, 0}},
      {"shorter by 12", Ack(), 66, 1460, {12, 0, 1448}},
      {"shorter, text ends in the header slot", Ack(), 66, 7, {7, 0, 0}},
      {"shorter, text ends at the split", Ack(), 66, 12, {12, 0, 0}},
      {"longer by 28", AckWithSack(), 66, 100, {0, 28, 100}},
      {"longer by 40", AckWithSack(), 54, 1, {0, 40, 1}},
      {"control queue", Ack(), 54 + 100, 100, {100, 0, 0}},
  };
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    const auto frame = Frame(V4(), row.tcp, row.payload);
    ParsedFrame p;
    ASSERT_EQ(Parse(frame, row.split, &p), ParseResult::kTcp);
    const PayloadSplit s = SplitPayload(p, row.split);
    EXPECT_EQ(s.linear_bytes, row.expected.linear_bytes);
    EXPECT_EQ(s.device_offset, row.expected.device_offset);
    EXPECT_EQ(s.device_bytes, row.expected.device_bytes);
    // The table agrees with where the bytes are: the first is 1, counting up.
    for (uint32_t i = 0; i < row.payload; ++i) {
      const uint32_t at = i < s.linear_bytes ? p.header_bytes + i
                                             : row.split + s.device_offset +
                                                   (i - s.linear_bytes);
      ASSERT_EQ(frame[at], static_cast<std::byte>(i + 1)) << i;
    }
  }
}

// IHL 6 to 15 on an established stream, seen through a split of 66.
TEST(FrameTest, IpOptionsShiftTheCut) {
  for (uint32_t words = 1; words <= 10; ++words) {
    SCOPED_TRACE(words);
    const uint32_t shift = 4 * words;
    const auto frame =
        WithIpOptions(Frame(V4(), AckWithTimestamps(), 100), shift);
    ParsedFrame p;
    ASSERT_EQ(Parse(frame, ~0u, &p), ParseResult::kTcp);
    EXPECT_EQ(p.ip_option_bytes, shift);
    EXPECT_EQ(p.header_bytes, 66 + shift);
    EXPECT_EQ(p.payload_bytes, 100u);
    EXPECT_TRUE(ChecksumsAreRight(frame.data(), p));

    const ParseResult cut = Parse(frame, 66, &p);
    if (shift <= 12) {
      // The fixed header is there, the timestamps are not.
      EXPECT_EQ(cut, ParseResult::kTcp);
      EXPECT_EQ(p.options_cut_bytes, shift);
      EXPECT_FALSE(p.tcp.options.timestamps.has_value());
    } else {
      EXPECT_EQ(cut, shift <= 28 ? ParseResult::kTcpHeaderCut
                                 : ParseResult::kPortsCut);
    }
  }
}

TEST(FrameTest, Malformed) {
  struct Row {
    const char* name;
    bool v6;
    uint32_t offset;  // Of a 16-bit field.
    uint16_t value;
    ParseResult expected;
  };
  const Row kRows[] = {
      {"EtherType ARP", false, 12, 0x0806, ParseResult::kArp},
      {"EtherType LLDP", false, 12, 0x88cc, ParseResult::kOtherEtherType},
      {"802.1ad", false, 12, 0x88a8, ParseResult::kStackedVlan},
      {"IPv6 in IPv4's EtherType", false, 14, 0x6500,
       ParseResult::kBadIpVersion},
      {"IHL 4", false, 14, 0x4400, ParseResult::kBadIpHeaderLength},
      {"total length below the header", false, 16, 19,
       ParseResult::kBadIpHeaderLength},
      {"total length without a TCP header", false, 16, 39,
       ParseResult::kBadTcpDataOffset},
      {"total length one beyond the frame", false, 16, 20 + 32 + 11,
       ParseResult::kIpLengthBeyondFrame},
      {"total length cuts the options", false, 16, 20 + 31,
       ParseResult::kBadTcpDataOffset},
      {"more fragments", false, 20, 0x2000, ParseResult::kIpFragment},
      {"last fragment", false, 20, 0x0001, ParseResult::kIpFragment},
      {"UDP", false, 22, 0x4011, ParseResult::kOtherProtocol},
      {"ICMP", false, 22, 0x4001, ParseResult::kIcmp},
      {"ICMPv6 in IPv4", false, 22, 0x403a, ParseResult::kOtherProtocol},
      {"data offset 4", false, 46, 0x4010, ParseResult::kBadTcpDataOffset},
      {"data offset beyond IP", false, 46, 0xc010,
       ParseResult::kBadTcpDataOffset},
      {"IPv4 in IPv6's EtherType", true, 14, 0x4000,
       ParseResult::kBadIpVersion},
      {"payload length one beyond the frame", true, 18, 32 + 11,
       ParseResult::kIpLengthBeyondFrame},
      {"payload length 19", true, 18, 19, ParseResult::kBadTcpDataOffset},
      {"fragment header", true, 20, 44 << 8, ParseResult::kIpFragment},
      {"ESP", true, 20, 50 << 8, ParseResult::kIpv6Extension},
      {"authentication", true, 20, 51 << 8, ParseResult::kIpv6Extension},
      {"mobility", true, 20, 135 << 8, ParseResult::kIpv6Extension},
      {"ICMPv6", true, 20, 58 << 8, ParseResult::kIcmpv6},
      {"ICMP in IPv6", true, 20, 1 << 8, ParseResult::kOtherProtocol},
  };
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    auto frame = Frame(row.v6 ? V6() : V4(), AckWithTimestamps(), 10);
    StoreBe16(frame.data() + row.offset, row.value);
    ParsedFrame p;
    EXPECT_EQ(Parse(frame, ~0u, &p), row.expected)
        << ParseResultName(Parse(frame, ~0u, &p));
  }
}

// The frame with these extension headers between IPv6 and TCP; the first of
// them is of `kind`.
std::vector<std::byte> WithExtensions(uint8_t kind,
                                      const std::vector<uint8_t>& headers) {
  auto frame = Frame(V6(), AckWithTimestamps(), 10);
  const auto* bytes = reinterpret_cast<const std::byte*>(headers.data());
  frame.insert(frame.begin() + 54, bytes, bytes + headers.size());
  Store8(frame.data() + 20, kind);
  StoreBe16(frame.data() + 18, static_cast<uint16_t>(frame.size() - 54));
  return frame;
}

// RFC 8200 4: passed over, or refused.
TEST(FrameTest, Ipv6ExtensionHeaders) {
  using R = ParseResult;
  struct Row {
    const char* name;
    uint8_t kind;
    std::vector<uint8_t> headers;
    R expected;
  };
  const Row kRows[] = {
      {"hop-by-hop, padding", 0, {6, 0, 1, 4, 0, 0, 0, 0}, R::kTcp},
      {"hop-by-hop, router alert", 0, {6, 0, 5, 2, 0, 0, 1, 0}, R::kTcp},
      {"an option to discard",
       60,
       {6, 0, 0x41, 4, 0, 0, 0, 0},
       R::kIpv6Extension},
      {"a jumbogram", 0, {6, 0, 0xc2, 4, 0, 1, 0, 0}, R::kIpv6Extension},
      {"an option beyond its header",
       60,
       {6, 0, 1, 5, 0, 0, 0, 0},
       R::kIpv6Extension},
      {"an option without a length",
       60,
       {6, 0, 0, 0, 0, 0, 0, 7},
       R::kIpv6Extension},
      {"pad1 alone", 60, {6, 0, 0, 0, 0, 0, 0, 0}, R::kTcp},
      {"routing, done with", 43, {6, 0, 4, 0, 0, 0, 0, 0}, R::kTcp},
      {"routing, a segment left",
       43,
       {6, 0, 4, 1, 0, 0, 0, 0},
       R::kIpv6Extension},
      {"three of them",
       0,
       {43, 0, 1, 4,  0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0,
        6,  1, 1, 12, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0},
       R::kTcp},
      {"hop-by-hop in second place",
       60,
       {0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0},
       R::kIpv6Extension},
      {"a fragment behind one",
       60,
       {44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 1},
       R::kIpFragment},
      {"longer than the packet",
       60,
       {6, 255, 1, 4, 0, 0, 0, 0},
       R::kBadIpHeaderLength},
      {"ICMPv6 behind one", 60, {58, 0, 1, 4, 0, 0, 0, 0}, R::kIcmpv6},
  };
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    const auto frame = WithExtensions(row.kind, row.headers);
    ParsedFrame p;
    EXPECT_EQ(Parse(frame, ~0u, &p), row.expected);
    if (row.expected != R::kTcp) continue;
    EXPECT_EQ(p.payload_bytes, 10u);
    EXPECT_EQ(p.ip_option_bytes, row.headers.size());
    EXPECT_EQ(p.l4_offset, 54 + row.headers.size());
    EXPECT_TRUE(ChecksumsAreRight(frame.data(), p));
    // On a data queue the split cuts them: only the addresses are to be seen.
    EXPECT_EQ(Parse(frame, 54 + 4, &p), R::kPortsCut);
    EXPECT_EQ(p.tuple.remote.ip, V6().tuple.local.ip);
  }
  std::vector<uint8_t> nine;
  for (int i = 0; i < 9; ++i) {
    nine.insert(nine.end(), {uint8_t(i == 8 ? 6 : 60), 0, 1, 4, 0, 0, 0, 0});
  }
  ParsedFrame p;
  EXPECT_EQ(Parse(WithExtensions(60, nine), ~0u, &p), R::kIpv6Extension);
}

TEST(FrameTest, FrameEndsWithinItsHeaders) {
  for (const auto& options : {V4(), V6()}) {
    const auto whole = Frame(options, AckWithTimestamps(), 10);
    const uint32_t l4 = HeaderTemplate(options).l4_offset();
    for (uint32_t bytes = 0; bytes < whole.size(); ++bytes) {
      const std::vector<std::byte> frame(whole.begin(), whole.begin() + bytes);
      ParsedFrame p;
      EXPECT_EQ(Parse(frame, ~0u, &p), bytes < l4
                                           ? ParseResult::kFrameTooShort
                                           : ParseResult::kIpLengthBeyondFrame)
          << bytes;
    }
  }
}

TEST(FrameTest, SecondVlanTag) {
  HeaderTemplate::Options vlan = V4();
  vlan.vlan_tci = 1;
  auto frame = Frame(vlan, Ack(), 10);
  StoreBe16(frame.data() + 16, kEtherTypeVlan);
  ParsedFrame p;
  EXPECT_EQ(Parse(frame, ~0u, &p), ParseResult::kStackedVlan);
}

TEST(FrameTest, EveryResultHasAName) {
  for (int i = 0; i < static_cast<int>(ParseResult::kCount); ++i) {
    EXPECT_STRNE(ParseResultName(static_cast<ParseResult>(i)), "?") << i;
  }
}

// One flipped bit anywhere under a checksum is noticed.
TEST(FrameTest, ChecksumsSeeEveryBit) {
  for (const auto& options : {V4(), V6()}) {
    const auto frame = Frame(options, AckWithTimestamps(), 33);
    const bool v4 = options.tuple.local.ip.is_v4();
    const uint32_t l4 = HeaderTemplate(options).l4_offset();
    ParsedFrame p;
    ASSERT_EQ(Parse(frame, ~0u, &p), ParseResult::kTcp);
    for (uint32_t i = v4 ? 14 : l4; i < frame.size(); ++i) {
      auto bad = frame;
      bad[i] ^= static_cast<std::byte>(1 << (i % 8));
      EXPECT_FALSE(ChecksumsAreRight(bad.data(), p)) << i;
    }
  }
}

TEST(FrameTest, NeitherParseNorEmitAllocates) {
  const auto frame = Frame(V4(), AckWithSack(), 100);
  const HeaderTemplate t(V4());
  std::byte at[192];
  ParsedFrame p;
  const uint64_t before = AllocationsOnThisThread();
  for (int i = 0; i < 100; ++i) {
    ParseFrame(frame.data(), 66, static_cast<uint32_t>(frame.size()), &p);
    t.Emit(p.tcp, {.payload_bytes = 100}, at);
  }
  EXPECT_EQ(AllocationsOnThisThread(), before);
}

// RFC 1071 3 sums these eight bytes to ddf2.
TEST(ChecksumTest, ExampleOfTheRfc) {
  const uint8_t kBytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  InternetSum sum;
  sum.Add(std::as_bytes(std::span(kBytes)));
  EXPECT_EQ(sum.Folded(), 0xddf2);
  EXPECT_EQ(sum.Checksum(), 0x220d);
}

// Against the definition, word by word, at every length and alignment.
TEST(ChecksumTest, AgreesWithTheDefinition) {
  Prng prng(20261123);
  std::vector<std::byte> bytes(600);
  for (std::byte& b : bytes) b = static_cast<std::byte>(prng.Next32());
  std::fill(bytes.begin() + 300, bytes.end(), std::byte{0xff});
  for (size_t from = 0; from < 9; ++from) {
    for (size_t n = 0; n + from <= bytes.size(); ++n) {
      uint32_t expected = 0;
      for (size_t i = 0; i < n; ++i) {
        expected += static_cast<uint32_t>(bytes[from + i])
                    << (i % 2 == 0 ? 8 : 0);
      }
      while (expected >> 16 != 0) {
        expected = (expected & 0xffff) + (expected >> 16);
      }
      InternetSum sum;
      sum.Add(std::span(bytes).subspan(from, n));
      ASSERT_EQ(sum.Folded(), expected) << from << " " << n;
    }
  }
}

}  // namespace
}  // namespace devwire
