// Frames between two devices of this process, over a cable.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/prng.h"
#include "softnic/cable_fixture.h"
#include "softnic/packet.h"
#include "softnic/verbs_fixture.h"

namespace softnic {
namespace {

INSTANTIATE_TEST_SUITE_P(Modes, Cable,
                         testing::Values("inline", "thread", "process"),
                         ModeName);

// Header to host memory, payload to device memory, by one receive of two SGEs.
TEST_P(Cable, SplitsAFrameBetweenHostAndDevice) {
  Plug("mtu=9000");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer header = b_->Host(54);
  DeviceBuffer payload = b_->Device(16384);
  ASSERT_EQ(b_->Recv(rx, 5, {header.Sge(0, 54), payload.Sge(4096, 9000)}), 0);
  const std::vector<std::byte> data = Pattern(8946);
  ASSERT_EQ(SendFrame(tx, /*is_tcp=*/true, data), 0);

  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].status, IBV_WC_SUCCESS);
  EXPECT_EQ(got[0].opcode, IBV_WC_RECV);
  EXPECT_EQ(got[0].wr_id, 5u);
  EXPECT_EQ(got[0].qp_num, rx->qp_num);
  EXPECT_EQ(got[0].byte_len, 54u + 8946);
  EXPECT_EQ(got[0].wc_flags, unsigned{IBV_WC_IP_CSUM_OK});
  EXPECT_EQ(payload.Read(4096, data.size()), data);
  EXPECT_EQ(memcmp(header.bytes.data(), b_->mac().data(), 6), 0);

  const std::vector<ibv_wc> sent = a_->Await(1);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].status, IBV_WC_SUCCESS);
  EXPECT_EQ(sent[0].opcode, IBV_WC_SEND);
  EXPECT_EQ(sent[0].wr_id, 77u);

  const softnic_counters c = b_->counters();
  EXPECT_EQ(c.rx_delivered, 1u);
  EXPECT_EQ(c.landed_host_bytes, 54u);
  EXPECT_EQ(c.landed_dmabuf_bytes, 8946u);
  EXPECT_EQ(c.payload_landed_host_bytes, 0u);
  EXPECT_EQ(c.payload_landed_dmabuf_bytes, 8946u);
  EXPECT_EQ(a_->counters().payload_gathered_dmabuf_bytes, 8946u);
}

// SGEs are filled strictly in order, empty ones are skipped, and one frame
// takes one receive: the next starts in the next.
TEST_P(Cable, FillsScatterListsInOrder) {
  Plug("mtu=1500");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(4096);
  ASSERT_EQ(b_->Recv(rx, 1,
                     {to.Sge(0, 42), to.Sge(100, 10), to.Sge(9, 0),
                      to.Sge(200, 300)}),
            0);
  ASSERT_EQ(b_->Recv(rx, 2, {to.Sge(1000, 2000)}), 0);
  const std::vector<std::byte> first = Pattern(150, 1);
  const std::vector<std::byte> second = Pattern(151, 2);
  ASSERT_EQ(SendFrame(tx, false, first), 0);
  ASSERT_EQ(SendFrame(tx, false, second), 0);
  const std::vector<ibv_wc> got = b_->Await(2);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].wr_id, 1u);
  EXPECT_EQ(got[1].wr_id, 2u);
  const std::byte* m = to.bytes.data();
  EXPECT_EQ(memcmp(m + 100, first.data(), 10), 0);
  EXPECT_EQ(memcmp(m + 200, first.data() + 10, 140), 0);
  EXPECT_EQ(m[110], std::byte{0});
  EXPECT_EQ(m[340], std::byte{0});
  EXPECT_EQ(memcmp(m + 1042, second.data(), 151), 0);
  EXPECT_EQ(b_->counters().payload_landed_host_bytes, 301u);
}

// IEEE 802.3: the padding of a short frame is delivered and counted.
TEST_P(Cable, PadsShortFrames) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(256);
  std::fill(to.bytes.begin(), to.bytes.end(), std::byte{0xee});
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 256)}), 0);
  ASSERT_EQ(SendFrame(tx, true, {}), 0);  // 54 bytes
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].byte_len, 60u);
  EXPECT_EQ(got[0].wc_flags, unsigned{IBV_WC_IP_CSUM_OK});
  for (int i = 54; i < 60; ++i) EXPECT_EQ(to.bytes[i], std::byte{0}) << i;
  EXPECT_EQ(to.bytes[60], std::byte{0xee});
}

