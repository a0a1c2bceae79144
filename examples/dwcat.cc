// dwcat: a file from device memory to device memory over TCP.
//
//   dwcat listen 10.0.0.2:7000 -o copy
//   dwcat send   10.0.0.2:7000 file --address 10.0.0.1/24
#include <cstdio>

#include "examples/dwcat_options.h"
#include "examples/dwcat_transfer.h"
#include "examples/gpu_standin.h"
#include "memreg/host_memory.h"
#include "sockets/stack.h"

namespace devwire::examples {
namespace {

absl::Status Run(const DwcatOptions& options) {
  BoundMemory bound;
  auto memory = MemfdMemory::Allocate(options.pool_bytes);
  if (!memory.ok()) return memory.status();
  bound.memory = std::move(*memory);
  auto dmabuf = bound.memory->Export();
  if (!dmabuf.ok()) return dmabuf.status();
  bound.dmabuf = &*dmabuf;

  auto stack = Stack::Open(options.stack);
  if (!stack.ok()) return stack.status();
  PoolOptions pool{.slot_bytes = options.slot_bytes};
  if (!options.listen) pool.receive_bytes = 0;
  auto id = (*stack)->BindMemory(*bound.memory, pool);
  if (!id.ok()) return id.status();
  bound.id = *id;
  if (!options.capture.empty()) {
    absl::Status s = (*stack)->StartCapture(options.capture, 1u << 30);
    if (!s.ok()) return s;
  }
  return options.listen ? ReceiveFile(options, **stack, bound)
                        : SendFile(options, **stack, bound);
}

}  // namespace
}  // namespace devwire::examples

int main(int argc, char** argv) {
  using namespace devwire::examples;
  if (auto status = GpuStandin::RunAsStandin(argc, argv)) return *status;
  const auto options = ParseDwcatOptions(argc, argv);
  if (!options) return 2;
  const absl::Status status = Run(*options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "dwcat: %s\n", status.ToString().c_str());
  return 1;
}
