#include "transport/wire/pcapng.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/thread.h"

namespace devwire {
namespace {

// Little-endian, which the byte-order magic of the section header declares.
// Block types and option codes: the numbers of the draft.
constexpr uint32_t kSectionHeader = 0x0a0d0d0a;
constexpr uint32_t kByteOrderMagic = 0x1a2b3c4d;
constexpr uint32_t kInterfaceDescription = 1;
constexpr uint32_t kEnhancedPacket = 6;
constexpr uint16_t kEndOfOptions = 0;
constexpr uint16_t kComment = 1;
constexpr uint16_t kInterfaceName = 2;
constexpr uint16_t kPacketFlags = 2;
constexpr uint16_t kUserApplication = 4;
constexpr uint16_t kTimeResolution = 9;
constexpr uint16_t kLinkTypeEthernet = 1;
constexpr uint8_t kNanoseconds = 9;  // 10^-9 s.

constexpr size_t kMaxInterfaceNameBytes = 64;

// Builds one block; the total length is known only at the end.
class Block {
 public:
  explicit Block(uint32_t type) {
    Put(type);
    Put(uint32_t{0});
  }
  template <typename T>
  void Put(T value) {
    std::memcpy(bytes_.data() + size_, &value, sizeof(value));
    size_ += sizeof(value);
  }
  void PutPadded(const void* data, size_t bytes) {
    if (bytes > 0) std::memcpy(bytes_.data() + size_, data, bytes);
    size_ += bytes;
    while (size_ % 4 != 0) bytes_[size_++] = std::byte{0};
  }
  void PutOption(uint16_t code, const void* data, size_t bytes) {
    Put(code);
    Put(static_cast<uint16_t>(bytes));
    PutPadded(data, bytes);
  }
  std::span<const std::byte> Finish() {
    PutOption(kEndOfOptions, nullptr, 0);
    const auto total = static_cast<uint32_t>(size_ + 4);
    Put(total);
    std::memcpy(bytes_.data() + 4, &total, sizeof(total));
    return {bytes_.data(), size_};
  }

 private:
  size_t size_ = 0;
  std::array<std::byte, PcapngWriter::kMaxBlockBytes> bytes_;
};

// The section header block, then the one interface.
std::vector<std::byte> FileHeader(const PcapngWriter::Options& options) {
  constexpr char kApplication[] = "devwire";
  Block section(kSectionHeader);
  section.Put(kByteOrderMagic);
  section.Put(uint16_t{1});  // Version 1.0.
  section.Put(uint16_t{0});
  section.Put(int64_t{-1});  // Section length: not told.
  section.PutOption(kUserApplication, kApplication, sizeof(kApplication) - 1);

  Block interface(kInterfaceDescription);
  interface.Put(kLinkTypeEthernet);
  interface.Put(uint16_t{0});
  interface.Put(options.snap_bytes);
  interface.PutOption(kInterfaceName, options.interface_name.data(),
                      options.interface_name.size());
  interface.PutOption(kTimeResolution, &kNanoseconds, 1);

  const auto first = section.Finish();
  const auto second = interface.Finish();
  std::vector<std::byte> bytes(first.begin(), first.end());
  bytes.insert(bytes.end(), second.begin(), second.end());
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PcapngWriter>> PcapngWriter::Open(
    const Options& options) {
  if (options.snap_bytes == 0 || options.snap_bytes > kMaxSnapBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("capture: snap_bytes is ", options.snap_bytes,
                     ", must be 1 to ", kMaxSnapBytes));
  }
  if (options.interface_name.size() > kMaxInterfaceNameBytes) {
    return absl::InvalidArgumentError("capture: interface_name is too long");
  }
  const std::vector<std::byte> header = FileHeader(options);
  if (options.max_file_bytes < header.size() ||
      options.ring_bytes < 2 * kMaxBlockBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("capture: max_file_bytes must be at least ", header.size(),
                     " and ring_bytes at least ", 2 * kMaxBlockBytes));
  }
  // 0600: addresses and options are nobody else's business.
  const int fd = open(options.path.c_str(),
                      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("capture: open ", options.path));
  }
  std::unique_ptr<PcapngWriter> writer(new PcapngWriter(options, fd));
  if (!writer->WriteAll(header.data(), header.size())) {
    return writer->Close();
  }
  writer->file_bytes_ = header.size();
  writer->writer_ = StartThread([w = writer.get()] { w->RunWriter(); });
  return writer;
}