// A dry receive queue drops and counts; nothing waits.
TEST_P(Cable, DropsWhenNoReceiveIsPosted) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(SendFrame(tx, false, Pattern(100)), 0);
  EXPECT_TRUE(Eventually([&] {
    b_->Poll();
    return b_->counters().rx_no_receive == 3;
  }));
  EXPECT_EQ(a_->Await(3).size(), 3u);
  HostBuffer to = b_->Host(2048);
  ASSERT_EQ(b_->Recv(rx, 9, {to.Sge(0, 2048)}), 0);
  ASSERT_EQ(SendFrame(tx, false, Pattern(100)), 0);
  EXPECT_EQ(b_->Await(1).size(), 1u);
}

// A frame that its receive has no room for: local length error, ERR, and the
// other receives are flushed. RESET and the way up again make it whole.
TEST_P(Cable, FrameLongerThanItsReceiveBreaksTheQueuePair) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 100)}), 0);
  ASSERT_EQ(b_->Recv(rx, 2, {to.Sge(0, 2048)}), 0);
  ASSERT_EQ(SendFrame(tx, false, Pattern(100)), 0);
  std::vector<ibv_wc> got = b_->Await(2);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].status, IBV_WC_LOC_LEN_ERR);
  EXPECT_EQ(got[0].wr_id, 1u);
  EXPECT_EQ(got[1].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(got[1].wr_id, 2u);
  EXPECT_EQ(b_->StateOf(rx), IBV_QPS_ERR);
  ASSERT_EQ(b_->Recv(rx, 3, {to.Sge(0, 2048)}), 0);  // allowed, and flushed
  got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].status, IBV_WC_WR_FLUSH_ERR);

  for (ibv_qp_state s :
       {IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
    ASSERT_EQ(b_->Modify(rx, s), 0);
  }
  ASSERT_EQ(b_->Recv(rx, 4, {to.Sge(0, 2048)}), 0);
  ASSERT_EQ(SendFrame(tx, false, Pattern(100)), 0);
  got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].status, IBV_WC_SUCCESS);
  EXPECT_EQ(got[0].wr_id, 4u);
}

// From a port of larger MTU: the receiving port drops and counts.
TEST_P(Cable, DropsFramesLongerThanThePortsMtu) {
  Plug("mtu=9000", "mtu=1500");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(16384);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 16384)}), 0);
  ASSERT_EQ(SendFrame(tx, true, Pattern(1461)), 0);  // one byte too many
  ASSERT_EQ(SendFrame(tx, true, Pattern(1460)), 0);
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].byte_len, 1514u);
  EXPECT_EQ(b_->counters().rx_too_long, 1u);
  // And what a itself must not send never leaves.
  ASSERT_EQ(SendFrame(tx, true, Pattern(8961)), 0);
  EXPECT_EQ(a_->Await(3).size(), 3u);
  EXPECT_EQ(a_->counters().tx_too_long, 1u);
}

// A send completes when the other end has consumed the frame, not before: its
// memory is read until then.
TEST_P(Cable, SendCompletesAfterConsumption) {
  if (!IsInline()) GTEST_SKIP() << "SKIP: this device consumes by itself";
  Plug("");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 2048)}), 0);
  ASSERT_EQ(SendFrame(tx, true, Pattern(1000, 1)), 0);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(a_->Poll().empty());
  // Not consumed: the peer sees what the memory holds now.
  const std::vector<std::byte> later = Pattern(1000, 9);
  device_.back().Write(0, later.data(), later.size());
  ASSERT_EQ(b_->Await(1).size(), 1u);
  EXPECT_EQ(memcmp(to.bytes.data() + 54, later.data(), later.size()), 0);
  EXPECT_EQ(a_->Await(1).size(), 1u);
}

