#include "memreg/gpu_memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "memreg/symbol_loader.h"

namespace devwire {
namespace {

// cuMemAlloc and hipMalloc hand out parts of blocks of this size.
constexpr size_t kBlockBytes = 2u << 20;
constexpr size_t kTailBatch = 64;  // As many frames as one poll receives.
constexpr char kExportNextStep[] =
    "exporting a dmabuf needs, for CUDA, driver 515 with NVIDIA's open kernel "
    "modules and Linux 5.12; for AMD, ROCm 5.6 with a kernel whose KFD exports "
    "dmabufs";

size_t HostPage() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

absl::StatusOr<std::unique_ptr<GpuMemory>> GpuMemory::Allocate(
    const GpuDevice& device, size_t bytes, const GpuMemoryOptions& options) {
  if (bytes == 0 || bytes > SIZE_MAX / 2) {
    return absl::InvalidArgumentError(
        absl::StrFormat("device memory of %u bytes", bytes));
  }
  const size_t rounded = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  const GpuScope scope(device);
  if (!scope.status().ok()) return scope.status();
  GpuAddress address = 0;
  absl::Status s = device.Check(device.table().mem_alloc(&address, rounded),
                                "cuMemAlloc", "hipMalloc");
  if (!s.ok()) return s;
  std::unique_ptr<GpuMemory> memory(
      new GpuMemory(device, address, rounded, /*is_ours=*/true, options));
  if (s = memory->Prepare(); !s.ok()) return s;
  return memory;
}

absl::StatusOr<std::unique_ptr<GpuMemory>> GpuMemory::Register(
    const GpuDevice& device, GpuAddress address, size_t bytes,
    const GpuMemoryOptions& options) {
  if (bytes == 0 || address % HostPage() != 0 || bytes % HostPage() != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%u bytes at %#x are not whole pages of %u bytes: only such a range "
        "can be exported; take a larger one around it",
        bytes, address, HostPage()));
  }
  const GpuScope scope(device);
  if (!scope.status().ok()) return scope.status();
  GpuAddress base = 0;
  size_t size = 0;
  absl::Status s =
      device.Check(device.table().mem_get_address_range(&base, &size, address),
                   "cuMemGetAddressRange", "hipMemGetAddressRange");
  if (!s.ok()) return s;
  if (address < base || bytes > size || address - base > size - bytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%u bytes at %#x are not inside one allocation: it has %u bytes at %#x",
        bytes, address, size, base));
  }
  std::unique_ptr<GpuMemory> memory(
      new GpuMemory(device, address, bytes, /*is_ours=*/false, options));
  if (s = memory->Prepare(); !s.ok()) return s;
  return memory;
}

absl::Status GpuMemory::Prepare() {
  FindVisibility();
  void* staging = nullptr;
  absl::Status s = device_.Check(
      device_.table().host_alloc(&staging, kTailBatch * kMaxOptionTailBytes, 0),
      "cuMemHostAlloc", "hipHostMalloc");
  if (!s.ok()) return s;
  tail_bytes_ = static_cast<std::byte*>(staging);
  GpuHandle stream = nullptr;
  s = device_.Check(
      device_.table().stream_create(&stream, kGpuStreamNonBlocking),
      "cuStreamCreate", "hipStreamCreateWithFlags");
  if (s.ok()) stream_ = stream;
  return s;
}

void GpuMemory::FindVisibility() {
  const GpuAttributes& a = device_.runtime().attributes;
  const absl::StatusOr<int> ordering = device_.Attribute(a.writes_ordering);
  if (ordering.ok() && *ordering >= kGpuFlushToOwner) {
    needs_flush_ = false;
    return;
  }
  const absl::StatusOr<int> options = device_.Attribute(a.flush_writes_options);
  if (ordering.ok() && options.ok() && (*options & 1) != 0 &&
      device_.table().flush_gpu_direct_writes != nullptr) {
    return;
  }
  visibility_ = absl::UnimplementedError(absl::StrFormat(
      "%s does not say that it orders a NIC's writes and has no call to flush "
      "them: hand frags only to work that is launched after they were received",
      device_.name()));
}

GpuMemory::~GpuMemory() {
  const GpuScope scope(device_);
  if (!scope.status().ok()) return;  // The driver is closed: nothing is left.
  if (stream_ != nullptr) device_.table().stream_destroy(stream_);
  if (tail_bytes_ != nullptr) device_.table().host_free(tail_bytes_);
  if (is_ours_) device_.table().mem_free(address_);
}

std::string_view GpuMemory::name() const {
  return GpuVendorName(device_.runtime().vendor);
}

