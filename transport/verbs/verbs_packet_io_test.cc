// VerbsPacketIo over softnic: two hosts in one process, a cable in between.
#include "transport/verbs/verbs_packet_io.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/alloc_guard.h"
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

}  // namespace
}  // namespace devwire