// More than the cable holds: the send queue waits, nothing is lost.
TEST_P(Cable, FullCableMakesTheSendQueueWait) {
  Plug("");
  ibv_qp* tx = a_->Qp({.depth = 4096});
  ibv_qp* rx = b_->Qp({.depth = 4096});
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  constexpr int kFrames = 3000;
  for (int i = 0; i < kFrames; ++i) {
    ASSERT_EQ(b_->Recv(rx, i, {to.Sge(0, 2048)}), 0);
  }
  HostBuffer from = a_->Host(2048);
  const std::vector<std::byte> header =
      MakeHeader(b_->mac(), a_->mac(), false, 1400);
  memcpy(from.bytes.data(), header.data(), header.size());
  for (int i = 0; i < kFrames; ++i) {
    ASSERT_EQ(a_->Send(tx, i, {from.Sge(0, 1442)},
                       i + 1 == kFrames ? IBV_SEND_SIGNALED : 0),
              0);
  }
  int got = 0;
  uint64_t sent = 0;
  EXPECT_TRUE(Eventually([&] {
    for (const ibv_wc& wc : b_->Poll()) {
      EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
      EXPECT_EQ(wc.wr_id, static_cast<uint64_t>(got));
      ++got;
    }
    sent += a_->Poll().size();
    return got == kFrames && sent == 1;
  }));
  EXPECT_EQ(b_->counters().rx_delivered, uint64_t{kFrames});
  EXPECT_EQ(b_->counters().rx_no_receive, 0u);
}

// A slot of the send queue is free again only when a completion of it, or of a
// later one, was polled: sends without a signal fill the queue for good.
TEST_P(Cable, UnsignaledSendsKeepTheirSlots) {
  Plug("");
  ibv_qp* tx = a_->Qp({.depth = 8});
  HostBuffer from = a_->Host(64);
  for (int i = 0; i < 7; ++i) {
    ASSERT_EQ(a_->Send(tx, i, {from.Sge(0, 64)}, 0), 0);
  }
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(a_->Poll().empty());
  EXPECT_EQ(a_->Send(tx, 7, {from.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
  EXPECT_EQ(a_->Send(tx, 8, {from.Sge(0, 64)}, IBV_SEND_SIGNALED), ENOMEM);
  EXPECT_TRUE(Eventually([&] {
    b_->Poll();
    return !a_->Poll().empty();
  }));
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(a_->Send(tx, i, {from.Sge(0, 64)}, 0), 0);
  }
}

// Wrong keys, bounds and rights complete in error, whatever the direction.
TEST_P(Cable, SgesAreCheckedAtExecution) {
  Plug("");
  HostBuffer from = a_->Host(128);
  const std::vector<std::byte> header =
      MakeHeader(b_->mac(), a_->mac(), false, 22);
  memcpy(from.bytes.data(), header.data(), header.size());
  ibv_sge bad_key = from.Sge(0, 64);
  bad_key.lkey ^= 0x100;
  ibv_sge too_long = from.Sge(100, 29);
  ibv_sge before = from.Sge(0, 64);
  before.addr -= 1;
  for (const ibv_sge& bad : {bad_key, too_long, before}) {
    ibv_qp* tx = a_->Qp();
    ASSERT_EQ(a_->Send(tx, 1, {from.Sge(0, 64)}), 0);
    ASSERT_EQ(a_->Send(tx, 2, {from.Sge(0, 64), bad}), 0);
    ASSERT_EQ(a_->Send(tx, 3, {from.Sge(0, 64)}, 0), 0);
    std::vector<ibv_wc> got;
    EXPECT_TRUE(Eventually([&] {
      b_->Poll();
      for (const ibv_wc& wc : a_->Poll()) got.push_back(wc);
      return got.size() == 3;
    }));
    ASSERT_EQ(got.size(), 3u);
    EXPECT_EQ(got[0].status, IBV_WC_SUCCESS);
    EXPECT_EQ(got[1].status, IBV_WC_LOC_PROT_ERR);
    EXPECT_EQ(got[1].wr_id, 2u);
    EXPECT_EQ(got[2].status, IBV_WC_WR_FLUSH_ERR);
    EXPECT_EQ(a_->StateOf(tx), IBV_QPS_ERR);
  }

  // A region without IBV_ACCESS_LOCAL_WRITE may be sent from, not received to.
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  std::vector<std::byte> memory(256);
  ibv_mr* read_only = Verbs().reg_mr(b_->pd(), memory.data(), 256, 0);
  ASSERT_NE(read_only, nullptr);
  const ibv_sge sge = {reinterpret_cast<uint64_t>(memory.data()), 256,
                       read_only->lkey};
  ASSERT_EQ(b_->Recv(rx, 1, {sge}), 0);
  ASSERT_EQ(a_->Send(a_->Qp(), 1, {from.Sge(0, 64)}), 0);
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].status, IBV_WC_LOC_PROT_ERR);
  EXPECT_EQ(Verbs().dereg_mr(read_only), 0);
}

