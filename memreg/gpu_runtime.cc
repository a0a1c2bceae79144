#include "memreg/gpu_runtime.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "memreg/symbol_loader.h"

namespace devwire {
namespace {

constexpr char kCudaNextStep[] =
    "Install NVIDIA's driver (515 or newer: CUDA 11.7), or name its library";
constexpr char kHipNextStep[] =
    "Install ROCm's HIP runtime (5.2 or newer), or name its library";

// cuda.h, CUdevice_attribute.
constexpr GpuAttributes kCudaAttributes = {
    .multiprocessor_count = 16,
    .compute_major = 75,
    .compute_minor = 76,
    .dmabuf_supported = 124,
    .flush_writes_options = 117,
    .writes_ordering = 118,
};
// hip_runtime_api.h 5.2, hipDeviceAttribute_t: counted from 0 in the CUDA
// compatible part, which only grows at its end.
constexpr GpuAttributes kHipAttributes = {
    .multiprocessor_count = 63,
    .compute_major = 23,
    .compute_minor = 61,
    .dmabuf_supported = -1,
    .flush_writes_options = -1,
    .writes_ordering = -1,
};

// The suffix _v2 is what cuda.h's own macros choose: the plain names are calls
// of CUDA 3 with 32-bit sizes.
void BindCuda(SymbolLoader& l, GpuTable* t) {
  l.Required("cuInit", &t->init);
  l.Required("cuDriverGetVersion", &t->driver_get_version);
  l.Required("cuDeviceGetCount", &t->device_get_count);
  l.Required("cuDeviceGet", &t->device_get);
  l.Required("cuDeviceGetName", &t->device_get_name);
  l.Required("cuDeviceGetAttribute", &t->device_get_attribute);
  l.Required("cuDevicePrimaryCtxRetain", &t->primary_ctx_retain);
  l.Required("cuDevicePrimaryCtxRelease_v2", &t->primary_ctx_release);
  l.Required("cuCtxPushCurrent_v2", &t->ctx_push);
  l.Required("cuCtxPopCurrent_v2", &t->ctx_pop);
  l.Required("cuMemAlloc_v2", &t->mem_alloc);
  l.Required("cuMemFree_v2", &t->mem_free);
  l.Required("cuMemGetAddressRange_v2", &t->mem_get_address_range);
  l.Required("cuMemHostAlloc", &t->host_alloc);
  l.Required("cuMemFreeHost", &t->host_free);
  l.Required("cuMemcpyHtoD_v2", &t->memcpy_htod);
  l.Required("cuMemcpyDtoH_v2", &t->memcpy_dtoh);
  l.Required("cuMemcpyHtoDAsync_v2", &t->memcpy_htod_async);
  l.Required("cuMemcpyDtoHAsync_v2", &t->memcpy_dtoh_async);
  l.Required("cuMemcpyDtoDAsync_v2", &t->memcpy_dtod_async);
  l.Required("cuStreamCreate", &t->stream_create);
  l.Required("cuStreamDestroy_v2", &t->stream_destroy);
  l.Required("cuStreamSynchronize", &t->stream_synchronize);
  l.Required("cuEventCreate", &t->event_create);
  l.Required("cuEventDestroy_v2", &t->event_destroy);
  l.Required("cuEventRecord", &t->event_record);
  l.Required("cuEventQuery", &t->event_query);
  l.Required("cuEventSynchronize", &t->event_synchronize);
  l.Required("cuEventElapsedTime", &t->event_elapsed_time);
  l.Required("cuModuleLoadData", &t->module_load_data);
  l.Required("cuModuleUnload", &t->module_unload);
  l.Required("cuModuleGetFunction", &t->module_get_function);
  l.Required("cuLaunchKernel", &t->launch_kernel);
  l.Required("cuGetErrorName", &t->cu_get_error_name);
  l.Optional("cuMemGetHandleForAddressRange",
             &t->mem_get_handle_for_address_range);
  l.Optional("cuFlushGPUDirectRDMAWrites", &t->flush_gpu_direct_writes);
}

void BindHip(SymbolLoader& l, GpuTable* t) {
  l.Required("hipInit", &t->init);
  l.Required("hipDriverGetVersion", &t->driver_get_version);
  l.Required("hipGetDeviceCount", &t->device_get_count);
  l.Required("hipDeviceGet", &t->device_get);
  l.Required("hipDeviceGetName", &t->device_get_name);
  l.Required("hipDeviceGetAttribute", &t->device_get_attribute);
  l.Required("hipSetDevice", &t->set_device);
  l.Required("hipGetDevice", &t->get_device);
  l.Required("hipMalloc", &t->mem_alloc);
  l.Required("hipFree", &t->mem_free);
  l.Required("hipMemGetAddressRange", &t->mem_get_address_range);
  l.Required("hipHostMalloc", &t->host_alloc);
  l.Required("hipHostFree", &t->host_free);
  l.Required("hipMemcpyHtoD", &t->memcpy_htod);
  l.Required("hipMemcpyDtoH", &t->memcpy_dtoh);
  l.Required("hipMemcpyHtoDAsync", &t->memcpy_htod_async);
  l.Required("hipMemcpyDtoHAsync", &t->memcpy_dtoh_async);
  l.Required("hipMemcpyDtoDAsync", &t->memcpy_dtod_async);
  l.Required("hipStreamCreateWithFlags", &t->stream_create);
  l.Required("hipStreamDestroy", &t->stream_destroy);
  l.Required("hipStreamSynchronize", &t->stream_synchronize);
  l.Required("hipEventCreateWithFlags", &t->event_create);
  l.Required("hipEventDestroy", &t->event_destroy);
  l.Required("hipEventRecord", &t->event_record);
  l.Required("hipEventQuery", &t->event_query);
  l.Required("hipEventSynchronize", &t->event_synchronize);
  l.Required("hipEventElapsedTime", &t->event_elapsed_time);
  l.Required("hipModuleLoadData", &t->module_load_data);
  l.Required("hipModuleUnload", &t->module_unload);
  l.Required("hipModuleGetFunction", &t->module_get_function);
  l.Required("hipModuleLaunchKernel", &t->launch_kernel);
  l.Required("hipGetErrorName", &t->hip_get_error_name);
  l.Optional("hipMemGetHandleForAddressRange",
             &t->mem_get_handle_for_address_range);
  l.Optional("hipDeviceFlushGPUDirectRDMAWrites", &t->flush_gpu_direct_writes);
}

struct KnownError {
  int number;
  absl::StatusCode code;
  std::string_view next_step;
};
constexpr std::string_view kContextIsLost =
    "the device's context is lost: every later call fails too; see the "
    "kernel's log, then restart the process";
constexpr KnownError kKnownErrors[] = {
    {kGpuOutOfMemory, absl::StatusCode::kResourceExhausted,
     "free memory of the device, or ask for less"},
    {kGpuDeinitialized, absl::StatusCode::kUnavailable,
     "the process is exiting and has closed the driver"},
    {kGpuNoDevice, absl::StatusCode::kNotFound,
     "no device is visible to this process: see that its driver is loaded and "
     "that CUDA_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES does not hide it"},
    {kGpuNoBinary, absl::StatusCode::kFailedPrecondition,
     "the code was not compiled for this device"},
    {kGpuIllegalAddress, absl::StatusCode::kUnavailable, kContextIsLost},
    {kGpuLaunchFailed, absl::StatusCode::kUnavailable, kContextIsLost},
    {kGpuUnknown, absl::StatusCode::kUnavailable, kContextIsLost},
    {kGpuNotSupported, absl::StatusCode::kUnimplemented,
     "this device, driver or platform cannot do it"},
};

const char* ErrorName(const GpuTable& table, int error) {
  const char* name = nullptr;
  if (table.hip_get_error_name != nullptr) {
    name = table.hip_get_error_name(error);
  } else if (table.cu_get_error_name(error, &name) != 0) {
    name = nullptr;  // One newer than this driver's list.
  }
  return name != nullptr ? name : "an error without a name";
}

}  // namespace

std::string_view GpuVendorName(GpuVendor vendor) {
  return vendor == GpuVendor::kCuda ? "cuda" : "hip";
}

absl::Status GpuRuntime::Check(int result, std::string_view call) const {
  if (result == 0) return absl::OkStatus();
  const std::string text =
      absl::StrFormat("%s: %s (%d)", call, ErrorName(table, result), result);
  for (const KnownError& known : kKnownErrors) {
    if (known.number != result) continue;
    return absl::Status(known.code,
                        absl::StrFormat("%s: %s", text, known.next_step));
  }
  return absl::InternalError(text);
}

absl::StatusOr<GpuRuntime> LoadGpuRuntime(GpuVendor vendor,
                                          std::string_view library) {
  const bool is_cuda = vendor == GpuVendor::kCuda;
  std::vector<std::string> names = {std::string(library)};
  if (library.empty() && is_cuda) names = {"libcuda.so.1"};
  if (library.empty() && !is_cuda) {
    names = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"};
  }
  const std::string_view next_step = is_cuda ? kCudaNextStep : kHipNextStep;
  absl::StatusOr<SymbolLoader> loader = SymbolLoader::Open(names, next_step);
  if (!loader.ok()) return loader.status();
  GpuRuntime runtime = {
      .vendor = vendor,
      .library = loader->library(),
      .attributes = is_cuda ? kCudaAttributes : kHipAttributes};
  is_cuda ? BindCuda(*loader, &runtime.table)
          : BindHip(*loader, &runtime.table);
  if (absl::Status s = loader->status(next_step); !s.ok()) return s;
  return runtime;
}

}  // namespace devwire
