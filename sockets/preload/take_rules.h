// Which TCP sockets the shim takes, as the configuration has it.
//
//   [take]
//   connect = true               # what no rule says, by direction
//   [[take.rule]]                # the first that fits decides
//   program = "redis-*"          # the executable's name, or argv[0]'s
//   direction = "connect"        # or "listen"
//   address = "10.0.0.7/32"      # connect: the peer's; listen: the local one
//   port = "6000-6999"
//   take = false
//   device_memory = false        # taken, but into host memory
#ifndef SOCKETS_PRELOAD_TAKE_RULES_H_
#define SOCKETS_PRELOAD_TAKE_RULES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "transport/address.h"

namespace devwire::preload {

enum class Direction : uint8_t { kConnect, kListen };

// Addresses with the same first `bits`.
struct AddressPrefix {
  IpAddress net;
  uint8_t bits = 0;

  bool Contains(const IpAddress& ip) const;
  // "10.0.0.0/8"; empty: it is none.
  static std::optional<AddressPrefix> Parse(std::string_view text);
};

// What is empty fits everything.
struct TakeRule {
  std::string program;  // A pattern of fnmatch(3).
  std::optional<Direction> direction;
  std::optional<AddressPrefix> address;
  uint16_t first_port = 0;
  uint16_t last_port = 65535;
  bool take = true;
  bool device_memory = true;  // if the program has bound some
};

struct TakeRules {
  bool listen = true;
  bool connect = true;
  std::vector<TakeRule> rules;
};

struct TakeDecision {
  bool take = false;
  std::string why;  // "take.rule 2", "take.listen"
  bool device_memory = true;
};

// The names of a program that a rule may know it by.
struct ProgramNames {
  std::string executable;  // Without its folder, as `invoked`.
  std::string invoked;     // argv[0]
};

TakeDecision Decide(const TakeRules& rules, const ProgramNames& program,
                    Direction direction, const Endpoint& endpoint);

// Of this process.
ProgramNames ThisProgram();

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_TAKE_RULES_H_
