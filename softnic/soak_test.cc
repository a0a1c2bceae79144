// Everything at once: random frames and super-frames over a cable while faults
// come and go on both devices. Whatever the application is told is good must be
// good; every work request must come back; and when the faults are over it is
// all as if nothing had happened.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/prng.h"
#include "softnic/cable_fixture.h"
#include "softnic/packet.h"

namespace softnic {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint32_t kSplit = 54;
constexpr uint32_t kReceiveBytes = 9216;
constexpr uint32_t kReceives = 128;
constexpr uint32_t kSendBytes = 65536;
constexpr uint32_t kSends = 24;
constexpr uint32_t kRounds = 24;
constexpr uint32_t kSendsPerRound = 60;

// What the stream has at this position: the payload of a frame follows from its
// sequence number.
std::byte At(uint32_t position) {
  return static_cast<std::byte>((position * 2654435761u) >> 24);
}

// One queue pair that comes back from every error.
struct Side {
  Nic* nic = nullptr;
  ibv_qp* qp = nullptr;
  uint32_t posted = 0;  // work requests that have not come back
  bool is_broken = false;
};

class Soak : public Cable {
 protected:
  void SetUpSides() {
    Plug("mtu=9000");
    tx_ = {a_.get(), a_->Qp({.depth = 256, .max_tso_header = 128})};
    rx_ = {b_.get(), b_->Qp({.depth = 256})};
    b_->TakeAll(rx_.qp);
    send_headers_ = a_->Host(kSends * 64);
    send_slots_ = a_->Device(kSends * kSendBytes);
    receive_headers_ = b_->Host(kReceives * kSplit);
    receive_slots_ = b_->Device(kReceives * kReceiveBytes);
    for (uint32_t i = 0; i < kSends; ++i) free_.push_back(i);
    for (uint32_t i = 0; i < kReceives; ++i) PostReceive(i);
  }

  void PostReceive(uint64_t i) {
    ASSERT_EQ(
        rx_.nic->Recv(rx_.qp, i,
                      {receive_headers_.Sge(i * kSplit, kSplit),
                       receive_slots_.Sge(i * kReceiveBytes, kReceiveBytes)}),
        0);
    ++rx_.posted;
  }

  // A frame of `bytes` of the stream; mss > 0: a super-frame.
  void Send(uint32_t bytes, uint16_t mss) {
    const uint32_t slot = free_.back();
    free_.pop_back();
    Bytes payload(bytes);
    for (uint32_t i = 0; i < bytes; ++i) payload[i] = At(position_ + i);
    send_slots_.Write(size_t{slot} * kSendBytes, payload.data(), bytes);
    Bytes header = MakeHeader(b_->mac(), a_->mac(), true, bytes);
    Store32(&header[38], position_);
    position_ += bytes;
    std::byte* at = &send_headers_.bytes[slot * 64];
    memcpy(at, header.data(), kSplit);
    std::array<ibv_sge, 2> sges = {
        send_headers_.Sge(slot * 64, kSplit),
        send_slots_.Sge(uint64_t{slot} * kSendBytes, bytes)};
    ibv_send_wr wr = {};
    wr.wr_id = slot;
    wr.sg_list = sges.data();
    wr.num_sge = 2;
    wr.opcode = IBV_WR_SEND;
    wr.send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
    if (mss > 0) {
      wr.sg_list = &sges[1];
      wr.num_sge = 1;
      wr.opcode = IBV_WR_TSO;
      wr.tso.hdr = at;
      wr.tso.hdr_sz = kSplit;
      wr.tso.mss = mss;
    }
    ibv_send_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_send(tx_.qp, &wr, &bad), 0);
    ++tx_.posted;
  }

  // The memory is ours again: what is read from it later shows.
  void OnSent(const ibv_wc& wc) {
    --tx_.posted;
    tx_.is_broken |= wc.status != IBV_WC_SUCCESS;
    const Bytes poison(2048, std::byte{0xee});
    send_slots_.Write(wc.wr_id * kSendBytes, poison.data(), poison.size());
    free_.push_back(static_cast<uint32_t>(wc.wr_id));
  }

  void OnReceived(const ibv_wc& wc) {
    --rx_.posted;
    if (wc.status != IBV_WC_SUCCESS) {
      rx_.is_broken = true;
      lost_receives_.push_back(wc.wr_id);
      return;
    }
    if ((wc.wc_flags & IBV_WC_IP_CSUM_OK) != 0) CheckFrame(wc);
    if (rx_.is_broken) {
      lost_receives_.push_back(wc.wr_id);
    } else {
      PostReceive(wc.wr_id);
    }
  }

  void CheckFrame(const ibv_wc& wc) {
    ASSERT_EQ(Verbs().make_visible(), 0);
    const std::byte* header = &receive_headers_.bytes[wc.wr_id * kSplit];
    const uint32_t payload = Load16(header + 16) - 40u;
    const uint32_t position = Load32(header + 38);
    ASSERT_LE(kSplit + payload, wc.byte_len);
    const Bytes bytes = receive_slots_.Read(wc.wr_id * kReceiveBytes, payload);
    for (uint32_t i = 0; i < payload; ++i) {
      ASSERT_EQ(bytes[i], At(position + i))
          << "byte " << i << " of " << payload;
    }
    ++good_;
    if (position >= clean_from_) clean_.push_back(position);
  }

