// The test fixture of two hosts with a cable between them.
#ifndef TRANSPORT_VERBS_TWO_HOSTS_H_
#define TRANSPORT_VERBS_TWO_HOSTS_H_

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "base/prng.h"
#include "gtest/gtest.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {

inline constexpr Port kFrom{1000};
inline constexpr Port kTo{2000};

inline std::string TwoDevices(const std::string& more = "") {
  const std::string port = ",port=shm:" + CablePath() + ",mtu=9000" + more;
  return "dev=sn0" + port + ";dev=sn1" + port;
}

inline std::vector<std::byte> RandomBytes(uint64_t seed, size_t n) {
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

}  // namespace devwire

#endif  // TRANSPORT_VERBS_TWO_HOSTS_H_
