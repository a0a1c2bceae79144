// The capture: read back block by block.
#include "softnic/pcap_writer.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "softnic/frame_checksum.h"
#include "softnic/golden_frames.h"
#include "softnic/packet.h"

namespace softnic {
namespace {

using devwire::Instant;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

std::string TempPath() {
  const char* dir = std::getenv("TEST_TMPDIR");
  return std::string(dir == nullptr ? "/tmp" : dir) + "/capture.pcapng";
}

struct Packet {
  uint64_t time = 0;
  uint32_t length = 0;
  uint32_t direction = 0;
  Bytes bytes;
};

uint32_t At(const std::string& file, size_t offset) {
  uint32_t v = 0;
  CHECK_LE(offset + 4, file.size());
  memcpy(&v, file.data() + offset, 4);
  return v;
}

// Walks the blocks: lengths at both ends agree, padding is to 32 bits.
std::vector<Packet> Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(in)),
                         std::istreambuf_iterator<char>());
  std::vector<Packet> out;
  size_t at = 0;
  for (int block = 0; at < file.size(); ++block) {
    const uint32_t type = At(file, at);
    const uint32_t bytes = At(file, at + 4);
    EXPECT_EQ(bytes % 4, 0u);
    EXPECT_EQ(At(file, at + bytes - 4), bytes);
    EXPECT_EQ(type, block == 0 ? 0x0a0d0d0a : block == 1 ? 1u : 6u);
    if (type == 6) {
      const uint32_t captured = At(file, at + 20);
      Packet p = {uint64_t{At(file, at + 12)} << 32 | At(file, at + 16),
                  At(file, at + 24), 0, Bytes(captured)};
      memcpy(p.bytes.data(), file.data() + at + 28, captured);
      const size_t options = at + 28 + (captured + 3) / 4 * 4;
      EXPECT_EQ(At(file, options), 2u | 4u << 16);
      p.direction = At(file, options + 4);
      out.push_back(p);
    }
    at += bytes;
  }
  return out;
}

std::unique_ptr<PcapWriter> Open() {
  auto writer = PcapWriter::Open(TempPath(), "sn0");
  EXPECT_TRUE(writer.ok()) << writer.status();
  return *std::move(writer);
}

const Bytes Golden(const char* name) {
  for (const GoldenFrame& golden : GoldenFrames()) {
    if (golden.name != name) continue;
    const auto* data = reinterpret_cast<const std::byte*>(golden.bytes.data());
    return Bytes(data, data + golden.bytes.size());
  }
  ADD_FAILURE() << "no golden frame " << name;
  return {};
}

TEST(PcapWriter, FramesComeBackWithTimeAndDirection) {
  const Bytes frame = Golden("ipv4 udp, odd payload");
  const auto length = static_cast<uint32_t>(frame.size());
  auto writer = Open();
  const Piece rest = {frame.data() + 20, length - 20};
  writer->OnSend({.header = std::span(frame).first(20),
                  .pieces = {&rest, 1},
                  .length = length},
                 Instant::FromNanoseconds(0x123456789a));
  const Piece whole = {frame.data(), length};
  writer->OnReceive({.pieces = {&whole, 1}, .length = length},
                    Instant::FromNanoseconds(5));
  EXPECT_EQ(writer->frames(), 2u);
  writer.reset();
  const std::vector<Packet> packets = Read(TempPath());
  ASSERT_EQ(packets.size(), 2u);
  EXPECT_EQ(packets[0].bytes, frame);
  EXPECT_EQ(packets[0].time, 0x123456789au);
  EXPECT_EQ(packets[0].direction, 2u);
  EXPECT_EQ(packets[1].bytes, frame);
  EXPECT_EQ(packets[1].time, 5u);
  EXPECT_EQ(packets[1].direction, 1u);
}

// An owed checksum is finished in the file, and only there.
TEST(PcapWriter, OwedChecksumsAreFinished) {
  for (const char* name : {"ipv4 tcp, odd payload", "ipv6 udp, odd payload"}) {
    const Bytes right = Golden(name);
    const auto length = static_cast<uint32_t>(right.size());
    Bytes owed = right;
    WriteOwedL4Checksum(ParseFrame(right, length), owed.data());
    ASSERT_NE(owed, right);
    auto writer = Open();
    writer->OnSend({.header = owed, .length = length, .l4_checksum_owed = true},
                   {});
    const Piece piece = {owed.data(), length};
    writer->OnReceive({.pieces = {&piece, 1},
                       .length = length,
                       .checksum = RxChecksum::kOwed},
                      {});
    writer.reset();
    const std::vector<Packet> packets = Read(TempPath());
    ASSERT_EQ(packets.size(), 2u);
    EXPECT_EQ(packets[0].bytes, right);
    EXPECT_EQ(packets[1].bytes, right);
  }
}

// A super-frame stands in the file as its segments.
TEST(PcapWriter, SuperFramesAreCut) {
  Bytes header = Golden("ipv4 tcp, odd payload");
  header.resize(66);
  Bytes payload(2500);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = std::byte(i);
  const Piece pieces[] = {{payload.data(), 1}, {payload.data() + 1, 2499}};
  auto writer = Open();
  writer->OnSend(
      {.header = header, .pieces = pieces, .length = 66 + 2500, .mss = 1000},
      {});
  writer.reset();
  const std::vector<Packet> packets = Read(TempPath());
  ASSERT_EQ(packets.size(), 3u);
  Bytes together;
  for (const Packet& p : packets) {
    const ParsedFrame f = ParseFrame(p.bytes, p.length);
    EXPECT_EQ(VerifyFrame(f, p.bytes.data(), {p.bytes, {}}),
              ChecksumState::kGood);
    together.insert(together.end(), p.bytes.begin() + 66, p.bytes.end());
  }
  EXPECT_EQ(together, payload);
}

TEST(PcapWriter, MoreThanTheBufferAndLongerThanTheSnapLength) {
  Bytes frame(PcapWriter::kSnapBytes + 10, std::byte{1});
  auto writer = Open();
  for (int i = 0; i < 10; ++i) {
    writer->OnSend(
        {.header = frame, .length = static_cast<uint32_t>(frame.size())}, {});
  }
  writer.reset();
  const std::vector<Packet> packets = Read(TempPath());
  ASSERT_EQ(packets.size(), 10u);
  EXPECT_EQ(packets[9].bytes.size(), PcapWriter::kSnapBytes);
  EXPECT_EQ(packets[9].length, frame.size());
}

TEST(PcapWriter, APathThatCannotBeWrittenIsNamed) {
  auto writer = PcapWriter::Open("/nonexistent/x.pcapng", "sn0");
  ASSERT_FALSE(writer.ok());
  EXPECT_THAT(std::string(writer.status().message()),
              HasSubstr("pcap=/nonexistent/x.pcapng"));
}

TEST(PcapWriter, AFullDiskEndsTheCaptureNotTheDevice) {
  auto writer = PcapWriter::Open("/dev/full", "sn0");
  EXPECT_FALSE(writer.ok());
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace softnic