  void Poll() {
    for (const ibv_wc& wc : a_->Poll()) OnSent(wc);
    for (const ibv_wc& wc : b_->Poll()) OnReceived(wc);
    Mend(&tx_);
    if (Mend(&rx_)) {
      for (uint64_t i : lost_receives_) PostReceive(i);
      lost_receives_.clear();
    }
  }

  // Through RESET, once everything posted has come back.
  bool Mend(Side* side) {
    if (!side->is_broken || side->posted != 0) return false;
    for (ibv_qp_state s :
         {IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
      EXPECT_EQ(side->nic->Modify(side->qp, s), 0);
    }
    side->is_broken = false;
    ++mended_;
    return true;
  }

  std::string RandomFaults(devwire::Prng* prng) {
    auto maybe = [prng](const char* key, const char* value) {
      return prng->Chance(0.3) ? std::string(",") + key + "=" + value
                               : std::string(",") + key + "=0";
    };
    std::string text = prng->Chance(0.5) ? "dev=a" : "dev=b";
    text += ",seed=" + std::to_string(prng->Below(1000));
    text += maybe("loss", "0.05") + maybe("dup", "0.05");
    text += maybe("corrupt", "0.05") + maybe("reorder", "0.1");
    text += maybe("delay", "50us") + maybe("delay_jitter", "80us");
    text += maybe("late_scatter", "100us") + maybe("late_gather", "100us");
    text += maybe("cqe_error", "0.01") + maybe("qp_error", "0.01");
    text += maybe("rate", "2G") + maybe("verify", "1");
    text += prng->Chance(0.1) ? ",link=down" : ",link=up";
    return text;
  }

  void Run(uint64_t seed);

  Side tx_, rx_;
  HostBuffer send_headers_, receive_headers_;
  DeviceBuffer send_slots_, receive_slots_;
  std::vector<uint32_t> free_;
  std::vector<uint64_t> lost_receives_;
  uint32_t position_ = 0;
  uint32_t good_ = 0;
  uint32_t mended_ = 0;
  uint32_t clean_from_ = UINT32_MAX;
  std::vector<uint32_t> clean_;
};

INSTANTIATE_TEST_SUITE_P(Modes, Soak,
                         testing::Values("inline", "thread", "process"),
                         ModeName);

void Soak::Run(uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  devwire::Prng prng(seed);
  SetUpSides();
  for (uint32_t round = 0; round < kRounds && !HasFailure(); ++round) {
    Configure(RandomFaults(&prng));
    uint32_t to_send = kSendsPerRound;
    ASSERT_TRUE(Eventually([&] {
      while (to_send > 0 && !free_.empty() && !tx_.is_broken) {
        const bool is_super = prng.Chance(0.3);
        Send(static_cast<uint32_t>(prng.Between(1, is_super ? 60'000 : 8'900)),
             is_super ? static_cast<uint16_t>(prng.Between(500, 8'900)) : 0);
        --to_send;
      }
      Poll();
      return to_send == 0 || HasFailure();
    })) << to_send
        << " sends left, " << tx_.posted << " posted";
  }

  // The faults are over. What was posted comes back; then all is well again.
  constexpr char kSound[] =
      ",loss=0,dup=0,corrupt=0,reorder=0,delay=0,delay_jitter=0"
      ",late_scatter=0,late_gather=0,cqe_error=0,qp_error=0,rate=0,link=up";
  Configure(std::string("dev=a") + kSound + ";dev=b" + kSound);
  ASSERT_TRUE(Eventually([&] {
    Poll();
    return (tx_.posted == 0 && !tx_.is_broken && rx_.posted == kReceives) ||
           HasFailure();
  })) << tx_.posted
      << " sends posted, " << rx_.posted << " receives";
  clean_from_ = position_;
  std::vector<uint32_t> expected;
  while (expected.size() < 100) {
    ASSERT_TRUE(Eventually([&] {
      Poll();
      return !free_.empty();
    }));
    expected.push_back(position_);
    Send(static_cast<uint32_t>(prng.Between(1, 8'900)), 0);
  }
  EXPECT_TRUE(Eventually([&] {
    Poll();
    return clean_.size() >= expected.size() || HasFailure();
  }));
  EXPECT_EQ(clean_, expected);
  EXPECT_EQ(free_.size() + tx_.posted, kSends);
  EXPECT_GT(good_, 500u);
  EXPECT_GT(mended_, 0u);
}

TEST_P(Soak, Seed1) { Run(1); }
TEST_P(Soak, Seed2) { Run(2); }
TEST_P(Soak, Seed3) { Run(3); }

}  // namespace
}  // namespace softnic
