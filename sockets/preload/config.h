// What the shim is told: one TOML file, named by DEVWIRE_CONFIG.
//
//   [stack]
//   verbs_library = "libsoftnic.so"        # default: the system's libibverbs
//   softnic = "dev=sn0,port=tap:t0,mode=thread"
//   device = "sn0"                         # default: the only one
//   address = "10.0.0.2/24"                # required
//   gateway = "10.0.0.1"
//   mtu = 1500
//
//   [take]
//   listen = true    # sockets that listen on our address, or on any
//   connect = true   # connections to what is reached through the device
#ifndef SOCKETS_PRELOAD_CONFIG_H_
#define SOCKETS_PRELOAD_CONFIG_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "sockets/stack_options.h"

namespace devwire::preload {

struct ShimConfig {
  StackOptions stack;
  std::string softnic;  // For softnic_configure(); empty: not called.
  bool take_listen = true;
  bool take_connect = true;
};

// InvalidArgument names the key and what is accepted; an unknown key is one.
absl::StatusOr<ShimConfig> ParseShimConfig(std::string_view toml);
// NotFound: no such file.
absl::StatusOr<ShimConfig> ReadShimConfig(const std::string& path);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_CONFIG_H_
