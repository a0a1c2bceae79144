// VerbsPacketIo over softnic: two hosts in one process, a cable in between.
#include "transport/verbs/verbs_packet_io.h"

#include <errno.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/alloc_guard.h"
#include "base/clock.h"
#include "base/prng.h"
#include "gtest/gtest.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

constexpr Port kFrom{1000};
constexpr Port kTo{2000};

std::string TwoDevices(const std::string& more = "") {
  const std::string port = ",port=shm:" + CablePath() + ",mtu=9000" + more;
  return "dev=sn0" + port + ";dev=sn1" + port;
}

std::vector<std::byte> RandomBytes(uint64_t seed, size_t n) {
  Prng prng(seed);
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>(prng.Next32());
  return bytes;
}

class TwoHosts : public ::testing::Test {
 protected:
  void Connect(const std::string& config, HostOptions options = {}) {
    ConfigureSoftnic(config);
    options.device = "sn0";
    options.ip = IpAddress::V4(10, 0, 0, 1);
    a_.emplace(options);
    options.device = "sn1";
    options.ip = IpAddress::V4(10, 0, 0, 2);
    b_.emplace(options);
    a_->io().Replenish();
    b_->io().Replenish();
  }
  void TearDown() override {
    for (TestHost* host : {a_ ? &*a_ : nullptr, b_ ? &*b_ : nullptr}) {
      if (host == nullptr) continue;
      host->pool().CheckInvariants();
      EXPECT_EQ(host->pool().owners().reassembly, 0u);
      EXPECT_EQ(host->pool().owners().application, 0u);
    }
    a_.reset();  // Its pools CHECK that every slot is free.
    b_.reset();
  }

  // b receives frames from a on this queue.
  void SteerToB(QueueId queue) {
    ASSERT_EQ(b_->AwaitRule(b_->Steer(*a_, kFrom, kTo, queue)), 0);
  }
  QueueId DataQueue(TestHost& host,
                    HeaderShape shape = HeaderShape::kIpv4Timestamps) {
    const auto queue = host.io().OpenDataQueue(kDevicePoolId, shape);
    EXPECT_TRUE(queue.ok()) << queue.status();
    EXPECT_TRUE(Eventually([&] {
      RxFrame frames[1];
      EXPECT_EQ(host.io().RxBurst(frames), 0u);
      host.io().Replenish();
      return host.io().PostedReceives(*queue) > 0;
    }));
    return *queue;
  }
  // The next frame that b receives; fails after a while.
  RxFrame NextFrame(TestHost& host) {
    std::array<RxFrame, 1> frames;
    EXPECT_TRUE(Eventually([&] {
      PollBoth();
      return host.io().RxBurst(frames) == 1;
    }));
    return frames[0];
  }
  // Drives the sender's side, too: softnic works inside the verbs calls.
  void PollBoth() {
    std::array<RxFrame, 1> none;
    EXPECT_EQ(a_->io().RxBurst(none), 0u);
  }
  void FreeSlot(TestHost& host, const RxFrame& frame) {
    (frame.pool == kControlPoolId ? host.control_pool() : host.pool())
        .Free(frame.slot);
  }

  std::optional<TestHost> a_;
  std::optional<TestHost> b_;
};

// The main job in small: bytes of a's device memory arrive in b's, the header
// in host memory, and the split is where the shape says.
TEST_F(TwoHosts, OneSegmentFromDeviceMemoryToDeviceMemory) {
  Connect(TwoDevices());
  const QueueId queue = DataQueue(*b_);
  SteerToB(queue);
  const auto sent = RandomBytes(1, 8948);
  ASSERT_TRUE(a_->memory().CopyIn(4096, sent).ok());
  const auto ticket =
      a_->Send({.to = &*b_, .offset = 4096, .payload_bytes = 8948});
  ASSERT_TRUE(ticket.has_value());
  EXPECT_LT(a_->io().tx_completed(), *ticket);
  EXPECT_TRUE(a_->device().LinkIsUp());
  a_->io().TxFlush();

  const RxFrame frame = NextFrame(*b_);
  EXPECT_EQ(frame.queue, queue);
  EXPECT_EQ(frame.pool, kDevicePoolId);
  EXPECT_EQ(frame.header_bytes, 66u);
  EXPECT_EQ(frame.frame_bytes, 66u + 8948u);
  EXPECT_TRUE(frame.checksum_ok);
  EXPECT_FALSE(frame.whole_in_slot);
  EXPECT_EQ(b_->ReadSlot(frame.slot, 8948), sent);
  FreeSlot(*b_, frame);
  EXPECT_TRUE(Eventually([&] {
    PollBoth();
    return a_->io().tx_completed() == *ticket;
  }));
  EXPECT_EQ(b_->NicCounters().payload_landed_host_bytes, 0u);
  EXPECT_EQ(b_->NicCounters().payload_landed_dmabuf_bytes, 8948u);
}

