// What the shim is told: one TOML file, named by DEVWIRE_CONFIG; the
// environment overrides single keys. docs/sockets.md lists all of them.
//
//   [stack]
//   softnic = "dev=sn0,port=tap:t0,mode=thread"
//   address = "10.0.0.2/24"
//   [tcp]
//   congestion = "dctcp"                   # DEVWIRE_TCP_CONGESTION=dctcp
#ifndef SOCKETS_PRELOAD_CONFIG_H_
#define SOCKETS_PRELOAD_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "sockets/preload/take_rules.h"
#include "sockets/stack_options.h"

namespace devwire::preload {

// What is said on standard error; each level says what those before it say.
enum class LogLevel : uint8_t {
  kNone,
  kError,    // why nothing is taken
  kWarning,  // what a program does that cannot work
  kInfo,     // the stack opened, with what
};

struct ShimConfig {
  StackOptions stack;
  std::string softnic;    // For softnic_configure(); empty: not called.
  std::string interface;  // The device is that of this one; empty: by name.
  // A process resets what a killed one leaves open (guardian.h).
  bool guardian = true;
  // Of device memory that a program binds.
  PoolOptions pool;
  // What a socket with SO_KEEPALIVE begins with.
  KeepAliveOptions keepalive;
  TakeRules take;
  LogLevel log_level = LogLevel::kWarning;
  std::string log_file;  // Instead of standard error; appended to.
  bool explain = false;
  std::string report;  // "-": standard error; empty: none.
};

// InvalidArgument names the key and what is accepted; an unknown key is one.
// `environment` is as environ(7).
absl::StatusOr<ShimConfig> ParseShimConfig(
    std::string_view toml, const char* const* environment = nullptr);
// NotFound: no such file.
absl::StatusOr<ShimConfig> ReadShimConfig(
    const std::string& path, const char* const* environment = nullptr);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_CONFIG_H_
