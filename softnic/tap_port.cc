#include "softnic/tap_port.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "softnic/frame_checksum.h"
#include "softnic/packet.h"

namespace softnic {
namespace {

// What an IPv4 total length can say, RFC 791 3.1.
constexpr uint32_t kMaxIpBytes = 65535;

absl::Status TapError(const std::string& name, const char* call) {
  const int error = errno;
  const char* next_step = "";
  if (error == EPERM || error == EACCES) {
    next_step = "; run as root of a network namespace, e.g. unshare -Urn";
  } else if (error == EBUSY) {
    next_step = "; the interface is in use by another process";
  } else if (error == ENOENT || error == ENODEV) {
    next_step = "; this kernel or container has no TUN/TAP driver";
  }
  const std::string text =
      "port=tap:" + name + ": " + call + ": " + strerror(error) + next_step;
  if (error == EBUSY) return absl::AlreadyExistsError(text);
  return absl::Status(absl::ErrnoToStatusCode(error), text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TapPort>> TapPort::Open(const std::string& name,
                                                       bool vnet) {
  if (name.empty() || name.size() >= IFNAMSIZ) {
    return absl::InvalidArgumentError("port=tap:" + name +
                                      ": accepted is a name of 1 to 15 bytes");
  }
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return TapError(name, "open /dev/net/tun");
  std::unique_ptr<TapPort> port(new TapPort(fd, vnet));
  ifreq request = {};
  memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags =
      static_cast<int16_t>(IFF_TAP | IFF_NO_PI | (vnet ? IFF_VNET_HDR : 0));
  if (ioctl(fd, TUNSETIFF, &request) != 0) return TapError(name, "TUNSETIFF");
  const unsigned long offloads =
      vnet ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0;
  if (ioctl(fd, TUNSETOFFLOAD, offloads) != 0) {
    return TapError(name, "TUNSETOFFLOAD");
  }
  return port;
}

TapPort::TapPort(int fd, bool vnet)
    : fd_(fd), has_vnet_(vnet), buffer_(kMaxReadBytes) {}

TapPort::~TapPort() { close(fd_); }

TapPort::WriteResult TapPort::Write(const VnetHeader& vnet,
                                    std::span<const std::byte> header,
                                    std::span<const Piece> pieces) {
  CHECK_LE(pieces.size(), kMaxPieces);
  std::array<iovec, kMaxPieces + 2> runs;
  int count = 0;
  auto add = [&](const void* data, size_t bytes) {
    runs[static_cast<size_t>(count++)] = {const_cast<void*>(data), bytes};
  };
  if (has_vnet_) add(&vnet, sizeof(vnet));
  add(header.data(), header.size());
  for (const Piece& piece : pieces) add(piece.data, piece.length);
  ssize_t n = 0;
  do {
    n = writev(fd_, runs.data(), count);
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    if (errno == EAGAIN || errno == ENOBUFS) return WriteResult::kNoRoom;
    counters_.refused.Add();  // EIO: the interface is down. The frame is lost.
  }
  return WriteResult::kTaken;
}

bool TapPort::Send(const TxFrame& frame) {
  if (frame.mss != 0) return SendSuperFrame(frame);
  VnetHeader vnet = {};
  if (frame.l4_checksum_owed) {
    vnet.flags = VnetHeader::kNeedsChecksum;
    vnet.csum_start = frame.layout.l4_offset;
    vnet.csum_offset = static_cast<uint16_t>(L4ChecksumOffset(frame.layout) -
                                             frame.layout.l4_offset);
  }
  if (Write(vnet, frame.header, frame.pieces) == WriteResult::kNoRoom) {
    return false;
  }
  ++sent_;
  return true;
}

// Linux takes a frame of any number of segments, up to what an IP length can
// say: so a longer one goes as several, each a multiple of mss.
bool TapPort::SendSuperFrame(const TxFrame& frame) {
  const auto header_bytes = static_cast<uint32_t>(frame.header.size());
  if (send_next_ == 0) {
    const uint32_t room = kMaxIpBytes - (header_bytes - frame.layout.l3_offset);
    const uint32_t chunk =
        std::max<uint32_t>(room / frame.mss * frame.mss, frame.mss);
    if (!send_cut_.Start(frame.header, frame.length - header_bytes,
                         static_cast<uint16_t>(chunk))) {
      counters_.refused.Add();
      ++sent_;
      return true;
    }
  }
  std::array<Piece, kMaxPieces> pieces;
  for (; send_next_ < send_cut_.count(); ++send_next_) {
    send_cut_.WriteHeader(send_next_, header_.data());
    const uint32_t payload = send_cut_.PayloadBytes(send_next_);
    const size_t count = CutPieces(
        frame.pieces, send_cut_.PayloadFrom(send_next_), payload, pieces);
    VnetHeader vnet = {};
    vnet.flags = VnetHeader::kNeedsChecksum;
    vnet.csum_start = frame.layout.l4_offset;
    vnet.csum_offset = static_cast<uint16_t>(L4ChecksumOffset(frame.layout) -
                                             frame.layout.l4_offset);
    if (payload > frame.mss) {
      vnet.gso_type =
          frame.layout.ip_version == 4 ? VnetHeader::kTcp4 : VnetHeader::kTcp6;
      vnet.gso_size = frame.mss;
      vnet.hdr_len = static_cast<uint16_t>(header_bytes);
      const auto flags =
          static_cast<uint8_t>(header_[frame.layout.l4_offset + 13]);
      constexpr uint8_t kCwr = 0x80;
      if ((flags & kCwr) != 0) vnet.gso_type |= VnetHeader::kEcn;
    }
    if (Write(vnet, std::span<const std::byte>(header_).first(header_bytes),
              std::span<const Piece>(pieces).first(count)) ==
        WriteResult::kNoRoom) {
      return false;
    }
  }
  send_next_ = 0;
  ++sent_;
  return true;
}

void TapPort::DeliverSegments(uint32_t* budget, Receiver& receiver) {
  const uint32_t header_bytes = receive_cut_.header_bytes();
  const std::byte* payload = buffer_.data() + header_bytes;
  for (; *budget > 0 && receive_next_ < receive_cut_.count(); --*budget) {
    const uint32_t i = receive_next_++;
    receive_cut_.WriteHeader(i, header_.data());
    const Piece pieces[2] = {
        {header_.data(), header_bytes},
        {payload + receive_cut_.PayloadFrom(i), receive_cut_.PayloadBytes(i)}};
    const size_t count = pieces[1].length == 0 ? 1 : 2;
    receiver.OnFrame({.pieces = {pieces, count},
                      .length = header_bytes + pieces[1].length,
                      .checksum = RxChecksum::kOwed});
  }
}

bool TapPort::ReadOne(Receiver& receiver) {
  VnetHeader vnet = {};
  const iovec runs[2] = {{&vnet, sizeof(vnet)},
                         {buffer_.data(), buffer_.size()}};
  ssize_t n = 0;
  do {
    n = has_vnet_ ? readv(fd_, runs, 2)
                  : read(fd_, buffer_.data(), buffer_.size());
  } while (n < 0 && errno == EINTR);
  if (n <= 0) return false;
  if (has_vnet_) n -= static_cast<ssize_t>(sizeof(vnet));
  if (n <= 0) return true;
  const auto length = static_cast<uint32_t>(n);
  const std::span<const std::byte> frame(buffer_.data(), length);
  const Piece piece = {buffer_.data(), length};
  if (vnet.gso_type == 0) {
    receiver.OnFrame({.pieces = {&piece, 1},
                      .length = length,
                      .checksum = ChecksumOf(vnet, frame)});
    return true;
  }
  const uint8_t type = vnet.gso_type & ~VnetHeader::kEcn;
  // Where TCP's header ends is in its own first bytes.
  const uint32_t data_offset = vnet.csum_start + 12u;
  if ((type != VnetHeader::kTcp4 && type != VnetHeader::kTcp6) ||
      data_offset >= length) {
    counters_.bad_offload.Add();
    return true;
  }
  const uint32_t header_bytes =
      vnet.csum_start + 4 * (static_cast<uint8_t>(frame[data_offset]) >> 4);
  if (header_bytes > length ||
      !receive_cut_.Start(frame.first(header_bytes), length - header_bytes,
                          vnet.gso_size)) {
    counters_.bad_offload.Add();
    return true;
  }
  receive_next_ = 0;
  counters_.super_frames_cut.Add();
  return true;
}

RxChecksum TapPort::ChecksumOf(const VnetHeader& vnet,
                               std::span<const std::byte> frame) {
  if ((vnet.flags & VnetHeader::kDataValid) != 0) return RxChecksum::kGood;
  if ((vnet.flags & VnetHeader::kNeedsChecksum) == 0) {
    return RxChecksum::kUnknown;
  }
  const auto length = static_cast<uint32_t>(frame.size());
  const ParsedFrame parsed = ParseFrame(frame, length);
  const Layout& layout = parsed.layout;
  const uint32_t field = vnet.csum_start + uint32_t{vnet.csum_offset};
  if (layout.l4_offset != 0 && layout.l4_offset == vnet.csum_start &&
      field == L4ChecksumOffset(layout)) {
    return RxChecksum::kOwed;
  }
  // Something else that Linux left open, in a fragment or another protocol.
  if (field + 2 > length) {
    counters_.bad_offload.Add();
    return RxChecksum::kUnknown;
  }
  FinishOwedChecksum(vnet.csum_start, field, length,
                     parsed.ip_protocol == IPPROTO_UDP, buffer_.data(),
                     {frame, {}});
  return RxChecksum::kUnknown;
}

void TapPort::Progress(uint32_t budget, Receiver& receiver) {
  while (budget > 0) {
    if (receive_next_ < receive_cut_.count()) {
      DeliverSegments(&budget, receiver);
    } else {
      if (!ReadOne(receiver)) return;
      if (receive_next_ >= receive_cut_.count()) --budget;
    }
  }
}

}  // namespace softnic