// Nothing can read payload by its address: one line that did would crash every
// test of this file, as it does here.
TEST_F(TwoHosts, PayloadAddressesAreNotMapped) {
  Connect(TwoDevices());
  const auto at = b_->region().iova();
  EXPECT_DEATH(
      {
        const auto* payload = reinterpret_cast<volatile const char*>(at);
        std::printf("%d", *payload);
      },
      "");
}

// A header that is shorter than the split leaves payload in the header slot; a
// longer one puts option bytes into the payload slot. docs/wire.md.
TEST_F(TwoHosts, SplitFallsAtItsByteWhateverTheHeader) {
  Connect(TwoDevices());
  const QueueId wide = DataQueue(*b_);
  SteerToB(wide);
  const auto sent = RandomBytes(2, 3000);
  ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
  for (const uint32_t bytes : {1u, 6u, 11u, 12u, 13u, 1448u, 3000u}) {
    a_->Send({.to = &*b_, .payload_bytes = bytes, .timestamps = false});
    a_->io().TxFlush();
    const RxFrame frame = NextFrame(*b_);
    const uint32_t frame_bytes = std::max(60u, 54 + bytes);  // 60: padding.
    EXPECT_EQ(frame.frame_bytes, frame_bytes);
    EXPECT_EQ(frame.header_bytes, std::min(66u, frame_bytes));
    const uint32_t linear = std::min(12u, bytes);
    EXPECT_EQ(memcmp(frame.header + 54, sent.data(), linear), 0);
    const auto slot = b_->ReadSlot(frame.slot, bytes - linear);
    EXPECT_TRUE(std::equal(slot.begin(), slot.end(), sent.begin() + linear));
    FreeSlot(*b_, frame);
  }
}

TEST_F(TwoHosts, LongerHeaderPutsOptionBytesIntoTheSlot) {
  Connect(TwoDevices());
  const QueueId narrow = DataQueue(*b_, HeaderShape::kIpv4Plain);
  SteerToB(narrow);
  const auto sent = RandomBytes(3, 100);
  ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
  a_->Send({.to = &*b_, .payload_bytes = 100});
  a_->io().TxFlush();
  const RxFrame frame = NextFrame(*b_);
  EXPECT_EQ(frame.header_bytes, 54u);
  // NOP NOP TS, 12 bytes (RFC 7323 appendix A), through the provider.
  std::array<std::byte, 12> options;
  const OptionTail tail = {
      .offset =
          uint64_t{static_cast<uint32_t>(frame.slot)} * b_->pool().slot_bytes(),
      .length = 12,
      .out = options.data()};
  ASSERT_TRUE(b_->memory().ReadOptionTails({&tail, 1}));
  const uint8_t want[] = {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2};
  EXPECT_EQ(memcmp(options.data(), want, 12), 0);
  const auto slot = b_->ReadSlot(frame.slot, 112);
  EXPECT_TRUE(std::equal(sent.begin(), sent.end(), slot.begin() + 12));
  FreeSlot(*b_, frame);
}

// Everything that no narrower rule takes comes to the control queue, whole.
TEST_F(TwoHosts, ControlQueueSeesWholeFrames) {
  Connect(TwoDevices());
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(
                {.kind = FlowMatch::Kind::kOwnedHost}, kControlQueue)),
            0);
  const QueueId queue = DataQueue(*b_);
  SteerToB(queue);
  const auto sent = RandomBytes(4, 500);
  ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
  a_->Send({.to = &*b_, .from_port = Port{7}, .payload_bytes = 500});
  a_->Send({.to = &*b_, .payload_bytes = 500});
  a_->io().TxFlush();
  const RxFrame whole = NextFrame(*b_);
  EXPECT_EQ(whole.queue, kControlQueue);
  EXPECT_TRUE(whole.whole_in_slot);
  EXPECT_EQ(whole.header_bytes, 566u);
  EXPECT_EQ(memcmp(whole.header + 66, sent.data(), 500), 0);
  FreeSlot(*b_, whole);
  const RxFrame split = NextFrame(*b_);
  EXPECT_EQ(split.queue, queue);
  FreeSlot(*b_, split);
}

