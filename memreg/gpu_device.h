// One GPU of a runtime, open.
//
// Threads:  any.
// Lifetime: holds the device's primary context (CUDA); outlives all that is
//           made on it.
#ifndef MEMREG_GPU_DEVICE_H_
#define MEMREG_GPU_DEVICE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memreg/gpu_runtime.h"

namespace devwire {

class GpuDevice {
 public:
  // NotFound: no device, or none of this number.
  static absl::StatusOr<std::unique_ptr<GpuDevice>> Open(GpuRuntime runtime,
                                                         int ordinal);
  GpuDevice(const GpuDevice&) = delete;
  GpuDevice& operator=(const GpuDevice&) = delete;
  ~GpuDevice();

  const GpuRuntime& runtime() const { return runtime_; }
  const GpuTable& table() const { return runtime_.table; }
  const std::string& name() const { return name_; }  // The vendor's own.
  // The driver's version as its runtime counts: 13000 is CUDA 13.0.
  int driver_version() const { return driver_version_; }
  // A number of runtime().attributes. Unimplemented for -1.
  absl::StatusOr<int> Attribute(int attribute) const;
  absl::Status Check(int result, std::string_view cuda_call,
                     std::string_view hip_call) const;

 private:
  friend class GpuScope;
  GpuDevice(GpuRuntime runtime, int device)
      : runtime_(std::move(runtime)), device_(device) {}

  const GpuRuntime runtime_;
  const int device_;
  GpuHandle context_ = nullptr;
  std::string name_;
  int driver_version_ = 0;
};

// Makes a device the calling thread's, and afterwards what was before: the
// application has its own idea of which is current.
class GpuScope {
 public:
  explicit GpuScope(const GpuDevice& device);
  GpuScope(const GpuScope&) = delete;
  GpuScope& operator=(const GpuScope&) = delete;
  ~GpuScope();
  // Not OK: the device is not current, and calls would go to another.
  const absl::Status& status() const { return status_; }

 private:
  const GpuDevice& device_;
  int before_ = -1;
  absl::Status status_;
};

}  // namespace devwire

#endif  // MEMREG_GPU_DEVICE_H_