// A region of another protection domain is none.
TEST_P(Cable, RegionsBelongToTheirProtectionDomain) {
  Plug("");
  ibv_pd* other = Verbs().alloc_pd(a_->context());
  std::vector<std::byte> memory(64);
  ibv_mr* mr = Verbs().reg_mr(other, memory.data(), 64, IBV_ACCESS_LOCAL_WRITE);
  ASSERT_NE(mr, nullptr);
  ASSERT_EQ(
      a_->Send(a_->Qp(), 1,
               {{reinterpret_cast<uint64_t>(memory.data()), 64, mr->lkey}}),
      0);
  const std::vector<ibv_wc> got = a_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].status, IBV_WC_LOC_PROT_ERR);
  EXPECT_EQ(Verbs().dealloc_pd(other), EBUSY);
  EXPECT_EQ(Verbs().dereg_mr(mr), 0);
  EXPECT_EQ(Verbs().dealloc_pd(other), 0);
}

TEST_P(Cable, SendsInlineData) {
  Plug("");
  ibv_qp* tx = a_->Qp({.max_inline = 200});
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 2048)}), 0);
  std::vector<std::byte> frame = MakeHeader(b_->mac(), a_->mac(), false, 158);
  const std::vector<std::byte> payload = Pattern(158);
  frame.insert(frame.end(), payload.begin(), payload.end());
  // No key is needed, and the memory is ours again at once.
  ASSERT_EQ(
      a_->Send(tx, 1, {{reinterpret_cast<uint64_t>(frame.data()), 200, 0}},
               IBV_SEND_INLINE | IBV_SEND_SIGNALED),
      0);
  std::fill(frame.begin(), frame.end(), std::byte{0});
  ASSERT_EQ(b_->Await(1).size(), 1u);
  EXPECT_EQ(memcmp(to.bytes.data() + 42, payload.data(), 158), 0);
  EXPECT_EQ(
      a_->Send(tx, 1, {{reinterpret_cast<uint64_t>(frame.data()), 201, 0}},
               IBV_SEND_INLINE),
      ENOMEM);
}

// A frame in as many pieces as the device takes, host and device by turns.
TEST_P(Cable, GathersManyPieces) {
  Plug("mtu=9000");
  ibv_qp* tx = a_->Qp({.max_sge = 30});
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(10000);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 10000)}), 0);
  const std::vector<std::byte> data = Pattern(29 * 100);
  HostBuffer host = a_->Host(54 + data.size());
  DeviceBuffer device = a_->Device(data.size());
  const std::vector<std::byte> header = MakeHeader(
      b_->mac(), a_->mac(), true, static_cast<uint32_t>(data.size()));
  memcpy(host.bytes.data(), header.data(), 54);
  memcpy(host.bytes.data() + 54, data.data(), data.size());
  device.Write(0, data.data(), data.size());
  std::vector<ibv_sge> sges = {host.Sge(0, 54)};
  for (uint32_t i = 0; i < 29; ++i) {
    sges.push_back(i % 2 == 0 ? device.Sge(i * 100, 100)
                              : host.Sge(54 + i * 100, 100));
  }
  ASSERT_EQ(a_->Send(tx, 1, sges), 0);
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  ASSERT_EQ(got[0].byte_len, 54 + data.size());
  EXPECT_EQ(memcmp(to.bytes.data() + 54, data.data(), data.size()), 0);
}

