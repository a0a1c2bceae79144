// The device's own faults, each as an application meets it.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "softnic/cable_fixture.h"
#include "softnic/verbs_fixture.h"

namespace softnic {
namespace {

// The N-th work request completes in error; those behind it are flushed, those
// before it are not.
TEST_P(Cable, CompletionErrorAt) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  const HostBuffer m = a_->Host(64);
  Configure("dev=a,cqe_error_at=3");
  ibv_send_wr wr[5] = {};
  ibv_sge sge = m.Sge(0, 64);
  for (int i = 0; i < 5; ++i) {
    wr[i].wr_id = static_cast<uint64_t>(i);
    wr[i].next = i < 4 ? &wr[i + 1] : nullptr;
    wr[i].sg_list = &sge;
    wr[i].num_sge = 1;
    wr[i].opcode = IBV_WR_SEND;
    wr[i].send_flags = IBV_SEND_SIGNALED;
  }
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(tx, wr, &bad), 0);
  std::vector<ibv_wc> got;
  EXPECT_TRUE(Eventually([&] {
    b_->Poll();
    for (const ibv_wc& wc : a_->Poll()) got.push_back(wc);
    return got.size() == 5;
  }));
  ASSERT_EQ(got.size(), 5u);
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(got[i].wr_id, i);
  EXPECT_EQ(got[1].status, IBV_WC_SUCCESS);
  EXPECT_EQ(got[2].status, IBV_WC_LOC_QP_OP_ERR);
  EXPECT_EQ(got[3].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(got[4].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(a_->counters().tx_errors, 1u);
  EXPECT_EQ(a_->counters().flushed, 2u);
}

// The queue pair breaks with an event and no completion in error first.
TEST_P(Cable, QueuePairErrorAt) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(b_->Recv(rx, i, {to.Sge(0, 2048)}), 0);
  Configure("dev=b,qp_error_at=2");
  for (int i = 0; i < 2; ++i) ASSERT_EQ(SendFrame(tx, true, Pattern(50)), 0);
  const std::vector<ibv_wc> got = b_->Await(3);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[0].status, IBV_WC_SUCCESS);
  EXPECT_EQ(got[1].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(got[2].status, IBV_WC_WR_FLUSH_ERR);
  ibv_async_event event;
  ASSERT_EQ(Verbs().get_async_event(b_->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_QP_FATAL);
  EXPECT_EQ(event.element.qp, rx);
  Verbs().ack_async_event(&event);
  EXPECT_EQ(b_->StateOf(rx), IBV_QPS_ERR);
}

// A region that was taken away: whoever touches it breaks, others do not.
TEST_P(Cable, RevokedRegion) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  ibv_qp* other = a_->Qp();
  const HostBuffer sound = a_->Host(64);
  const DeviceBuffer device = a_->Device(4096);
  Configure("dev=a,revoke_lkey=" + std::to_string(device.mr->lkey));
  ASSERT_EQ(a_->Send(other, 1, {sound.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
  ASSERT_EQ(
      a_->Send(tx, 2, {sound.Sge(0, 64), device.Sge(0, 64)}, IBV_SEND_SIGNALED),
      0);
  std::vector<ibv_wc> got;
  EXPECT_TRUE(Eventually([&] {
    b_->Poll();
    for (const ibv_wc& wc : a_->Poll()) got.push_back(wc);
    return got.size() == 2;
  }));
  ASSERT_EQ(got.size(), 2u);
  for (const ibv_wc& wc : got) {
    EXPECT_EQ(wc.status, wc.wr_id == 1 ? IBV_WC_SUCCESS : IBV_WC_LOC_PROT_ERR);
  }
  EXPECT_EQ(a_->StateOf(other), IBV_QPS_RTS);
  EXPECT_EQ(a_->StateOf(tx), IBV_QPS_ERR);
}

TEST_P(Cable, RevokesTheRegionOfTheNthReceive) {
  Plug("", "revoke_at=2");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer head = b_->Host(54);
  const DeviceBuffer first = b_->Device(4096);
  const DeviceBuffer second = b_->Device(4096);
  ASSERT_EQ(b_->Recv(rx, 1, {head.Sge(0, 54), first.Sge(0, 2000)}), 0);
  ASSERT_EQ(b_->Recv(rx, 2, {head.Sge(0, 54), second.Sge(0, 2000)}), 0);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(SendFrame(tx, true, Pattern(50)), 0);
  const std::vector<ibv_wc> got = b_->Await(2);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].status, IBV_WC_SUCCESS);
  EXPECT_EQ(got[1].status, IBV_WC_LOC_PROT_ERR);
  EXPECT_EQ(second.Read(0, 50), std::vector<std::byte>(50));
  // It is that region which is gone: the first still works after a rebuild.
  for (ibv_qp_state s :
       {IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
    ASSERT_EQ(b_->Modify(rx, s), 0);
  }
  ASSERT_EQ(b_->Recv(rx, 3, {head.Sge(0, 54), first.Sge(0, 2000)}), 0);
  ASSERT_EQ(SendFrame(tx, true, Pattern(50, 4)), 0);
  ASSERT_EQ(b_->Await(1).size(), 1u);
  EXPECT_EQ(first.Read(0, 50), Pattern(50, 4));
}

// Sends from host memory do not count.
TEST_P(Cable, RevokesTheRegionOfTheNthSend) {
  Plug("", "");
  Configure("dev=a,revoke_send_at=2");
  ibv_qp* tx = a_->Qp();
  const HostBuffer host = a_->Host(64);
  const DeviceBuffer device = a_->Device(4096);
  const ibv_sge head = host.Sge(0, 64);
  ASSERT_EQ(a_->Send(tx, 1, {head, device.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
  ASSERT_EQ(a_->Send(tx, 2, {head}, IBV_SEND_SIGNALED), 0);
  ASSERT_EQ(a_->Send(tx, 3, {head, device.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
  std::vector<ibv_wc> got;
  EXPECT_TRUE(Eventually([&] {
    b_->Poll();
    for (const ibv_wc& wc : a_->Poll()) got.push_back(wc);
    return got.size() == 3;
  }));
  ASSERT_EQ(got.size(), 3u);
  for (const ibv_wc& wc : got) {
    EXPECT_EQ(wc.status, wc.wr_id == 3 ? IBV_WC_LOC_PROT_ERR : IBV_WC_SUCCESS);
  }
  EXPECT_EQ(a_->StateOf(tx), IBV_QPS_ERR);
}

// Payload arrives after its completion: by softnic_make_visible, or in time.
// Headers, in host memory, are there at once.
TEST_P(Cable, LateScatter) {
  Plug("", "late_scatter=200ms");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer head = b_->Host(54);
  const DeviceBuffer device = b_->Device(8192);
  for (uint32_t i = 0; i < 2; ++i) {
    ASSERT_EQ(b_->Recv(rx, i, {head.Sge(0, 54), device.Sge(i * 4096, 2000)}),
              0);
  }
  ASSERT_EQ(SendFrame(tx, true, Pattern(500)), 0);
  ASSERT_EQ(b_->Await(1).size(), 1u);
  EXPECT_EQ(memcmp(head.bytes.data(), b_->mac().data(), 6), 0);
  EXPECT_EQ(device.Read(0, 500), std::vector<std::byte>(500));
  EXPECT_EQ(Verbs().make_visible(), 0);
  EXPECT_EQ(device.Read(0, 500), Pattern(500));

  ASSERT_EQ(SendFrame(tx, true, Pattern(500, 1)), 0);
  ASSERT_EQ(b_->Await(1).size(), 1u);
  EXPECT_EQ(device.Read(4096, 500), std::vector<std::byte>(500));
  EXPECT_TRUE(Eventually([&] {
    b_->Poll();
    return device.Read(4096, 500) == Pattern(500, 1);
  }));
  EXPECT_EQ(b_->counters().late_scatters, 2u);
}

// A send is read long after it was posted: whoever changes the memory before
// the completion changes the frame.
TEST_P(Cable, LateGather) {
  Plug("late_gather=100ms", "");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 2048)}), 0);
  const devwire::MonotonicClock clock;
  const devwire::Instant start = clock.Now();
  ASSERT_EQ(SendFrame(tx, true, Pattern(500)), 0);
  device_.back().Write(0, Pattern(500, 5).data(), 500);
  std::vector<ibv_wc> got;
  size_t sent = 0;
  EXPECT_TRUE(Eventually([&] {
    for (const ibv_wc& wc : b_->Poll()) got.push_back(wc);
    sent += a_->Poll().size();
    return sent == 1 && got.size() == 1;
  }));
  EXPECT_GE((clock.Now() - start).milliseconds(), 100);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(memcmp(to.bytes.data() + 54, Pattern(500, 5).data(), 500), 0);
}

// The link fails: the port says so, sends complete and are lost.
TEST_P(Cable, LinkDown) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 2048)}), 0);
  Configure("dev=a,link=down");
  ibv_async_event event;
  ASSERT_EQ(Verbs().get_async_event(a_->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_PORT_ERR);
  Verbs().ack_async_event(&event);
  EXPECT_EQ(a_->PortState(), IBV_PORT_DOWN);
  ASSERT_EQ(SendFrame(tx, true, Pattern(50)), 0);
  EXPECT_EQ(a_->Await(1).size(), 1u);
  EXPECT_EQ(a_->counters().tx_link_down, 1u);
  Configure("dev=a,link=up");
  ASSERT_EQ(Verbs().get_async_event(a_->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_PORT_ACTIVE);
  Verbs().ack_async_event(&event);
  ASSERT_EQ(SendFrame(tx, true, Pattern(50)), 0);
  EXPECT_EQ(b_->Await(1).size(), 1u);
}

// The wire's faults reach frames on a cable, may change while running, and
// repeat with the seed.
TEST_P(Cable, LossRepeatsWithItsSeed) {
  Plug("loss=0.3,fault_side=tx,seed=5", "");
  ibv_qp* tx = a_->Qp({.depth = 256});
  ibv_qp* rx = b_->Qp({.depth = 256});
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  const HostBuffer from = a_->Host(64);
  const std::vector<std::byte> header =
      MakeHeader(b_->mac(), a_->mac(), false, 22);
  std::vector<uint64_t> arrived[2];
  for (std::vector<uint64_t>& out : arrived) {
    memcpy(const_cast<std::byte*>(from.bytes.data()), header.data(), 42);
    for (uint64_t i = 0; i < 200; ++i) {
      ASSERT_EQ(b_->Recv(rx, i, {to.Sge(0, 2048)}), 0);
    }
    uint64_t before = b_->counters().rx_delivered;
    for (uint64_t i = 0; i < 200; ++i) {
      ASSERT_EQ(a_->Send(tx, i, {from.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
      EXPECT_TRUE(Eventually([&] {
        b_->Poll();
        return !a_->Poll().empty();
      }));
      const uint64_t now = b_->counters().rx_delivered;
      if (now != before) out.push_back(i);
      before = now;
    }
    EXPECT_GT(out.size(), 100u);
    EXPECT_LT(out.size(), 180u);
    // What is still posted goes with a reset.
    for (ibv_qp_state s :
         {IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
      ASSERT_EQ(b_->Modify(rx, s), 0);
    }
    Configure("dev=a,seed=5");
  }
  EXPECT_EQ(arrived[0], arrived[1]);
  EXPECT_EQ(a_->counters().wire_tx_lost,
            400 - arrived[0].size() - arrived[1].size());
}

// A completion queue that overflows is in error for good, with an event.
TEST_P(Cable, CompletionQueueOverrun) {
  Plug("");
  ibv_cq* small = Verbs().create_cq(a_->context(), 3, nullptr, nullptr, 0);
  ASSERT_NE(small, nullptr);
  EXPECT_EQ(small->cqe, 3);
  ibv_qp_init_attr attr = {};
  attr.send_cq = small;
  attr.recv_cq = a_->cq();
  attr.cap = {8, 8, 1, 1, 0};
  attr.qp_type = IBV_QPT_RAW_PACKET;
  ibv_qp* qp = Verbs().create_qp(a_->pd(), &attr);
  ASSERT_NE(qp, nullptr);
  for (ibv_qp_state s : {IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
    ASSERT_EQ(a_->Modify(qp, s), 0);
  }
  const HostBuffer m = a_->Host(64);
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(a_->Send(qp, i, {m.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
  }
  EXPECT_TRUE(Eventually([&] {
    a_->Poll();
    b_->Poll();
    return a_->counters().cq_overruns == 1;
  }));
  ibv_async_event event;
  ASSERT_EQ(Verbs().get_async_event(a_->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_CQ_ERR);
  EXPECT_EQ(event.element.cq, small);
  Verbs().ack_async_event(&event);
  ASSERT_EQ(Verbs().get_async_event(a_->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_QP_FATAL);
  Verbs().ack_async_event(&event);
  EXPECT_EQ(a_->StateOf(qp), IBV_QPS_ERR);
  EXPECT_EQ(Verbs().destroy_qp(qp), 0);
  EXPECT_EQ(Verbs().destroy_cq(small), 0);
}

}  // namespace
}  // namespace softnic
