// Makes the port that a device's configuration names, with the faults of the
// wire before it.
#ifndef SOFTNIC_MAKE_PORT_H_
#define SOFTNIC_MAKE_PORT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "softnic/config.h"
#include "softnic/faulty_port.h"
#include "softnic/port.h"

namespace softnic {

struct Wire {
  std::unique_ptr<Port> bare;
  std::unique_ptr<FaultyPort> port;  // stands before `bare`; what the core uses
};

// `clock` outlives the port. AlreadyExists: the port is taken; Unavailable and
// others: the system refuses, with the reason.
absl::StatusOr<Wire> MakePort(const DeviceConfig& config,
                              const devwire::Clock* clock);

}  // namespace softnic

#endif  // SOFTNIC_MAKE_PORT_H_
