// The calls of libcuda.so.1 and libnvrtc, or, with DEVWIRE_FAKE_HIP, those of
// libamdhip64, libhiprtc and libhsa-runtime64, over host memory. Kernels run on
// the CPU: the gather kernel's own source, thread by thread.
//
// Source: as gpu_runtime.h. Tests only; one thread.
#include "memreg/fake_gpu.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "memreg/gpu_runtime.h"

namespace {

thread_local unsigned fake_thread = 0, fake_block = 0;
#define DEVWIRE_THREAD fake_thread
#define DEVWIRE_BLOCK fake_block
#include "memreg/gather_kernel.cu"

devwire::FakeGpu state;
std::string failing_call;
int failing_error = 0, failing_skip = 0;
std::map<unsigned long long, size_t> allocations;
std::vector<std::function<void()>> work;  // Of all streams, in order.

int Failing(const char* call) {
  if (failing_call != call || failing_skip-- > 0) return 0;
  return failing_error;
}

void RunWork() {
  std::vector<std::function<void()>> now;
  now.swap(work);
  for (const auto& w : now) w();
}

void Queue(std::function<void()> w) {
  work.push_back(std::move(w));
  if (!state.is_held) RunWork();
}

constexpr int kInvalidContext = 201, kInvalidValue = 1;
constexpr char kLog[] = "line 1: this is the compiler's log";
constexpr char kCode[] = "code for a fake GPU";
std::string options_given, image_given;

// A handle of something that must be destroyed.
devwire::GpuHandle Make() {
  ++state.live;
  return new char;
}
void Destroy(devwire::GpuHandle handle) {
  --state.live;
  delete static_cast<char*>(handle);
}

int MakeMemfd(int* fd, size_t bytes) {
  *fd = memfd_create("fake-gpu", MFD_CLOEXEC);
  return *fd >= 0 && ftruncate(*fd, static_cast<off_t>(bytes)) == 0 ? 0 : 1;
}

void LaunchGather(unsigned grid, unsigned block, void** parameters) {
  ++state.launches;
  const auto* tiles = *static_cast<const DevwireTile**>(parameters[0]);
  const unsigned count = *static_cast<unsigned*>(parameters[1]);
  const unsigned groups = *static_cast<unsigned*>(parameters[2]);
  Queue([=] {
    for (unsigned b = 0; b < grid; ++b) {
      for (unsigned t = 0; t < block; ++t) {
        fake_block = b;
        fake_thread = t;
        devwire_gather(tiles, count, groups);
      }
    }
  });
}

#ifdef DEVWIRE_FAKE_HIP
#define NAME(cuda, hip) hip
#else
#define NAME(cuda, hip) cuda
#endif
#define STRING_OF(name) #name
#define STRING(name) STRING_OF(name)

}  // namespace

// A call: its names, its parameters, and its body.
#define CALL(cuda, hip, parameters) extern "C" int NAME(cuda, hip) parameters

// Fails when told to; else goes on.
#define MAY_FAIL(cuda, hip) \
  if (const int error = Failing(STRING(NAME(cuda, hip)))) return error

using devwire::GpuAddress;
using devwire::GpuHandle;

extern "C" devwire::FakeGpu* fake_gpu() { return &state; }
extern "C" void fake_gpu_fail(const char* call, int error, int skip) {
  failing_call = call != nullptr ? call : "";
  failing_error = error;
  failing_skip = skip;
}