// The four kinds of rule, narrowest first, and what each leaves to the next.
TEST_F(TwoHosts, RulesMatchByKindAndPriority) {
  Connect(TwoDevices());
  const QueueId q1 = DataQueue(*b_);
  const QueueId q2 = DataQueue(*b_, HeaderShape::kIpv4Plain);
  FlowMatch block;
  block.kind = FlowMatch::Kind::kPortBlock;
  block.tuple.local = {b_->ip(), Port{2048}};
  block.port_block_bits = 4;
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(block, q1)), 0);
  FlowMatch listener;
  listener.kind = FlowMatch::Kind::kListener;
  listener.tuple.local = {b_->ip(), kTo};
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(listener, q2)), 0);
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(
                {.kind = FlowMatch::Kind::kOwnedHost}, kControlQueue)),
            0);
  struct Row {
    Port to;
    QueueId want;
  };
  const Row rows[] = {{Port{2047}, kControlQueue},
                      {Port{2048}, q1},
                      {Port{2063}, q1},
                      {Port{2064}, kControlQueue},
                      {kTo, q2}};
  for (const Row& row : rows) {
    a_->Send({.to = &*b_, .to_port = row.to, .payload_bytes = 10});
    a_->io().TxFlush();
    const RxFrame frame = NextFrame(*b_);
    EXPECT_EQ(frame.queue, row.want) << static_cast<int>(row.to);
    FreeSlot(*b_, frame);
  }
  const RuleId narrow = b_->Steer(*a_, kFrom, kTo, q1);
  ASSERT_EQ(b_->AwaitRule(narrow), 0);
  a_->Send({.to = &*b_, .payload_bytes = 10});
  a_->io().TxFlush();
  const RxFrame moved = NextFrame(*b_);
  EXPECT_EQ(moved.queue, q1);
  FreeSlot(*b_, moved);
  b_->io().RemoveRule(narrow);
  EXPECT_TRUE(Eventually(
      [&] { return b_->io().control_counters().rules_removed.value() == 1; }));
  a_->Send({.to = &*b_, .payload_bytes = 10});
  a_->io().TxFlush();
  const RxFrame back = NextFrame(*b_);
  EXPECT_EQ(back.queue, q2);
  FreeSlot(*b_, back);
}

TEST_F(TwoHosts, TsoIsCutByTheNic) {
  Connect(TwoDevices());
  EXPECT_GT(a_->io().limits().max_tso_payload, 60000u);
  SteerToB(DataQueue(*b_));
  const auto sent = RandomBytes(5, 60000);
  ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
  const auto ticket =
      a_->Send({.to = &*b_, .payload_bytes = 60000, .tso_mss = 8948});
  a_->io().TxFlush();
  std::vector<std::byte> got;
  while (got.size() < sent.size()) {
    const RxFrame frame = NextFrame(*b_);
    ASSERT_GT(frame.frame_bytes, 66u);
    EXPECT_TRUE(frame.checksum_ok);
    const auto part = b_->ReadSlot(frame.slot, frame.frame_bytes - 66);
    got.insert(got.end(), part.begin(), part.end());
    FreeSlot(*b_, frame);
    b_->io().Replenish();
  }
  EXPECT_EQ(got, sent);
  EXPECT_TRUE(Eventually([&] {
    PollBoth();
    return a_->io().tx_completed() == *ticket;
  }));
}

TEST_F(TwoHosts, WithoutTsoLimitsSaySo) {
  Connect(TwoDevices(",tso=0,max_sge=4"));
  EXPECT_EQ(a_->io().limits().max_tso_payload, 0u);
  EXPECT_EQ(a_->io().limits().max_tx_pieces, 3u);
}

// Steady state: many times round both rings, without one allocation; every
// ticket completes and every slot comes back.
TEST_F(TwoHosts, ThousandsOfFramesAllocateNothing) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  uint64_t sent = 0;
  uint64_t got = 0;
  const TestHost::Segment segment = {.to = &*b_, .payload_bytes = 1448};
  // softnic's cable is plugged in by the first frames.
  uint64_t last_ticket = *a_->Send(segment);
  a_->io().TxFlush();
  FreeSlot(*b_, NextFrame(*b_));
  for (int i = 0; i < 10; ++i) PollBoth();
  std::array<RxFrame, 64> frames;
  std::optional<AllocFreeze> freeze(std::in_place);
  for (int round = 0; round < 100000 && got < 20000; ++round) {
    for (int i = 0; i < 16 && sent < 20000 && sent - got < 16; ++i) {
      const auto ticket = a_->Send(segment);
      if (!ticket.has_value()) break;
      ++sent;
      ASSERT_EQ(*ticket, last_ticket + 1);
      last_ticket = *ticket;
    }
    a_->io().TxFlush();
    ASSERT_EQ(a_->io().RxBurst(frames), 0u);
    ASSERT_LE(a_->io().tx_completed(), last_ticket);
    const size_t n = b_->io().RxBurst(frames);
    for (size_t i = 0; i < n; ++i) FreeSlot(*b_, frames[i]);
    got += n;
    b_->io().Replenish();
  }
  freeze.reset();
  EXPECT_EQ(got, 20000u);
  EXPECT_TRUE(Eventually([&] {
    return a_->io().RxBurst(frames) == 0 &&
           a_->io().tx_completed() == last_ticket;
  }));
}

