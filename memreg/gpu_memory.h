// Memory of a GPU, by its vendor's runtime: allocated here, or the
// application's own.
//
// One class for both vendors: what differs is in the table of GpuRuntime.
//
// Source:   export: cuMemGetHandleForAddressRange in <cuda.h> of CUDA 13.0
//           (range aligned to host pages; attribute DMA_BUF_SUPPORTED), which
//           HIP 7 has too; before it hsa_amd_portable_export_dmabuf of
//           <hsa/hsa_ext_amd.h> (ROCm 5.6).
//           Visibility: cuFlushGPUDirectRDMAWrites there: the call may be left
//           out when the attribute GPU_DIRECT_RDMA_WRITES_ORDERING is at least
//           the scope asked for. The reader is always on the device that owns
//           the memory, so the scope is OWNER.
// Lifetime: the device outlives it. Memory of the application stays allocated
//           for as long as this object, its exports and what registered them.
#ifndef MEMREG_GPU_MEMORY_H_
#define MEMREG_GPU_MEMORY_H_

#include <memory>
#include <string>

#include "memreg/device_memory.h"
#include "memreg/gpu_device.h"

namespace devwire {

struct GpuMemoryOptions {
  // HIP alone, for ROCm before 7: empty is libhsa-runtime64.so.1.
  std::string hsa_library;
};

class GpuMemory final : public DeviceMemory {
 public:
  // `bytes` is rounded up to 2 MiB, the driver's unit, so that an export shares
  // no page with other memory of the process. Not zeroed. ResourceExhausted
  // when the device has no more.
  static absl::StatusOr<std::unique_ptr<GpuMemory>> Allocate(
      const GpuDevice& device, size_t bytes,
      const GpuMemoryOptions& options = {});
  // A range of an allocation of the application. InvalidArgument: not whole
  // host pages, or not inside one allocation of this device's runtime.
  static absl::StatusOr<std::unique_ptr<GpuMemory>> Register(
      const GpuDevice& device, GpuAddress address, size_t bytes,
      const GpuMemoryOptions& options = {});
  ~GpuMemory() override;

  std::string_view name() const override;
  size_t bytes() const override { return bytes_; }
  GpuAddress address() const { return address_; }
  // Unimplemented, with what is missing, where this runtime, driver or
  // platform cannot.
  absl::StatusOr<DmaBuf> Export() const override;
  absl::Status CopyIn(uint64_t offset,
                      std::span<const std::byte> from) override;
  absl::Status CopyOut(uint64_t offset, std::span<std::byte> to) const override;
  void MakeVisible() override;
  bool needs_make_visible() const override { return needs_flush_; }
  // False also where MakeVisible cannot make anything visible.
  [[nodiscard]] bool ReadOptionTails(
      std::span<const OptionTail> tails) override;

  // Whether MakeVisible keeps its word. Not OK: no work that already runs on
  // the device may be shown frags, and the message says why. Work launched
  // after the frags were received is not concerned.
  const absl::Status& visibility() const { return visibility_; }

 private:
  GpuMemory(const GpuDevice& device, GpuAddress address, size_t bytes,
            bool is_ours, const GpuMemoryOptions& options)
      : device_(device),
        address_(address),
        bytes_(bytes),
        is_ours_(is_ours),
        options_(options) {}

  absl::Status Prepare();
  void FindVisibility();
  absl::StatusOr<DmaBuf> ExportByHsa() const;
  bool ReadTailBatch(std::span<const OptionTail> tails);

  const GpuDevice& device_;
  const GpuAddress address_;
  const size_t bytes_;
  const bool is_ours_;
  const GpuMemoryOptions options_;
  bool needs_flush_ = true;
  absl::Status visibility_;
  // For option tails: kTailBatch times kMaxOptionTailBytes of pinned memory.
  GpuHandle stream_ = nullptr;
  std::byte* tail_bytes_ = nullptr;
};

}  // namespace devwire

#endif  // MEMREG_GPU_MEMORY_H_
