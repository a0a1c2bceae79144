#include "softnic/segment.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "softnic/checksum.h"

namespace softnic {
namespace {

constexpr uint32_t kIpv4Bytes = 20;
constexpr uint32_t kIpv6Bytes = 40;
constexpr uint8_t kFin = 0x01;
constexpr uint8_t kPsh = 0x08;
constexpr uint8_t kCwr = 0x80;

// Where IP starts: behind up to two VLAN tags; 0 when it is not IP.
uint32_t FindIp(std::span<const std::byte> header) {
  uint32_t at = kEthernetBytes;
  for (int tags = 0; tags < 3; ++tags) {
    if (at > header.size()) return 0;
    const uint16_t type = Load16(header.data() + at - 2);
    if (type == 0x0800 || type == 0x86dd) return at;
    if (type != 0x8100 && type != 0x88a8) return 0;
    at += kVlanTagBytes;
  }
  return 0;
}

void WriteIpLength(std::byte* header, uint32_t l3, uint8_t version,
                   uint32_t frame_bytes) {
  if (version == 4) {
    Store16(header + l3 + 2, static_cast<uint16_t>(frame_bytes - l3));
  } else {
    Store16(header + l3 + 4,
            static_cast<uint16_t>(frame_bytes - l3 - kIpv6Bytes));
  }
}

}  // namespace

bool Segmenter::Start(std::span<const std::byte> header, uint32_t payload_bytes,
                      uint16_t mss) {
  count_ = 0;
  if (mss == 0 || header.size() > kMaxHeaderBytes) return false;
  const auto bytes = static_cast<uint32_t>(header.size());
  const uint32_t l3 = FindIp(header);
  if (l3 == 0 || bytes < l3 + kIpv4Bytes) return false;
  const auto version =
      static_cast<uint8_t>(static_cast<uint8_t>(header[l3]) >> 4);
  if (version != 4 && (version != 6 || bytes < l3 + kIpv6Bytes)) return false;

  // A super-frame's length does not fit its field; the header alone parses.
  memcpy(header_.data(), header.data(), bytes);
  WriteIpLength(header_.data(), l3, version, bytes);
  const ParsedFrame frame =
      ParseFrame(std::span<const std::byte>(header_).first(bytes), bytes);
  if (frame.layout.l4_offset == 0 || frame.layout.protocol != IPPROTO_TCP ||
      frame.layout.payload_offset != bytes) {
    return false;
  }
  layout_ = frame.layout;
  header_bytes_ = bytes;
  payload_bytes_ = payload_bytes;
  mss_ = mss;
  count_ = payload_bytes == 0 ? 1 : (payload_bytes + mss - 1) / mss;
  return true;
}

uint32_t Segmenter::PayloadBytes(uint32_t i) const {
  DCHECK_LT(i, count_);
  return std::min(mss_, payload_bytes_ - PayloadFrom(i));
}

void Segmenter::WriteHeader(uint32_t i, std::byte* out) const {
  DCHECK_LT(i, count_);
  memcpy(out, header_.data(), header_bytes_);
  const uint32_t l3 = layout_.l3_offset;
  const uint32_t l4 = layout_.l4_offset;
  const uint32_t frame_bytes = header_bytes_ + PayloadBytes(i);

  std::byte* ip = out + l3;
  WriteIpLength(out, l3, layout_.ip_version, frame_bytes);
  if (layout_.ip_version == 4) {
    Store16(ip + 4, static_cast<uint16_t>(Load16(ip + 4) + i));
    const uint32_t ip_bytes = 4 * (static_cast<uint8_t>(ip[0]) & 15);
    memset(ip + 10, 0, 2);
    const auto checksum = static_cast<uint16_t>(~SumBytes(ip, ip_bytes));
    memcpy(ip + 10, &checksum, 2);
  }

  std::byte* tcp = out + l4;
  Store32(tcp + 4, Load32(tcp + 4) + PayloadFrom(i));
  uint8_t drop = 0;
  if (i + 1 != count_) drop |= kFin | kPsh;
  if (i != 0) drop |= kCwr;
  tcp[13] &= static_cast<std::byte>(~drop);
  const uint16_t owed =
      PseudoHeaderSum(ip, IPPROTO_TCP, frame_bytes - l4).Folded();
  memcpy(tcp + 16, &owed, 2);
}

size_t CutPieces(std::span<const Piece> pieces, uint64_t from, uint64_t bytes,
                 std::span<Piece> out) {
  size_t count = 0;
  for (const Piece& piece : pieces) {
    if (bytes == 0) break;
    if (from >= piece.length) {
      from -= piece.length;
      continue;
    }
    const auto length =
        static_cast<uint32_t>(std::min(piece.length - from, bytes));
    CHECK_LT(count, out.size());
    out[count++] = {piece.data + from, length, piece.region,
                    piece.region_offset + from};
    bytes -= length;
    from = 0;
  }
  CHECK_EQ(bytes, 0u) << "bytes behind the end of the pieces";
  return count;
}

}  // namespace softnic
