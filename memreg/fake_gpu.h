// A GPU runtime made of host memory: what fake_gpu.cc exports besides the
// vendor's names, found with dlsym by the tests that load it.
#ifndef MEMREG_FAKE_GPU_H_
#define MEMREG_FAKE_GPU_H_

#include <cstdint>

namespace devwire {

// What the device says of itself, and what tests want to know of it. One for
// each loaded copy of the library.
struct FakeGpu {
  int device_count = 1;
  int dmabuf_supported = 1;
  int flush_options = 1;
  int writes_ordering = 0;
  uint64_t dmabuf_offset = 0;  // HSA alone.

  // Work of streams waits, and events are not ready, until it is false and
  // something waits or asks.
  bool is_held = false;

  // Objects that were made and not yet destroyed; contexts pushed.
  int live = 0;
  int current = 0;
  int flushes = 0;
  int launches = 0;
  const char* last_options = "";  // What the compiler was told.
  const char* last_image = "";    // What was loaded as a module.
};

// Symbols "fake_gpu" and "fake_gpu_fail". A call of that name, as its vendor
// spells it, answers `error` after `skip` good ones; null: none fails.
using FakeGpuGet = FakeGpu*();
using FakeGpuFail = void(const char* call, int error, int skip);

}  // namespace devwire

#endif  // MEMREG_FAKE_GPU_H_
