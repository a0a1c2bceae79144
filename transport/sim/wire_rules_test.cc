// The judge itself: what breaks a rule is seen.
#include "transport/sim/wire_rules.h"

#include <gtest/gtest.h>

#include <string>

namespace devwire {
namespace {

constexpr uint32_t kSmss = 1000;

// The peer has sent up to 500 and lets us send up to 3000.
class WireRulesTest : public ::testing::Test {
 protected:
  WireRulesTest() {
    Segment s;
    s.flags = kAck;
    s.seq = SeqNum(400);
    s.payload_bytes = 100;
    s.ack = SeqNum(1000);
    s.wnd = 2000;
    rules_.OnArrival(s, tcb_);
  }

  static TxSegment Ack(uint32_t ack, uint16_t wnd) {
    TxSegment s;
    s.flags = kAck;
    s.seq = SeqNum(1000);
    s.ack = SeqNum(ack);
    s.wnd = wnd;
    return s;
  }
  std::string Send(const TxSegment& s, uint32_t bytes = 0) {
    return rules_.OnSend(s, bytes, tcb_, kSmss);
  }

  Tcb tcb_;
  WireRules rules_;
};

TEST_F(WireRulesTest, AllIsWell) {
  EXPECT_EQ(Send(Ack(500, 100)), "");
  EXPECT_EQ(Send(Ack(500, 100), 1000), "");
}

TEST_F(WireRulesTest, TextBeyondTheWindow) {
  TxSegment s = Ack(500, 100);
  s.seq = SeqNum(2500);
  EXPECT_EQ(Send(s, 500), "");
  EXPECT_NE(Send(s, 501), "");
  s.seq = SeqNum(3000);
  EXPECT_EQ(Send(s, 1), "");  // A probe.
  s.seq = SeqNum(3001);
  EXPECT_NE(Send(s, 1), "");
}

TEST_F(WireRulesTest, TextAboveTheMss) {
  EXPECT_NE(Send(Ack(500, 100), 1001), "");
}

TEST_F(WireRulesTest, AckOfWhatNeverCame) {
  EXPECT_NE(Send(Ack(501, 100)), "");
}

TEST_F(WireRulesTest, AckRunsBack) {
  EXPECT_EQ(Send(Ack(500, 100)), "");
  EXPECT_NE(Send(Ack(499, 200)), "");
}

TEST_F(WireRulesTest, RightEdgeMovesLeft) {
  EXPECT_EQ(Send(Ack(450, 100)), "");
  EXPECT_EQ(Send(Ack(500, 50)), "");
  EXPECT_NE(Send(Ack(500, 49)), "");
}

TEST_F(WireRulesTest, RightEdgeMayLoseLessThanAUnit) {
  tcb_.rcv_wind_shift = 3;
  EXPECT_EQ(Send(Ack(451, 10)), "");
  EXPECT_EQ(Send(Ack(458, 9)), "");  // 530, was 531.
  EXPECT_NE(Send(Ack(459, 8)), "");  // 523.
}

TEST_F(WireRulesTest, Timestamps) {
  TxSegment s = Ack(500, 100);
  s.options.timestamps = {5, 0};
  EXPECT_NE(Send(s), "");  // Not agreed on.
  tcb_.snd_ts_ok = true;
  EXPECT_EQ(Send(s), "");
  EXPECT_NE(Send(Ack(500, 100)), "");
  s.options.timestamps = {4, 0};
  EXPECT_NE(Send(s), "");
}

TEST_F(WireRulesTest, SackBlocks) {
  const auto with = [](SackBlock a, SackBlock b) {
    TxSegment s = Ack(100, 1000);
    s.options.sack_block_count = 2;
    s.options.sack_blocks[0] = a;
    s.options.sack_blocks[1] = b;
    return s;
  };
  const auto block = [](uint32_t left, uint32_t right) {
    return SackBlock{SeqNum(left), SeqNum(right)};
  };
  EXPECT_EQ(Send(with(block(200, 300), block(400, 500))), "");
  EXPECT_EQ(Send(with(block(50, 90), block(400, 500))), "");    // DSACK.
  EXPECT_EQ(Send(with(block(420, 430), block(400, 500))), "");  // DSACK.
  EXPECT_NE(Send(with(block(400, 500), block(50, 90))), "");
  EXPECT_NE(Send(with(block(200, 300), block(400, 501))), "");
  EXPECT_NE(Send(with(block(200, 200), block(400, 500))), "");
}

TEST_F(WireRulesTest, OptionsOfSyns) {
  TxSegment s = Ack(500, 100);
  s.options.mss = uint16_t{1000};
  EXPECT_NE(Send(s), "");
}

}  // namespace
}  // namespace devwire
