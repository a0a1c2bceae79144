#include "transport/wire/tcp_options.h"

#include <gtest/gtest.h>

#include <vector>

#include "transport/wire/byte_order.h"

namespace devwire {
namespace {

std::vector<std::byte> Bytes(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int v : values) bytes.push_back(static_cast<std::byte>(v));
  return bytes;
}

TcpOptionsResult Parse(const std::vector<std::byte>& bytes, TcpOptions* out) {
  const auto n = static_cast<uint32_t>(bytes.size());
  return ParseTcpOptions(bytes.data(), n, n, out);
}

// Linux's order; the golden capture has each of these from Linux itself.
TEST(TcpOptionsTest, EmittedInLinuxsOrder) {
  TcpOptions o;
  o.mss = 1460;
  o.sack_permitted = true;
  o.timestamps = Timestamps{0x01020304, 0x05060708};
  o.window_scale = 7;
  std::byte at[40];
  ASSERT_EQ(EmitTcpOptions(o, at), 20u);
  EXPECT_EQ(
      std::vector<std::byte>(at, at + 20),
      Bytes({2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7}));
  o.timestamps.reset();
  ASSERT_EQ(EmitTcpOptions(o, at), 12u);
  EXPECT_EQ(std::vector<std::byte>(at, at + 12),
            Bytes({2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7}));
}

TEST(TcpOptionsTest, EveryCombinationComesBack) {
  for (int bits = 0; bits < 16; ++bits) {
    for (int blocks = 0; blocks <= kMaxSackBlocks; ++blocks) {
      TcpOptions o;
      if ((bits & 1) != 0) o.mss = 536;
      if ((bits & 2) != 0) o.sack_permitted = true;
      if ((bits & 4) != 0) o.timestamps = Timestamps{~0u, 1};
      if ((bits & 8) != 0) o.window_scale = 255;
      o.sack_block_count = static_cast<uint8_t>(blocks);
      for (int i = 0; i < blocks; ++i) {
        o.sack_blocks[i] = {SeqNum(~0u - i), SeqNum(i)};
      }
      const uint32_t bytes = TcpOptionsBytes(o);
      if (bytes > kMaxTcpOptionBytes) continue;
      SCOPED_TRACE(bits * 10 + blocks);
      std::byte at[kMaxTcpOptionBytes];
      EXPECT_EQ(EmitTcpOptions(o, at), bytes);
      EXPECT_EQ(bytes % 4, 0u);
      TcpOptions back;
      EXPECT_EQ(ParseTcpOptions(at, bytes, bytes, &back),
                TcpOptionsResult::kOk);
      EXPECT_EQ(back, o);
    }
  }
}

TEST(TcpOptionsTest, UnknownKindsAreSkipped) {
  TcpOptions o;
  EXPECT_EQ(Parse(Bytes({30, 4, 9, 9, 254, 2, 1, 2, 4, 5, 0xb4, 0}), &o),
            TcpOptionsResult::kOk);
  EXPECT_EQ(o.mss, 1460);
}

// RFC 9293 MUST-64: an option need not begin on a word.
TEST(TcpOptionsTest, AnyAlignment) {
  for (size_t before = 0; before < 8; ++before) {
    SCOPED_TRACE(before);
    std::vector<std::byte> options(before, std::byte{kOptionNop});
    for (const int byte : {2, 4, 5, 0xb4, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9}) {
      options.push_back(static_cast<std::byte>(byte));
    }
    TcpOptions o;
    EXPECT_EQ(Parse(options, &o), TcpOptionsResult::kOk);
    EXPECT_EQ(o.mss, 1460);
    EXPECT_EQ(o.timestamps, (Timestamps{7, 9}));
  }
}

TEST(TcpOptionsTest, NothingIsReadBehindTheEnd) {
  TcpOptions o;
  EXPECT_EQ(Parse(Bytes({0, 2, 4, 5, 0xb4, 1, 1, 1}), &o),
            TcpOptionsResult::kOk);
  EXPECT_FALSE(o.mss.has_value());
}

TEST(TcpOptionsTest, OfTwoTheLastCounts) {
  TcpOptions o;
  EXPECT_EQ(Parse(Bytes({2, 4, 0, 1, 2, 4, 0, 2}), &o), TcpOptionsResult::kOk);
  EXPECT_EQ(o.mss, 2);
}

// What stands before the mistake counts, as in Linux.
TEST(TcpOptionsTest, Malformed) {
  struct Row {
    const char* name;
    std::vector<std::byte> bytes;
  };
  const Row kRows[] = {
      {"length 0", Bytes({2, 4, 0, 9, 8, 0, 1, 1})},
      {"length 1", Bytes({2, 4, 0, 9, 8, 1, 1, 1})},
      {"unknown kind, length 1", Bytes({2, 4, 0, 9, 99, 1, 1, 1})},
      {"kind without a length", Bytes({2, 4, 0, 9, 1, 1, 1, 8})},
      {"beyond the header", Bytes({2, 4, 0, 9, 8, 10, 1, 1})},
      {"unknown kind beyond", Bytes({2, 4, 0, 9, 99, 5, 1, 1})},
      {"mss of 3", Bytes({2, 4, 0, 9, 2, 3, 0, 1})},
      {"wscale of 4", Bytes({2, 4, 0, 9, 3, 4, 0, 0})},
      {"sackOK of 4", Bytes({2, 4, 0, 9, 4, 4, 0, 0})},
      {"timestamps of 4", Bytes({2, 4, 0, 9, 8, 4, 0, 0})},
      {"sack of 2", Bytes({2, 4, 0, 9, 5, 2, 1, 1})},
      {"sack of 9", Bytes({2, 4, 0, 9, 5, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1})},
  };
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    TcpOptions o;
    EXPECT_EQ(Parse(row.bytes, &o), TcpOptionsResult::kMalformed);
    EXPECT_EQ(o.mss, 9);
    EXPECT_FALSE(o.timestamps.has_value());
    EXPECT_EQ(o.sack_block_count, 0);
  }
}

// A cut is no mistake: what lies behind it is not known.
TEST(TcpOptionsTest, CutAnywhere) {
  TcpOptions o;
  o.timestamps = Timestamps{1, 2};
  o.sack_block_count = 3;
  std::byte at[40];
  const uint32_t bytes = EmitTcpOptions(o, at);
  ASSERT_EQ(bytes, 40u);
  for (uint32_t available = 0; available < bytes; ++available) {
    // A copy of what is readable, for the sanitizer to watch.
    const std::vector<std::byte> visible(at, at + available);
    TcpOptions back;
    EXPECT_EQ(ParseTcpOptions(visible.data(), available, bytes, &back),
              TcpOptionsResult::kCut)
        << available;
    EXPECT_EQ(back.timestamps.has_value(), available >= 12) << available;
    EXPECT_EQ(back.sack_block_count, 0);
  }
}

}  // namespace
}  // namespace devwire
