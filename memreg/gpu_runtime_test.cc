// GPU runtimes and compilers, loaded from fakes: what is there, what is
// missing, and what their errors become.
#include "memreg/gpu_runtime.h"

#include <dlfcn.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "memreg/fake_gpu.h"
#include "memreg/gpu_compiler.h"
#include "memreg/gpu_device.h"

namespace devwire {
namespace {

using testing::HasSubstr;

struct VendorCase {
  GpuVendor vendor;
  std::string library;
  // Required symbols of the runtime, of the compiler, and optional ones.
  std::vector<std::string> runtime, compiler, optional;
};

std::vector<VendorCase> Vendors() {
  return {
      {GpuVendor::kCuda,
       "memreg/libfake_cuda.so",
       {"cuInit",
        "cuDriverGetVersion",
        "cuDeviceGetCount",
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceGetAttribute",
        "cuDevicePrimaryCtxRetain",
        "cuDevicePrimaryCtxRelease_v2",
        "cuCtxPushCurrent_v2",
        "cuCtxPopCurrent_v2",
        "cuMemAlloc_v2",
        "cuMemFree_v2",
        "cuMemGetAddressRange_v2",
        "cuMemHostAlloc",
        "cuMemFreeHost",
        "cuMemcpyHtoD_v2",
        "cuMemcpyDtoH_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuMemcpyDtoDAsync_v2",
        "cuStreamCreate",
        "cuStreamDestroy_v2",
        "cuStreamSynchronize",
        "cuEventCreate",
        "cuEventDestroy_v2",
        "cuEventRecord",
        "cuEventQuery",
        "cuEventSynchronize",
        "cuEventElapsedTime",
        "cuModuleLoadData",
        "cuModuleUnload",
        "cuModuleGetFunction",
        "cuLaunchKernel",
        "cuGetErrorName"},
       {"nvrtcCreateProgram", "nvrtcDestroyProgram", "nvrtcCompileProgram",
        "nvrtcGetProgramLogSize", "nvrtcGetProgramLog", "nvrtcGetCUBINSize",
        "nvrtcGetCUBIN", "nvrtcGetErrorString"},
       {"cuMemGetHandleForAddressRange", "cuFlushGPUDirectRDMAWrites"}},
      {GpuVendor::kHip,
       "memreg/libfake_hip.so",
       {"hipInit",
        "hipDriverGetVersion",
        "hipGetDeviceCount",
        "hipDeviceGet",
        "hipDeviceGetName",
        "hipDeviceGetAttribute",
        "hipSetDevice",
        "hipGetDevice",
        "hipMalloc",
        "hipFree",
        "hipMemGetAddressRange",
        "hipHostMalloc",
        "hipHostFree",
        "hipMemcpyHtoD",
        "hipMemcpyDtoH",
        "hipMemcpyHtoDAsync",
        "hipMemcpyDtoHAsync",
        "hipMemcpyDtoDAsync",
        "hipStreamCreateWithFlags",
        "hipStreamDestroy",
        "hipStreamSynchronize",
        "hipEventCreateWithFlags",
        "hipEventDestroy",
        "hipEventRecord",
        "hipEventQuery",
        "hipEventSynchronize",
        "hipEventElapsedTime",
        "hipModuleLoadData",
        "hipModuleUnload",
        "hipModuleGetFunction",
        "hipModuleLaunchKernel",
        "hipGetErrorName"},
       {"hiprtcCreateProgram", "hiprtcDestroyProgram", "hiprtcCompileProgram",
        "hiprtcGetProgramLogSize", "hiprtcGetProgramLog", "hiprtcGetCodeSize",
        "hiprtcGetCode", "hiprtcGetErrorString"},
       {"hipMemGetHandleForAddressRange",
        "hipDeviceFlushGPUDirectRDMAWrites"}}};
}

// A copy of the library in which `symbol` has another name.
std::string Without(const std::string& library, const std::string& symbol) {
  std::ifstream in(library, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const std::string name = std::string(1, '\0') + symbol + '\0';
  size_t found = 0;
  for (size_t at = 0; (at = bytes.find(name, at)) != std::string::npos; ++at) {
    bytes[at + 1] = '_';
    ++found;
  }
  EXPECT_GT(found, 0u) << library << " has no " << symbol << " to remove";
  static int number = 0;
  const std::string path = std::string(getenv("TEST_TMPDIR")) + "/without" +
                           std::to_string(++number) + ".so";
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

class EachVendor : public testing::TestWithParam<int> {
 protected:
  const VendorCase& vendor() const { return vendor_; }
  void SetUp() override {
    void* const handle = dlopen(vendor_.library.c_str(), RTLD_NOW);
    ASSERT_NE(handle, nullptr) << dlerror();
    fake_ = reinterpret_cast<FakeGpuGet*>(dlsym(handle, "fake_gpu"))();
    fail_ = reinterpret_cast<FakeGpuFail*>(dlsym(handle, "fake_gpu_fail"));
    *fake_ = FakeGpu();
    fail_(nullptr, 0, 0);
  }
  GpuRuntime Runtime() {
    auto runtime = LoadGpuRuntime(vendor_.vendor, vendor_.library);
    EXPECT_TRUE(runtime.ok()) << runtime.status();
    return *runtime;
  }

  const VendorCase vendor_ = Vendors()[static_cast<size_t>(GetParam())];
  FakeGpu* fake_ = nullptr;
  FakeGpuFail* fail_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(GpuRuntime, EachVendor, testing::Values(0, 1));

TEST_P(EachVendor, MissingLibraryIsNamedWithTheNextStep) {
  const auto runtime = LoadGpuRuntime(vendor().vendor, "libnot-there.so");
  EXPECT_EQ(runtime.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(runtime.status().message(), HasSubstr("libnot-there.so"));
  EXPECT_THAT(runtime.status().message(), HasSubstr("Install"));
  const auto compiler = LoadGpuCompiler(vendor().vendor, "libnot-there.so");
  EXPECT_EQ(compiler.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(compiler.status().message(), HasSubstr("Install"));
}

TEST_P(EachVendor, EveryMissingSymbolIsNamed) {
  for (const std::string& symbol : vendor().runtime) {
    const std::string library = Without(vendor().library, symbol);
    const auto runtime = LoadGpuRuntime(vendor().vendor, library);
    EXPECT_EQ(runtime.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(runtime.status().message(), HasSubstr(symbol + "."));
    EXPECT_THAT(runtime.status().message(), HasSubstr(library));
  }
  for (const std::string& symbol : vendor().compiler) {
    const auto compiler =
        LoadGpuCompiler(vendor().vendor, Without(vendor().library, symbol));
    EXPECT_EQ(compiler.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(compiler.status().message(), HasSubstr(symbol + "."));
  }
}

TEST_P(EachVendor, OptionalSymbolsMayBeMissing) {
  const GpuTable all = Runtime().table;
  EXPECT_NE(all.mem_get_handle_for_address_range, nullptr);
  EXPECT_NE(all.flush_gpu_direct_writes, nullptr);
  for (size_t i = 0; i < vendor().optional.size(); ++i) {
    const auto runtime = LoadGpuRuntime(
        vendor().vendor, Without(vendor().library, vendor().optional[i]));
    ASSERT_TRUE(runtime.ok()) << runtime.status();
    EXPECT_EQ(runtime->table.mem_get_handle_for_address_range == nullptr,
              i == 0);
    EXPECT_EQ(runtime->table.flush_gpu_direct_writes == nullptr, i == 1);
  }
}

TEST_P(EachVendor, ErrorsNameCallErrorAndNextStep) {
  const GpuRuntime runtime = Runtime();
  EXPECT_TRUE(runtime.Check(0, "cuInit").ok());
  const struct {
    int error;
    absl::StatusCode code;
    const char* words;
  } rows[] = {
      {2, absl::StatusCode::kResourceExhausted, "free memory"},
      {4, absl::StatusCode::kUnavailable, "exiting"},
      {100, absl::StatusCode::kNotFound, "VISIBLE_DEVICES"},
      {209, absl::StatusCode::kFailedPrecondition, "not compiled"},
      {700, absl::StatusCode::kUnavailable, "restart"},
      {719, absl::StatusCode::kUnavailable, "restart"},
      {999, absl::StatusCode::kUnavailable, "restart"},
      {801, absl::StatusCode::kUnimplemented, "cannot do it"},
      {1, absl::StatusCode::kInternal, "FAKE_ERROR (1)"},
      {12345, absl::StatusCode::kInternal, "without a name (12345)"},
  };
  for (const auto& row : rows) {
    const absl::Status s = runtime.Check(row.error, "someCall");
    EXPECT_EQ(s.code(), row.code) << row.error;
    EXPECT_THAT(s.message(), HasSubstr("someCall: "));
    EXPECT_THAT(s.message(), HasSubstr(row.words));
  }
}

TEST_P(EachVendor, OpensADeviceAndLeavesTheCurrentOneAsItWas) {
  {
    auto device = GpuDevice::Open(Runtime(), 0);
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ((*device)->name(), "Fake GPU");
    EXPECT_EQ((*device)->driver_version(), 13000);
    EXPECT_FALSE((*device)->Attribute(-1).ok());
    EXPECT_EQ((*device)->Attribute(31337).status().code(),
              absl::StatusCode::kInternal);
    EXPECT_EQ(fake_->current, 0);
    {
      const GpuScope scope(**device);
      EXPECT_TRUE(scope.status().ok());
      EXPECT_EQ(fake_->current, 1);
    }
    EXPECT_EQ(fake_->current, 0);
  }
  EXPECT_EQ(fake_->live, 0);
}

TEST_P(EachVendor, NoSuchDevice) {
  EXPECT_EQ(GpuDevice::Open(Runtime(), 1).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(GpuDevice::Open(Runtime(), -1).status().code(),
            absl::StatusCode::kNotFound);
  fake_->device_count = 0;
  EXPECT_EQ(GpuDevice::Open(Runtime(), 0).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_P(EachVendor, EveryCallOfOpeningMayFail) {
  const bool is_cuda = vendor().vendor == GpuVendor::kCuda;
  std::vector<const char*> calls = {"hipInit", "hipGetDeviceCount",
                                    "hipDeviceGet", "hipDeviceGetName",
                                    "hipDriverGetVersion"};
  if (is_cuda) {
    calls = {
        "cuInit",          "cuDeviceGetCount",   "cuDeviceGet",
        "cuDeviceGetName", "cuDriverGetVersion", "cuDevicePrimaryCtxRetain"};
  }
  for (const char* call : calls) {
    fail_(call, 999, 0);
    const auto device = GpuDevice::Open(Runtime(), 0);
    EXPECT_EQ(device.status().code(), absl::StatusCode::kUnavailable) << call;
    EXPECT_THAT(device.status().message(), HasSubstr(call));
    EXPECT_EQ(fake_->live, 0);
  }
}

TEST_P(EachVendor, AScopeThatFailsSaysSo) {
  auto device = GpuDevice::Open(Runtime(), 0);
  ASSERT_TRUE(device.ok());
  const bool is_cuda = vendor().vendor == GpuVendor::kCuda;
  for (const char* call : {is_cuda ? "cuCtxPushCurrent_v2" : "hipGetDevice",
                           is_cuda ? "cuCtxPushCurrent_v2" : "hipSetDevice"}) {
    fail_(call, 4, 0);
    const GpuScope scope(**device);
    EXPECT_EQ(scope.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(fake_->current, 0);
  }
  fail_(nullptr, 0, 0);
}

TEST_P(EachVendor, CompilesAndSaysWhyNot) {
  const auto compiler = LoadGpuCompiler(vendor().vendor, vendor().library);
  ASSERT_TRUE(compiler.ok()) << compiler.status();
  const std::vector<std::string> options = {"-a", "-b"};
  const auto code = compiler->Compile("source", options);
  ASSERT_TRUE(code.ok());
  EXPECT_THAT(*code, HasSubstr("code for a fake GPU"));
  EXPECT_STREQ(fake_->last_options, "-a -b ");

  const bool is_cuda = vendor().vendor == GpuVendor::kCuda;
  const auto failing = [&](const char* cuda, const char* hip) {
    fail_(is_cuda ? cuda : hip, 6, 0);
    return compiler->Compile("source", options).status();
  };
  const absl::Status refused =
      failing("nvrtcCompileProgram", "hiprtcCompileProgram");
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("this is the compiler's log"));
  EXPECT_EQ(failing("nvrtcCreateProgram", "hiprtcCreateProgram").code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(failing("nvrtcGetCUBINSize", "hiprtcGetCodeSize").code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(failing("nvrtcGetCUBIN", "hiprtcGetCode").code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(fake_->live, 0);
}

}  // namespace
}  // namespace devwire
