// dwcat send: the GPU stand-in reads the file into chunks of device memory,
// each is sent from there, and filled again as soon as its send completes.
#include <sys/stat.h>

#include <deque>

#include "examples/dwcat_report.h"
#include "examples/dwcat_transfer.h"
#include "examples/gpu_standin.h"
#include "sockets/errno_map.h"

namespace devwire::examples {
namespace {

constexpr uint32_t kChunkBytes = 1 << 20;

class Sender {
 public:
  Sender(const DwcatOptions& options, BoundStack& bound, Stream& stream,
         GpuStandin& gpu, uint64_t file_bytes)
      : options_(options),
        bound_(bound),
        stack_(*bound.stack),
        stream_(stream),
        gpu_(gpu),
        progress_(file_bytes, options.quiet),
        watch_(bound.dmabuf->fd()) {
    chunk_bytes_ = static_cast<uint32_t>(
        std::min<uint64_t>(kChunkBytes, options.flags.pool_bytes));
    const uint64_t chunks = options.flags.pool_bytes / chunk_bytes_;
    for (uint64_t chunk = 0; chunk < chunks; ++chunk) FillAgain(chunk);
  }

  absl::Status Run() {
    watch_.Look();
    while (!end_of_file_ || in_flight_ > 0 || !filled_.empty()) {
      stack_.Poll();
      if (absl::Status s = TakeFilled(); !s.ok()) return s;
      if (absl::Status s = SendFilled(); !s.ok()) return s;
      if (absl::Status s = TakeCompleted(); !s.ok()) return s;
      watch_.LookAsBytesGrow(progress_.bytes());
      if (!progress_.Tick()) {
        return ErrnoStatus(ETIMEDOUT, "the transfer stands still");
      }
    }
    if (absl::Status s = stream_.CloseSend(); !s.ok()) return s;
    if (absl::Status s = AwaitPeer(); !s.ok()) return s;
    watch_.Look();
    Report(options_, stack_, stream_, bound_.id, progress_, watch_, {});
    return absl::OkStatus();
  }

 private:
  struct Chunk {
    uint64_t number = 0;
    uint32_t length = 0;
  };

  void FillAgain(uint64_t chunk) {
    gpu_.Fill(chunk * chunk_bytes_, chunk_bytes_, chunk);
  }

  absl::Status TakeFilled() {
    auto done = gpu_.Poll();
    if (!done.ok()) return done.status();
    for (const GpuStandin::Done& d : *done) {
      if (d.length < chunk_bytes_) end_of_file_ = true;
      if (d.length > 0) filled_.push_back({d.tag, d.length});
    }
    return absl::OkStatus();
  }

  absl::Status SendFilled() {
    while (!filled_.empty()) {
      const Chunk chunk = filled_.front();
      const DeviceSpan span{chunk.number * chunk_bytes_, chunk.length};
      auto outcome = stream_.SendDevice(bound_.id, {&span, 1}, chunk.number);
      if (!outcome.ok()) return outcome.status();
      if (*outcome == SendOutcome::kWouldBlock) break;
      filled_.pop_front();
      ++in_flight_;
      progress_.Start();
    }
    return absl::OkStatus();
  }

  absl::Status TakeCompleted() {
    SendCompletion completions[16];
    auto n = stream_.PollSendCompletions(completions);
    if (!n.ok()) return n.status();
    for (size_t i = 0; i < *n; ++i) {
      if (!completions[i].delivered) {
        // Nothing is sent: the stream's own error, by name.
        const absl::Status why = stream_.SendHost({}).status();
        return why.ok() ? absl::AbortedError("a send was not delivered") : why;
      }
      --in_flight_;
      progress_.Add(completions[i].bytes);
      if (!end_of_file_) FillAgain(completions[i].cookie);
    }
    return absl::OkStatus();
  }

  // The peer closes when it has everything: that is its receipt.
  absl::Status AwaitPeer() {
    std::byte unexpected[64];
    while (progress_.Tick()) {
      stack_.Poll();
      auto got = stream_.Read(unexpected);
      if (!got.ok()) return got.status();
      if (got->end_of_stream) {
        Linger(stack_, stream_);
        return absl::OkStatus();
      }
    }
    return ErrnoStatus(ETIMEDOUT, "the peer did not close");
  }

  const DwcatOptions& options_;
  BoundStack& bound_;
  Stack& stack_;
  Stream& stream_;
  GpuStandin& gpu_;
  Progress progress_;
  MappingWatch watch_;
  uint32_t chunk_bytes_;
  std::deque<Chunk> filled_;
  uint64_t in_flight_ = 0;
  bool end_of_file_ = false;
};

}  // namespace

absl::Status SendFile(const DwcatOptions& options, BoundStack& bound) {
  struct stat file {};
  if (stat(options.file.c_str(), &file) != 0) {
    return ErrnoStatus(errno, options.file);
  }
  const auto file_bytes = static_cast<uint64_t>(file.st_size);
  auto gpu = GpuStandin::Start({.role = GpuStandin::Role::kProduce,
                                .dmabuf_fd = bound.dmabuf->fd(),
                                .bytes = options.flags.pool_bytes,
                                .path = options.file,
                                .corrupt_at = options.corrupt_at});
  if (!gpu.ok()) return gpu.status();
  auto stream = bound.stack->Connect(options.endpoint);
  if (!stream.ok()) return stream.status();
  return Sender(options, bound, **stream, *gpu, file_bytes).Run();
}

}  // namespace devwire::examples