// A full send queue refuses the next header until something completed.
TEST_F(TwoHosts, FullSendQueueRefuses) {
  Connect(TwoDevices(",late_gather=20ms"));
  std::array<RxFrame, 1> none;
  uint64_t last = 0;
  int sent = 0;
  for (; sent < 1000; ++sent) {
    const auto ticket = a_->Send({.to = &*b_, .payload_bytes = 10});
    if (!ticket.has_value()) break;
    last = *ticket;
  }
  EXPECT_EQ(sent, 64);  // The fixture's ring.
  EXPECT_EQ(a_->io().TxHeader(), nullptr);
  a_->io().TxFlush();
  EXPECT_EQ(a_->io().TxHeader(), nullptr);
  EXPECT_TRUE(Eventually([&] {
    PollBoth();
    EXPECT_EQ(b_->io().RxBurst(none), 0u);  // No rule: dropped.
    return a_->io().tx_completed() == last;
  }));
  EXPECT_NE(a_->io().TxHeader(), nullptr);
}

// The NIC reads a send's memory late: the ticket is what says when it may
// change.
TEST_F(TwoHosts, TicketCoversLateGather) {
  Connect(TwoDevices(",late_gather=20ms"));
  SteerToB(DataQueue(*b_));
  const auto sent = RandomBytes(6, 1000);
  ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
  const auto ticket = a_->Send({.to = &*b_, .payload_bytes = 1000});
  a_->io().TxFlush();
  PollBoth();
  EXPECT_LT(a_->io().tx_completed(), *ticket);
  // softnic's cable: the receiver takes the payload from the sender's memory.
  const RxFrame frame = NextFrame(*b_);
  ASSERT_TRUE(Eventually([&] {
    PollBoth();
    return a_->io().tx_completed() == *ticket;
  }));
  ASSERT_TRUE(a_->memory().CopyIn(0, RandomBytes(7, 1000)).ok());
  EXPECT_EQ(b_->ReadSlot(frame.slot, 1000), sent);
  FreeSlot(*b_, frame);
}

// Payload is written after its completion: MakeVisible is what ends that.
TEST_F(TwoHosts, LateScatterIsVisibleAfterMakeVisible) {
  Connect(TwoDevices(",late_scatter=10s"));
  SteerToB(DataQueue(*b_));
  const auto sent = RandomBytes(8, 1000);
  ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
  a_->Send({.to = &*b_, .payload_bytes = 1000});
  a_->io().TxFlush();
  const RxFrame frame = NextFrame(*b_);
  EXPECT_NE(b_->ReadSlot(frame.slot, 1000), sent);
  EXPECT_TRUE(b_->memory().needs_make_visible());
  b_->memory().MakeVisible();
  EXPECT_EQ(b_->ReadSlot(frame.slot, 1000), sent);
  FreeSlot(*b_, frame);
}

// -- trouble ------------------------------------------------------------------

class Trouble : public TwoHosts {
 protected:
  // Sends until a frame arrives again: some are lost while a queue is remade.
  void ExpectTrafficRecovers() {
    std::array<RxFrame, 8> frames;
    EXPECT_TRUE(Eventually([&] {
      a_->Send({.to = &*b_, .payload_bytes = 100});
      a_->io().TxFlush();
      PollBoth();
      const size_t n = b_->io().RxBurst(frames);
      for (size_t i = 0; i < n; ++i) FreeSlot(*b_, frames[i]);
      b_->io().Replenish();
      return n > 0;
    }));
  }
  // Polls b, giving slots back, until `done`.
  bool PollB(const std::function<bool()>& done) {
    return Eventually([&] {
      std::array<RxFrame, 8> frames;
      PollBoth();
      const size_t n = b_->io().RxBurst(frames);
      for (size_t i = 0; i < n; ++i) FreeSlot(*b_, frames[i]);
      b_->io().Replenish();
      return done();
    });
  }
};

