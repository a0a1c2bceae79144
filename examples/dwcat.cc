// dwcat: a file from device memory to device memory over TCP.
//
//   dwcat listen 10.0.0.2:7000 -o copy
//   dwcat send   10.0.0.2:7000 file --address 10.0.0.1/24
#include <cstdio>

#include "examples/dwcat_options.h"
#include "examples/dwcat_transfer.h"
#include "examples/gpu_standin.h"
#include "examples/stack_flags.h"

namespace devwire::examples {
namespace {

absl::Status Run(const DwcatOptions& options) {
  auto bound = OpenStack(options.flags, /*receives=*/options.listen);
  if (!bound.ok()) return bound.status();
  return options.listen ? ReceiveFile(options, *bound)
                        : SendFile(options, *bound);
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