CALL(cuInit, hipInit, (unsigned)) {
  MAY_FAIL(cuInit, hipInit);
  return 0;
}
CALL(cuDriverGetVersion, hipDriverGetVersion, (int* version)) {
  MAY_FAIL(cuDriverGetVersion, hipDriverGetVersion);
  *version = 13000;
  return 0;
}
CALL(cuDeviceGetCount, hipGetDeviceCount, (int* count)) {
  MAY_FAIL(cuDeviceGetCount, hipGetDeviceCount);
  *count = state.device_count;
  return state.device_count > 0 ? 0 : devwire::kGpuNoDevice;
}
CALL(cuDeviceGet, hipDeviceGet, (int* device, int ordinal)) {
  MAY_FAIL(cuDeviceGet, hipDeviceGet);
  *device = ordinal;
  return 0;
}
CALL(cuDeviceGetName, hipDeviceGetName, (char* name, int bytes, int)) {
  MAY_FAIL(cuDeviceGetName, hipDeviceGetName);
  strncpy(name, "Fake GPU", static_cast<size_t>(bytes));
  return 0;
}
CALL(cuMemAlloc_v2, hipMalloc, (GpuAddress * address, size_t bytes)) {
  MAY_FAIL(cuMemAlloc_v2, hipMalloc);
  if (state.current == 0) return kInvalidContext;
  *address = reinterpret_cast<GpuAddress>(std::aligned_alloc(2u << 20, bytes));
  allocations[*address] = bytes;
  ++state.live;
  return 0;
}
CALL(cuMemFree_v2, hipFree, (GpuAddress address)) {
  MAY_FAIL(cuMemFree_v2, hipFree);
  if (allocations.erase(address) == 0) return kInvalidValue;
  std::free(reinterpret_cast<void*>(address));
  --state.live;
  return 0;
}
CALL(cuMemGetAddressRange_v2, hipMemGetAddressRange,
     (GpuAddress * base, size_t* bytes, GpuAddress address)) {
  MAY_FAIL(cuMemGetAddressRange_v2, hipMemGetAddressRange);
  const auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return kInvalidValue;
  *base = std::prev(next)->first;
  *bytes = std::prev(next)->second;
  return 0;
}
CALL(cuMemHostAlloc, hipHostMalloc, (void** address, size_t bytes, unsigned)) {
  MAY_FAIL(cuMemHostAlloc, hipHostMalloc);
  if (state.current == 0) return kInvalidContext;
  *address = std::malloc(bytes);
  ++state.live;
  return 0;
}
CALL(cuMemFreeHost, hipHostFree, (void* address)) {
  MAY_FAIL(cuMemFreeHost, hipHostFree);
  std::free(address);
  --state.live;
  return 0;
}
CALL(cuMemcpyHtoD_v2, hipMemcpyHtoD,
     (GpuAddress to, const void* from, size_t bytes)) {
  MAY_FAIL(cuMemcpyHtoD_v2, hipMemcpyHtoD);
  if (state.current == 0) return kInvalidContext;
  memcpy(reinterpret_cast<void*>(to), from, bytes);
  return 0;
}
CALL(cuMemcpyDtoH_v2, hipMemcpyDtoH,
     (void* to, GpuAddress from, size_t bytes)) {
  MAY_FAIL(cuMemcpyDtoH_v2, hipMemcpyDtoH);
  if (state.current == 0) return kInvalidContext;
  memcpy(to, reinterpret_cast<void*>(from), bytes);
  return 0;
}
CALL(cuMemcpyHtoDAsync_v2, hipMemcpyHtoDAsync,
     (GpuAddress to, const void* from, size_t bytes, GpuHandle)) {
  MAY_FAIL(cuMemcpyHtoDAsync_v2, hipMemcpyHtoDAsync);
  Queue([=] { memcpy(reinterpret_cast<void*>(to), from, bytes); });
  return 0;
}
CALL(cuMemcpyDtoHAsync_v2, hipMemcpyDtoHAsync,
     (void* to, GpuAddress from, size_t bytes, GpuHandle)) {
  MAY_FAIL(cuMemcpyDtoHAsync_v2, hipMemcpyDtoHAsync);
  Queue([=] { memcpy(to, reinterpret_cast<void*>(from), bytes); });
  return 0;
}
CALL(cuMemcpyDtoDAsync_v2, hipMemcpyDtoDAsync,
     (GpuAddress to, GpuAddress from, size_t bytes, GpuHandle)) {
  MAY_FAIL(cuMemcpyDtoDAsync_v2, hipMemcpyDtoDAsync);
  Queue([=] {
    memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
  });
  return 0;
}
CALL(cuStreamCreate, hipStreamCreateWithFlags, (GpuHandle * stream, unsigned)) {
  MAY_FAIL(cuStreamCreate, hipStreamCreateWithFlags);
  *stream = Make();
  return 0;
}
CALL(cuStreamDestroy_v2, hipStreamDestroy, (GpuHandle stream)) {
  MAY_FAIL(cuStreamDestroy_v2, hipStreamDestroy);
  Destroy(stream);
  return 0;
}
CALL(cuStreamSynchronize, hipStreamSynchronize, (GpuHandle)) {
  MAY_FAIL(cuStreamSynchronize, hipStreamSynchronize);
  RunWork();
  return 0;
}
CALL(cuEventCreate, hipEventCreateWithFlags, (GpuHandle * event, unsigned)) {
  MAY_FAIL(cuEventCreate, hipEventCreateWithFlags);
  *event = Make();
  return 0;
}
CALL(cuEventDestroy_v2, hipEventDestroy, (GpuHandle event)) {
  MAY_FAIL(cuEventDestroy_v2, hipEventDestroy);
  Destroy(event);
  return 0;
}
CALL(cuEventRecord, hipEventRecord, (GpuHandle, GpuHandle)) {
  MAY_FAIL(cuEventRecord, hipEventRecord);
  return 0;
}
CALL(cuEventQuery, hipEventQuery, (GpuHandle)) {
  MAY_FAIL(cuEventQuery, hipEventQuery);
  if (state.is_held) return devwire::kGpuNotReady;
  RunWork();
  return 0;
}
CALL(cuEventSynchronize, hipEventSynchronize, (GpuHandle)) {
  MAY_FAIL(cuEventSynchronize, hipEventSynchronize);
  RunWork();
  return 0;
}
CALL(cuEventElapsedTime, hipEventElapsedTime,
     (float* ms, GpuHandle, GpuHandle)) {
  MAY_FAIL(cuEventElapsedTime, hipEventElapsedTime);
  *ms = 1;
  return 0;
}
CALL(cuModuleLoadData, hipModuleLoadData,
     (GpuHandle * module, const void* image)) {
  MAY_FAIL(cuModuleLoadData, hipModuleLoadData);
  image_given = static_cast<const char*>(image);
  state.last_image = image_given.c_str();
  *module = Make();
  return 0;
}
CALL(cuModuleUnload, hipModuleUnload, (GpuHandle module)) {
  MAY_FAIL(cuModuleUnload, hipModuleUnload);
  Destroy(module);
  return 0;
}
CALL(cuModuleGetFunction, hipModuleGetFunction,
     (GpuHandle * function, GpuHandle, const char* name)) {
  MAY_FAIL(cuModuleGetFunction, hipModuleGetFunction);
  *function = nullptr;
  return strcmp(name, "devwire_gather") == 0 ? 0 : 500;
}
CALL(cuLaunchKernel, hipModuleLaunchKernel,
     (GpuHandle, unsigned grid, unsigned, unsigned, unsigned block, unsigned,
      unsigned, unsigned, GpuHandle, void** parameters, void**)) {
  MAY_FAIL(cuLaunchKernel, hipModuleLaunchKernel);
  LaunchGather(grid, block, parameters);
  return 0;
}
CALL(cuMemGetHandleForAddressRange, hipMemGetHandleForAddressRange,
     (void* handle, GpuAddress, size_t bytes, int type, unsigned long long)) {
  MAY_FAIL(cuMemGetHandleForAddressRange, hipMemGetHandleForAddressRange);
  if (type != devwire::kGpuHandleTypeDmaBuf) return kInvalidValue;
  return MakeMemfd(static_cast<int*>(handle), bytes);
}
CALL(cuFlushGPUDirectRDMAWrites, hipDeviceFlushGPUDirectRDMAWrites,
     (int target, int scope)) {
  MAY_FAIL(cuFlushGPUDirectRDMAWrites, hipDeviceFlushGPUDirectRDMAWrites);
  if (target != 0 || scope != 100 || state.current == 0) return kInvalidValue;
  ++state.flushes;
  return 0;
}
CALL(nvrtcCreateProgram, hiprtcCreateProgram,
     (GpuHandle * program, const char*, const char*, int, const char* const*,
      const char* const*)) {
  MAY_FAIL(nvrtcCreateProgram, hiprtcCreateProgram);
  *program = Make();
  return 0;
}
CALL(nvrtcDestroyProgram, hiprtcDestroyProgram, (GpuHandle * program)) {
  MAY_FAIL(nvrtcDestroyProgram, hiprtcDestroyProgram);
  Destroy(*program);
  return 0;
}
CALL(nvrtcCompileProgram, hiprtcCompileProgram,
     (GpuHandle, int count, const char* const* options)) {
  MAY_FAIL(nvrtcCompileProgram, hiprtcCompileProgram);
  options_given.clear();
  for (int i = 0; i < count; ++i) {
    options_given += options[i];
    options_given += ' ';
  }
  state.last_options = options_given.c_str();
  return 0;
}
CALL(nvrtcGetProgramLogSize, hiprtcGetProgramLogSize,
     (GpuHandle, size_t* bytes)) {
  MAY_FAIL(nvrtcGetProgramLogSize, hiprtcGetProgramLogSize);
  *bytes = sizeof(kLog);
  return 0;
}
CALL(nvrtcGetProgramLog, hiprtcGetProgramLog, (GpuHandle, char* log)) {
  MAY_FAIL(nvrtcGetProgramLog, hiprtcGetProgramLog);
  memcpy(log, kLog, sizeof(kLog));
  return 0;
}
CALL(nvrtcGetCUBINSize, hiprtcGetCodeSize, (GpuHandle, size_t* bytes)) {
  MAY_FAIL(nvrtcGetCUBINSize, hiprtcGetCodeSize);
  *bytes = sizeof(kCode);
  return 0;
}
CALL(nvrtcGetCUBIN, hiprtcGetCode, (GpuHandle, char* code)) {
  MAY_FAIL(nvrtcGetCUBIN, hiprtcGetCode);
  memcpy(code, kCode, sizeof(kCode));
  return 0;
}

