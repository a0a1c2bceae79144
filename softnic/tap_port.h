// A port whose other end is the Linux kernel: a TAP interface.
//
//   device -> TapPort -> write(2)  -> Linux receives a frame
//   device <- TapPort <- read(2)   <- Linux sends a frame
//
// Source:   Documentation/networking/tuntap.rst of Linux; virtio 1.2 5.1.6 for
//           the header before each frame (vnet).
// Set-up:   opens or creates the interface and nothing else: its addresses,
//           MTU and being up are the caller's, by ip(8).
// Offloads: without vnet Linux finishes checksums and cuts segments itself.
//           With vnet it may leave both to us: such a frame is cut into
//           segments here, before any queue pair sees it, and says that its
//           checksum is owed; a TSO send goes to Linux as few large frames.
// Threads:  as Port. Cost: one system call per frame, and one that finds
//           nothing per Progress; no allocation after Open.
// Limits:   a read takes kMaxReadBytes, the longest that Linux hands over.
#ifndef SOFTNIC_TAP_PORT_H_
#define SOFTNIC_TAP_PORT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/counter.h"
#include "softnic/port.h"
#include "softnic/segment.h"

namespace softnic {

// The header before each frame of a TAP with IFF_VNET_HDR: struct
// virtio_net_hdr of virtio 1.2 5.1.6, in this machine's byte order. (The
// kernel's own <linux/virtio_net.h> does not compile as C++.)
struct VnetHeader {
  static constexpr uint8_t kNeedsChecksum = 1;  // flags
  static constexpr uint8_t kDataValid = 2;
  static constexpr uint8_t kTcp4 = 1;  // gso_type; 0: no super-frame
  static constexpr uint8_t kTcp6 = 4;
  static constexpr uint8_t kEcn = 0x80;  // with kTcp4 or kTcp6: CWR is set

  uint8_t flags = 0;
  uint8_t gso_type = 0;
  uint16_t hdr_len = 0;
  uint16_t gso_size = 0;
  uint16_t csum_start = 0;
  uint16_t csum_offset = 0;
};
static_assert(sizeof(VnetHeader) == 10);

struct TapCounters {
  devwire::Counter super_frames_cut;  // from Linux
  devwire::Counter bad_offload;       // from Linux: a header we cannot follow
  devwire::Counter refused;           // by Linux: the interface is down, or so
};

class TapPort final : public Port {
 public:
  static constexpr size_t kMaxReadBytes = 65536 + 64;
  static constexpr size_t kMaxPieces = 62;  // of one frame sent

  // NotFound: no /dev/net/tun; PermissionDenied: no CAP_NET_ADMIN in this
  // network namespace; AlreadyExists: the interface is in use.
  static absl::StatusOr<std::unique_ptr<TapPort>> Open(const std::string& name,
                                                       bool vnet);
  ~TapPort() override;
  TapPort(const TapPort&) = delete;
  TapPort& operator=(const TapPort&) = delete;

  Offloads offloads() const override { return {has_vnet_, has_vnet_}; }
  bool Send(const TxFrame& frame) override;
  uint64_t sent() const override { return sent_; }
  uint64_t completed() const override { return sent_; }  // write(2) has copied
  void Progress(uint32_t budget, Receiver& receiver) override;
  bool link_up() const override { return true; }
  int wait_fd() const override { return fd_; }

  const TapCounters& counters() const { return counters_; }

 private:
  enum class WriteResult { kTaken, kNoRoom };

  TapPort(int fd, bool vnet);
  // Writes one frame with its virtio header.
  WriteResult Write(const VnetHeader& vnet, std::span<const std::byte> header,
                    std::span<const Piece> pieces);
  bool SendSuperFrame(const TxFrame& frame);
  // False: nothing to read.
  bool ReadOne(Receiver& receiver);
  // What is known of a frame's checksum; finishes one that is none of ours.
  RxChecksum ChecksumOf(const VnetHeader& vnet,
                        std::span<const std::byte> frame);
  // Hands up to `budget` segments of the super-frame at hand to the receiver.
  void DeliverSegments(uint32_t* budget, Receiver& receiver);

  const int fd_;
  const bool has_vnet_;
  uint64_t sent_ = 0;
  // A TSO send that Linux had no room for in the middle goes on here.
  Segmenter send_cut_;
  uint32_t send_next_ = 0;
  // A super-frame from Linux: segments from receive_next_ on are still to come.
  Segmenter receive_cut_;
  uint32_t receive_next_ = 0;
  std::array<std::byte, Segmenter::kMaxHeaderBytes> header_;
  std::vector<std::byte> buffer_;
  TapCounters counters_;
};

}  // namespace softnic

#endif  // SOFTNIC_TAP_PORT_H_
