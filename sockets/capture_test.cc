// A capture of a running stack, read back: both directions, headers alone, and
// the reason of a drop at the frame that was dropped.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "gtest/gtest.h"
#include "sockets/errno_map.h"
#include "sockets/hand_peer.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"
#include "transport/wire/frame.h"

namespace devwire {
namespace {

template <typename T>
T Take(absl::StatusOr<T> value) {
  CHECK(value.ok()) << std::string(value.status().message());
  return *std::move(value);
}

struct Packet {
  bool is_inbound = false;
  uint32_t frame_bytes = 0;
  std::vector<std::byte> header;  // What was captured of it.
  std::string comment;
  ParsedFrame parsed;
};

template <typename T>
T At(const std::vector<char>& bytes, size_t at) {
  T value;
  std::memcpy(&value, &bytes.at(at), sizeof(value));
  return value;
}

// The TCP packets of the file: draft-ietf-opsawg-pcapng 4.3.
std::vector<Packet> ReadCapture(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> f{std::istreambuf_iterator<char>(in), {}};
  std::vector<Packet> packets;
  for (size_t i = 0; i < f.size(); i += At<uint32_t>(f, i + 4)) {
    if (At<uint32_t>(f, i) != 6) continue;
    Packet p;
    const auto captured = At<uint32_t>(f, i + 20);
    p.frame_bytes = At<uint32_t>(f, i + 24);
    p.header.resize(captured);
    std::memcpy(p.header.data(), &f.at(i + 28), captured);
    size_t o = i + 28 + (captured + 3) / 4 * 4;
    while (At<uint16_t>(f, o) != 0) {
      const auto bytes = At<uint16_t>(f, o + 2);
      if (At<uint16_t>(f, o) == 2) p.is_inbound = At<uint32_t>(f, o + 4) == 1;
      if (At<uint16_t>(f, o) == 1) p.comment.assign(&f.at(o + 4), bytes);
      o += 4 + (bytes + 3u) / 4 * 4;
    }
    if (ParseFrame(p.header.data(), captured, p.frame_bytes, &p.parsed) ==
        ParseResult::kTcp) {
      packets.push_back(std::move(p));
    }
  }
  return packets;
}

// A stack on sn0, a hand-made peer on sn1, one stream between them.
class Capture : public ::testing::TestWithParam<bool> {
 protected:
  Capture() {
    const std::string port = ",port=shm:" + CablePath();
    ConfigureSoftnic("dev=sn0,mac=02:00:00:00:00:01" + port +
                     ";dev=sn1,mac=02:00:00:00:00:02" + port);
    StackOptions o;
    o.verbs_library = SoftnicPath();
    o.device = "sn0";
    o.address = IpAddress::V4(10, 0, 0, 1);
    o.rx_ring_frames = 32;
    o.neighbors = {{IpAddress::V4(10, 0, 0, 2), {2, 0, 0, 0, 0, 2}}};
    stack_ = Take(Stack::Open(o));
    ListenOptions into;
    if (is_device()) into.memory = Take(stack_->BindMemory(*memory_, {}));
    listener_ = Take(stack_->Listen({o.address, Port{7000}}, into));
    peer_ = std::make_unique<HandPeer>(
        HandPeer::Options{.device = "sn1",
                          .ip = IpAddress::V4(10, 0, 0, 2),
                          .mtu = 1500,
                          .remote = listener_->local(),
                          .remote_mac = stack_->mac(),
                          .poll = [this] { stack_->Poll(); }});
    CHECK(peer_->Connect(Port{1000}, {}));
    CHECK(Until([&] {
      stream_ = Take(listener_->TryAccept());
      return stream_ != nullptr;
    }));
  }

  static bool is_device() { return GetParam(); }
  template <typename F>
  bool Until(F step) {
    return Eventually([&] {
      stack_->Poll();
      peer_->Poll();
      return step();
    });
  }
  // Until so many bytes of the stream are acknowledged.
  bool Acked(uint64_t bytes) {
    return Until([&] { return peer_->acked() == bytes; });
  }

