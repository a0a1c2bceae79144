// Our own declarations of GPU calls beside those of an installed header: same
// number of parameters, each of the same size and kind. A header that is not
// installed is a counted skip.
#include <type_traits>

#include "gtest/gtest.h"
#include "memreg/gpu_compiler.h"
#include "memreg/gpu_runtime.h"

#if __has_include(<hip/hip_runtime_api.h>)
#define __HIP_PLATFORM_AMD__ 1
#include <hip/hip_runtime_api.h>
#include <hip/hiprtc.h>
#endif
#if __has_include(<cuda.h>)
#include <cuda.h>
#endif

namespace devwire {
namespace {

// The System V ABI passes integers, enums and pointers of one size alike; a
// float and a struct it does not.
template <typename A, typename B>
constexpr bool SameKind() {
  constexpr auto is_word = []<typename T>(std::type_identity<T>) {
    return std::is_integral_v<T> || std::is_enum_v<T> || std::is_pointer_v<T>;
  };
  return std::is_void_v<A> == std::is_void_v<B> && sizeof(A) == sizeof(B) &&
         is_word(std::type_identity<A>{}) && is_word(std::type_identity<B>{});
}

template <typename Ours, typename Theirs>
struct SameCall : std::false_type {};
template <typename R, typename... A, typename S, typename... B>
requires(sizeof...(A) == sizeof...(B)) struct SameCall<R (*)(A...), S (*)(B...)>
    : std::bool_constant<SameKind<R, S>() && (SameKind<A, B>() && ...)> {
};

[[maybe_unused]] constexpr GpuTable kRuntime = {};
[[maybe_unused]] constexpr GpuCompilerTable kCompiler = {};

static_assert(SameCall<int (*)(void*, int), int (*)(long*, unsigned)>::value);
static_assert(!SameCall<int (*)(void*), int (*)(int)>::value);
static_assert(!SameCall<int (*)(void*), int (*)(void*, int)>::value);
static_assert(!SameCall<int (*)(double), int (*)(long)>::value);

#define SAME(member, call) \
  static_assert(SameCall<decltype(GpuTable::member), decltype(&call)>::value)
#define SAME_COMPILER(member, call) \
  static_assert(                    \
      SameCall<decltype(GpuCompilerTable::member), decltype(&call)>::value)

TEST(Signatures, Hip) {
#if __has_include(<hip/hip_runtime_api.h>)
  SAME(init, hipInit);
  SAME(driver_get_version, hipDriverGetVersion);
  SAME(device_get_count, hipGetDeviceCount);
  SAME(device_get, hipDeviceGet);
  SAME(device_get_name, hipDeviceGetName);
  SAME(device_get_attribute, hipDeviceGetAttribute);
  SAME(set_device, hipSetDevice);
  SAME(get_device, hipGetDevice);
  SAME(mem_free, hipFree);
  SAME(mem_get_address_range, hipMemGetAddressRange);
  SAME(host_free, hipHostFree);
  SAME(memcpy_htod, hipMemcpyHtoD);
  SAME(memcpy_dtoh, hipMemcpyDtoH);
  SAME(memcpy_htod_async, hipMemcpyHtoDAsync);
  SAME(memcpy_dtoh_async, hipMemcpyDtoHAsync);
  SAME(memcpy_dtod_async, hipMemcpyDtoDAsync);
  SAME(stream_create, hipStreamCreateWithFlags);
  SAME(stream_destroy, hipStreamDestroy);
  SAME(stream_synchronize, hipStreamSynchronize);
  SAME(event_create, hipEventCreateWithFlags);
  SAME(event_destroy, hipEventDestroy);
  SAME(event_query, hipEventQuery);
  SAME(event_synchronize, hipEventSynchronize);
  SAME(event_elapsed_time, hipEventElapsedTime);
  SAME(module_load_data, hipModuleLoadData);
  SAME(module_unload, hipModuleUnload);
  SAME(module_get_function, hipModuleGetFunction);
  SAME(launch_kernel, hipModuleLaunchKernel);
  SAME(hip_get_error_name, hipGetErrorName);
  // Overloaded: templates for C++ stand beside them.
  hipError_t (*const alloc)(void**, size_t) = &hipMalloc;
  hipError_t (*const host_alloc)(void**, size_t, unsigned) = &hipHostMalloc;
  hipError_t (*const record)(hipEvent_t, hipStream_t) = &hipEventRecord;
  SAME(mem_alloc, *alloc);
  SAME(host_alloc, *host_alloc);
  SAME(event_record, *record);
  static_assert(hipErrorOutOfMemory == kGpuOutOfMemory);
  static_assert(hipErrorDeinitialized == kGpuDeinitialized);
  static_assert(hipErrorNoDevice == kGpuNoDevice);
  static_assert(hipErrorNoBinaryForGpu == kGpuNoBinary);
  static_assert(hipErrorNotReady == kGpuNotReady);
  static_assert(hipErrorIllegalAddress == kGpuIllegalAddress);
  static_assert(hipErrorLaunchFailure == kGpuLaunchFailed);
  static_assert(hipErrorNotSupported == kGpuNotSupported);
  static_assert(hipErrorUnknown == kGpuUnknown);
  static_assert(hipStreamNonBlocking == kGpuStreamNonBlocking);
  static_assert(hipEventDisableTiming == kGpuEventDisableTiming);
  static_assert(hipDeviceAttributeMultiprocessorCount == 63);
  static_assert(hipDeviceAttributeComputeCapabilityMajor == 23);
  static_assert(hipDeviceAttributeComputeCapabilityMinor == 61);
  SAME_COMPILER(create_program, hiprtcCreateProgram);
  SAME_COMPILER(destroy_program, hiprtcDestroyProgram);
  SAME_COMPILER(compile_program, hiprtcCompileProgram);
  SAME_COMPILER(get_log_size, hiprtcGetProgramLogSize);
  SAME_COMPILER(get_log, hiprtcGetProgramLog);
  SAME_COMPILER(get_code_size, hiprtcGetCodeSize);
  SAME_COMPILER(get_code, hiprtcGetCode);
  SAME_COMPILER(get_error_string, hiprtcGetErrorString);
#else
  GTEST_SKIP() << "SKIP: no <hip/hip_runtime_api.h> (./dev setup --gpu)";
#endif
}

TEST(Signatures, Cuda) {
#if __has_include(<cuda.h>)
  // The header's macros choose the suffixes that gpu_runtime.cc spells.
  SAME(init, cuInit);
  SAME(driver_get_version, cuDriverGetVersion);
  SAME(device_get_count, cuDeviceGetCount);
  SAME(device_get, cuDeviceGet);
  SAME(device_get_name, cuDeviceGetName);
  SAME(device_get_attribute, cuDeviceGetAttribute);
  SAME(primary_ctx_retain, cuDevicePrimaryCtxRetain);
  SAME(primary_ctx_release, cuDevicePrimaryCtxRelease);
  SAME(ctx_push, cuCtxPushCurrent);
  SAME(ctx_pop, cuCtxPopCurrent);
  SAME(mem_alloc, cuMemAlloc);
  SAME(mem_free, cuMemFree);
  SAME(mem_get_address_range, cuMemGetAddressRange);
  SAME(host_alloc, cuMemHostAlloc);
  SAME(host_free, cuMemFreeHost);
  SAME(memcpy_htod, cuMemcpyHtoD);
  SAME(memcpy_dtoh, cuMemcpyDtoH);
  SAME(memcpy_htod_async, cuMemcpyHtoDAsync);
  SAME(memcpy_dtoh_async, cuMemcpyDtoHAsync);
  SAME(memcpy_dtod_async, cuMemcpyDtoDAsync);
  SAME(stream_create, cuStreamCreate);
  SAME(stream_destroy, cuStreamDestroy);
  SAME(stream_synchronize, cuStreamSynchronize);
  SAME(event_create, cuEventCreate);
  SAME(event_destroy, cuEventDestroy);
  SAME(event_record, cuEventRecord);
  SAME(event_query, cuEventQuery);
  SAME(event_synchronize, cuEventSynchronize);
  SAME(event_elapsed_time, cuEventElapsedTime);
  SAME(module_load_data, cuModuleLoadData);
  SAME(module_unload, cuModuleUnload);
  SAME(module_get_function, cuModuleGetFunction);
  SAME(launch_kernel, cuLaunchKernel);
  SAME(cu_get_error_name, cuGetErrorName);
  SAME(mem_get_handle_for_address_range, cuMemGetHandleForAddressRange);
  SAME(flush_gpu_direct_writes, cuFlushGPUDirectRDMAWrites);
  static_assert(CUDA_ERROR_OUT_OF_MEMORY == kGpuOutOfMemory);
  static_assert(CUDA_ERROR_NOT_READY == kGpuNotReady);
  static_assert(CUDA_ERROR_NOT_SUPPORTED == kGpuNotSupported);
  static_assert(CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD == kGpuHandleTypeDmaBuf);
  static_assert(CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER == kGpuFlushToOwner);
  static_assert(CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER == kGpuFlushToOwner);
  static_assert(CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED == 124);
  static_assert(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING == 118);
  static_assert(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS ==
                117);
#else
  GTEST_SKIP() << "SKIP: no <cuda.h> where the compiler looks";
#endif
}

}  // namespace
}  // namespace devwire
