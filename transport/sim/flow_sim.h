// Bulk flows that share one bottleneck, in virtual time: how fast congestion
// control makes them, not whether their bytes are right (tcp_sim.h).
//
//   sender 0 --\                                     /-- receiver 0
//   sender 1 ---+-- [queue, rate, marks] -- delay --+--- receiver 1
//       ^           `--- the bottleneck                     |
//       '------------------- delay: ACKs -------------------'
//
// Connections exchange Segments themselves, without frames and payload, so a
// second of CPU carries about a million of them. Same setup, same result, on
// every machine.
//
// Threads:  one. Tests only: it allocates.
#ifndef TRANSPORT_SIM_FLOW_SIM_H_
#define TRANSPORT_SIM_FLOW_SIM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/time.h"

namespace devwire {

struct FlowSimSetup {
  std::vector<std::string> congestion;  // One flow each; by name.
  uint64_t bits_per_second = 1'000'000'000;
  Duration rtt = 10_ms;  // Without queueing.
  uint32_t mtu = 1500;
  double loss = 0;          // Of data segments, beside the queue's.
  double ack_loss = 0;      // Of the ACKs on their way back.
  double queue_bdps = 2;    // Room in the queue, in bandwidth-delay products.
  uint32_t mark_bytes = 0;  // The queue from which on ECT is marked; 0: never.
  double window_bdps = 2;   // Each receiver's window.
  Duration flow_gap;        // Flow i begins at i * flow_gap.
  Duration warm_up = 100_ms;   // Not measured.
  Duration measured = 900_ms;  // After it.
  bool pacing = true;
  uint64_t seed = 1;
};

struct FlowSimResult {
  std::vector<double> goodput;  // Bits of payload per second, of each flow.
  double total = 0;
  // What the wire carries at most: full segments, end to end.
  double ceiling = 0;
  double mean_queue_bytes = 0;  // As arriving segments find it.
  uint64_t queue_drops = 0;
  uint64_t marks = 0;
  uint64_t segments = 0;
  uint64_t timeouts = 0;
};

FlowSimResult RunFlowSim(const FlowSimSetup& setup);

}  // namespace devwire

#endif  // TRANSPORT_SIM_FLOW_SIM_H_
