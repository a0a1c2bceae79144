// Device memory by the name of its provider: what tools and configurations
// call it.
//
// Threads: any. Cost: set-up.
#ifndef MEMREG_PROVIDERS_H_
#define MEMREG_PROVIDERS_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "memreg/device_memory.h"

namespace devwire {

// "memfd, udmabuf, ...": for usage texts.
std::string MemoryProviderNames();
bool IsMemoryProvider(std::string_view name);

// InvalidArgument: no such provider; else the provider's own errors.
absl::StatusOr<std::unique_ptr<DeviceMemory>> AllocateDeviceMemory(
    std::string_view provider, size_t bytes);

// The provider of what somebody has exported, by what the descriptor is; null:
// its bytes cannot be reached by the CPU, so option tails cannot be either.
// Takes `exported` over, but for null.
absl::StatusOr<std::unique_ptr<DeviceMemory>> AdoptDeviceMemory(
    DmaBuf& exported);

}  // namespace devwire

#endif  // MEMREG_PROVIDERS_H_
