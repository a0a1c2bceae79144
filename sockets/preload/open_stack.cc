#include "sockets/preload/open_stack.h"

#include <time.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "memreg/verbs_library.h"
#include "sockets/errno_map.h"

namespace devwire::preload {
namespace {

absl::Status ConfigureSoftnic(const std::string& text) {
  if (text.empty()) return absl::OkStatus();
  if (verbs().softnic_configure == nullptr) {
    return ErrnoStatus(EINVAL,
                       "stack.softnic: this verbs library is no softnic");
  }
  if (verbs().softnic_configure(text.c_str()) == 0) return absl::OkStatus();
  const char* const why = verbs().softnic_last_error == nullptr
                              ? "refused"
                              : verbs().softnic_last_error();
  return ErrnoStatus(EINVAL, absl::StrCat("stack.softnic: ", why));
}

}  // namespace

absl::StatusOr<RdmaPort> RdmaPortOf(const std::string& interface,
                                    const std::string& sysfs) {
  const std::string net = absl::StrCat(sysfs, "/class/net/", interface);
  std::error_code error;
  const std::filesystem::directory_iterator devices(net + "/device/infiniband",
                                                    error);
  if (error || devices == std::filesystem::directory_iterator()) {
    return ErrnoStatus(
        ENODEV, absl::StrCat("stack.interface: ", interface,
                             " has no RDMA device: name one that has, or a "
                             "device (stack.device)"));
  }
  // dev_port counts from 0, verbs from 1.
  int port = 0;
  std::ifstream(net + "/dev_port") >> port;
  return RdmaPort{.device = devices->path().filename().string(),
                  .port = static_cast<uint8_t>(port + 1)};
}

absl::StatusOr<std::unique_ptr<Stack>> OpenStack(const ShimConfig& config,
                                                 Duration patience) {
  StackOptions options = config.stack;
  if (!config.interface.empty()) {
    const auto port = RdmaPortOf(config.interface);
    if (!port.ok()) return port.status();
    options.device = port->device;
    options.port = port->port;
  }
  if (auto status = LoadVerbsLibrary(options.verbs_library); !status.ok()) {
    return status;
  }
  if (auto status = ConfigureSoftnic(config.softnic); !status.ok()) {
    return status;
  }
  const MonotonicClock clock;
  const Instant until = clock.Now() + patience;
  while (true) {
    auto stack = Stack::Open(options);
    if (stack.ok() || ErrnoOf(stack.status()) != EBUSY || clock.Now() > until) {
      return stack;
    }
    const timespec nap = {0, 10'000'000};
    nanosleep(&nap, nullptr);
  }
}

}  // namespace devwire::preload
