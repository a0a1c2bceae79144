#include "memreg/providers.h"

#include <fcntl.h>

#include <array>
#include <utility>

#include "absl/strings/str_format.h"
#include "memreg/host_dmabuf.h"
#include "memreg/host_memory.h"

namespace devwire {
namespace {

using Memory = absl::StatusOr<std::unique_ptr<DeviceMemory>>;

struct Provider {
  std::string_view name;
  Memory (*allocate)(size_t bytes);
};

constexpr std::array<Provider, 4> kProviders = {{
    {"memfd", [](size_t n) -> Memory { return MemfdMemory::Allocate(n); }},
    {"udmabuf",
     [](size_t n) -> Memory { return HostDmabuf::AllocateUdmabuf(n); }},
    {"dma-heap",
     [](size_t n) -> Memory { return HostDmabuf::AllocateDmaHeap(n); }},
    {"vgem", [](size_t n) -> Memory { return HostDmabuf::AllocateVgem(n); }},
}};

const Provider* Find(std::string_view name) {
  for (const Provider& provider : kProviders) {
    if (provider.name == name) return &provider;
  }
  return nullptr;
}

}  // namespace

std::string MemoryProviderNames() {
  std::string names;
  for (const Provider& provider : kProviders) {
    absl::StrAppendFormat(&names, "%s%s", names.empty() ? "" : ", ",
                          provider.name);
  }
  return names;
}

bool IsMemoryProvider(std::string_view name) { return Find(name) != nullptr; }

absl::StatusOr<std::unique_ptr<DeviceMemory>> AllocateDeviceMemory(
    std::string_view provider, size_t bytes) {
  const Provider* const found = Find(provider);
  if (found == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrFormat("no provider of device memory is called \"%s\": use "
                        "one of %s",
                        provider, MemoryProviderNames()));
  }
  return found->allocate(bytes);
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> AdoptDeviceMemory(
    DmaBuf& exported) {
  if (fcntl(exported.fd(), F_GET_SEALS) >= 0) {
    return MemfdMemory::Adopt(std::move(exported));
  }
  if (!HostDmabuf::CanAdopt(exported.fd())) return nullptr;
  return HostDmabuf::Adopt(std::move(exported));
}

}  // namespace devwire
