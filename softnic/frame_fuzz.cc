// Any bytes as a frame: the parser stays within them, what it says is
// consistent, written checksums verify, and segments put together again are
// the super-frame.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "softnic/frame_checksum.h"
#include "softnic/packet.h"
#include "softnic/segment.h"

namespace {

using softnic::ChecksumState;
using softnic::FrameBytes;
using softnic::Layout;
using softnic::ParsedFrame;
using softnic::Piece;

constexpr uint8_t kUdp = 17;

void CheckLayout(const ParsedFrame& f, size_t size) {
  const Layout& l = f.layout;
  if (l.ip_version == 0) {
    CHECK_EQ(l.l4_offset, 0);
    return;
  }
  CHECK_LE(l.l3_offset + f.ip_total_length, size);
  if (l.l4_offset == 0) {
    CHECK_EQ(l.payload_offset, 0);
    return;
  }
  CHECK_LT(l.l3_offset, l.l4_offset);
  CHECK_LT(l.l4_offset, l.payload_offset);
  CHECK_LE(l.payload_offset, l.l3_offset + f.ip_total_length);
  CHECK(!f.is_fragment);
}

void CheckChecksums(std::vector<std::byte> frame, uint8_t cut) {
  const auto size = static_cast<uint32_t>(frame.size());
  const ParsedFrame f = softnic::ParseFrame(frame, size);
  if (f.layout.ip_version == 0) return;
  // Two pieces, cut anywhere, are the same frame.
  const uint32_t first = 1 + cut % size;
  const Piece pieces[] = {{frame.data(), first},
                          {frame.data() + first, size - first}};
  const FrameBytes whole = {frame, {}};
  const FrameBytes parts = {{}, {pieces, first == size ? 1u : 2u}};
  CHECK_EQ(VerifyL4(f, frame.data(), whole), VerifyL4(f, frame.data(), parts));
  WriteIpChecksum(f, frame.data());
  CHECK_NE(VerifyIpHeader(f, frame.data()), ChecksumState::kBad);
  WriteL4Checksum(f, frame.data(), parts);
  if (f.layout.protocol == kUdp) return;  // its length may be unsound
  CHECK_NE(VerifyL4(f, frame.data(), whole), ChecksumState::kBad);
}

void CheckSegments(const std::vector<std::byte>& frame, uint16_t mss) {
  const ParsedFrame f =
      softnic::ParseFrame(frame, static_cast<uint32_t>(frame.size()));
  const size_t header_bytes = f.layout.payload_offset;
  if (header_bytes == 0) return;
  const auto payload = static_cast<uint32_t>(frame.size() - header_bytes);
  softnic::Segmenter cut;
  if (!cut.Start(std::span(frame).first(header_bytes), payload, mss)) return;
  CHECK_EQ(cut.header_bytes(), header_bytes);
  uint32_t next = 0;
  for (uint32_t i = 0; i < cut.count(); ++i) {
    CHECK_EQ(cut.PayloadFrom(i), next);
    CHECK_LE(cut.PayloadBytes(i), mss);
    std::vector<std::byte> segment(header_bytes);
    cut.WriteHeader(i, segment.data());
    segment.insert(segment.end(), frame.begin() + header_bytes + next,
                   frame.begin() + header_bytes + next + cut.PayloadBytes(i));
    next += cut.PayloadBytes(i);
    const ParsedFrame s =
        softnic::ParseFrame(segment, static_cast<uint32_t>(segment.size()));
    CHECK_EQ(s.layout.payload_offset, header_bytes);
    FinishOwedChecksum(s, segment.data(), {segment, {}});
    CHECK_EQ(VerifyFrame(s, segment.data(), {segment, {}}),
             ChecksumState::kGood);
  }
  CHECK_EQ(next, payload);
}

}  // namespace

// The first two bytes choose where pieces and segments are cut.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const std::vector<std::byte> frame(bytes + 2, bytes + size);
  const ParsedFrame f =
      softnic::ParseFrame(frame, static_cast<uint32_t>(frame.size()));
  CheckLayout(f, frame.size());
  CheckChecksums(frame, data[0]);
  CheckSegments(frame, static_cast<uint16_t>(data[1] + 1));
  return 0;
}