TEST_F(Trouble, ReceiveErrorRebuildsTheQueueInPlace) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  for (int round = 1; round <= 3; ++round) {
    ExpectTrafficRecovers();
    ChangeSoftnic("dev=sn1,cqe_error_at=1");
    a_->Send({.to = &*b_, .payload_bytes = 100});
    a_->io().TxFlush();
    const uint64_t want = static_cast<uint64_t>(round);
    EXPECT_TRUE(PollB(
        [&] { return b_->io().counters().queues_remade.value() == want; }));
    EXPECT_EQ(b_->io().counters().rx_errors.value(), want);
    ExpectTrafficRecovers();
  }
  EXPECT_EQ(b_->io().counters().regions_revoked.value(), 0u);
  EXPECT_GT(b_->io().counters().rx_flushed.value(), 0u);
  b_->pool().CheckInvariants();
  EXPECT_EQ(b_->pool().owners().posted, 32u);
}

TEST_F(Trouble, ControlQueueIsRebuiltWithItsRules) {
  Connect(TwoDevices());
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(
                {.kind = FlowMatch::Kind::kOwnedHost}, kControlQueue)),
            0);
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn1,cqe_error_at=1");
  ExpectTrafficRecovers();
  EXPECT_EQ(b_->io().counters().queues_remade.value(), 1u);
}

TEST_F(Trouble, SendErrorRebuildsTheQueueInPlace) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn0,cqe_error_at=2");
  std::optional<uint64_t> last;
  for (int i = 0; i < 10; ++i) {
    last = a_->Send({.to = &*b_, .payload_bytes = 100});
    ASSERT_TRUE(last.has_value());
  }
  a_->io().TxFlush();
  EXPECT_TRUE(
      PollB([&] { return a_->io().counters().queues_remade.value() == 1; }));
  // Nothing refers to the memory of the frames that were lost.
  EXPECT_GE(a_->io().tx_completed(), *last);
  EXPECT_EQ(a_->io().counters().tx_errors.value(), 1u);
  EXPECT_GT(a_->io().counters().tx_lost.value(), 0u);
  ExpectTrafficRecovers();
}

// The pair goes to ERR between two requests: an asynchronous event says so.
TEST_F(Trouble, QueuePairErrorIsNoticedAndRepaired) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn1,qp_error_at=1");
  ExpectTrafficRecovers();
  EXPECT_TRUE(
      PollB([&] { return b_->io().counters().queues_remade.value() == 1; }));
  ChangeSoftnic("dev=sn0,qp_error_at=1");
  ExpectTrafficRecovers();
  EXPECT_TRUE(
      PollB([&] { return a_->io().counters().queues_remade.value() == 1; }));
  EXPECT_GT(b_->io().control_counters().async_events.value(), 0u);
}

// A request that the provider refuses outright (more than max_tso).
TEST_F(Trouble, RefusedSendRebuildsTheQueue) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  ExpectTrafficRecovers();
  const auto ticket =
      a_->Send({.to = &*b_, .payload_bytes = 1u << 20, .tso_mss = 1448});
  ASSERT_TRUE(ticket.has_value());
  a_->io().TxFlush();
  EXPECT_TRUE(
      PollB([&] { return a_->io().counters().queues_remade.value() == 1; }));
  EXPECT_GE(a_->io().tx_completed(), *ticket);
  ExpectTrafficRecovers();
}

// A region that its owner revoked ends alone: it is named, its queue goes, the
// control queue does not notice.
TEST_F(Trouble, RevokedReceiveRegionIsNamedAndGoesAlone) {
  Connect(TwoDevices());
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(
                {.kind = FlowMatch::Kind::kOwnedHost}, kControlQueue)),
            0);
  const QueueId queue = DataQueue(*b_);
  const RuleId rule = b_->Steer(*a_, kFrom, kTo, queue);
  ASSERT_EQ(b_->AwaitRule(rule), 0);
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn1,revoke_lkey=" + std::to_string(b_->region().lkey()));
  std::array<RegionEvent, 4> events;
  size_t count = 0;
  EXPECT_TRUE(PollB([&] {
    a_->Send({.to = &*b_, .payload_bytes = 100});
    a_->io().TxFlush();
    count = b_->io().PollRegions(events);
    return count > 0;
  }));
  ASSERT_EQ(count, 1u);
  EXPECT_EQ(events[0], (RegionEvent{.is_receive = true,
                                    .pool = kDevicePoolId,
                                    .lkey = b_->region().lkey()}));
  RuleEvent gone[2];
  EXPECT_TRUE(PollB([&] { return b_->io().PollRules(gone) == 1; }));
  EXPECT_EQ(gone[0].rule, rule);
  EXPECT_EQ(gone[0].error, ENODEV);
  EXPECT_TRUE(
      PollB([&] { return b_->io().counters().queues_dropped.value() == 1; }));
  EXPECT_EQ(b_->pool().owners().free, b_->pool().slot_count());
  const auto again =
      b_->io().OpenDataQueue(kDevicePoolId, HeaderShape::kIpv4Timestamps);
  EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition);
  ExpectTrafficRecovers();  // By the control queue.
  EXPECT_EQ(b_->io().PollRegions(events), 0u);
}

