// A fake GPU runtime, loaded and open: what the tests of a vendor share.
#ifndef MEMREG_FAKE_GPU_LOADED_H_
#define MEMREG_FAKE_GPU_LOADED_H_

#include <dlfcn.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "memreg/fake_gpu.h"
#include "memreg/gpu_device.h"

namespace devwire {

// One test, run on CUDA's names and on AMD's.
class OnFakeGpu : public testing::TestWithParam<GpuVendor> {
 protected:
  void SetUp() override {
    library_ = std::string("memreg/libfake_") +
               std::string(GpuVendorName(GetParam())) + ".so";
    void* const handle = dlopen(library_.c_str(), RTLD_NOW);
    ASSERT_NE(handle, nullptr) << dlerror();
    fake_ = reinterpret_cast<FakeGpuGet*>(dlsym(handle, "fake_gpu"))();
    fail_ = reinterpret_cast<FakeGpuFail*>(dlsym(handle, "fake_gpu_fail"));
    *fake_ = FakeGpu();
    fail_(nullptr, 0, 0);
    auto runtime = LoadGpuRuntime(GetParam(), library_);
    ASSERT_TRUE(runtime.ok()) << runtime.status();
    runtime_ = *runtime;
    Open();
  }
  // Everything made was destroyed, and nothing of ours stays current.
  void TearDown() override {
    device_.reset();
    EXPECT_EQ(fake_->live, 0);
    EXPECT_EQ(fake_->current, 0);
  }
  void Open() {
    auto device = GpuDevice::Open(runtime_, 0);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
  }

  bool is_cuda() const { return GetParam() == GpuVendor::kCuda; }
  // The call that its vendor names so fails, after `skip` good ones.
  void Fail(const char* cuda, const char* hip, int error, int skip = 0) {
    fail_(is_cuda() ? cuda : hip, error, skip);
  }
  void FailNothing() { fail_(nullptr, 0, 0); }

  std::string library_;
  FakeGpu* fake_ = nullptr;
  FakeGpuFail* fail_ = nullptr;
  GpuRuntime runtime_;
  std::unique_ptr<GpuDevice> device_;
};

}  // namespace devwire

#endif  // MEMREG_FAKE_GPU_LOADED_H_
