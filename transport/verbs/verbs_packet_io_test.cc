// VerbsPacketIo over softnic: two hosts in one process, a cable in between.
#include "transport/verbs/verbs_packet_io.h"

#include <errno.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/alloc_guard.h"
#include "gtest/gtest.h"
#include "transport/verbs/two_hosts.h"

namespace devwire {
namespace {

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

// IPv6 has a spec of its own, of four times the addresses. A listener for any
// address names none.
TEST_F(TwoHosts, RulesOfEveryKindForIpv6AndAnyAddress) {
  Connect(TwoDevices());
  const IpAddress v6 = *IpAddress::Parse("fd00::2");
  const IpAddress peer = *IpAddress::Parse("fd00::1");
  const IpAddress any_v6 = *IpAddress::Parse("::");
  const FlowMatch rows[] = {
      {.kind = FlowMatch::Kind::kConnection,
       .tuple = {{v6, kTo}, {peer, kFrom}}},
      {.kind = FlowMatch::Kind::kPortBlock,
       .tuple = {.local = {v6, Port{2048}}},
       .port_block_bits = 8},
      {.kind = FlowMatch::Kind::kListener, .tuple = {.local = {v6, kTo}}},
      {.kind = FlowMatch::Kind::kListener,
       .tuple = {.local = {any_v6, Port{81}}}}};
  for (const FlowMatch& match : rows) {
    EXPECT_EQ(b_->AwaitRule(b_->io().AddRule(match, kControlQueue)), 0);
  }
  const FlowMatch too_wide = {.kind = FlowMatch::Kind::kPortBlock,
                              .tuple = {.local = {v6, Port{2048}}},
                              .port_block_bits = 17};
  EXPECT_EQ(b_->AwaitRule(b_->io().AddRule(too_wide, kControlQueue)), EINVAL);

  const FlowMatch any = {.kind = FlowMatch::Kind::kListener,
                         .tuple = {.local = {IpAddress{}, Port{80}}}};
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(any, kControlQueue)), 0);
  a_->Send({.to = &*b_, .to_port = Port{80}, .payload_bytes = 10});
  a_->io().TxFlush();
  FreeSlot(*b_, NextFrame(*b_));
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

// Several slot sizes; each frame lies in its own slot, nothing beside it.
TEST_F(TwoHosts, AnySlotSize) {
  for (const uint32_t slot_bytes : {2048u, 4096u, 8192u, 9216u, 1448u, 1999u}) {
    a_.reset();
    b_.reset();
    const std::string port = ",mtu=1500,port=shm:" + CablePath();
    Connect("dev=sn0" + port + ";dev=sn1" + port,
            {.mtu = 1500, .slot_bytes = slot_bytes, .slot_count = 64});
    SteerToB(DataQueue(*b_));
    std::vector<std::pair<SlotIndex, std::vector<std::byte>>> got;
    for (uint64_t i = 0; i < 16; ++i) {
      const auto sent = RandomBytes(100 + i, 1448);
      ASSERT_TRUE(a_->memory().CopyIn(i * 1448, sent).ok());
      a_->Send({.to = &*b_, .offset = i * 1448, .payload_bytes = 1448});
      a_->io().TxFlush();
      got.emplace_back(NextFrame(*b_).slot, sent);
    }
    for (const auto& [slot, sent] : got) {
      EXPECT_EQ(b_->ReadSlot(slot, 1448), sent) << slot_bytes;
      b_->pool().Free(slot);
    }
  }
}

// Two regions, each with a pool and a queue, and a third queue on the first:
// payload lands where its rule says, and nowhere else.
TEST_F(TwoHosts, RegionsAndQueuesKeepApart) {
  Connect(TwoDevices());
  auto memory = MemfdMemory::Allocate(64 * 9216);
  ASSERT_TRUE(memory.ok());
  const auto region =
      RegisteredRegion::Register(b_->device().pd(), *(*memory)->Export(), {});
  ASSERT_TRUE(region.ok()) << region.status();
  constexpr PoolId kOther{2};
  FragPool other({.id = kOther, .slot_count = 64, .slot_bytes = 9216});
  ASSERT_TRUE(b_->io().AddPool(other, *region).ok());
  struct Row {
    PoolId pool;
    HeaderShape shape;
    Port port;
  };
  const Row rows[] = {{kDevicePoolId, HeaderShape::kIpv4Timestamps, Port{1}},
                      {kDevicePoolId, HeaderShape::kIpv4Plain, Port{2}},
                      {kOther, HeaderShape::kIpv4Timestamps, Port{3}}};
  for (const Row& row : rows) {
    const auto queue = b_->io().OpenDataQueue(row.pool, row.shape);
    ASSERT_TRUE(queue.ok());
    ASSERT_EQ(b_->AwaitRule(b_->Steer(*a_, row.port, kTo, *queue)), 0);
  }
  for (const Row& row : rows) {
    const auto sent = RandomBytes(static_cast<uint64_t>(row.port), 1000);
    ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
    a_->Send({.to = &*b_,
              .from_port = row.port,
              .payload_bytes = 1000,
              .timestamps = row.shape == HeaderShape::kIpv4Timestamps});
    a_->io().TxFlush();
    const RxFrame frame = NextFrame(*b_);
    EXPECT_EQ(frame.pool, row.pool);
    EXPECT_EQ(frame.header_bytes, SplitBytes(row.shape));
    std::vector<std::byte> slot(1000);
    const uint64_t at = uint64_t{static_cast<uint32_t>(frame.slot)} * 9216;
    MemfdMemory& right = row.pool == kOther ? **memory : b_->memory();
    ASSERT_TRUE(right.CopyOut(at, slot).ok());
    EXPECT_EQ(slot, sent);
    (row.pool == kOther ? other : b_->pool()).Free(frame.slot);
  }
  b_->Stop();  // Its rings hold slots of `other`.
}

// A device that cannot strip tags gets a split that is a tag longer.
TEST_F(TwoHosts, SplitWithoutVlanStripping) {
  Connect(TwoDevices(",vlan_strip=0"));
  SteerToB(DataQueue(*b_));
  const auto sent = RandomBytes(11, 100);
  ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
  a_->Send({.to = &*b_, .payload_bytes = 100});
  a_->io().TxFlush();
  const RxFrame frame = NextFrame(*b_);
  EXPECT_EQ(frame.header_bytes, 70u);
  EXPECT_EQ(memcmp(frame.header + 66, sent.data(), 4), 0);
  FreeSlot(*b_, frame);
}

// The device in a process of its own: no mapping of device memory is here.
TEST_F(TwoHosts, DeviceProcess) {
  Connect(TwoDevices(",mode=process"));
  SteerToB(DataQueue(*b_));
  for (uint64_t i = 0; i < 100; ++i) {
    const auto sent = RandomBytes(i, 8948);
    ASSERT_TRUE(a_->memory().CopyIn(0, sent).ok());
    const auto ticket = a_->Send({.to = &*b_, .payload_bytes = 8948});
    ASSERT_TRUE(ticket.has_value());
    a_->io().TxFlush();
    const RxFrame frame = NextFrame(*b_);
    ASSERT_EQ(b_->ReadSlot(frame.slot, 8948), sent);
    FreeSlot(*b_, frame);
    b_->io().Replenish();
    ASSERT_TRUE(Eventually([&] {
      PollBoth();
      return a_->io().tx_completed() == *ticket;
    }));
  }
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    EXPECT_EQ(line.find("devwire-device-memory"), std::string::npos) << line;
  }
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
