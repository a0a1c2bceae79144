// Memory of a device: a GPU's, or what stands in for it.
//
// The stack never looks at it. The NIC writes it, the application reads it;
// CopyIn and CopyOut serve the application, ReadOptionTail alone serves TCP.
//
// Threads:  MakeVisible, ReadOptionTail: the engine's. CopyIn, CopyOut, Export:
//           any thread.
// Lifetime: outlives every region registered from it that is still in use by
//           the application; the NIC's registration keeps the memory itself.
#ifndef MEMREG_DEVICE_MEMORY_H_
#define MEMREG_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memreg/dmabuf.h"

namespace devwire {

// Bytes of a TCP header that the NIC put into a payload slot, because the
// header was longer than the split. Never payload.
struct OptionTail {
  uint64_t offset = 0;  // From the start of the memory.
  uint32_t length = 0;  // 1 to kMaxOptionTailBytes.
  std::byte* out = nullptr;
};
// All the options a TCP header can hold. RFC 9293 3.1: data offset 15, less
// the fixed 20 bytes.
inline constexpr uint32_t kMaxOptionTailBytes = 40;

class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;

  // Which provider: "memfd", "hip", ...
  virtual std::string_view name() const = 0;
  virtual size_t bytes() const = 0;

  // A descriptor for ibv_reg_dmabuf_mr(3), or for another process.
  virtual absl::StatusOr<DmaBuf> Export() const = 0;

  // Copies between host memory and [offset, offset + size). OutOfRange beyond
  // the end. May take a system call and block for the device.
  virtual absl::Status CopyIn(uint64_t offset,
                              std::span<const std::byte> from) = 0;
  virtual absl::Status CopyOut(uint64_t offset,
                               std::span<std::byte> to) const = 0;

  // Everything that completions polled so far announced is visible to work
  // that already runs on the device. Once per batch, before frags are handed
  // to such a consumer; work launched later needs no more than its launch.
  virtual void MakeVisible() = 0;
  // False: MakeVisible does nothing here and need not be called.
  virtual bool needs_make_visible() const = 0;

  // Fetches option bytes, one batch per poll. False where the provider cannot
  // (nothing is written then): the stream goes to the control queue. Makes
  // the bytes visible first where that is needed.
  [[nodiscard]] virtual bool ReadOptionTails(
      std::span<const OptionTail> tails) = 0;

 protected:
  // OutOfRange when [offset, offset + size) is not wholly inside.
  absl::Status CheckRange(uint64_t offset, size_t size) const;
};

}  // namespace devwire

#endif  // MEMREG_DEVICE_MEMORY_H_
