// Real dmabufs of host memory: for tests of what a real NIC or a GPU would be
// given, and for machines whose device memory is the host's.
//
//   udmabuf    pages of a memfd, /dev/udmabuf
//   dma-heap   a heap of the kernel's, /dev/dma_heap/system
//   vgem       a GPU without hardware: DRM's PRIME export, /dev/dri/card*
//
// Nothing of it stays mapped here: each copy maps what it copies, between the
// two halves of DMA_BUF_IOCTL_SYNC, and unmaps it.
//
// Source:   Linux include/uapi/linux/{udmabuf,dma-heap,dma-buf}.h,
//           include/uapi/drm/{drm,drm_mode}.h.
// Threads, lifetime: as DeviceMemory.
#ifndef MEMREG_HOST_DMABUF_H_
#define MEMREG_HOST_DMABUF_H_

#include <memory>
#include <string>

#include "memreg/host_memory.h"

namespace devwire {

class HostDmabuf final : public HostDeviceMemory {
 public:
  // `bytes` is rounded up to whole pages; zeroed. NotFound: the kernel has no
  // such device, and what brings it; PermissionDenied; ResourceExhausted or
  // InvalidArgument: the kernel's refusal, with the limit to raise. `device` is
  // what stands in the table above.
  static absl::StatusOr<std::unique_ptr<HostDmabuf>> AllocateUdmabuf(
      size_t bytes, const std::string& device = "/dev/udmabuf");
  static absl::StatusOr<std::unique_ptr<HostDmabuf>> AllocateDmaHeap(
      size_t bytes, const std::string& device = "/dev/dma_heap/system");
  // The first DRM device of the vgem driver in `folder`.
  static absl::StatusOr<std::unique_ptr<HostDmabuf>> AllocateVgem(
      size_t bytes, const std::string& folder = "/dev/dri");
  // What another process allocated from one of the first two; InvalidArgument
  // when it is of another exporter, which may be a GPU's driver (the copies
  // here would move its memory), or has fewer bytes than it says.
  static absl::StatusOr<std::unique_ptr<HostDmabuf>> Adopt(DmaBuf exported);

  static bool CanAdopt(int fd);

  std::string_view name() const override { return buffer_.origin(); }
  size_t bytes() const override { return buffer_.bytes(); }
  absl::StatusOr<DmaBuf> Export() const override { return buffer_.Duplicate(); }
  absl::Status CopyIn(uint64_t offset,
                      std::span<const std::byte> from) override;
  absl::Status CopyOut(uint64_t offset, std::span<std::byte> to) const override;

 private:
  explicit HostDmabuf(DmaBuf buffer) : buffer_(std::move(buffer)) {}
  // Maps `size` bytes from `offset`, and lets `copy` have them.
  template <typename Copy>
  absl::Status WithMapping(uint64_t offset, size_t size, bool writes,
                           Copy copy) const;

  DmaBuf buffer_;
};

}  // namespace devwire

#endif  // MEMREG_HOST_DMABUF_H_
