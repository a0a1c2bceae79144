// The command line of dwcat.
#ifndef EXAMPLES_DWCAT_OPTIONS_H_
#define EXAMPLES_DWCAT_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "examples/stack_flags.h"
#include "transport/address.h"

namespace devwire::examples {

struct DwcatOptions {
  bool listen = false;
  Endpoint endpoint;  // Ours when listening, the peer's when sending.
  std::string file;   // Written when listening, read when sending.
  StackFlags flags;
  bool json = false;
  bool quiet = false;
  std::optional<uint64_t> corrupt_at;
};

// Empty after a message on stderr that names the argument: exit with 2.
std::optional<DwcatOptions> ParseDwcatOptions(int argc, char** argv);

}  // namespace devwire::examples

#endif  // EXAMPLES_DWCAT_OPTIONS_H_
