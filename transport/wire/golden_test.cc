// Frames that Linux sent, kept in testdata/: parsed, and written again byte for
// byte. How they were taken: testdata/README.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "transport/wire/arp.h"
#include "transport/wire/frame.h"
#include "transport/wire/icmp.h"
#include "transport/wire/notation.h"

namespace devwire {
namespace {

using Bytes = std::vector<std::byte>;

// Classic pcap, little-endian, microseconds: pcap-savefile(5).
std::vector<Bytes> GoldenFrames() {
  std::ifstream in("transport/wire/testdata/linux.pcap", std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(in), {}};
  std::vector<Bytes> frames;
  for (size_t at = 24; at + 16 <= file.size();) {
    uint32_t bytes;
    std::memcpy(&bytes, file.data() + at + 8, sizeof(bytes));
    const auto* data =
        reinterpret_cast<const std::byte*>(file.data()) + at + 16;
    frames.emplace_back(data, data + bytes);
    at += 16 + bytes;
  }
  return frames;
}

ParseResult Parse(const Bytes& frame, ParsedFrame* out) {
  const auto n = static_cast<uint32_t>(frame.size());
  return ParseFrame(frame.data(), n, n, out);
}

// The same TCP frame from what the parser made of it. What a receiver does not
// keep (identification, flow label) is read from the frame.
Bytes ReEmit(const Bytes& frame, const ParsedFrame& p) {
  HeaderTemplate::Options o;
  o.source_mac = p.source_mac;
  o.destination_mac = p.destination_mac;
  o.tuple = {.local = p.tuple.remote, .remote = p.tuple.local};
  o.ttl = p.ttl;
  SegmentShape shape{.payload_bytes = p.payload_bytes, .ecn = p.ecn};
  if (p.tuple.local.ip.is_v4()) {
    shape.identification = LoadBe16(frame.data() + 18);
  } else {
    o.flow_label = LoadBe32(frame.data() + 14) & 0xfffff;
  }
  Bytes out(192);
  const HeaderTemplate t(o);
  const uint32_t bytes = t.Emit(p.tcp, shape, out.data());
  out.resize(bytes);
  const auto payload = std::span(frame).subspan(p.header_bytes);
  WriteTcpChecksum(out.data(), t.l4_offset(), bytes, payload);
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

TEST(GoldenTest, LinuxsFramesComeBackByteForByte) {
  std::map<ParseResult, int> seen;
  std::map<std::string, int> option_kinds;
  for (const Bytes& frame : GoldenFrames()) {
    ParsedFrame p;
    const ParseResult result = Parse(frame, &p);
    ++seen[result];
    if (result == ParseResult::kArp) {
      ArpPacket arp;
      ASSERT_TRUE(ParseArp(frame.data() + p.l4_offset,
                           static_cast<uint32_t>(frame.size()) - p.l4_offset,
                           &arp));
      std::byte again[kArpBytes];
      EmitArp(arp, again);
      EXPECT_EQ(std::memcmp(again, frame.data() + p.l4_offset, kArpBytes), 0);
      continue;
    }
    EXPECT_TRUE(ChecksumsAreRight(frame.data(), p));
    if (result != ParseResult::kTcp) continue;
    const std::string text = FormatSegment(p.tcp, p.payload_bytes);
    EXPECT_EQ(ReEmit(frame, p), frame) << text;

    const auto back = ParseSegment(text);
    ASSERT_TRUE(back.ok()) << back.status();
    TcpHeader expected = p.tcp;
    expected.source_port = expected.destination_port = 0;
    EXPECT_EQ(back->header, expected) << text;

    const TcpOptions& o = p.tcp.options;
    std::string kind;
    if (o.mss) kind += "mss ";
    if (o.sack_permitted) kind += "sackOK ";
    if (o.timestamps) kind += "TS ";
    if (o.window_scale) kind += "wscale ";
    kind += std::to_string(o.sack_block_count);
    ++option_kinds[kind];
  }
  EXPECT_EQ(seen[ParseResult::kTcp], 125);
  EXPECT_EQ(seen[ParseResult::kArp], 2);
  EXPECT_EQ(seen[ParseResult::kIcmp], 2);
  EXPECT_EQ(seen[ParseResult::kIcmpv6], 2);
  // The capture holds every combination that Linux can be made to send.
  for (const char* kind :
       {"mss sackOK TS wscale 0", "mss sackOK wscale 0", "mss wscale 0",
        "mss sackOK 0", "mss TS 0", "mss TS wscale 0", "mss 0", "TS 0", "TS 1",
        "TS 2", "TS 3", "0", "1", "2", "3", "4"}) {
    EXPECT_GT(option_kinds[kind], 0) << kind;
  }
}

// Our reply to Linux's ping is Linux's own reply, but for what replies choose
// freely: identification and flow label.
TEST(GoldenTest, EchoReplyAsLinuxMakesIt) {
  const auto frames = GoldenFrames();
  int pairs = 0;
  for (size_t i = 0; i + 1 < frames.size(); ++i) {
    ParsedFrame p;
    const ParseResult result = Parse(frames[i], &p);
    if (result != ParseResult::kIcmp && result != ParseResult::kIcmpv6)
      continue;
    if (!IsEchoRequest(frames[i].data(), p)) continue;
    Bytes ours = frames[i];
    MakeEchoReply(ours.data(), p);
    const Bytes& theirs = frames[i + 1];
    ASSERT_EQ(ours.size(), theirs.size());
    EXPECT_TRUE(std::equal(ours.begin(), ours.begin() + 14, theirs.begin()));
    EXPECT_TRUE(std::equal(ours.begin() + p.l4_offset, ours.end(),
                           theirs.begin() + p.l4_offset));
    ++pairs;
  }
  EXPECT_EQ(pairs, 2);
}

}  // namespace
}  // namespace devwire
