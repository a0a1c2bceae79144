#include "transport/sim/sim_packet_io.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "transport/sim/stream_bytes.h"

namespace devwire {
namespace {

constexpr MacAddress kMac = {2, 0, 0, 0, 0, 2};
constexpr uint64_t kIova = 0x1000;
constexpr uint32_t kKey = 5;

FourTuple Tuple() {
  return {*Endpoint::Parse("10.0.0.2:80"), *Endpoint::Parse("10.0.0.1:40000")};
}

// One NIC; the test plays the other end of both links.
class SimPacketIoTest : public ::testing::Test {
 protected:
  SimPacketIoTest()
      : out_({.delay = Duration()}, 1),
        in_({.delay = Duration()}, 2),
        control_({.id = PoolId{0}, .slot_count = 32, .slot_bytes = 9216}),
        device_({.id = PoolId{2}, .slot_count = 32, .slot_bytes = 9216}),
        control_memory_(32 * 9216),
        device_memory_(32 * 9216),
        send_memory_(100'000) {
    options_.limits = {.mac = kMac, .mtu = 9000, .max_tso_payload = 60'000};
    options_.rx_ring_slots = 8;
    options_.tx_depth = 4;
  }
  ~SimPacketIoTest() override {
    nic_.reset();
    EXPECT_EQ(control_.free_slots(), 32u);
    EXPECT_EQ(device_.free_slots(), 32u);
  }

  void Make() {
    nic_ = std::make_unique<SimPacketIo>(options_, clock_, out_, in_);
    nic_->AddPool(control_, control_memory_, true);
    nic_->AddPool(device_, device_memory_, false);
    nic_->RegisterSendMemory(kIova, kKey, send_memory_);
  }
  QueueId OpenQueue(HeaderShape shape = HeaderShape::kIpv4Timestamps) {
    return *nic_->OpenDataQueue(device_.id(), shape);
  }
  // A rule, and its answer taken.
  RuleId Add(FlowMatch::Kind kind, QueueId to) {
    const RuleId id = nic_->AddRule({.kind = kind, .tuple = Tuple()}, to);
    RuleEvent event;
    EXPECT_EQ(nic_->PollRules({&event, 1}), 1u);
    EXPECT_EQ(event.error, 0);
    return id;
  }
  // A frame from the peer, payload bytes from StreamBytes.
  SimFrame Frame(uint32_t payload, const TcpOptions& options,
                 HeaderTemplate::Options to = {}) {
    to.destination_mac = kMac;
    to.tuple = {.local = Tuple().remote, .remote = Tuple().local};
    SimFrame frame(192 + payload);
    const HeaderTemplate t(to);
    TcpHeader header;
    header.flags = kAck;
    header.options = options;
    const uint32_t bytes =
        t.Emit(header, {.payload_bytes = payload}, frame.data());
    frame.resize(bytes + payload);
    FillStream(1, 0, std::span(frame).subspan(bytes));
    WriteTcpChecksum(frame.data(), t.l4_offset(), bytes,
                     std::span(frame).subspan(bytes));
    return frame;
  }
  std::vector<RxFrame> Receive(const SimFrame& frame) {
    in_.Send(frame, clock_.Now());
    std::vector<RxFrame> got(16);
    got.resize(nic_->RxBurst(got));
    return got;
  }
  void Free(const RxFrame& f) {
    (f.pool == device_.id() ? device_ : control_).Free(f.slot);
  }
  const std::byte* SlotOf(const RxFrame& f) {
    return (f.pool == device_.id() ? device_memory_ : control_memory_).data() +
           static_cast<size_t>(f.slot) * 9216;
  }
  static TcpOptions WithTimestamps() {
    TcpOptions o;
    o.timestamps = Timestamps{1, 2};
    return o;
  }

  ManualClock clock_;
  SimLink out_;
  SimLink in_;
  FragPool control_;
  FragPool device_;
  std::vector<std::byte> control_memory_;
  std::vector<std::byte> device_memory_;
  std::vector<std::byte> send_memory_;
  SimPacketIo::Options options_;
  std::unique_ptr<SimPacketIo> nic_;
};

// The split table of docs/wire.md: where each payload byte lies, for header
// shorter, equal and longer than the split, and many payload sizes.
TEST_F(SimPacketIoTest, SplitAndPlaces) {
  TcpOptions sack = WithTimestamps();
  sack.sack_block_count = 3;
  HeaderTemplate::Options vlan;
  vlan.vlan_tci = 7;
  struct Row {
    const char* name;
    TcpOptions options;
    HeaderTemplate::Options to;
  };
  const Row kRows[] = {{"equal", WithTimestamps(), {}},
                       {"shorter", {}, {}},
                       {"longer", sack, {}},
                       {"VLAN", {}, vlan}};
  Make();
  const QueueId queue = OpenQueue();
  Add(FlowMatch::Kind::kConnection, queue);
  for (const Row& row : kRows) {
    for (uint32_t payload = 0; payload <= 8192; payload += 1 + payload / 50) {
      SCOPED_TRACE(std::string(row.name) + " " + std::to_string(payload));
      nic_->Replenish();
      const SimFrame frame = Frame(payload, row.options, row.to);
      const auto got = Receive(frame);
      ASSERT_EQ(got.size(), 1u);
      const RxFrame& rx = got[0];
      EXPECT_EQ(rx.frame_bytes, frame.size());
      EXPECT_EQ(rx.header_bytes, std::min<size_t>(66, frame.size()));
      EXPECT_EQ(rx.queue, queue);
      EXPECT_TRUE(rx.checksum_ok);
      EXPECT_FALSE(rx.whole_in_slot);
      ParsedFrame p;
      ASSERT_EQ(ParseFrame(rx.header, rx.header_bytes, rx.frame_bytes, &p),
                ParseResult::kTcp);
      ASSERT_EQ(p.payload_bytes, payload);
      const PayloadSplit s = SplitPayload(p, rx.header_bytes);
      EXPECT_TRUE(IsStream(1, 0, {rx.header + p.header_bytes, s.linear_bytes}));
      EXPECT_TRUE(IsStream(1, s.linear_bytes,
                           {SlotOf(rx) + s.device_offset, s.device_bytes}));
      Free(rx);
    }
  }
}

TEST_F(SimPacketIoTest, ControlQueueHoldsWholeFrames) {
  Make();
  Add(FlowMatch::Kind::kOwnedHost, kControlQueue);
  nic_->Replenish();
  SimFrame frame = Frame(2, {});
  frame.resize(60);  // Padded by the peer's NIC.
  const auto got = Receive(frame);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_TRUE(got[0].whole_in_slot);
  EXPECT_EQ(got[0].header_bytes, 60u);
  EXPECT_EQ(got[0].header, SlotOf(got[0]));
  EXPECT_EQ(nic_->stats().control_payload_bytes, 2u);
  Free(got[0]);
}

TEST_F(SimPacketIoTest, RulesByPriority) {
  Make();
  const QueueId queue = OpenQueue();
  EXPECT_EQ(OpenQueue(), queue) << "idempotent";
  EXPECT_FALSE(nic_->OpenDataQueue(PoolId{9}, HeaderShape::kIpv4Plain).ok());
  nic_->Replenish();
  const auto queue_of = [&](const SimFrame& frame) {
    const auto got = Receive(frame);
    if (got.empty()) return -1;
    Free(got[0]);
    return static_cast<int>(got[0].queue);
  };
  const SimFrame frame = Frame(10, WithTimestamps());
  EXPECT_EQ(queue_of(frame), -1);
  EXPECT_EQ(nic_->stats().rx_no_rule, 1u);
  Add(FlowMatch::Kind::kOwnedHost, kControlQueue);
  EXPECT_EQ(queue_of(frame), 0);
  const RuleId listener = Add(FlowMatch::Kind::kListener, kControlQueue);
  const RuleId narrow = Add(FlowMatch::Kind::kConnection, queue);
  EXPECT_EQ(queue_of(frame), static_cast<int>(queue));
  nic_->RemoveRule(narrow);
  EXPECT_EQ(queue_of(frame), 0);
  nic_->RemoveRule(listener);
  EXPECT_EQ(queue_of(frame), 0);
  SimFrame other = frame;
  other[5] = std::byte{9};
  EXPECT_EQ(queue_of(other), -1);
  EXPECT_EQ(nic_->stats().rx_other_mac, 1u);
}

TEST_F(SimPacketIoTest, PortBlockTakesItsPorts) {
  Make();
  nic_->Replenish();
  FlowMatch match{.kind = FlowMatch::Kind::kPortBlock,
                  .tuple = Tuple(),
                  .port_block_bits = 4};
  match.tuple.local.port = Port{64};  // 64 to 79.
  const RuleId id = nic_->AddRule(match, kControlQueue);
  EXPECT_EQ(Receive(Frame(1, {})).size(), 0u);  // Port 80.
  nic_->RemoveRule(id);
  match.tuple.local.port = Port{80};
  nic_->AddRule(match, kControlQueue);
  const auto got = Receive(Frame(1, {}));
  ASSERT_EQ(got.size(), 1u);
  Free(got[0]);
}

TEST_F(SimPacketIoTest, RulesComeLateOrNot) {
  options_.rule_delay = 5_ms;
  options_.max_rules = 1;
  Make();
  nic_->Replenish();
  const RuleId id = nic_->AddRule(
      {.kind = FlowMatch::Kind::kListener, .tuple = Tuple()}, kControlQueue);
  const RuleId refused = nic_->AddRule(
      {.kind = FlowMatch::Kind::kOwnedHost, .tuple = Tuple()}, kControlQueue);
  RuleEvent events[4];
  EXPECT_EQ(nic_->PollRules(events), 0u);
  EXPECT_GT(nic_->NextEvent(), clock_.Now());
  EXPECT_EQ(Receive(Frame(1, {})).size(), 0u) << "not installed yet";
  clock_.Advance(5_ms);
  ASSERT_EQ(nic_->PollRules(events), 2u);
  EXPECT_EQ(events[0].rule, id);
  EXPECT_EQ(events[0].error, 0);
  EXPECT_EQ(events[1].rule, refused);
  EXPECT_EQ(events[1].error, ENOMEM);
  EXPECT_EQ(nic_->PollRules(events), 0u);
  const auto got = Receive(Frame(1, {}));
  ASSERT_EQ(got.size(), 1u);
  Free(got[0]);
}

TEST_F(SimPacketIoTest, ChecksumFlag) {
  Make();
  Add(FlowMatch::Kind::kOwnedHost, kControlQueue);
  nic_->Replenish();
  SimFrame frame = Frame(100, {});
  frame.back() ^= std::byte{1};
  const auto got = Receive(frame);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_FALSE(got[0].checksum_ok);
  EXPECT_EQ(nic_->stats().rx_bad_checksum, 1u);
  Free(got[0]);
}

TEST_F(SimPacketIoTest, DryRingAndTooLongFrames) {
  Make();
  const QueueId queue = OpenQueue();
  Add(FlowMatch::Kind::kConnection, queue);
  nic_->Replenish();
  EXPECT_EQ(device_.owners().posted, 8u);
  EXPECT_EQ(Receive(Frame(9216 + 66, {})).size(), 0u);
  EXPECT_EQ(nic_->stats().rx_too_long, 1u);
  std::vector<RxFrame> held;
  for (int i = 0; i < 10; ++i) {
    for (const RxFrame& f : Receive(Frame(10, {}))) held.push_back(f);
  }
  EXPECT_EQ(held.size(), 8u);
  EXPECT_EQ(nic_->stats().rx_ring_dry, 2u);
  for (const RxFrame& f : held) Free(f);
  nic_->Replenish();
  EXPECT_EQ(device_.owners().posted, 8u);
}

TEST_F(SimPacketIoTest, SendsAreGatheredLateAndInOrder) {
  options_.gather_delay = 1_ms;
  Make();
  FillStream(9, 0, send_memory_);
  HeaderTemplate::Options to;
  to.tuple = Tuple();
  const HeaderTemplate t(to);
  uint64_t last = 0;
  for (int i = 0; i < 4; ++i) {
    std::byte* at = nic_->TxHeader();
    ASSERT_NE(at, nullptr);
    TxFrame frame;
    frame.header_bytes = t.Emit({}, {.payload_bytes = 30}, at);
    frame.piece_count = 2;
    frame.pieces[0] = {kIova + 100, 10, kKey};
    frame.pieces[1] = {kIova + 500, 20, kKey};
    last = nic_->TxPost(frame);
  }
  EXPECT_EQ(last, 4u);
  EXPECT_EQ(nic_->TxHeader(), nullptr) << "the ring is full";
  EXPECT_EQ(nic_->NextEvent(), Instant::Never()) << "no doorbell yet";
  nic_->TxFlush();
  // Still the NIC's: what is written now is what goes out.
  send_memory_[100] = std::byte{0xee};
  EXPECT_LT(nic_->tx_completed(), 4u);
  clock_.Advance(5_ms);
  RxFrame none[1];
  nic_->RxBurst(none);
  EXPECT_EQ(nic_->tx_completed(), 4u);
  int arrived = 0;
  bool saw_late_write = false;
  while (const auto frame = out_.Receive(clock_.Now())) {
    ParsedFrame p;
    const auto bytes = static_cast<uint32_t>(frame->size());
    ASSERT_EQ(ParseFrame(frame->data(), bytes, bytes, &p), ParseResult::kTcp);
    EXPECT_TRUE(ChecksumsAreRight(frame->data(), p));
    EXPECT_EQ(p.payload_bytes, 30u);
    saw_late_write |= (*frame)[p.header_bytes] == std::byte{0xee};
    EXPECT_TRUE(
        IsStream(9, 500, std::span(*frame).subspan(p.header_bytes + 10, 20)));
    ++arrived;
  }
  EXPECT_EQ(arrived, 4);
  EXPECT_TRUE(saw_late_write);
}

TEST_F(SimPacketIoTest, TsoCutsLikeANic) {
  Make();
  FillStream(9, 0, send_memory_);
  HeaderTemplate::Options to;
  to.tuple = Tuple();
  TcpHeader header;
  header.seq = SeqNum(0u - 1000);  // Wraps on the way.
  header.flags = kAck | kPsh | kFin | kCwr;
  TxFrame frame;
  frame.header_bytes = HeaderTemplate(to).Emit(
      header, {.payload_bytes = 2500, .is_tso = true, .identification = 0xffff},
      nic_->TxHeader());
  frame.tso_mss = 1000;
  frame.piece_count = 1;
  frame.pieces[0] = {kIova, 2500, kKey};
  nic_->TxPost(frame);
  nic_->TxFlush();
  for (uint32_t i = 0; i < 3; ++i) {
    const auto got = out_.Receive(clock_.Now());
    ASSERT_TRUE(got.has_value());
    const auto bytes = static_cast<uint32_t>(got->size());
    ParsedFrame p;
    ASSERT_EQ(ParseFrame(got->data(), bytes, bytes, &p), ParseResult::kTcp);
    EXPECT_TRUE(ChecksumsAreRight(got->data(), p));
    EXPECT_EQ(p.payload_bytes, i < 2 ? 1000u : 500u);
    EXPECT_EQ(p.tcp.seq, header.seq + 1000 * i);
    EXPECT_EQ(p.tcp.flags, i == 0   ? kAck | kCwr
                           : i == 1 ? kAck
                                    : kAck | kPsh | kFin);
    EXPECT_EQ(LoadBe16(got->data() + 18), static_cast<uint16_t>(0xffff + i));
    EXPECT_TRUE(IsStream(9, 1000 * i, std::span(*got).subspan(p.header_bytes)));
  }
  EXPECT_FALSE(out_.Receive(clock_.Now()).has_value());
}

}  // namespace
}  // namespace devwire
