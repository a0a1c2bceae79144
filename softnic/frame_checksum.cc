#include "softnic/frame_checksum.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace softnic {
namespace {

// Calls f(pointer, count) for each run of bytes in [from, to), in order.
template <typename F>
void ForEachRun(const FrameBytes& bytes, size_t from, size_t to, F f) {
  size_t start = 0;  // offset of the run at hand
  auto visit = [&](const std::byte* data, size_t length) {
    const size_t low = std::max(start, from);
    const size_t high = std::min(start + length, to);
    if (low < high) f(data + (low - start), high - low);
    start += length;
  };
  visit(bytes.header.data(), bytes.header.size());
  for (const Piece& piece : bytes.pieces) {
    if (start >= to) break;
    visit(piece.data, piece.length);
  }
  DCHECK(from >= to || start >= to) << "bytes behind the end of the frame";
}

bool IsUdp(const ParsedFrame& frame) {
  return frame.layout.protocol == IPPROTO_UDP;
}

size_t IpEnd(const ParsedFrame& frame) {
  return frame.layout.l3_offset + frame.ip_total_length;
}

// Bytes of the TCP segment, or of the UDP datagram, which has a length of its
// own; 0 when that is not sound.
uint32_t L4Bytes(const ParsedFrame& frame, const std::byte* head) {
  const size_t l4 = frame.layout.l4_offset;
  const auto room = static_cast<uint32_t>(IpEnd(frame) - l4);
  if (!IsUdp(frame)) return room;
  const uint32_t claimed = Load16(head + l4 + 4);
  return claimed < 8 || claimed > room ? 0 : claimed;
}

uint16_t IpHeaderBytes(const ParsedFrame& frame, const std::byte* head) {
  return static_cast<uint16_t>(
      4 * (static_cast<uint8_t>(head[frame.layout.l3_offset]) & 15));
}

}  // namespace

InternetSum FrameBytes::Sum(size_t from, size_t to) const {
  InternetSum sum;
  ForEachRun(*this, from, to, [&sum](const std::byte* data, size_t length) {
    sum.Add(data, length);
  });
  return sum;
}

void FrameBytes::Copy(size_t from, size_t to, std::byte* out) const {
  ForEachRun(*this, from, to, [&out](const std::byte* data, size_t length) {
    memcpy(out, data, length);
    out += length;
  });
}

size_t L4ChecksumOffset(const Layout& layout) {
  DCHECK_GT(layout.l4_offset, 0);
  return layout.l4_offset + (layout.protocol == IPPROTO_UDP ? 6 : 16);
}

ChecksumState VerifyIpHeader(const ParsedFrame& frame, const std::byte* head) {
  if (frame.layout.ip_version != 4) return ChecksumState::kNone;
  InternetSum sum;
  sum.Add(head + frame.layout.l3_offset, IpHeaderBytes(frame, head));
  return sum.IsRight() ? ChecksumState::kGood : ChecksumState::kBad;
}

ChecksumState VerifyL4(const ParsedFrame& frame, const std::byte* head,
                       const FrameBytes& bytes) {
  const Layout& layout = frame.layout;
  if (layout.l4_offset == 0) return ChecksumState::kNone;
  const uint32_t length = L4Bytes(frame, head);
  if (length == 0) return ChecksumState::kBad;
  if (IsUdp(frame) && Load16(head + L4ChecksumOffset(layout)) == 0) {
    return layout.ip_version == 4 ? ChecksumState::kGood : ChecksumState::kBad;
  }
  InternetSum sum =
      PseudoHeaderSum(head + layout.l3_offset, layout.protocol, length);
  const size_t l4 = layout.l4_offset;
  sum.AddWord(bytes.Sum(l4, l4 + length).Folded(), length);
  return sum.IsRight() ? ChecksumState::kGood : ChecksumState::kBad;
}

ChecksumState VerifyFrame(const ParsedFrame& frame, const std::byte* head,
                          const FrameBytes& bytes) {
  if (VerifyIpHeader(frame, head) == ChecksumState::kBad) {
    return ChecksumState::kBad;
  }
  return VerifyL4(frame, head, bytes);
}

void WriteIpChecksum(const ParsedFrame& frame, std::byte* head) {
  if (frame.layout.ip_version != 4) return;
  std::byte* ip = head + frame.layout.l3_offset;
  memset(ip + 10, 0, 2);
  const auto checksum =
      static_cast<uint16_t>(~SumBytes(ip, IpHeaderBytes(frame, head)));
  memcpy(ip + 10, &checksum, 2);
}

void WriteOwedL4Checksum(const ParsedFrame& frame, std::byte* head) {
  const Layout& layout = frame.layout;
  if (layout.l4_offset == 0) return;
  const uint32_t length = L4Bytes(frame, head);
  if (length == 0) return;  // An unsound UDP length: nothing right to write.
  const uint16_t pseudo =
      PseudoHeaderSum(head + layout.l3_offset, layout.protocol, length)
          .Folded();
  memcpy(head + L4ChecksumOffset(layout), &pseudo, 2);
}

void FinishOwedChecksum(size_t l4_offset, size_t checksum_offset, size_t end,
                        bool is_udp, std::byte* head, const FrameBytes& bytes) {
  // The field is summed from `head`: bytes.header may be another copy.
  InternetSum sum;
  sum.Add(head + checksum_offset, 2);
  sum.AddWord(bytes.Sum(l4_offset, checksum_offset).Folded(),
              checksum_offset - l4_offset);
  const size_t behind = checksum_offset + 2;
  sum.AddWord(bytes.Sum(behind, end).Folded(), end - behind);
  uint16_t checksum = sum.Checksum();
  // Zero would mean "no checksum" in UDP, RFC 768.
  if (is_udp && checksum == 0) checksum = 0xffff;
  memcpy(head + checksum_offset, &checksum, 2);
}

void FinishOwedChecksum(const ParsedFrame& frame, std::byte* head,
                        const FrameBytes& bytes) {
  const Layout& layout = frame.layout;
  if (layout.l4_offset == 0) return;
  const uint32_t length = L4Bytes(frame, head);
  if (length == 0) return;
  FinishOwedChecksum(layout.l4_offset, L4ChecksumOffset(layout),
                     layout.l4_offset + length, IsUdp(frame), head, bytes);
}

void WriteL4Checksum(const ParsedFrame& frame, std::byte* head,
                     const FrameBytes& bytes) {
  WriteOwedL4Checksum(frame, head);
  FinishOwedChecksum(frame, head, bytes);
}

}  // namespace softnic
