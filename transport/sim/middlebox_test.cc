// Boxes on the way: what they do to segments.
#include "transport/sim/middlebox.h"

#include <gtest/gtest.h>

#include <vector>

#include "transport/sim/stream_bytes.h"

namespace devwire {
namespace {

constexpr Instant kNow = Instant::FromNanoseconds(1'000'000'000);
constexpr uint64_t kStream = 5;

SimFrame Text(uint32_t at, uint32_t bytes, uint8_t flags = kAck) {
  HeaderTemplate::Options o;
  o.tuple = {.local = {IpAddress::V4(10, 0, 0, 1), Port{1}},
             .remote = {IpAddress::V4(10, 0, 0, 2), Port{2}}};
  const HeaderTemplate headers(o);
  TcpHeader header;
  header.seq = SeqNum(1000 + at);
  header.ack = SeqNum(7);
  header.flags = flags;
  header.options.timestamps = {1, 2};
  if ((flags & kSyn) != 0) {
    header.options.mss = uint16_t{1460};
    header.options.window_scale = uint8_t{7};
    header.options.sack_permitted = true;
  }
  SimFrame frame(192 + bytes);
  const uint32_t n =
      headers.Emit(header, {.payload_bytes = bytes}, frame.data());
  frame.resize(n + bytes);
  FillStream(kStream, at, std::span(frame).subspan(n));
  WriteTcpChecksum(frame.data(), headers.l4_offset(), n,
                   std::span(frame).subspan(n));
  return frame;
}

struct Seen {
  ParsedFrame headers;
  SimFrame payload;
};

// All that comes out, each with right checksums and its text in place.
std::vector<Seen> Drain(Middlebox& box, Instant now) {
  std::vector<Seen> out;
  while (auto frame = box.Give(now)) {
    Seen s;
    const auto bytes = static_cast<uint32_t>(frame->size());
    EXPECT_EQ(ParseFrame(frame->data(), bytes, bytes, &s.headers),
              ParseResult::kTcp);
    EXPECT_TRUE(ChecksumsAreRight(frame->data(), s.headers));
    s.payload.assign(frame->begin() + s.headers.header_bytes, frame->end());
    EXPECT_TRUE(IsStream(kStream, s.headers.tcp.seq - SeqNum(1000), s.payload));
    out.push_back(s);
  }
  return out;
}

TEST(MiddleboxTest, StripsOptionsFromSyns) {
  Middlebox box({.strips_timestamps = true,
                 .strips_sack = true,
                 .strips_window_scale = true,
                 .mss_clamp = 1200},
                1);
  box.Take(Text(0, 0, kSyn), kNow);
  box.Take(Text(1, 10), kNow);
  const auto out = Drain(box, kNow);
  ASSERT_EQ(out.size(), 2u);
  const TcpOptions& syn = out[0].headers.tcp.options;
  EXPECT_EQ(syn.mss, 1200);
  EXPECT_FALSE(syn.timestamps || syn.window_scale || syn.sack_permitted);
  EXPECT_TRUE(out[1].headers.tcp.options.timestamps.has_value());
}

TEST(MiddleboxTest, StripsLaterSegmentsToo) {
  Middlebox box({.strips_timestamps = true, .strips_later_segments = true}, 1);
  box.Take(Text(0, 10), kNow);
  const auto out = Drain(box, kNow);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_FALSE(out[0].headers.tcp.options.timestamps.has_value());
  EXPECT_EQ(out[0].payload.size(), 10u);
}

TEST(MiddleboxTest, SplitsAndKeepsFinAtTheEnd) {
  Middlebox box({.split = 1}, 1);
  box.Take(Text(0, 1000, kAck | kFin | kPsh), kNow);
  const auto out = Drain(box, kNow);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].payload.size() + out[1].payload.size(), 1000u);
  EXPECT_EQ(out[0].headers.tcp.flags, kAck);
  EXPECT_EQ(out[1].headers.tcp.flags, kAck | kFin | kPsh);
}

TEST(MiddleboxTest, CutsToASize) {
  Middlebox box({.cut_bytes = 1}, 1);
  box.Take(Text(0, 3, kAck | kPsh), kNow);
  const auto out = Drain(box, kNow);
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(out[1].headers.tcp.flags, kAck);
  EXPECT_EQ(out[2].headers.tcp.flags, kAck | kPsh);
}

TEST(MiddleboxTest, MergesNeighboursAndWaitsNotForever) {
  Middlebox box({.merge = 1}, 1);
  box.Take(Text(0, 100), kNow);
  EXPECT_EQ(Drain(box, kNow).size(), 0u);
  box.Take(Text(100, 200, kAck | kPsh), kNow);
  auto out = Drain(box, kNow);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].payload.size(), 300u);
  EXPECT_EQ(out[0].headers.tcp.flags, kAck | kPsh);

  box.Take(Text(300, 100), kNow);
  box.Take(Text(500, 100), kNow);  // Not its neighbour.
  EXPECT_EQ(Drain(box, kNow).size(), 1u);
  EXPECT_EQ(box.NextEvent(), kNow + 2_ms);
  EXPECT_EQ(Drain(box, kNow + 2_ms).size(), 1u);
  EXPECT_EQ(box.NextEvent(), Instant::Never());
}

TEST(MiddleboxTest, PassesCorruptedFramesAsTheyCame) {
  Middlebox box({.strips_timestamps = true, .strips_later_segments = true}, 1);
  SimFrame frame = Text(0, 10);
  frame.back() ^= std::byte{1};
  box.Take(frame, kNow);
  EXPECT_EQ(box.Give(kNow), frame);
}

}  // namespace
}  // namespace devwire
