// Frames between two devices of this process, over a cable.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>

#include "softnic/packet.h"
#include "softnic/verbs_fixture.h"

namespace softnic {
namespace {

std::vector<std::byte> Pattern(size_t n, uint8_t seed = 0) {
  std::vector<std::byte> out(n);
  for (size_t i = 0; i < n; ++i) {
    out[i] = static_cast<std::byte>(i * 7 + seed + (i >> 8));
  }
  return out;
}

// Two devices on one cable, one queue pair each; b takes all frames to itself.
class Cable : public testing::Test {
 protected:
  void Plug(const std::string& options_a, const std::string& options_b) {
    const std::string path = CablePath("data");
    const std::string text = "dev=a,port=shm:" + path + "," + options_a +
                             ";dev=b,port=shm:" + path + "," + options_b;
    ASSERT_EQ(Verbs().configure(text.c_str()), 0) << Verbs().last_error();
    a_ = std::make_unique<Nic>("a");
    b_ = std::make_unique<Nic>("b");
  }
  void TearDown() override {
    a_ = nullptr;
    b_ = nullptr;
    Verbs().configure(nullptr);
  }

  // Puts a header and payload into new memory of a, and sends it.
  int SendFrame(ibv_qp* qp, bool is_tcp, const std::vector<std::byte>& payload,
                unsigned flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM) {
    const std::vector<std::byte> header = MakeHeader(
        b_->mac(), a_->mac(), is_tcp, static_cast<uint32_t>(payload.size()));
    HostBuffer& host = host_.emplace_back(a_->Host(header.size()));
    memcpy(host.bytes.data(), header.data(), header.size());
    std::vector<ibv_sge> sges = {
        host.Sge(0, static_cast<uint32_t>(header.size()))};
    if (!payload.empty()) {
      device_.push_back(a_->Device(payload.size()));
      device_.back().Write(0, payload.data(), payload.size());
      sges.push_back(
          device_.back().Sge(0, static_cast<uint32_t>(payload.size())));
    }
    return a_->Send(qp, 77, sges, flags);
  }

  std::unique_ptr<Nic> a_;
  std::unique_ptr<Nic> b_;
  std::deque<HostBuffer> host_;
  std::deque<DeviceBuffer> device_;
};

// Header to host memory, payload to device memory, by one receive of two SGEs.
TEST_F(Cable, SplitsAFrameBetweenHostAndDevice) {
  Plug("mtu=9000", "mtu=9000");
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

}  // namespace
}  // namespace softnic
