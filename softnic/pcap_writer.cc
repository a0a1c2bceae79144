#include "softnic/pcap_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "softnic/frame_checksum.h"
#include "softnic/packet.h"

namespace softnic {
namespace {

constexpr uint32_t kSectionBlock = 0x0a0d0d0a;
constexpr uint32_t kByteOrderMagic = 0x1a2b3c4d;
constexpr uint32_t kInterfaceBlock = 1;
constexpr uint32_t kPacketBlock = 6;
constexpr uint32_t kLinkTypeEthernet = 1;
// Block type, length, interface, time (2), captured, original length before
// the frame; epb_flags (2), end of options and length again behind it.
constexpr size_t kBeforeFrame = 28;
constexpr size_t kBehindFrame = 16;

constexpr size_t Padded(size_t bytes) { return (bytes + 3) & ~size_t{3}; }

}  // namespace

absl::StatusOr<std::unique_ptr<PcapWriter>> PcapWriter::Open(
    const std::string& path, const std::string& device_name) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) {
    return absl::ErrnoToStatus(
        errno, "pcap=" + path + ": cannot write there; give a writable file");
  }
  std::unique_ptr<PcapWriter> writer(new PcapWriter(fd));
  writer->WriteHeader(device_name);
  if (!writer->Flush()) {
    return absl::ErrnoToStatus(errno, "pcap=" + path + ": cannot write to it");
  }
  return writer;
}

PcapWriter::PcapWriter(int fd) : fd_(fd), buffer_(kBufferBytes) {}

PcapWriter::~PcapWriter() {
  Flush();
  close(fd_);
}

void PcapWriter::Put32(uint32_t value) {
  memcpy(buffer_.data() + used_, &value, 4);
  used_ += 4;
}

void PcapWriter::PutPadded(const void* data, size_t bytes) {
  memset(buffer_.data() + used_, 0, Padded(bytes));
  memcpy(buffer_.data() + used_, data, bytes);
  used_ += Padded(bytes);
}

void PcapWriter::WriteHeader(const std::string& device_name) {
  // Section: length unknown (all ones).
  constexpr uint32_t kSectionBytes = 28;
  for (uint32_t v : {kSectionBlock, kSectionBytes, kByteOrderMagic, 1u,
                     UINT32_MAX, UINT32_MAX, kSectionBytes}) {
    Put32(v);
  }
  // Interface: if_name (2), if_tsresol (9) = 10^-9, end of options.
  const auto name_bytes = static_cast<uint32_t>(
      std::min<size_t>(device_name.size(), kBufferBytes / 2));
  const auto bytes = static_cast<uint32_t>(20 + 4 + Padded(name_bytes) + 8 + 4);
  for (uint32_t v : {kInterfaceBlock, bytes, kLinkTypeEthernet, kSnapBytes,
                     2 | name_bytes << 16}) {
    Put32(v);
  }
  PutPadded(device_name.data(), name_bytes);
  for (uint32_t v : {9u | 1u << 16, 9u, 0u, bytes}) Put32(v);
}

void PcapWriter::PutFrame(const FrameBytes& bytes, uint32_t length,
                          bool is_owed, Direction direction,
                          devwire::Instant now) {
  if (is_broken_) return;
  const uint32_t captured = std::min(length, kSnapBytes);
  const size_t block = kBeforeFrame + Padded(captured) + kBehindFrame;
  static_assert(kBeforeFrame + kSnapBytes + kBehindFrame <= kBufferBytes);
  if (used_ + block > buffer_.size() && !Flush()) return;
  const auto block_bytes = static_cast<uint32_t>(block);
  const auto time = static_cast<uint64_t>(now.nanoseconds());
  for (uint32_t v :
       {kPacketBlock, block_bytes, 0u, static_cast<uint32_t>(time >> 32),
        static_cast<uint32_t>(time), captured, length}) {
    Put32(v);
  }
  std::byte* frame = buffer_.data() + used_;
  memset(frame + captured, 0, Padded(captured) - captured);
  bytes.Copy(0, captured, frame);
  if (is_owed && captured == length) {
    const std::span<const std::byte> whole(frame, length);
    FinishOwedChecksum(ParseFrame(whole, length), frame, {whole, {}});
  }
  used_ += Padded(captured);
  for (uint32_t v :
       {2u | 4u << 16, static_cast<uint32_t>(direction), 0u, block_bytes}) {
    Put32(v);
  }
  ++frames_;
}

void PcapWriter::OnSend(const TxFrame& frame, devwire::Instant now) {
  if (is_broken_) return;
  const auto header_bytes = static_cast<uint32_t>(frame.header.size());
  if (frame.mss == 0 ||
      !segmenter_.Start(frame.header, frame.length - header_bytes, frame.mss)) {
    PutFrame({frame.header, frame.pieces}, frame.length, frame.l4_checksum_owed,
             kOutbound, now);
    return;
  }
  std::array<std::byte, Segmenter::kMaxHeaderBytes> header;
  // One run per segment: its own header, then its part of the payload.
  constexpr size_t kMaxPieces = 64;
  std::array<Piece, kMaxPieces> pieces;
  for (uint32_t i = 0; i < segmenter_.count(); ++i) {
    segmenter_.WriteHeader(i, header.data());
    const std::span<const std::byte> own(header.data(), header_bytes);
    const uint32_t payload = segmenter_.PayloadBytes(i);
    const size_t count =
        CutPieces(frame.pieces, segmenter_.PayloadFrom(i), payload, pieces);
    PutFrame({own, std::span<const Piece>(pieces).first(count)},
             header_bytes + payload, true, kOutbound, now);
  }
}

void PcapWriter::OnReceive(const RxFrame& frame, devwire::Instant now) {
  PutFrame({{}, frame.pieces}, frame.length,
           frame.checksum == RxChecksum::kOwed, kInbound, now);
}

bool PcapWriter::Flush() {
  size_t done = 0;
  while (!is_broken_ && done < used_) {
    const ssize_t n = write(fd_, buffer_.data() + done, used_ - done);
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if (n < 0 && errno != EINTR) {
      is_broken_ = true;
    }
  }
  used_ = 0;
  return !is_broken_;
}

}  // namespace softnic
