// Writes a capture of headers that Wireshark and tshark open: both directions,
// drop reasons as packet comments, bounded in memory and on disk.
//
//   engine thread          ring of bytes               writer thread
//   Add() ----------> [ block | block | ... ] ----------> write(2)
//
// Source:   draft-ietf-opsawg-pcapng: 4.1 (section header), 4.2 (interface
//           description), 4.3 (enhanced packet block; epb_flags, opt_comment).
// Threads:  Add() by one thread, the engine's; it never waits and makes no
//           system call. A thread of the writer's own does the file. The rest
//           is for the thread that opened it.
// Lifetime: the file is complete after Close(), and closed by the destructor.
// Cost:     Add() copies at most kMaxBlockBytes; memory is taken in Open().
// Limits:   When the ring is full, or the file at its limit, or a write failed,
//           records are counted and left out.
#ifndef TRANSPORT_WIRE_PCAPNG_H_
#define TRANSPORT_WIRE_PCAPNG_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/counter.h"
#include "base/time.h"

namespace devwire {

class PcapngWriter {
 public:
  enum class Direction : uint8_t { kIn = 1, kOut = 2 };  // As in epb_flags.

  static constexpr uint32_t kMaxSnapBytes = 256;
  static constexpr uint32_t kMaxCommentBytes = 64;
  // Fixed fields 28, data, flags 8, comment 4 + 64, end of options 4, length 4.
  static constexpr uint32_t kMaxBlockBytes =
      28 + kMaxSnapBytes + 8 + 4 + kMaxCommentBytes + 4 + 4;

  struct Options {
    std::string path;                      // Created, or cut to nothing.
    uint32_t snap_bytes = 128;             // <= kMaxSnapBytes
    uint64_t max_file_bytes = 256u << 20;  // Room for the file's own headers.
    size_t ring_bytes = 1u << 20;          // Rounded up to a power of two.
    std::string interface_name = "devwire";
    // Added to every Instant: nanoseconds since 1970 of the Clock's origin.
    int64_t epoch_of_clock_ns = 0;
    Duration write_period = 20_ms;
  };

  struct Stats {
    uint64_t written = 0;  // Records taken; in the file after Close().
    uint64_t lost_ring_full = 0;
    uint64_t lost_file_full = 0;  // File at its limit, or a write failed.
  };

  // InvalidArgument for a bad option; else what open(2) said.
  static absl::StatusOr<std::unique_ptr<PcapngWriter>> Open(
      const Options& options);
  ~PcapngWriter();
  PcapngWriter(const PcapngWriter&) = delete;
  PcapngWriter& operator=(const PcapngWriter&) = delete;

  // Records the first bytes of a frame: `header` cut to snap_bytes, of a frame
  // of `frame_bytes`. `comment`, cut to kMaxCommentBytes, may be empty.
  void Add(Direction direction, Instant at, std::span<const std::byte> header,
           uint32_t frame_bytes, std::string_view comment);

  // Writes out what is in the ring and ends the thread. No Add() may be under
  // way or follow. Returns the first error of a write. Idempotent.
  absl::Status Close();

  // Any thread.
  Stats stats() const;

 private:
  PcapngWriter(const Options& options, int fd);

  void PutInRing(const std::byte* block, uint32_t bytes);
  void RunWriter();
  void WriteOut();
  bool WriteAll(const std::byte* at, size_t bytes);

  const Options options_;
  const int fd_;
  std::vector<std::byte> ring_;
  const size_t mask_;
  uint64_t file_bytes_;  // Written and in the ring; of the adding thread.
  Counter written_;
  Counter lost_ring_full_;
  Counter lost_file_full_;

  // Positions only grow; byte p lies at ring_[p & mask_]. head_ is the
  // writer's, tail_ the adding thread's.
  alignas(kCacheLine) std::atomic<uint64_t> head_{0};
  alignas(kCacheLine) std::atomic<uint64_t> tail_{0};
  std::atomic<int> write_errno_{0};

  std::mutex mutex_;
  std::condition_variable stop_signal_;
  bool is_stopping_ = false;  // Guarded by mutex_.
  std::thread writer_;
};

}  // namespace devwire

#endif  // TRANSPORT_WIRE_PCAPNG_H_
