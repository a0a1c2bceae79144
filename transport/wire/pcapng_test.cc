#include "transport/wire/pcapng.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "transport/wire/frame.h"

namespace devwire {
namespace {

using Direction = PcapngWriter::Direction;

std::string TestPath(const std::string& name) {
  return ::testing::TempDir() + "/" + name;
}

struct Capture {
  struct Packet {
    uint64_t time_ns = 0;
    uint32_t frame_bytes = 0;
    uint32_t flags = 0;
    std::vector<uint8_t> data;
    std::string comment;
  };
  std::vector<Packet> packets;
  size_t file_bytes = 0;
};

template <typename T>
T At(const std::vector<uint8_t>& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

// A reader written from the draft; walks blocks by both of their lengths.
Capture Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<uint8_t> f{std::istreambuf_iterator<char>(in), {}};
  Capture capture;
  capture.file_bytes = f.size();
  for (size_t i = 0; i < f.size();) {
    const auto type = At<uint32_t>(f, i);
    const auto total = At<uint32_t>(f, i + 4);
    EXPECT_EQ(total % 4, 0u);
    EXPECT_LE(i + total, f.size());
    EXPECT_EQ(At<uint32_t>(f, i + total - 4), total);
    if (type == 6) {
      Capture::Packet p;
      p.time_ns =
          uint64_t{At<uint32_t>(f, i + 12)} << 32 | At<uint32_t>(f, i + 16);
      const auto captured = At<uint32_t>(f, i + 20);
      p.frame_bytes = At<uint32_t>(f, i + 24);
      p.data.assign(f.begin() + i + 28, f.begin() + i + 28 + captured);
      size_t o = i + 28 + (captured + 3) / 4 * 4;
      while (At<uint16_t>(f, o) != 0) {
        const auto code = At<uint16_t>(f, o);
        const auto bytes = At<uint16_t>(f, o + 2);
        if (code == 2) p.flags = At<uint32_t>(f, o + 4);
        if (code == 1)
          p.comment.assign(f.begin() + o + 4, f.begin() + o + 4 + bytes);
        o += 4 + (bytes + 3u) / 4 * 4;
      }
      capture.packets.push_back(std::move(p));
    }
    i += total;
  }
  return capture;
}

std::vector<std::byte> SynFrame() {
  HeaderTemplate::Options o;
  o.tuple.local = *Endpoint::Parse("10.0.0.1:40000");
  o.tuple.remote = *Endpoint::Parse("10.0.0.2:80");
  TcpHeader h;
  h.flags = kSyn;
  h.options.mss = 1460;
  std::vector<std::byte> frame(192);
  HeaderTemplate t(o);
  const uint32_t bytes = t.Emit(h, {}, frame.data());
  WriteTcpChecksum(frame.data(), t.l4_offset(), bytes, {});
  frame.resize(bytes);
  return frame;
}

TEST(PcapngTest, RecordsBothDirectionsAndComments) {
  const std::string path = TestPath("both.pcapng");
  const auto frame = SynFrame();
  auto writer = PcapngWriter::Open(
      {.path = path, .snap_bytes = 30, .epoch_of_clock_ns = 1'000'000'000});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const auto t = Instant::FromNanoseconds(0x1'0000'0005);
  (*writer)->Add(Direction::kIn, t, frame, 1500, "ip_fragment");
  (*writer)->Add(Direction::kOut, t + 1_ns, frame, 58, "");
  (*writer)->Add(Direction::kIn, t, std::span(frame).first(5), 5,
                 std::string(100, 'x'));
  ASSERT_TRUE((*writer)->Close().ok());
  ASSERT_TRUE((*writer)->Close().ok()) << "again";
  EXPECT_EQ((*writer)->stats().written, 3u);

  const Capture capture = Read(path);
  ASSERT_EQ(capture.packets.size(), 3u);
  const auto& in = capture.packets[0];
  EXPECT_EQ(in.time_ns, 0x1'0000'0005u + 1'000'000'000);
  EXPECT_EQ(in.frame_bytes, 1500u);
  EXPECT_EQ(in.flags, 1u);
  EXPECT_EQ(in.comment, "ip_fragment");
  ASSERT_EQ(in.data.size(), 30u);
  EXPECT_EQ(std::memcmp(in.data.data(), frame.data(), 30), 0);
  EXPECT_EQ(capture.packets[1].flags, 2u);
  EXPECT_EQ(capture.packets[1].comment, "");
  EXPECT_EQ(capture.packets[2].data.size(), 5u);
  EXPECT_EQ(capture.packets[2].comment, std::string(64, 'x'));
}

TEST(PcapngTest, FileStopsAtItsLimit) {
  const std::string path = TestPath("limit.pcapng");
  const auto frame = SynFrame();
  auto writer = PcapngWriter::Open({.path = path, .max_file_bytes = 1000});
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (int i = 0; i < 50; ++i) {
    (*writer)->Add(Direction::kIn, Instant(), frame, 58, "");
  }
  ASSERT_TRUE((*writer)->Close().ok());
  const auto stats = (*writer)->stats();
  EXPECT_EQ(stats.written + stats.lost_file_full, 50u);
  EXPECT_GT(stats.written, 5u);
  const Capture capture = Read(path);
  EXPECT_EQ(capture.packets.size(), stats.written);
  EXPECT_LE(capture.file_bytes, 1000u);
}

// Many times the ring's size: blocks wrap around and come out whole, and a full
// ring loses records, not the shape of the file.
TEST(PcapngTest, RingWrapsAndRefusesWhenFull) {
  const std::string path = TestPath("ring.pcapng");
  const auto frame = SynFrame();
  auto writer = PcapngWriter::Open(
      {.path = path, .ring_bytes = 2048, .write_period = 1_ms});
  ASSERT_TRUE(writer.ok()) << writer.status();
  uint32_t added = 0;
  // Ends when both have happened: the writer's thread decides how soon.
  while ((*writer)->stats().written < 100 ||
         (*writer)->stats().lost_ring_full == 0) {
    (*writer)->Add(Direction::kIn, Instant(), frame, ++added, "");
  }
  ASSERT_TRUE((*writer)->Close().ok());
  const auto stats = (*writer)->stats();
  EXPECT_EQ(stats.written + stats.lost_ring_full, added);
  const Capture capture = Read(path);
  ASSERT_EQ(capture.packets.size(), stats.written);
  uint32_t last = 0;
  for (const auto& p : capture.packets) {
    EXPECT_GT(p.frame_bytes, last);
    last = p.frame_bytes;
  }
}

TEST(PcapngTest, BadOptionsAndPlaces) {
  const std::string path = TestPath("bad.pcapng");
  EXPECT_EQ(PcapngWriter::Open({.path = path, .snap_bytes = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      PcapngWriter::Open({.path = path, .snap_bytes = 257}).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      PcapngWriter::Open({.path = path, .max_file_bytes = 10}).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      PcapngWriter::Open({.path = path, .ring_bytes = 10}).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      PcapngWriter::Open({.path = path, .interface_name = std::string(65, 'a')})
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PcapngWriter::Open({.path = "/nonexistent/x"}).status().code(),
            absl::StatusCode::kNotFound);
  // full(4): every write fails with ENOSPC.
  EXPECT_EQ(PcapngWriter::Open({.path = "/dev/full"}).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// Wireshark's reader finds nothing wrong, and shows comment and direction.
TEST(PcapngTest, TsharkOpensIt) {
  if (std::system("command -v tshark > /dev/null 2>&1") != 0) {
    GTEST_SKIP() << "tshark is not installed";
  }
  const std::string path = TestPath("tshark.pcapng");
  auto writer = PcapngWriter::Open({.path = path});
  ASSERT_TRUE(writer.ok()) << writer.status();
  (*writer)->Add(Direction::kIn, Instant(), SynFrame(), 58, "out_of_window");
  ASSERT_TRUE((*writer)->Close().ok());
  const std::string command =
      "tshark -r " + path +
      " -o tcp.check_checksum:TRUE -o ip.check_checksum:TRUE -T fields"
      " -e frame.packet_flags_direction -e frame.comment -e tcp.options.mss_val"
      " -e tcp.checksum.status -e ip.checksum.status 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string text;
  char line[512];
  while (std::fgets(line, sizeof(line), pipe) != nullptr) text += line;
  EXPECT_EQ(pclose(pipe), 0) << text;
  EXPECT_NE(text.find("0x00000001\tout_of_window\t1460\t1\t1"),
            std::string::npos)
      << text;
}

}  // namespace
}  // namespace devwire
