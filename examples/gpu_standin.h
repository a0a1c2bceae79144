// A process that stands in for the GPU: the only one that maps the device
// memory of an example. It fills it from a file, or consumes it into a file,
// as kernels on a real GPU would; the example itself never sees a byte.
//
// Works are done, and answered, in the order they were posted.
//
// Threads:  the caller's one thread. Lifetime: destroying it ends the process.
// Cost:     one system call per batch of up to kBatch works.
#ifndef EXAMPLES_GPU_STANDIN_H_
#define EXAMPLES_GPU_STANDIN_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace devwire::examples {

class GpuStandin {
 public:
  enum class Role : uint8_t {
    kProduce,  // Fill(): reads the file, writes device memory.
    kConsume,  // Consume(): reads device memory, writes the file and hashes.
  };
  struct Options {
    Role role = Role::kConsume;
    int dmabuf_fd = -1;                  // Borrowed until Start() returns.
    uint64_t bytes = 0;                  // Of the device memory.
    std::string path;                    // Read or written, by role.
    std::optional<uint64_t> corrupt_at;  // kProduce: flips this byte.
  };
  // One finished work. Fill: `length` is what the file had, less than asked at
  // its end.
  struct Done {
    uint64_t tag = 0;
    uint32_t length = 0;
  };

  // Starts this program again in the role of the GPU: main() must begin with
  // RunAsStandin().
  static absl::StatusOr<GpuStandin> Start(const Options& options);
  GpuStandin(GpuStandin&& other) noexcept;
  ~GpuStandin();

  // If this process was started by Start(), plays the GPU and returns the exit
  // status; else returns empty at once.
  static std::optional<int> RunAsStandin(int argc, char** argv);

  void Fill(uint64_t offset, uint32_t length, uint64_t tag);
  void Consume(uint64_t offset, uint32_t length, uint64_t tag);
  // Bytes of the stream that arrived in host memory; copied before it returns.
  void ConsumeHost(std::span<const std::byte> bytes, uint64_t tag);

  // Hands over what was posted and collects what is done, without waiting.
  absl::StatusOr<std::vector<Done>> Poll();

  // After all works are done: the SHA-256 of all bytes consumed, in hex.
  absl::StatusOr<std::string> Finish();

 private:
  GpuStandin(pid_t pid, int socket) : pid_(pid), socket_(socket) {}
  absl::Status Flush();
  absl::Status Wait(short events);

  pid_t pid_;
  int socket_;
  std::deque<std::vector<std::byte>> unsent_;  // Datagrams.
};

}  // namespace devwire::examples

#endif  // EXAMPLES_GPU_STANDIN_H_
