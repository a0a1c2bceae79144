// The relay between two ports that a test holds in its hands.
#include "softnic/relay.h"

#include <cstring>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "softnic/frame_checksum.h"
#include "softnic/golden_frames.h"
#include "softnic/packet.h"

namespace softnic {
namespace {

using ::testing::ElementsAre;
using Bytes = std::vector<std::byte>;

class FakePort final : public Port {
 public:
  struct Sent {
    Bytes bytes;
    bool is_owed = false;
  };
  Offloads offloads() const override { return {.checksum = has_offload}; }
  bool Send(const TxFrame& frame) override {
    if (sent_frames.size() >= room) return false;
    EXPECT_EQ(frame.header.size(), frame.length);
    sent_frames.push_back({Bytes(frame.header.begin(), frame.header.end()),
                           frame.l4_checksum_owed});
    return true;
  }
  void Flush() override { ++flushes; }
  uint64_t sent() const override { return sent_frames.size(); }
  uint64_t completed() const override { return sent_frames.size(); }
  void Progress(uint32_t budget, Receiver& receiver) override {
    for (; budget > 0 && !arriving.empty(); --budget) {
      const Bytes bytes = arriving.front();
      arriving.pop_front();
      const Piece pieces[] = {
          {bytes.data(), 60},
          {bytes.data() + 60, static_cast<uint32_t>(bytes.size() - 60)}};
      receiver.OnFrame({.pieces = {pieces, bytes.size() > 60 ? 2u : 1u},
                        .length = static_cast<uint32_t>(bytes.size()),
                        .checksum = checksum});
    }
  }
  bool link_up() const override { return true; }

  // Frames of 100 bytes; the first byte is the number.
  void Arrive(int from, int to) {
    for (int i = from; i < to; ++i) {
      arriving.emplace_back(100, static_cast<std::byte>(i));
    }
  }
  std::vector<int> Numbers() const {
    std::vector<int> numbers;
    for (const Sent& s : sent_frames) {
      numbers.push_back(static_cast<int>(s.bytes[0]));
    }
    return numbers;
  }

  bool has_offload = true;
  size_t room = SIZE_MAX;
  int flushes = 0;
  RxChecksum checksum = RxChecksum::kGood;
  std::deque<Bytes> arriving;
  std::vector<Sent> sent_frames;
};

TEST(Relay, PassesFramesBothWaysInOrder) {
  FakePort a, b;
  Relay relay(&a, &b, {});
  EXPECT_FALSE(relay.Turn());
  a.Arrive(0, 3);
  b.Arrive(7, 9);
  EXPECT_TRUE(relay.Turn());
  EXPECT_THAT(b.Numbers(), ElementsAre(0, 1, 2));
  EXPECT_THAT(a.Numbers(), ElementsAre(7, 8));
  EXPECT_EQ(b.sent_frames[2].bytes, Bytes(100, std::byte{2}));
  EXPECT_EQ(b.flushes, 1);
  EXPECT_FALSE(relay.Turn());
  EXPECT_EQ(relay.a_to_b().frames.value(), 3u);
  EXPECT_EQ(relay.a_to_b().bytes.value(), 300u);
  EXPECT_EQ(relay.b_to_a().frames.value(), 2u);
}

// The queue holds what the port does not take yet; its tail is dropped.
TEST(Relay, DropsWhatTheQueueHasNoRoomFor) {
  FakePort a, b;
  b.room = 0;
  Relay relay(&a, &b, {.queue_frames = 3});
  a.Arrive(0, 5);
  EXPECT_TRUE(relay.Turn());
  EXPECT_EQ(relay.a_to_b().dropped.value(), 2u);
  EXPECT_EQ(b.flushes, 0);
  b.room = 2;
  EXPECT_TRUE(relay.Turn());
  EXPECT_FALSE(relay.Turn());
  a.Arrive(5, 8);
  relay.Turn();
  b.room = SIZE_MAX;
  relay.Turn();
  EXPECT_THAT(b.Numbers(), ElementsAre(0, 1, 2, 5, 6));
  EXPECT_EQ(relay.a_to_b().dropped.value(), 3u);
}

TEST(Relay, DropsFramesThatAreTooLong) {
  FakePort a, b;
  Relay relay(&a, &b, {.max_frame_bytes = 99});
  a.Arrive(0, 1);
  EXPECT_TRUE(relay.Turn());
  EXPECT_EQ(relay.a_to_b().too_long.value(), 1u);
  EXPECT_TRUE(b.sent_frames.empty());
}

// A checksum that Linux left open stays so where the other port takes such
// frames, and is finished where not.
TEST(Relay, FinishesOwedChecksumsForAPortWithoutOffload) {
  for (const GoldenFrame& golden : GoldenFrames()) {
    if (golden.l4_protocol == 0 || golden.is_fragment) continue;
    Bytes whole(golden.bytes.size());
    memcpy(whole.data(), golden.bytes.data(), whole.size());
    const auto length = static_cast<uint32_t>(whole.size());
    Bytes owed = whole;
    WriteOwedL4Checksum(ParseFrame(owed, length), owed.data());
    for (const bool has_offload : {true, false}) {
      FakePort a, b;
      a.checksum = RxChecksum::kOwed;
      b.has_offload = has_offload;
      Relay relay(&a, &b, {.max_frame_bytes = 10'000});
      a.arriving.push_back(owed);
      relay.Turn();
      ASSERT_EQ(b.sent_frames.size(), 1u) << golden.name;
      EXPECT_EQ(b.sent_frames[0].is_owed, has_offload) << golden.name;
      EXPECT_EQ(b.sent_frames[0].bytes, has_offload ? owed : whole)
          << golden.name;
    }
  }
}

}  // namespace
}  // namespace softnic