PcapngWriter::PcapngWriter(const Options& options, int fd)
    : options_(options),
      fd_(fd),
      ring_(std::bit_ceil(options.ring_bytes)),
      mask_(ring_.size() - 1),
      file_bytes_(0) {}

PcapngWriter::~PcapngWriter() {
  // Whoever cares for the error has called Close() before.
  Close().IgnoreError();
  close(fd_);
}

void PcapngWriter::Add(Direction direction, Instant at,
                       std::span<const std::byte> header, uint32_t frame_bytes,
                       std::string_view comment) {
  const size_t captured = std::min(
      {header.size(), size_t{options_.snap_bytes}, size_t{frame_bytes}});
  const auto time =
      static_cast<uint64_t>(at.nanoseconds() + options_.epoch_of_clock_ns);
  const auto flags = static_cast<uint32_t>(direction);
  Block block(kEnhancedPacket);
  block.Put(uint32_t{0});  // Interface.
  block.Put(static_cast<uint32_t>(time >> 32));
  block.Put(static_cast<uint32_t>(time));
  block.Put(static_cast<uint32_t>(captured));
  block.Put(frame_bytes);
  block.PutPadded(header.data(), captured);
  block.PutOption(kPacketFlags, &flags, sizeof(flags));
  comment = comment.substr(0, kMaxCommentBytes);
  if (!comment.empty()) {
    block.PutOption(kComment, comment.data(), comment.size());
  }
  const std::span<const std::byte> bytes = block.Finish();

  if (file_bytes_ + bytes.size() > options_.max_file_bytes ||
      write_errno_.load(std::memory_order_relaxed) != 0) {
    lost_file_full_.Add();
    return;
  }
  const uint64_t tail = tail_.load(std::memory_order_relaxed);
  const uint64_t used = tail - head_.load(std::memory_order_acquire);
  if (used + bytes.size() > ring_.size()) {
    lost_ring_full_.Add();
    return;
  }
  PutInRing(bytes.data(), static_cast<uint32_t>(bytes.size()));
  file_bytes_ += bytes.size();
  written_.Add();
}

void PcapngWriter::PutInRing(const std::byte* block, uint32_t bytes) {
  const uint64_t tail = tail_.load(std::memory_order_relaxed);
  const size_t at = tail & mask_;
  const size_t first = std::min<size_t>(bytes, ring_.size() - at);
  std::memcpy(ring_.data() + at, block, first);
  std::memcpy(ring_.data(), block + first, bytes - first);
  tail_.store(tail + bytes, std::memory_order_release);
}

void PcapngWriter::RunWriter() {
  const std::chrono::nanoseconds period(options_.write_period.nanoseconds());
  std::unique_lock<std::mutex> lock(mutex_);
  while (!is_stopping_) {
    stop_signal_.wait_for(lock, period);
    lock.unlock();
    WriteOut();
    lock.lock();
  }
}

void PcapngWriter::WriteOut() {
  const uint64_t tail = tail_.load(std::memory_order_acquire);
  uint64_t head = head_.load(std::memory_order_relaxed);
  while (head != tail) {
    const size_t at = head & mask_;
    const size_t bytes = std::min<uint64_t>(tail - head, ring_.size() - at);
    // After an error the ring is emptied all the same: nobody waits for it.
    if (write_errno_.load(std::memory_order_relaxed) == 0) {
      WriteAll(ring_.data() + at, bytes);
    }
    head += bytes;
    head_.store(head, std::memory_order_release);
  }
}

bool PcapngWriter::WriteAll(const std::byte* at, size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = write(fd_, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      write_errno_.store(n < 0 ? errno : EIO, std::memory_order_relaxed);
      return false;
    }
    at += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

absl::Status PcapngWriter::Close() {
  if (writer_.joinable()) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      is_stopping_ = true;
    }
    stop_signal_.notify_one();
    writer_.join();
    WriteOut();
  }
  const int error = write_errno_.load(std::memory_order_relaxed);
  if (error == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(error,
                             absl::StrCat("capture: write ", options_.path));
}

PcapngWriter::Stats PcapngWriter::stats() const {
  return {.written = written_.value(),
          .lost_ring_full = lost_ring_full_.value(),
          .lost_file_full = lost_file_full_.value()};
}

}  // namespace devwire
