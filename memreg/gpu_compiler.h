// The compiler that comes with a GPU's runtime: NVRTC or hipRTC, loaded at run
// time.
//
// Source:   <nvrtc.h> of CUDA 13.0, <hip/hiprtc.h> of HIP 5.2.
// Threads:  any. Cost: a compilation takes tens of milliseconds to seconds.
// Errors:   NotFound: no such library. FailedPrecondition: it lacks a symbol.
#ifndef MEMREG_GPU_COMPILER_H_
#define MEMREG_GPU_COMPILER_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "memreg/gpu_runtime.h"

namespace devwire {

// Named as their calls: nvrtcCreateProgram, hiprtcCreateProgram, ...
struct GpuCompilerTable {
  int (*create_program)(GpuHandle* program, const char* source,
                        const char* name, int header_count,
                        const char* const* headers,
                        const char* const* include_names);
  int (*destroy_program)(GpuHandle* program);
  int (*compile_program)(GpuHandle program, int option_count,
                         const char* const* options);
  int (*get_log_size)(GpuHandle program, size_t* bytes);
  int (*get_log)(GpuHandle program, char* log);
  // nvrtcGetCUBIN (11.1), hiprtcGetCode: what module_load_data takes.
  int (*get_code_size)(GpuHandle program, size_t* bytes);
  int (*get_code)(GpuHandle program, char* code);
  const char* (*get_error_string)(int error);
};

struct GpuCompiler {
  GpuVendor vendor = GpuVendor::kCuda;
  std::string library;
  GpuCompilerTable table = {};

  // The object for a device. InvalidArgument with the compiler's log when it
  // refuses the source or an option.
  absl::StatusOr<std::string> Compile(
      const char* source, std::span<const std::string> options) const;
};

// Loads `library`, or the newest of libnvrtc.so.13, .12, .11.2 and
// libhiprtc.so.7, .6, .5; HIP 5.2 has hipRTC in libamdhip64 itself.
absl::StatusOr<GpuCompiler> LoadGpuCompiler(GpuVendor vendor,
                                            std::string_view library = {});

}  // namespace devwire

#endif  // MEMREG_GPU_COMPILER_H_
