#include "transport/wire/frame.h"

#include <gtest/gtest.h>

namespace devwire {
namespace {

HeaderTemplate::Options ClientV4() {
  HeaderTemplate::Options o;
  o.source_mac = *ParseMac("02:00:00:00:00:01");
  o.destination_mac = *ParseMac("02:00:00:00:00:02");
  o.tuple.local = *Endpoint::Parse("10.0.0.1:40000");
  o.tuple.remote = *Endpoint::Parse("10.0.0.2:80");
  return o;
}

TEST(FrameTest, EmitThenParse) {
  std::array<std::byte, 192> at{};
  TcpHeader h;
  h.seq = SeqNum(5);
  h.ack = SeqNum(6);
  h.flags = kAck | kPsh;
  h.wnd = 100;
  h.options.timestamps = Timestamps{1, 2};
  const uint32_t n =
      HeaderTemplate(ClientV4()).Emit(h, {.payload_bytes = 100}, at.data());
  ASSERT_EQ(n, 66u);
  ParsedFrame p;
  ASSERT_EQ(ParseFrame(at.data(), n, n + 100, &p), ParseResult::kTcp);
  EXPECT_EQ(p.payload_bytes, 100u);
  EXPECT_EQ(p.header_bytes, 66u);
  h.source_port = 40000;
  h.destination_port = 80;
  EXPECT_TRUE(p.tcp == h);
  EXPECT_EQ(p.tuple.remote, ClientV4().tuple.local);
  EXPECT_TRUE(Ipv4ChecksumIsRight(at.data() + 14, 20));
}

}  // namespace
}  // namespace devwire
