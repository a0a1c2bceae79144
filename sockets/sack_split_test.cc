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

// What one direction of a capture by softnic holds: of sent frames before the
// wire loses any, of received ones those that came.
struct Seen {
  uint64_t sack_blocks = 0;
  uint64_t text_bytes = 0;
};
Seen InFile(const std::string& path, bool inbound) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> f{std::istreambuf_iterator<char>(in), {}};
  const auto word = [&](size_t at) {
    uint32_t value;
    CHECK_LE(at + 4, f.size());
    std::memcpy(&value, &f[at], sizeof(value));
    return value;
  };
  Seen seen;
  for (size_t i = 0; i < f.size(); i += word(i + 4)) {
    if (word(i) != 6) continue;  // An enhanced packet block, pcapng 4.3.
    const uint32_t captured = word(i + 20);
    // Its one option is epb_flags: 1 is inbound.
    const bool is_inbound = word(i + 28 + (captured + 3) / 4 * 4 + 4) == 1;
    ParsedFrame parsed;
    const auto* frame = reinterpret_cast<const std::byte*>(&f[i + 28]);
    if (is_inbound == inbound && ParseFrame(frame, captured, word(i + 24),
                                            &parsed) == ParseResult::kTcp) {
      seen.sack_blocks += parsed.tcp.options.sack_block_count;
      seen.text_bytes += parsed.payload_bytes;
    }
  }
  return seen;
}

struct Outcome {
  uint64_t retransmitted_bytes = 0;  // Of both ends; and of both, what the
  uint64_t lost_bytes = 0;           // wire lost of their text.
  uint64_t timeouts = 0;
  // By end, client first.
  uint64_t sack_blocks_in[2] = {};
  uint64_t sack_blocks_out[2] = {};
  uint64_t device_bytes[2] = {};
  Seen in[2];
  Seen out[2];
  softnic_counters nic[2];
};

// Both ends send `bytes` at once, and each loses one frame in a hundred on its
// way out. Without the split: the NIC has room for no stream's rule, so that
// whole frames come to the control queue.
Outcome Run(uint64_t bytes, bool is_split, const std::string& capture) {
  TwoStacks::Options o;
  o.memory_bytes = 20 << 20;
  o.receive_bytes = kSendFrom;
  o.nic = ",fault_side=tx,pcap=" + capture + "$.pcapng";
  if (!is_split) o.nic += ",rules=3";  // Our MAC, broadcast; a listener, ports.
  o.stack.host_receive_bytes = 32 << 20;
  TwoStacks net(o);
  TwoStacks::Pair pair = net.Connect();
  ChangeSoftnic("dev=sn0,loss=0.01,seed=11;dev=sn1,loss=0.01,seed=12");
  PatternSender up(
      *pair.client, net.client(),
      {.stream_number = 1, .bytes = bytes, .chunks = 64, .offset = kSendFrom});
  PatternSender down(
      *pair.server, net.server(),
      {.stream_number = 2, .bytes = bytes, .chunks = 64, .offset = kSendFrom});
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
      200_s));
  EXPECT_EQ(at_server.first_wrong(), std::nullopt);
  EXPECT_EQ(at_client.first_wrong(), std::nullopt);
  Outcome out;
  Stream* streams[2] = {pair.client.get(), pair.server.get()};
  for (int i = 0; i < 2; ++i) {
    const StreamInfo info = *streams[i]->Info();
    EXPECT_EQ(info.steered, is_split) << info.steering;
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

// The same, and what the captures say, which are complete once all is closed.
Outcome Exchange(uint64_t bytes, bool is_split) {
  const std::string capture = ::testing::TempDir() + "/sack_";
  Outcome out = Run(bytes, is_split, capture);
  for (int i = 0; i < 2; ++i) {
    const std::string file = absl::StrCat(capture, "sn", i, ".pcapng");
    out.in[i] = InFile(file, /*inbound=*/true);
    out.out[i] = InFile(file, /*inbound=*/false);
  }
  out.lost_bytes = out.out[0].text_bytes + out.out[1].text_bytes -
                   out.in[0].text_bytes - out.in[1].text_bytes;
  return out;
}

// What the peer's NIC let onto the wire came, and was taken in; and with it as
// much is sent again, for what was lost, as without the split.
TEST(SackSplit, EveryBlockCountsAndNothingMoreIsSentAgain) {
  constexpr uint64_t kBytes = 12 << 20;
  const Outcome split = Exchange(kBytes, /*is_split=*/true);
  for (int i = 0; i < 2; ++i) {
    EXPECT_GT(split.sack_blocks_in[i], 100u);
    EXPECT_EQ(split.in[i].sack_blocks, split.sack_blocks_in[i]);
    EXPECT_EQ(split.out[i].sack_blocks, split.sack_blocks_out[i]);
    EXPECT_EQ(split.device_bytes[i], kBytes);
    // A copy of a segment may come before the rule, while handshakes are lost.
    EXPECT_LE(split.nic[i].payload_landed_host_bytes, 64u << 10);
    EXPECT_GT(split.nic[i].wire_tx_lost, 50u);
  }
  const Outcome whole = Exchange(kBytes, /*is_split=*/false);
  EXPECT_EQ(whole.device_bytes[0] + whole.device_bytes[1], 0u);
  // Which frames the seed hits depends on how text and ACKs alternate, and that
  // on time: so each is held against what it lost.
  const auto per_lost = [](const Outcome& o) {
    return static_cast<double>(o.retransmitted_bytes) /
           static_cast<double>(o.lost_bytes);
  };
  EXPECT_GT(whole.lost_bytes, 2 * kBytes / 200);
  EXPECT_NEAR(per_lost(split) / per_lost(whole), 1, 0.05)
      << split.retransmitted_bytes << " for " << split.lost_bytes << ", and "
      << whole.retransmitted_bytes << " for " << whole.lost_bytes
      << ", timeouts " << split.timeouts << " and " << whole.timeouts;
  RecordProperty("sent_again_split", absl::StrCat(split.retransmitted_bytes));
  RecordProperty("lost_split", absl::StrCat(split.lost_bytes));
  RecordProperty("sent_again_whole", absl::StrCat(whole.retransmitted_bytes));
  RecordProperty("lost_whole", absl::StrCat(whole.lost_bytes));
}

}  // namespace
}  // namespace devwire
