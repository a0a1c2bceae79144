#include "memreg/gpu_device.h"

#include <utility>

#include "absl/strings/str_format.h"

namespace devwire {
namespace {

constexpr int kNameBytes = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<GpuDevice>> GpuDevice::Open(GpuRuntime runtime,
                                                           int ordinal) {
  const GpuTable& t = runtime.table;
  const bool is_cuda = runtime.vendor == GpuVendor::kCuda;
  const auto check = [&](int result, const char* cuda, const char* hip) {
    return runtime.Check(result, is_cuda ? cuda : hip);
  };
  if (absl::Status s = check(t.init(0), "cuInit", "hipInit"); !s.ok()) return s;
  int count = 0;
  absl::Status s = check(t.device_get_count(&count), "cuDeviceGetCount",
                         "hipGetDeviceCount");
  if (!s.ok()) return s;
  if (ordinal < 0 || ordinal >= count) {
    return absl::NotFoundError(
        absl::StrFormat("no %s device %d: there are %d, counted from 0",
                        GpuVendorName(runtime.vendor), ordinal, count));
  }
  int handle = 0;
  s = check(t.device_get(&handle, ordinal), "cuDeviceGet", "hipDeviceGet");
  if (!s.ok()) return s;
  char name[kNameBytes] = {};
  s = check(t.device_get_name(name, kNameBytes - 1, handle), "cuDeviceGetName",
            "hipDeviceGetName");
  if (!s.ok()) return s;
  int version = 0;
  s = check(t.driver_get_version(&version), "cuDriverGetVersion",
            "hipDriverGetVersion");
  if (!s.ok()) return s;
  GpuHandle context = nullptr;
  if (is_cuda) {
    s = runtime.Check(t.primary_ctx_retain(&context, handle),
                      "cuDevicePrimaryCtxRetain");
    if (!s.ok()) return s;
  }
  std::unique_ptr<GpuDevice> device(new GpuDevice(std::move(runtime), handle));
  device->context_ = context;
  device->name_ = name;
  device->driver_version_ = version;
  return device;
}

GpuDevice::~GpuDevice() {
  // Fails only where the driver has already been closed: nothing is left then.
  if (context_ != nullptr) table().primary_ctx_release(device_);
}

absl::Status GpuDevice::Check(int result, std::string_view cuda_call,
                              std::string_view hip_call) const {
  return runtime_.Check(
      result, runtime_.vendor == GpuVendor::kCuda ? cuda_call : hip_call);
}

absl::StatusOr<int> GpuDevice::Attribute(int attribute) const {
  if (attribute < 0) {
    return absl::UnimplementedError(absl::StrFormat(
        "%s has no such attribute", GpuVendorName(runtime_.vendor)));
  }
  int value = 0;
  const absl::Status s =
      Check(table().device_get_attribute(&value, attribute, device_),
            "cuDeviceGetAttribute", "hipDeviceGetAttribute");
  if (!s.ok()) return s;
  return value;
}

GpuScope::GpuScope(const GpuDevice& device) : device_(device) {
  const GpuTable& t = device.table();
  if (device.runtime().vendor == GpuVendor::kCuda) {
    status_ =
        device.runtime().Check(t.ctx_push(device.context_), "cuCtxPushCurrent");
    return;
  }
  status_ = device.runtime().Check(t.get_device(&before_), "hipGetDevice");
  if (!status_.ok()) return;
  status_ =
      device.runtime().Check(t.set_device(device.device_), "hipSetDevice");
}

GpuScope::~GpuScope() {
  if (!status_.ok()) return;
  const GpuTable& t = device_.table();
  if (device_.runtime().vendor == GpuVendor::kCuda) {
    GpuHandle popped = nullptr;
    t.ctx_pop(&popped);
  } else {
    t.set_device(before_);
  }
}

}  // namespace devwire
