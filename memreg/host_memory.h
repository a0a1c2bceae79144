// Host memory that plays a device's part.
//
// MemfdMemory is accepted by softnic alone, and never mapped here: CopyIn and
// CopyOut are pwrite(2) and pread(2). So no code of the stack can touch payload
// by mistake, exactly as with a GPU.
#ifndef MEMREG_HOST_MEMORY_H_
#define MEMREG_HOST_MEMORY_H_

#include <memory>

#include "memreg/device_memory.h"

namespace devwire {

// What providers of host memory share: the CPU can read it at any time.
class HostDeviceMemory : public DeviceMemory {
 public:
  // softnic writes late when told to (`late_scatter`): its exported
  // softnic_make_visible ends that. With any other library: nothing to do.
  void MakeVisible() override;
  bool needs_make_visible() const override;
  [[nodiscard]] bool ReadOptionTails(
      std::span<const OptionTail> tails) override;
};

class MemfdMemory final : public HostDeviceMemory {
 public:
  // `bytes` is rounded up to whole pages; zeroed. ResourceExhausted when the
  // kernel refuses.
  static absl::StatusOr<std::unique_ptr<MemfdMemory>> Allocate(size_t bytes);
  // Memory that another process allocated; takes over the descriptor, unless
  // it fails.
  static absl::StatusOr<std::unique_ptr<MemfdMemory>> Adopt(int fd);
  // The same of what a provider exported. InvalidArgument when its descriptor
  // has fewer bytes than it says.
  static absl::StatusOr<std::unique_ptr<MemfdMemory>> Adopt(DmaBuf exported);

  std::string_view name() const override { return "memfd"; }
  size_t bytes() const override { return buffer_.bytes(); }
  absl::StatusOr<DmaBuf> Export() const override { return buffer_.Duplicate(); }
  absl::Status CopyIn(uint64_t offset,
                      std::span<const std::byte> from) override;
  absl::Status CopyOut(uint64_t offset, std::span<std::byte> to) const override;

 private:
  explicit MemfdMemory(DmaBuf buffer) : buffer_(std::move(buffer)) {}

  DmaBuf buffer_;
};

}  // namespace devwire

#endif  // MEMREG_HOST_MEMORY_H_