// The other end goes away: the link is down, what was in flight completes, and
// somebody who plugs in later finds everything working.
TEST_P(Cable, PeerGoesAndComesBack) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  ASSERT_EQ(SendFrame(tx, true, Pattern(500)), 0);
  b_ = nullptr;
  ASSERT_EQ(a_->Await(1).size(), 1u);
  EXPECT_TRUE(Eventually([&] {
    a_->Poll();
    return a_->PortState() == IBV_PORT_DOWN;
  }));
  ibv_async_event event;
  ASSERT_EQ(Verbs().get_async_event(a_->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_PORT_ERR);
  EXPECT_EQ(event.element.port_num, 1);
  Verbs().ack_async_event(&event);

  b_ = std::make_unique<Nic>("b");
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 2048)}), 0);
  EXPECT_TRUE(Eventually([&] {
    a_->Poll();
    b_->Poll();
    return a_->PortState() == IBV_PORT_ACTIVE;
  }));
  ASSERT_EQ(Verbs().get_async_event(a_->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_PORT_ACTIVE);
  Verbs().ack_async_event(&event);
  // The region was announced again.
  const std::vector<std::byte> data = Pattern(700);
  ASSERT_EQ(SendFrame(tx, true, data), 0);
  ASSERT_EQ(b_->Await(1).size(), 1u);
  EXPECT_EQ(memcmp(to.bytes.data() + 54, data.data(), data.size()), 0);
}

// Both ways at once, random sizes and pieces, everything compared.
TEST_P(Cable, CarriesRandomFramesBothWays) {
  Plug("mtu=9000");
  constexpr uint64_t kSeed = 20261123;
  printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  devwire::Prng prng(kSeed);
  struct Side {
    Nic* nic;
    ibv_qp* qp;
    HostBuffer header, in;
    DeviceBuffer out;
  };
  constexpr uint32_t kSlot = 10240;
  constexpr uint32_t kDepth = 32;
  const std::vector<std::byte> data = Pattern(1 << 20, 3);
  std::vector<Side> sides;
  for (Nic* nic : {a_.get(), b_.get()}) {
    Side s{nic, nic->Qp({.depth = kDepth}), nic->Host(64),
           nic->Host(kSlot * kDepth), nic->Device(data.size())};
    nic->TakeAll(s.qp);
    s.out.Write(0, data.data(), data.size());
    sides.push_back(std::move(s));
    for (uint32_t i = 0; i < kDepth; ++i) {
      ASSERT_EQ(nic->Recv(sides.back().qp, i,
                          {sides.back().in.Sge(i * kSlot, kSlot)}),
                0);
    }
  }
  const int frames = IsInline() ? 4000 : 1500;
  struct Sent {
    uint32_t from, bytes;
  };
  for (int round = 0; round < frames / 16; ++round) {
    for (int d = 0; d < 2; ++d) {
      Side& from = sides[d];
      Side& to = sides[1 - d];
      std::vector<Sent> sent;
      std::vector<std::byte> header =
          MakeHeader(to.nic->mac(), from.nic->mac(), false, 0);
      for (int i = 0; i < 16; ++i) {
        Sent s;
        s.bytes = 1 + static_cast<uint32_t>(prng.Below(8958));
        s.from = static_cast<uint32_t>(prng.Below(data.size() - s.bytes));
        const uint32_t cut = static_cast<uint32_t>(prng.Below(s.bytes));
        // No checksum is asked for: the lengths in the header stay zero.
        memcpy(from.header.bytes.data(), header.data(), 42);
        ASSERT_EQ(
            from.nic->Send(from.qp, i,
                           {from.header.Sge(0, 42), from.out.Sge(s.from, cut),
                            from.out.Sge(s.from + cut, s.bytes - cut)},
                           IBV_SEND_SIGNALED),
            0);
        sent.push_back(s);
      }
      size_t got = 0;
      size_t done = 0;
      ASSERT_TRUE(Eventually([&] {
        for (const ibv_wc& wc : to.nic->Poll()) {
          EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
          const Sent& s = sent[got++];
          EXPECT_EQ(wc.byte_len, std::max(60u, s.bytes + 42));
          EXPECT_EQ(memcmp(to.in.bytes.data() + wc.wr_id * kSlot + 42,
                           data.data() + s.from, s.bytes),
                    0);
          EXPECT_EQ(to.nic->Recv(to.qp, wc.wr_id,
                                 {to.in.Sge(wc.wr_id * kSlot, kSlot)}),
                    0);
        }
        done += from.nic->Poll().size();
        return got == 16 && done == 16;
      }));
    }
  }
}

}  // namespace
}  // namespace softnic
