// Draws a whole scenario from a seed: the path and its faults, boxes on the
// way, options and applications of both hosts, deaths, attackers; and what must
// come of it.
//
// The numbers are those of `./dev sim`: a seed means the same on every machine,
// and as long as this file stays as it is.
#ifndef TRANSPORT_SIM_SCENARIO_H_
#define TRANSPORT_SIM_SCENARIO_H_

#include <cstdint>
#include <string>

#include "transport/sim/engine_sim.h"
#include "transport/sim/tcp_sim.h"

namespace devwire {

struct TcpScenario {
  std::string name;  // What is special about it, in words.
  TcpSimSetup setup;
  // Nobody aborts, dies or refuses to read: every byte arrives, both close in
  // good order.
  bool must_complete = true;
  // The client alone dies: the last connection it opens does complete.
  bool last_must_complete = false;
};

// Every kEngineEvery-th seed is of whole engines over a NIC.
inline constexpr uint64_t kEngineEvery = 16;
inline bool IsEngineSeed(uint64_t seed) { return seed % kEngineEvery == 0; }

TcpScenario DrawTcpScenario(uint64_t seed);
EngineSimSetup DrawEngineScenario(uint64_t seed);

// The result's own failure, or what the scenario promised and it does not
// keep. Empty when all is well.
std::string Judge(const TcpScenario& scenario, const TcpSimResult& result);

}  // namespace devwire

#endif  // TRANSPORT_SIM_SCENARIO_H_