CALL(cuDeviceGetAttribute, hipDeviceGetAttribute,
     (int* value, int attribute, int)) {
  MAY_FAIL(cuDeviceGetAttribute, hipDeviceGetAttribute);
  switch (attribute) {  // cuda.h, CUdevice_attribute.
    case 75:
      *value = 9;
      return 0;
    case 76:
      *value = 0;
      return 0;
    case 124:
      *value = state.dmabuf_supported;
      return 0;
    case 117:
      *value = state.flush_options;
      return 0;
    case 118:
      *value = state.writes_ordering;
      return 0;
    default:
      return kInvalidValue;
  }
}

extern "C" const char* NAME(nvrtcGetErrorString, hiprtcGetErrorString)(int) {
  return "FAKE_COMPILER_ERROR";
}

#ifdef DEVWIRE_FAKE_HIP
CALL(, hipSetDevice, (int device)) {
  MAY_FAIL(, hipSetDevice);
  state.current = device == 7 ? 0 : 1;  // 7 is the application's own.
  return 0;
}
CALL(, hipGetDevice, (int* device)) {
  MAY_FAIL(, hipGetDevice);
  *device = 7;
  return 0;
}
extern "C" const char* hipGetErrorName(int error) {
  return error == 12345 ? nullptr : "FAKE_ERROR";
}
CALL(, hsa_amd_portable_export_dmabuf,
     (const void*, size_t bytes, int* fd, uint64_t* offset)) {
  MAY_FAIL(, hsa_amd_portable_export_dmabuf);
  *offset = state.dmabuf_offset;
  return MakeMemfd(fd, bytes);
}
#else
static char primary;
CALL(cuDevicePrimaryCtxRetain, , (GpuHandle * context, int)) {
  MAY_FAIL(cuDevicePrimaryCtxRetain, );
  *context = &primary;
  ++state.live;
  return 0;
}
CALL(cuDevicePrimaryCtxRelease_v2, , (int)) {
  --state.live;
  return 0;
}
CALL(cuCtxPushCurrent_v2, , (GpuHandle context)) {
  MAY_FAIL(cuCtxPushCurrent_v2, );
  if (context != &primary) return kInvalidContext;
  ++state.current;
  return 0;
}
CALL(cuCtxPopCurrent_v2, , (GpuHandle * context)) {
  *context = &primary;
  --state.current;
  return 0;
}
CALL(cuGetErrorName, , (int error, const char** name)) {
  *name = "FAKE_ERROR";
  return error == 12345 ? kInvalidValue : 0;
}
#endif
