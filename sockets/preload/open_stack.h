// Opens the stack that a configuration describes.
#ifndef SOCKETS_PRELOAD_OPEN_STACK_H_
#define SOCKETS_PRELOAD_OPEN_STACK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/time.h"
#include "sockets/preload/config.h"
#include "sockets/stack.h"

namespace devwire::preload {

// Loads the verbs library, configures softnic, finds the device. Tries again
// for `patience` while another process has the port (EBUSY): one that has just
// died, or its guardian.
absl::StatusOr<std::unique_ptr<Stack>> OpenStack(const ShimConfig& config,
                                                 Duration patience);

// The RDMA device and port of a network interface, as sysfs has it. NotFound:
// no such interface, or it has none.
struct RdmaPort {
  std::string device;
  uint8_t port = 1;
};
absl::StatusOr<RdmaPort> RdmaPortOf(const std::string& interface,
                                    const std::string& sysfs = "/sys");

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_OPEN_STACK_H_