absl::StatusOr<DmaBuf> GpuMemory::Export() const {
  const GpuScope scope(device_);
  if (!scope.status().ok()) return scope.status();
  const bool is_cuda = device_.runtime().vendor == GpuVendor::kCuda;
  if (device_.table().mem_get_handle_for_address_range == nullptr) {
    if (!is_cuda) return ExportByHsa();
    return absl::UnimplementedError(
        absl::StrFormat("%s has no cuMemGetHandleForAddressRange: %s",
                        device_.runtime().library, kExportNextStep));
  }
  if (is_cuda) {
    const absl::StatusOr<int> supported =
        device_.Attribute(device_.runtime().attributes.dmabuf_supported);
    if (!supported.ok()) return supported.status();
    if (*supported == 0) {
      return absl::UnimplementedError(absl::StrFormat(
          "%s: its driver says CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED 0: %s",
          device_.name(), kExportNextStep));
    }
  }
  int fd = -1;
  const absl::Status s = device_.Check(
      device_.table().mem_get_handle_for_address_range(&fd, address_, bytes_,
                                                       kGpuHandleTypeDmaBuf, 0),
      "cuMemGetHandleForAddressRange", "hipMemGetHandleForAddressRange");
  if (!s.ok()) {
    return absl::Status(
        s.code(), absl::StrFormat("%s; %s", s.message(), kExportNextStep));
  }
  return DmaBuf(fd, bytes_, std::string(name()));
}

absl::StatusOr<DmaBuf> GpuMemory::ExportByHsa() const {
  const std::string names[] = {options_.hsa_library.empty()
                                   ? "libhsa-runtime64.so.1"
                                   : options_.hsa_library};
  absl::StatusOr<SymbolLoader> hsa = SymbolLoader::Open(names, kExportNextStep);
  if (!hsa.ok()) return hsa.status();
  int (*export_dmabuf)(const void*, size_t, int*, uint64_t*) = nullptr;
  hsa->Required("hsa_amd_portable_export_dmabuf", &export_dmabuf);
  if (absl::Status s = hsa->status(kExportNextStep); !s.ok()) return s;
  int fd = -1;
  uint64_t offset = 0;
  const int result = export_dmabuf(reinterpret_cast<const void*>(address_),
                                   bytes_, &fd, &offset);
  if (result != 0) {
    return absl::UnimplementedError(
        absl::StrFormat("hsa_amd_portable_export_dmabuf: error %d; %s", result,
                        kExportNextStep));
  }
  DmaBuf buffer(fd, bytes_, "hsa");
  if (offset == 0) return buffer;
  return absl::UnimplementedError(absl::StrFormat(
      "the dmabuf begins %u bytes before the memory: register a whole "
      "allocation",
      offset));
}

absl::Status GpuMemory::CopyIn(uint64_t offset,
                               std::span<const std::byte> from) {
  if (absl::Status s = CheckRange(offset, from.size()); !s.ok()) return s;
  const GpuScope scope(device_);
  if (!scope.status().ok()) return scope.status();
  return device_.Check(
      device_.table().memcpy_htod(address_ + offset, from.data(), from.size()),
      "cuMemcpyHtoD", "hipMemcpyHtoD");
}

absl::Status GpuMemory::CopyOut(uint64_t offset,
                                std::span<std::byte> to) const {
  if (absl::Status s = CheckRange(offset, to.size()); !s.ok()) return s;
  const GpuScope scope(device_);
  if (!scope.status().ok()) return scope.status();
  return device_.Check(
      device_.table().memcpy_dtoh(to.data(), address_ + offset, to.size()),
      "cuMemcpyDtoH", "hipMemcpyDtoH");
}

void GpuMemory::MakeVisible() {
  if (!needs_flush_ || !visibility_.ok()) return;
  const GpuScope scope(device_);
  visibility_ = scope.status();
  if (!visibility_.ok()) return;
  visibility_ = device_.Check(
      device_.table().flush_gpu_direct_writes(kGpuFlushTargetCurrentContext,
                                              kGpuFlushToOwner),
      "cuFlushGPUDirectRDMAWrites", "hipDeviceFlushGPUDirectRDMAWrites");
}

bool GpuMemory::ReadOptionTails(std::span<const OptionTail> tails) {
  for (const OptionTail& tail : tails) {
    if (tail.length == 0 || tail.length > kMaxOptionTailBytes) return false;
    if (!CheckRange(tail.offset, tail.length).ok()) return false;
  }
  MakeVisible();
  if (!visibility_.ok()) return false;
  const GpuScope scope(device_);
  if (!scope.status().ok()) return false;
  while (!tails.empty()) {
    const size_t n = std::min(tails.size(), kTailBatch);
    if (!ReadTailBatch(tails.first(n))) return false;
    tails = tails.subspan(n);
  }
  return true;
}

// Small copies into pinned memory, and one wait for all of them.
bool GpuMemory::ReadTailBatch(std::span<const OptionTail> tails) {
  bool is_read = true;
  for (size_t i = 0; i < tails.size() && is_read; ++i) {
    is_read = device_.table().memcpy_dtoh_async(
                  tail_bytes_ + i * kMaxOptionTailBytes,
                  address_ + tails[i].offset, tails[i].length, stream_) == 0;
  }
  // Also after a failure: copies before it may still write.
  if (device_.table().stream_synchronize(stream_) != 0 || !is_read) {
    return false;
  }
  for (size_t i = 0; i < tails.size(); ++i) {
    memcpy(tails[i].out, tail_bytes_ + i * kMaxOptionTailBytes,
           tails[i].length);
  }
  return true;
}

}  // namespace devwire
