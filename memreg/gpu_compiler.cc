#include "memreg/gpu_compiler.h"

#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_format.h"
#include "memreg/symbol_loader.h"

namespace devwire {
namespace {

constexpr char kCudaNextStep[] =
    "Install NVRTC (libnvrtc of CUDA 11.2 or newer), or name its library; "
    "without it the prebuilt PTX is used";
constexpr char kHipNextStep[] =
    "Install hipRTC (it comes with ROCm's HIP runtime), or name its library; "
    "without it a prebuilt code object is needed";

void BindNvrtc(SymbolLoader& l, GpuCompilerTable* t) {
  l.Required("nvrtcCreateProgram", &t->create_program);
  l.Required("nvrtcDestroyProgram", &t->destroy_program);
  l.Required("nvrtcCompileProgram", &t->compile_program);
  l.Required("nvrtcGetProgramLogSize", &t->get_log_size);
  l.Required("nvrtcGetProgramLog", &t->get_log);
  l.Required("nvrtcGetCUBINSize", &t->get_code_size);
  l.Required("nvrtcGetCUBIN", &t->get_code);
  l.Required("nvrtcGetErrorString", &t->get_error_string);
}

void BindHiprtc(SymbolLoader& l, GpuCompilerTable* t) {
  l.Required("hiprtcCreateProgram", &t->create_program);
  l.Required("hiprtcDestroyProgram", &t->destroy_program);
  l.Required("hiprtcCompileProgram", &t->compile_program);
  l.Required("hiprtcGetProgramLogSize", &t->get_log_size);
  l.Required("hiprtcGetProgramLog", &t->get_log);
  l.Required("hiprtcGetCodeSize", &t->get_code_size);
  l.Required("hiprtcGetCode", &t->get_code);
  l.Required("hiprtcGetErrorString", &t->get_error_string);
}

std::string Log(const GpuCompilerTable& table, GpuHandle program) {
  size_t bytes = 0;
  if (table.get_log_size(program, &bytes) != 0 || bytes <= 1) return "no log";
  std::string log(bytes, '\0');
  if (table.get_log(program, log.data()) != 0) return "no log";
  log.resize(log.find('\0') == std::string::npos ? bytes : log.find('\0'));
  return log;
}

}  // namespace

absl::StatusOr<std::string> GpuCompiler::Compile(
    const char* source, std::span<const std::string> options) const {
  const auto failed = [this](const char* call, int result) {
    return absl::InternalError(absl::StrFormat("%s: %s: %s (%d)", library, call,
                                               table.get_error_string(result),
                                               result));
  };
  GpuHandle program = nullptr;
  int result = table.create_program(&program, source, "gather_kernel.cu", 0,
                                    nullptr, nullptr);
  if (result != 0) return failed("creating a program", result);
  const absl::Cleanup destroy = [&] { table.destroy_program(&program); };

  std::vector<const char*> arguments;
  for (const std::string& option : options) arguments.push_back(option.c_str());
  result = table.compile_program(program, static_cast<int>(arguments.size()),
                                 arguments.data());
  if (result != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s does not compile the gather kernel: %s (%d): %s", library,
        table.get_error_string(result), result, Log(table, program)));
  }
  size_t bytes = 0;
  result = table.get_code_size(program, &bytes);
  if (result != 0) return failed("asking for the code's size", result);
  std::string code(bytes, '\0');
  result = table.get_code(program, code.data());
  if (result != 0) return failed("fetching the code", result);
  return code;
}

absl::StatusOr<GpuCompiler> LoadGpuCompiler(GpuVendor vendor,
                                            std::string_view library) {
  const bool is_cuda = vendor == GpuVendor::kCuda;
  std::vector<std::string> names = {std::string(library)};
  if (library.empty() && is_cuda) {
    names = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2"};
  }
  if (library.empty() && !is_cuda) {
    names = {"libhiprtc.so.7", "libhiprtc.so.6", "libhiprtc.so.5",
             "libamdhip64.so.5"};
  }
  const std::string_view next_step = is_cuda ? kCudaNextStep : kHipNextStep;
  absl::StatusOr<SymbolLoader> loader = SymbolLoader::Open(names, next_step);
  if (!loader.ok()) return loader.status();
  GpuCompiler compiler = {.vendor = vendor, .library = loader->library()};
  is_cuda ? BindNvrtc(*loader, &compiler.table)
          : BindHiprtc(*loader, &compiler.table);
  if (absl::Status s = loader->status(next_step); !s.ok()) return s;
  return compiler;
}

}  // namespace devwire
