// The command line of dwcat.
#ifndef EXAMPLES_DWCAT_OPTIONS_H_
#define EXAMPLES_DWCAT_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "sockets/stack_options.h"
#include "transport/address.h"

namespace devwire::examples {

struct DwcatOptions {
  bool listen = false;
  Endpoint endpoint;  // Ours when listening, the peer's when sending.
  std::string file;   // Written when listening, read when sending.
  StackOptions stack;
  uint32_t slot_bytes = 0;
  uint64_t pool_bytes = 64u << 20;
  std::string memory = "memfd";
  bool json = false;
  bool quiet = false;
  std::string capture;  // A pcapng of the headers; empty: none.
  std::optional<uint64_t> corrupt_at;
};

// Empty after a message on stderr that names the argument: exit with 2.
std::optional<DwcatOptions> ParseDwcatOptions(int argc, char** argv);

}  // namespace devwire::examples

#endif  // EXAMPLES_DWCAT_OPTIONS_H_