TEST_F(Trouble, RevokedSendRegionIsNamedOnce) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn0,revoke_lkey=" + std::to_string(a_->region().lkey()));
  std::array<RegionEvent, 4> events;
  for (uint64_t round = 1; round <= 2; ++round) {
    EXPECT_TRUE(PollB([&] {
      a_->Send({.to = &*b_, .payload_bytes = 100});
      a_->io().TxFlush();
      return a_->io().counters().queues_remade.value() == round;
    }));
  }
  ASSERT_EQ(a_->io().PollRegions(events), 1u);
  EXPECT_FALSE(events[0].is_receive);
  EXPECT_EQ(events[0].lkey, a_->region().lkey());
  // Frames without payload still leave.
  EXPECT_TRUE(PollB([&] {
    a_->Send({.to = &*b_, .payload_bytes = 0});
    a_->io().TxFlush();
    return b_->io().counters().rx_frames.value() > 1;
  }));
}

// The device does not let a queue be made again: a data queue goes alone, the
// send queue and the control queue take the stack with them.
class NoRemaking : public Trouble {
 protected:
  void Connect() {
    // The control threads of both hosts inherit it.
    const WithoutNetRaw dropped;
    Trouble::Connect(TwoDevices());
  }
  void FailNext(const std::string& device) {
    ChangeSoftnic("dev=" + device + ",require_cap_net_raw=1,cqe_error_at=1");
    a_->Send({.to = &*b_, .payload_bytes = 100});
    a_->io().TxFlush();
  }
};

TEST_F(NoRemaking, DataQueueGoesAlone) {
  Connect();
  const QueueId queue = DataQueue(*b_);
  const RuleId rule = b_->Steer(*a_, kFrom, kTo, queue);
  ASSERT_EQ(b_->AwaitRule(rule), 0);
  ExpectTrafficRecovers();
  FailNext("sn1");
  RuleEvent events[1];
  EXPECT_TRUE(PollB([&] { return b_->io().PollRules(events) == 1; }));
  EXPECT_EQ(events[0].rule, rule);
  EXPECT_EQ(events[0].error, ENODEV);
  EXPECT_EQ(b_->io().counters().queues_dropped.value(), 1u);
  EXPECT_EQ(b_->io().fatal_error(), 0);
  EXPECT_EQ(b_->pool().owners().free, b_->pool().slot_count());
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, kFrom, kTo, queue)), ENODEV);
  // Nor are new rules allowed.
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, kFrom, kTo, kControlQueue)), EPERM);
}

TEST_F(NoRemaking, ControlQueueIsFatal) {
  Connect();
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(
                {.kind = FlowMatch::Kind::kOwnedHost}, kControlQueue)),
            0);
  FailNext("sn1");
  EXPECT_TRUE(PollB([&] { return b_->io().fatal_error() == EPERM; }));
}

TEST_F(NoRemaking, SendQueueIsFatal) {
  Connect();
  const auto before = a_->Send({.to = &*b_, .payload_bytes = 1});
  FailNext("sn0");
  EXPECT_TRUE(PollB([&] { return a_->io().fatal_error() == EPERM; }));
  EXPECT_GT(a_->io().tx_completed(), *before);
  EXPECT_EQ(a_->io().TxHeader(), nullptr);
}

// -- rules --------------------------------------------------------------------

TEST_F(Trouble, RuleTableFull) {
  Connect(TwoDevices(",rules=2"));
  const QueueId queue = DataQueue(*b_);
  ASSERT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{1}, kTo, queue)), 0);
  const RuleId second = b_->Steer(*a_, Port{2}, kTo, queue);
  ASSERT_EQ(b_->AwaitRule(second), 0);
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{3}, kTo, queue)), ENOMEM);
  b_->io().RemoveRule(second);
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{3}, kTo, queue)), 0);
  b_->io().RemoveRule(second);  // Twice is nothing.
  EXPECT_EQ(b_->io().control_counters().rules_refused.value(), 1u);
}

