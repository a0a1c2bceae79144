// Entry points of a GPU runtime, loaded at run time: NVIDIA's driver
// (libcuda.so.1) or AMD's HIP (libamdhip64). Never a build dependency: one
// binary serves machines with either, with both and with none.
//
// Source:   <cuda.h> of CUDA 13.0 and <hip/hip_runtime_api.h> of HIP 5.2; a
//           call that only newer ones have says so. No GPU header is included:
//           a device address is 64 bits and a handle is a pointer in both, and
//           their enums are ints. gpu_signatures_test.cc compares with the
//           headers where they are installed.
// Threads:  any; the table does not change.
// Lifetime: a loaded library is never unloaded.
// Errors:   NotFound: no such library. FailedPrecondition: it lacks a symbol.
#ifndef MEMREG_GPU_RUNTIME_H_
#define MEMREG_GPU_RUNTIME_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace devwire {

enum class GpuVendor { kCuda, kHip };
std::string_view GpuVendorName(GpuVendor vendor);  // "cuda", "hip"

// CUdeviceptr's own type; HIP has void*, which travels alike.
using GpuAddress = unsigned long long;
using GpuHandle = void*;  // A context, stream, event, module or function.

// Each member is named as its call; cu... / hip... stand beside it where they
// differ. All return 0 or an error's number.
struct GpuTable {
  int (*init)(unsigned flags);
  int (*driver_get_version)(int* version);
  int (*device_get_count)(int* count);
  int (*device_get)(int* device, int ordinal);
  int (*device_get_name)(char* name, int bytes, int device);
  int (*device_get_attribute)(int* value, int attribute, int device);

  // The calling thread's device. CUDA has contexts, HIP has a current device.
  int (*primary_ctx_retain)(GpuHandle* context, int device);  // CUDA alone.
  int (*primary_ctx_release)(int device);                     // CUDA alone.
  int (*ctx_push)(GpuHandle context);                         // CUDA alone.
  int (*ctx_pop)(GpuHandle* context);                         // CUDA alone.
  int (*set_device)(int device);                              // HIP alone.
  int (*get_device)(int* device);                             // HIP alone.

  int (*mem_alloc)(GpuAddress* address, size_t bytes);
  int (*mem_free)(GpuAddress address);
  int (*mem_get_address_range)(GpuAddress* base, size_t* bytes,
                               GpuAddress address);
  // Pinned host memory. Its address is valid on the device too.
  int (*host_alloc)(void** address, size_t bytes, unsigned flags);
  int (*host_free)(void* address);
  int (*memcpy_htod)(GpuAddress to, const void* from, size_t bytes);
  int (*memcpy_dtoh)(void* to, GpuAddress from, size_t bytes);
  int (*memcpy_htod_async)(GpuAddress to, const void* from, size_t bytes,
                           GpuHandle stream);
  int (*memcpy_dtoh_async)(void* to, GpuAddress from, size_t bytes,
                           GpuHandle stream);
  int (*memcpy_dtod_async)(GpuAddress to, GpuAddress from, size_t bytes,
                           GpuHandle stream);

  int (*stream_create)(GpuHandle* stream, unsigned flags);
  int (*stream_destroy)(GpuHandle stream);
  int (*stream_synchronize)(GpuHandle stream);
  int (*event_create)(GpuHandle* event, unsigned flags);
  int (*event_destroy)(GpuHandle event);
  int (*event_record)(GpuHandle event, GpuHandle stream);
  int (*event_query)(GpuHandle event);
  int (*event_synchronize)(GpuHandle event);
  int (*event_elapsed_time)(float* milliseconds, GpuHandle start,
                            GpuHandle end);

  int (*module_load_data)(GpuHandle* module, const void* image);
  int (*module_unload)(GpuHandle module);
  int (*module_get_function)(GpuHandle* function, GpuHandle module,
                             const char* name);
  int (*launch_kernel)(GpuHandle function, unsigned grid_x, unsigned grid_y,
                       unsigned grid_z, unsigned block_x, unsigned block_y,
                       unsigned block_z, unsigned shared_bytes,
                       GpuHandle stream, void** parameters, void** extra);

  // One of them: cuGetErrorName, hipGetErrorName.
  int (*cu_get_error_name)(int error, const char** name);
  const char* (*hip_get_error_name)(int error);

  // Optional: null where the library has none.
  // CUDA 11.7; HIP 7. `type` 1 is a dmabuf descriptor, an int at `handle`.
  int (*mem_get_handle_for_address_range)(void* handle, GpuAddress address,
                                          size_t bytes, int type,
                                          unsigned long long flags);
  // CUDA 11.3; newest HIP.
  int (*flush_gpu_direct_writes)(int target, int scope);
};

// Numbers that both vendors share: cuda.h CUresult, hip_runtime_api.h
// hipError_t.
inline constexpr int kGpuOutOfMemory = 2;
inline constexpr int kGpuDeinitialized = 4;
inline constexpr int kGpuNoDevice = 100;
inline constexpr int kGpuNoBinary = 209;
inline constexpr int kGpuNotReady = 600;
inline constexpr int kGpuIllegalAddress = 700;
inline constexpr int kGpuLaunchFailed = 719;
inline constexpr int kGpuNotSupported = 801;
inline constexpr int kGpuUnknown = 999;
// Flags that both share.
inline constexpr unsigned kGpuStreamNonBlocking = 1;
inline constexpr unsigned kGpuEventDisableTiming = 2;
inline constexpr int kGpuHandleTypeDmaBuf = 1;
inline constexpr int kGpuFlushTargetCurrentContext = 0;
inline constexpr int kGpuFlushToOwner = 100;  // Also a writes ordering.

// Attributes have numbers of their own at each vendor; -1: it has none.
struct GpuAttributes {
  int multiprocessor_count;
  int compute_major;  // CUDA: compute capability.
  int compute_minor;
  int dmabuf_supported;
  int flush_writes_options;  // Bit 0: the host can flush.
  int writes_ordering;       // 0 none, 100 owner, 200 all devices.
};

struct GpuRuntime {
  GpuVendor vendor = GpuVendor::kCuda;
  std::string library;  // The name it was loaded by.
  GpuTable table = {};
  GpuAttributes attributes = {};

  // OK for 0, else a status that says: `call` (its cu or hip name), the
  // error's name and number, and the next step where one is known.
  absl::Status Check(int result, std::string_view call) const;
};

// Loads `library`, or the vendor's own: libcuda.so.1, or libamdhip64.so.7, .6
// or .5, the newest there is.
absl::StatusOr<GpuRuntime> LoadGpuRuntime(GpuVendor vendor,
                                          std::string_view library = {});

}  // namespace devwire

#endif  // MEMREG_GPU_RUNTIME_H_
