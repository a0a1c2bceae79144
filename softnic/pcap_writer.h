// Writes the frames of one device to a file that tshark opens: both
// directions, each marked, as they are on the wire. A checksum that is still
// owed is finished, and a super-frame is cut, in the copy that goes to the
// file.
//
// Source:   pcapng, draft-ietf-opsawg-pcapng, 4.1 (section), 4.2 (interface),
//           4.3 (enhanced packet; epb_flags tell the direction).
// Threads:  as Port: one, under the device's lock.
// Cost:     copies each frame into a buffer taken at Open; one write(2) per
//           kBufferBytes. No allocation.
// Errors:   a write that fails (a full disk) ends the capture and is counted:
//           the device goes on.
#ifndef SOFTNIC_PCAP_WRITER_H_
#define SOFTNIC_PCAP_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/time.h"
#include "softnic/frame_checksum.h"
#include "softnic/port.h"
#include "softnic/segment.h"

namespace softnic {

class PcapWriter {
 public:
  static constexpr size_t kBufferBytes = 1 << 18;
  // Longest frame; the rest of a longer one is cut off, and shows as cut.
  static constexpr uint32_t kSnapBytes = 1 << 16;

  // Truncates `path`. PermissionDenied or so, with path and errno in words.
  static absl::StatusOr<std::unique_ptr<PcapWriter>> Open(
      const std::string& path, const std::string& device_name);
  // Flushes and closes.
  ~PcapWriter();
  PcapWriter(const PcapWriter&) = delete;
  PcapWriter& operator=(const PcapWriter&) = delete;

  // `now` becomes the time stamp, in nanoseconds since its clock's origin.
  void OnSend(const TxFrame& frame, devwire::Instant now);
  void OnReceive(const RxFrame& frame, devwire::Instant now);

  // Hands what is buffered to the kernel. False: writing has failed, now or
  // before.
  bool Flush();

  uint64_t frames() const { return frames_; }

 private:
  enum Direction : uint32_t { kInbound = 1, kOutbound = 2 };

  explicit PcapWriter(int fd);
  void WriteHeader(const std::string& device_name);
  void Put32(uint32_t value);
  void PutPadded(const void* data, size_t bytes);
  void PutFrame(const FrameBytes& bytes, uint32_t length, bool is_owed,
                Direction direction, devwire::Instant now);

  const int fd_;
  bool is_broken_ = false;
  uint64_t frames_ = 0;
  Segmenter segmenter_;
  std::vector<std::byte> buffer_;
  size_t used_ = 0;
};

}  // namespace softnic

#endif  // SOFTNIC_PCAP_WRITER_H_