TEST_F(Trouble, OwnLimitOfRules) {
  Connect(TwoDevices());
  std::vector<RuleId> rules;
  for (uint16_t i = 1; i <= 64; ++i) {  // The fixture's max_rules.
    rules.push_back(b_->Steer(*a_, Port{i}, kTo, kControlQueue));
    ASSERT_EQ(b_->AwaitRule(rules.back()), 0);
  }
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{65}, kTo, kControlQueue)),
            ENOMEM);
  b_->io().RemoveRule(rules[7]);
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{65}, kTo, kControlQueue)), 0);
}

// Insertion takes 5 ms: asking never waits, and what was taken back before its
// turn never goes in.
TEST_F(Trouble, SlowRulesDoNotStopTheEngine) {
  Connect(TwoDevices(",rule_latency_us=5000"));
  const QueueId queue = DataQueue(*b_);
  const MonotonicClock clock;
  const Instant start = clock.Now();
  std::vector<RuleId> rules;
  for (uint16_t i = 1; i <= 50; ++i) {
    rules.push_back(b_->Steer(*a_, Port{i}, kTo, queue));
  }
  for (size_t i = 10; i < rules.size(); ++i) b_->io().RemoveRule(rules[i]);
  EXPECT_LT((clock.Now() - start).milliseconds(), 50);
  size_t answers = 0;
  EXPECT_TRUE(PollB([&] {
    RuleEvent events[8];
    answers += b_->io().PollRules(events);
    const auto& c = b_->io().control_counters();
    return c.rules_cancelled.value() + c.rules_removed.value() == 40 &&
           answers >= 10;
  }));
  EXPECT_GT(b_->io().control_counters().rules_cancelled.value(), 30u);
}

// Rules asked for while their queue is being remade go in with the others.
TEST_F(Trouble, RulesDuringARebuildAreInstalledAfterIt) {
  Connect(TwoDevices(",rule_latency_us=1000"));
  const QueueId queue = DataQueue(*b_);
  SteerToB(queue);
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn1,cqe_error_at=1");
  a_->Send({.to = &*b_, .payload_bytes = 100});
  a_->io().TxFlush();
  const RuleId during = b_->Steer(*a_, Port{77}, kTo, queue);
  const RuleId dropped = b_->Steer(*a_, Port{78}, kTo, queue);
  b_->io().RemoveRule(dropped);
  RuleEvent events[4];
  EXPECT_TRUE(PollB([&] {
    return b_->io().PollRules(events) > 0 && events[0].rule == during;
  }));
  EXPECT_EQ(events[0].error, 0);
  EXPECT_TRUE(
      PollB([&] { return b_->io().counters().queues_remade.value() == 1; }));
  ExpectTrafficRecovers();
}

// -- sizes --------------------------------------------------------------------

TEST_F(TwoHosts, PoolsThatDoNotFitAreRefused) {
  Connect(TwoDevices());
  VerbsPacketIo& io = b_->io();
  const auto add = [&](PoolId id, uint32_t count, uint32_t bytes) {
    FragPool pool({.id = id, .slot_count = count, .slot_bytes = bytes});
    return std::string(io.AddPool(pool, b_->region()).message());
  };
  EXPECT_EQ(add(PoolId{9}, 256, 4096),
            "slots of 4096 bytes cannot hold the payload of MTU 9000: 8948 "
            "bytes are needed");
  EXPECT_EQ(add(PoolId{9}, 257, 9216),
            "region of 2359296 bytes is smaller than its pool: 257 slots of "
            "9216 bytes are 2368512");
  EXPECT_EQ(add(PoolId{9}, 63, 9216),
            "region smaller than its receive ring needs: 63 slots of 9216 "
            "bytes; at least 64 slots, 589824 bytes");
  EXPECT_EQ(add(kDevicePoolId, 64, 9216), "pool 1 is there already");
  EXPECT_EQ(
      io.OpenDataQueue(PoolId{9}, HeaderShape::kIpv4Plain).status().message(),
      "no data pool 9: AddPool first");
  EXPECT_FALSE(io.OpenDataQueue(kControlPoolId, HeaderShape::kIpv4Plain).ok());
  const auto open = [&](HeaderShape shape) {
    return io.OpenDataQueue(kDevicePoolId, shape);
  };
  const QueueId first = *open(HeaderShape::kIpv4Timestamps);
  EXPECT_EQ(*open(HeaderShape::kIpv4Timestamps), first);
  EXPECT_NE(*open(HeaderShape::kIpv4Plain), first);
  EXPECT_TRUE(open(HeaderShape::kIpv6Timestamps).ok());
  EXPECT_TRUE(open(HeaderShape::kIpv6Plain).ok());
  // The fixture's four are used up.
  FragPool more({.id = PoolId{2}, .slot_count = 64, .slot_bytes = 9216});
  ASSERT_TRUE(io.AddPool(more, b_->region()).ok());
  EXPECT_EQ(
      io.OpenDataQueue(PoolId{2}, HeaderShape::kIpv4Plain).status().code(),
      absl::StatusCode::kResourceExhausted);
}

