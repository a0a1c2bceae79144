#include "transport/wire/notation.h"

#include <gtest/gtest.h>

#include <string>

namespace devwire {
namespace {

// Lines as tcpdump prints them come back unchanged.
TEST(NotationTest, RoundTrip) {
  const char* const kLines[] = {
      "S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>",
      "S. 0:0(0) ack 1 win 65535 "
      "<mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>",
      "S 7:7(0) win 1 <mss 536,nop,nop,sackOK,nop,wscale 14>",
      ". 1:1(0) ack 1 win 0",
      "P. 1:1001(1000) ack 4294967295 win 500 <nop,nop,TS val 9 ecr "
      "4294967295>",
      "FP. 1:2(1) ack 1 win 5",
      ". 1:1(0) ack 1 win 5 <nop,nop,TS val 9 ecr 8,nop,nop,sack 3:4 7:9 1:2>",
      ". 1:1(0) ack 1 win 5 <nop,nop,sack 3:4 7:9 1:2 4294967290:3>",
      "R 5:5(0) win 0",
      "SEW 5:5(0) win 0",
      ".U 5:6(1) ack 2 win 9 urg 1",
      "- 4294967290:4(10) win 0",
  };
  for (const char* line : kLines) {
    auto segment = ParseSegment(line);
    ASSERT_TRUE(segment.ok()) << segment.status();
    EXPECT_TRUE(segment->has_wnd);
    EXPECT_EQ(FormatSegment(segment->header, segment->payload_bytes), line);
  }
}

TEST(NotationTest, WhatIsLeftOutIsSaid) {
  auto segment = ParseSegment("F.  1:1(0) ack 1");
  ASSERT_TRUE(segment.ok());
  EXPECT_FALSE(segment->has_wnd);
  EXPECT_FALSE(segment->has_options);
  EXPECT_EQ(segment->header.flags, kFin | kAck);

  segment = ParseSegment(". 1:1(0) ack 1 <>");
  ASSERT_TRUE(segment.ok());
  EXPECT_TRUE(segment->has_options);
  EXPECT_EQ(segment->header.options, TcpOptions());
}

TEST(NotationTest, OrderOfOptionsIsFree) {
  auto a = ParseSegment("S 0:0(0) win 9 <wscale 7,TS val 1 ecr 0,mss 1460>");
  auto b = ParseSegment(
      "S 0:0(0) win 9 <mss 1460, nop, TS val 1 ecr 0,"
      "nop, nop, wscale 7, eol>");
  ASSERT_TRUE(a.ok()) << a.status();
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ(a->header, b->header);
}

TEST(NotationTest, Mistakes) {
  struct Row {
    const char* line;
    const char* expected;
  };
  const Row kRows[] = {
      {"", "expected flags"},
      {"X 0:0(0)", "expected flags (FSRP.UEW or -) at 'X 0:0(0)'"},
      {"S 0(0)", "expected ':' at '(0)'"},
      {"S x:0(0)", "expected a number of 32 bits at 'x:0(0)'"},
      {"S 0:4294967296(0)", "expected a number of 32 bits"},
      {"S 0:5(4)", "expected the length"},
      {"S 0:0(0) ack 1", "'ack' if and only if"},
      {"S. 0:0(0)", "'ack' if and only if"},
      {"S 0:0(0) win 65536", "expected a number of 16 bits at '65536'"},
      {"S 0:0(0) <mss>", "expected an option"},
      {"S 0:0(0) <wscale 256>", "expected a number of 8 bits"},
      {"S 0:0(0) <mss 1", "expected '>' at ''"},
      {"S 0:0(0) <TS val 1>", "expected 'ecr '"},
      {"S 0:0(0) <sack 1:2 3:4 5:6 7:8 9:10>", "no more than four"},
      {"S 0:0(0) nonsense", "expected the end at 'nonsense'"},
  };
  for (const Row& row : kRows) {
    const auto segment = ParseSegment(row.line);
    ASSERT_FALSE(segment.ok()) << row.line;
    EXPECT_NE(segment.status().ToString().find(row.expected), std::string::npos)
        << segment.status();
  }
}

}  // namespace
}  // namespace devwire
