// SACK meets the split (docs/wire.md) over softnic: both ends send and receive
// device memory at once, so that SACK blocks come in headers longer than the
// split. The NIC's own captures say what came over the wire.
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "gtest/gtest.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"
#include "transport/wire/frame.h"

namespace devwire {
namespace {

constexpr uint64_t kSendFrom = 16 << 20;  // Behind the receive pool.

// SACK blocks in the frames of one direction of a capture by softnic.
uint64_t BlocksIn(const std::string& path, bool inbound) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> f{std::istreambuf_iterator<char>(in), {}};
  const auto word = [&](size_t at) {
    uint32_t value;
    CHECK_LE(at + 4, f.size());
    std::memcpy(&value, &f[at], sizeof(value));
    return value;
  };
  uint64_t blocks = 0;
  for (size_t i = 0; i < f.size(); i += word(i + 4)) {
    if (word(i) != 6) continue;  // An enhanced packet block, pcapng 4.3.
    const uint32_t captured = word(i + 20);
    // Its one option is epb_flags: 1 is inbound.
    const bool is_inbound = word(i + 28 + (captured + 3) / 4 * 4 + 4) == 1;
    ParsedFrame parsed;
    const auto* frame = reinterpret_cast<const std::byte*>(&f[i + 28]);
    if (is_inbound == inbound && ParseFrame(frame, captured, word(i + 24),
                                            &parsed) == ParseResult::kTcp) {
      blocks += parsed.tcp.options.sack_block_count;
    }
  }
  return blocks;
}

struct Outcome {
  uint64_t retransmitted_bytes = 0;  // Of both ends.
  uint64_t timeouts = 0;
  // By end, client first.
  uint64_t sack_blocks_in[2] = {};
  uint64_t sack_blocks_out[2] = {};
  uint64_t device_bytes[2] = {};
  softnic_counters nic[2];
};

// Both ends send `bytes` at once, and each loses one frame in a hundred on its
// way out. Without the split: the NIC has room for no stream's rule, so that
// whole frames come to the control queue.
struct Way {
  uint64_t bytes = 0;  // Each way.
  uint32_t mtu = 1500;
  bool is_split = true;
  std::string capture;  // Files of softnic's; empty: none.
};
Outcome Exchange(const Way& way) {
  TwoStacks::Options o;
  o.mtu = way.mtu;
  o.memory_bytes = 20 << 20;
  o.receive_bytes = kSendFrom;
  o.nic = ",fault_side=tx";
  if (!way.is_split)
    o.nic += ",rules=3";  // Our MAC, broadcast; a listener, ports.
  if (!way.capture.empty()) o.nic += ",pcap=" + way.capture + "$.pcapng";
  o.stack.host_receive_bytes = 32 << 20;
  TwoStacks net(o);
  TwoStacks::Pair pair = net.Connect();
  ChangeSoftnic("dev=sn0,loss=0.01,seed=11;dev=sn1,loss=0.01,seed=12");
  PatternSender up(*pair.client, net.client(),
                   {.stream_number = 1,
                    .bytes = way.bytes,
                    .chunks = 64,
                    .offset = kSendFrom});
  PatternSender down(*pair.server, net.server(),
                     {.stream_number = 2,
                      .bytes = way.bytes,
                      .chunks = 64,
                      .offset = kSendFrom});
  PatternReceiver at_server(*pair.server, net.server(), 1);
  PatternReceiver at_client(*pair.client, net.client(), 2);
  bool ends[2] = {};
  EXPECT_TRUE(net.Until(
      [&] {
        const bool sent = up.Step() & down.Step();
        ends[0] = ends[0] || at_client.Step();
        ends[1] = ends[1] || at_server.Step();
        return sent && ends[0] && ends[1];
      },
      120_s));
  EXPECT_EQ(at_server.first_wrong(), std::nullopt);
  EXPECT_EQ(at_client.first_wrong(), std::nullopt);
  Outcome out;
  Stream* streams[2] = {pair.client.get(), pair.server.get()};
  for (int i = 0; i < 2; ++i) {
    const StreamInfo info = *streams[i]->Info();
    EXPECT_EQ(info.steered, way.is_split) << info.steering;
    out.retransmitted_bytes += info.retransmitted_bytes;
    out.timeouts += streams[i]->tcp_info()->tcpi_total_rto;
    out.sack_blocks_in[i] = info.sack_blocks_in;
    out.sack_blocks_out[i] = info.sack_blocks_out;
    out.device_bytes[i] = info.device_bytes;
  }
  out.nic[0] = net.client().Nic();
  out.nic[1] = net.server().Nic();
  return out;
}

// What the peer's NIC let onto the wire came, and was taken in.
TEST(SackSplit, EveryBlockOnTheWireIsTakenIn) {
  const std::string capture = ::testing::TempDir() + "/sack_";
  const Outcome out = Exchange({.bytes = 8 << 20, .capture = capture});
  for (int i = 0; i < 2; ++i) {
    const std::string file = absl::StrCat(capture, "sn", i, ".pcapng");
    EXPECT_GT(out.sack_blocks_in[i], 100u);
    EXPECT_EQ(BlocksIn(file, /*inbound=*/true), out.sack_blocks_in[i]);
    EXPECT_EQ(BlocksIn(file, /*inbound=*/false), out.sack_blocks_out[i]);
    EXPECT_EQ(out.device_bytes[i], 8u << 20);
    EXPECT_EQ(out.nic[i].payload_landed_host_bytes, 0u);
    EXPECT_GT(out.nic[i].wire_tx_lost, 50u);
  }
}

// Short segments, for many losses: chance alone moves the ratio by 1 %.
TEST(SackSplit, AsMuchIsSentAgainAsWithoutIt) {
  constexpr uint64_t kBytes = 48 << 20;
  const Outcome split = Exchange({.bytes = kBytes, .mtu = 576});
  const Outcome whole =
      Exchange({.bytes = kBytes, .mtu = 576, .is_split = false});
  EXPECT_EQ(split.device_bytes[0] + split.device_bytes[1], 2 * kBytes);
  EXPECT_EQ(whole.device_bytes[0] + whole.device_bytes[1], 0u);
  const double ratio = static_cast<double>(split.retransmitted_bytes) /
                       static_cast<double>(whole.retransmitted_bytes);
  EXPECT_GT(whole.retransmitted_bytes, 2 * kBytes / 200);
  EXPECT_NEAR(ratio, 1, 0.05)
      << split.retransmitted_bytes << " and " << whole.retransmitted_bytes
      << ", timeouts " << split.timeouts << " and " << whole.timeouts;
  RecordProperty("retransmitted_split",
                 std::to_string(split.retransmitted_bytes));
  RecordProperty("retransmitted_whole",
                 std::to_string(whole.retransmitted_bytes));
}

}  // namespace
}  // namespace devwire