// 1448 bytes hold a full segment with timestamps, not one without.
TEST_F(TwoHosts, SlotForOneShapeOnly) {
  const std::string port = ",mtu=1500,port=shm:" + CablePath();
  Connect("dev=sn0" + port + ";dev=sn1" + port,
          {.mtu = 1500, .slot_bytes = 1448});
  EXPECT_TRUE(
      b_->io().OpenDataQueue(kDevicePoolId, HeaderShape::kIpv4Timestamps).ok());
  EXPECT_EQ(b_->io()
                .OpenDataQueue(kDevicePoolId, HeaderShape::kIpv4Plain)
                .status()
                .message(),
            "slots of 1448 bytes behind 54 bytes of header cannot hold a "
            "frame of MTU 1500");
}

TEST_F(TwoHosts, OpenRefusesWhatDoesNotFit) {
  Connect(TwoDevices());
  FragPool control({.id = PoolId{5}, .slot_count = 64, .slot_bytes = 9014});
  const auto memory = HostArena::Create(a_->device().pd(), 64 * 9014);
  ASSERT_TRUE(memory.ok());
  const auto open = [&](FragPool& pool, VerbsPacketIo::Options options) {
    const auto io = VerbsPacketIo::Open(a_->device(), pool, *memory, options);
    EXPECT_EQ(io.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(io.status().message());
  };
  EXPECT_EQ(open(control, {.mtu = 100}),
            "MTU 100: it must be from 576 to 65535");
  EXPECT_EQ(open(control, {.mtu = 1500}),
            "MTU 1500, but port 1 of sn0 has one of 4096 or more: a longer "
            "frame would find no room. Use the port's MTU");
  EXPECT_EQ(open(control, {.mtu = 9001}),
            "control slots of 9014 bytes cannot hold a frame of MTU 9001: "
            "9015 are needed");
  FragPool many({.id = PoolId{5}, .slot_count = 128, .slot_bytes = 9014});
  EXPECT_NE(open(many, {.mtu = 9000}).find("control pool of 128 slots"),
            std::string::npos);
  EXPECT_NE(open(control, {.mtu = 9000, .send_ring_wrs = 8}).find("rings of 8"),
            std::string::npos);
}

// The pool runs dry: the ring is short, which is counted, and fills again.
TEST_F(TwoHosts, ShortPoolIsCounted) {
  Connect(TwoDevices());
  const QueueId queue = DataQueue(*b_);
  std::vector<SlotIndex> taken;
  while (const auto slot = b_->pool().Take()) taken.push_back(*slot);
  SteerToB(queue);
  a_->Send({.to = &*b_, .payload_bytes = 10});
  a_->io().TxFlush();
  const RxFrame frame = NextFrame(*b_);
  const uint64_t before = b_->io().counters().rx_ring_short.value();
  b_->io().Replenish();
  EXPECT_EQ(b_->io().counters().rx_ring_short.value(), before + 1);
  EXPECT_EQ(b_->io().PostedReceives(queue), 31u);
  for (const SlotIndex slot : taken) b_->pool().Free(slot);
  FreeSlot(*b_, frame);
  b_->io().Replenish();
  EXPECT_EQ(b_->io().PostedReceives(queue), 32u);
}

// A forked child sees none of the rings' memory, and its exit disturbs nothing.
TEST_F(TwoHosts, ForkedChildHasNoRings) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  std::byte* const header = a_->io().TxHeader();
  ASSERT_NE(header, nullptr);
  EXPECT_DEATH({ *const_cast<volatile std::byte*>(header) = std::byte{1}; },
               "");
  const auto sent = RandomBytes(9, 1000);
  ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
  a_->Send({.to = &*b_, .payload_bytes = 1000});
  a_->io().TxFlush();
  const RxFrame frame = NextFrame(*b_);
  EXPECT_EQ(b_->ReadSlot(frame.slot, 1000), sent);
  FreeSlot(*b_, frame);
}

}  // namespace
}  // namespace devwire