  const std::unique_ptr<MemfdMemory> memory_ =
      Take(MemfdMemory::Allocate(1 << 20));
  std::unique_ptr<Stack> stack_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<HandPeer> peer_;
  std::unique_ptr<Stream> stream_;
  const std::string path_ = ::testing::TempDir() + "/stack.pcapng";
};

TEST_P(Capture, BothDirectionsHeadersAloneAndTheReasonOfADrop) {
  peer_->Send(0, 100);  // Before the capture: not in it.
  ASSERT_TRUE(Acked(100));
  ASSERT_TRUE(stack_->StartCapture(path_, 1 << 20).ok());
  peer_->Send(100, 700);
  ASSERT_TRUE(Acked(800));
  // A bit of the payload is wrong, and one of an ACK's options.
  std::vector<std::byte> bad_text = peer_->FrameOf(800, 700, {});
  bad_text.back() ^= std::byte{1};
  peer_->SendRaw(bad_text);
  std::vector<std::byte> bad_ack = peer_->FrameOf(800, 0, {});
  bad_ack.back() ^= std::byte{1};
  peer_->SendRaw(bad_ack);
  peer_->Send(800, 600);
  ASSERT_TRUE(Acked(1400));
  ASSERT_TRUE(stack_->StopCapture().ok());
  peer_->Send(1400, 100);  // After it.
  ASSERT_TRUE(Acked(1500));

  const std::vector<Packet> packets = ReadCapture(path_);
  std::vector<const Packet*> in;
  size_t out = 0;
  for (const Packet& p : packets) {
    EXPECT_EQ(p.header.size(), p.parsed.header_bytes) << "headers alone";
    if (p.is_inbound) {
      in.push_back(&p);
      continue;
    }
    ++out;
    EXPECT_EQ(p.parsed.tuple.remote.port, Port{7000});  // As it is received.
    EXPECT_EQ(p.comment, "");
  }
  EXPECT_GT(out, 0u);
  struct Row {
    uint64_t offset;
    uint32_t bytes;
    std::string comment;
  };
  // Where the payload is in device memory nobody but the NIC can verify it.
  const Row rows[] = {
      {100, 700, ""},
      {800, 700, is_device() ? "kNoChecksumFlag" : "kBadChecksum"},
      {800, 0, "kBadChecksum"},
      {800, 600, ""}};
  ASSERT_EQ(in.size(), std::size(rows));
  for (size_t i = 0; i < std::size(rows); ++i) {
    SCOPED_TRACE(i);
    const ParsedFrame& parsed = in[i]->parsed;
    EXPECT_EQ(parsed.tuple.local.port, Port{7000});
    EXPECT_EQ(parsed.tcp.seq,
              peer_->iss() + 1 + static_cast<uint32_t>(rows[i].offset));
    EXPECT_EQ(parsed.payload_bytes, rows[i].bytes);
    EXPECT_EQ(in[i]->frame_bytes, 66 + rows[i].bytes);
    EXPECT_EQ(in[i]->comment, rows[i].comment);
  }
}

TEST_P(Capture, OneAtATimeAndAsOftenAsOneLikes) {
  EXPECT_EQ(ErrnoOf(stack_->StopCapture()), ENOENT);
  ASSERT_TRUE(stack_->StartCapture(path_, 1 << 20).ok());
  const absl::Status second = stack_->StartCapture(path_, 1 << 20);
  EXPECT_EQ(ErrnoOf(second), EEXIST) << second;
  EXPECT_NE(second.message().find("stop it first"), std::string::npos);
  ASSERT_TRUE(stack_->StopCapture().ok());
  EXPECT_FALSE(stack_->StartCapture("/nonexistent/file", 1 << 20).ok());
  ASSERT_TRUE(stack_->StartCapture(path_, 1 << 20).ok());
  peer_->Send(0, 10);
  ASSERT_TRUE(Acked(10));
  ASSERT_TRUE(stack_->StopCapture().ok());
  EXPECT_GE(ReadCapture(path_).size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(IntoDeviceMemory, Capture, ::testing::Values(true));
INSTANTIATE_TEST_SUITE_P(HostStream, Capture, ::testing::Values(false));

}  // namespace
}  // namespace devwire
