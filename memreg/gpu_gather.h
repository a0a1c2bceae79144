// Gather by a kernel on a GPU: gather_kernel.cu, compiled for the device at
// hand when the gather is made, or an object that was compiled before.
//
// Source:   docs/decisions/0023-one-gather-kernel.md.
// Threads:  one at a time.
// Lifetime: the device outlives it; its destructor waits for what is under way.
// Cost:     a launch takes two calls of the driver: kernel and event. Tiles lie
//           in a ring of pinned host memory, taken by Create, and the kernel
//           reads them there while it copies: sending them to the device first
//           took a fifth of the time. A launch allocates nothing.
#ifndef MEMREG_GPU_GATHER_H_
#define MEMREG_GPU_GATHER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memreg/gather.h"
#include "memreg/gpu_device.h"

namespace devwire {

struct GpuGatherOptions {
  // Launches that may be under way at once, and the tiles of each. A piece has
  // at least one tile, and about one for each `tile_bytes`.
  uint32_t launches = 8;
  uint32_t tiles_per_launch = 32768;
  uint32_t tile_bytes = 6144;  // Measured: docs/performance.md.
  // Null: a stream of its own, made non-blocking. Else launches are ordered
  // with the other work of this stream, which outlives the gather.
  GpuHandle stream = nullptr;

  // The runtime compiler: its library, or empty for the system's. What it is
  // told besides the device (measurements alone).
  std::string compiler_library;
  std::vector<std::string> compiler_options;
  bool use_compiler = true;
  // Without a compiler: an object of gather_kernel.cu for this device, as
  // memreg/gather_objects.sh makes. Empty: the PTX that is in the library
  // (CUDA), or none (HIP).
  std::string object_file;
};

class GpuGather final : public Gather {
 public:
  // FailedPrecondition, with both reasons, when there is neither a compiler
  // nor an object that fits.
  static absl::StatusOr<std::unique_ptr<GpuGather>> Create(
      const GpuDevice& device, const GpuGatherOptions& options);
  ~GpuGather() override;

  absl::StatusOr<GatherTicket> Launch(
      std::span<const GatherPiece> pieces) override;
  absl::StatusOr<bool> IsDone(GatherTicket ticket) override;
  absl::Status Wait(GatherTicket ticket) override;

  GpuHandle stream() const { return stream_; }
  // Where the kernel came from, for messages: "libnvrtc.so.13".
  const std::string& code_origin() const { return code_origin_; }

 private:
  GpuGather(const GpuDevice& device, const GpuGatherOptions& options)
      : device_(device), options_(options) {}

  absl::Status LoadCode();
  absl::Status LoadCompiled();
  absl::Status LoadPrebuilt();
  absl::Status LoadModule(const std::string& image);
  absl::Status TakeMemory();
  absl::Status Submit(uint32_t slot, uint32_t count);
  // Whether the launch of this number, 1 to launched_, is done.
  absl::StatusOr<bool> Poll(uint64_t number);
  uint32_t SlotOf(uint64_t number) const {
    return static_cast<uint32_t>((number - 1) % options_.launches);
  }

  const GpuDevice& device_;
  const GpuGatherOptions options_;
  std::string code_origin_;
  GpuHandle module_ = nullptr;
  GpuHandle function_ = nullptr;
  GpuHandle stream_ = nullptr;
  GatherTile* ring_ = nullptr;     // launches x tiles_per_launch, pinned.
  std::vector<GpuHandle> events_;  // One a slot of the ring.
  uint64_t launched_ = 0;
  uint64_t done_ = 0;     // All launches up to this number.
  absl::Status failure_;  // Of the device: nothing works after it.
};

}  // namespace devwire

#endif  // MEMREG_GPU_GATHER_H_
