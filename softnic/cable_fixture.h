// Two devices of this process on one cable, for tests. Devices are made new
// for every test; each test runs with the devices inline, with threads and in
// processes.
#ifndef SOFTNIC_CABLE_FIXTURE_H_
#define SOFTNIC_CABLE_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "softnic/verbs_fixture.h"

namespace softnic {

inline std::vector<std::byte> Pattern(size_t n, uint8_t seed = 0) {
  std::vector<std::byte> out(n);
  for (size_t i = 0; i < n; ++i) {
    out[i] = static_cast<std::byte>(i * 7 + seed + (i >> 8));
  }
  return out;
}

class Cable : public testing::TestWithParam<const char*> {
 protected:
  // Both ends with the same options.
  void Plug(const std::string& options) { Plug(options, options); }
  void Plug(const std::string& options_a, const std::string& options_b) {
    path_ = CablePath("cable");
    const std::string common =
        std::string(",mode=") + GetParam() + ",port=shm:" + path_ + ",";
    const std::string text =
        "dev=a" + common + options_a + ";dev=b" + common + options_b;
    ASSERT_EQ(Verbs().configure(text.c_str()), 0) << Verbs().last_error();
    a_ = std::make_unique<Nic>("a");
    b_ = std::make_unique<Nic>("b");
  }
  void TearDown() override {
    a_ = nullptr;
    b_ = nullptr;
    Verbs().configure(nullptr);
  }

  bool IsInline() const { return strcmp(GetParam(), "inline") == 0; }
  void Configure(const std::string& text) {
    ASSERT_EQ(Verbs().configure(text.c_str()), 0) << Verbs().last_error();
  }

  // Puts `frame` into new host memory of a and `payload` behind it into new
  // device memory, and sends both.
  int SendBytes(ibv_qp* qp, const std::vector<std::byte>& frame,
                const std::vector<std::byte>& payload = {},
                unsigned flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM,
                uint64_t wr_id = 77) {
    HostBuffer& host = host_.emplace_back(a_->Host(frame.size()));
    memcpy(host.bytes.data(), frame.data(), frame.size());
    std::vector<ibv_sge> sges = {
        host.Sge(0, static_cast<uint32_t>(frame.size()))};
    if (!payload.empty()) {
      DeviceBuffer& device = device_.emplace_back(a_->Device(payload.size()));
      device.Write(0, payload.data(), payload.size());
      sges.push_back(device.Sge(0, static_cast<uint32_t>(payload.size())));
    }
    return a_->Send(qp, wr_id, sges, flags);
  }
  // A TCP or UDP frame from a to b.
  int SendFrame(ibv_qp* qp, bool is_tcp, const std::vector<std::byte>& payload,
                unsigned flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM,
                uint64_t wr_id = 77) {
    return SendBytes(qp,
                     MakeHeader(b_->mac(), a_->mac(), is_tcp,
                                static_cast<uint32_t>(payload.size())),
                     payload, flags, wr_id);
  }

  std::string path_;
  std::unique_ptr<Nic> a_;
  std::unique_ptr<Nic> b_;
  std::deque<HostBuffer> host_;
  std::deque<DeviceBuffer> device_;
};

inline std::string ModeName(const testing::TestParamInfo<const char*>& info) {
  return info.param;
}

}  // namespace softnic

#endif  // SOFTNIC_CABLE_FIXTURE_H_
