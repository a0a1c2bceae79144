// Two EngineHosts, their NICs and the wire between them, run to the end in
// virtual time. Everything follows from the seed and the Setup.
#ifndef TRANSPORT_SIM_ENGINE_SIM_H_
#define TRANSPORT_SIM_ENGINE_SIM_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "transport/sim/engine_host.h"
#include "transport/sim/middlebox.h"
#include "transport/wire/pcapng.h"

namespace devwire {

struct EngineSimSetup {
  uint64_t seed = 1;
  LinkFaults faults;                      // Both ways, unless
  std::optional<LinkFaults> faults_down;  // is the way to the client.
  size_t streams = 4;
  uint64_t client_bytes = 60'000;  // Per stream.
  uint64_t server_bytes = 60'000;
  uint32_t max_send = 20'000;  // Bytes of one send, at most.
  bool timestamps = true;
  bool sack = true;
  bool nodelay = false;
  uint32_t max_tso_payload = 0;
  Duration gather_delay;
  Duration rule_delay;
  double rule_refusals = 0;
  Duration move_time;  // SimPacketIo::Options.
  uint32_t host_slots = 256;
  uint32_t device_slots = 256;
  Duration token_delay;
  bool can_read_option_tails = true;
  // So many streams at the server never return a token, until all the others
  // are done.
  size_t hoarders = 0;
  // One end aborts its first stream then. Not beside hoarders.
  std::optional<Duration> client_aborts_after;
  std::optional<Duration> server_aborts_after;
  // Counts SACK blocks on the wire, and what the engines did with them.
  bool counts_sack = false;
  // Before the wire, client to server; it cannot merge.
  std::optional<Middlebox::Options> box_up;
  PcapngWriter* capture = nullptr;  // Frames of both directions.
};

struct EngineSimResult {
  // Empty: every invariant held and it came to an end.
  std::string failure;
  Duration took;               // Virtual.
  Duration others_took;        // Until all but so many as `hoarders` were done.
  uint32_t hoarded_slots = 0;  // At most.
  uint64_t linear_bytes = 0;
  // Of the server's engine.
  uint64_t text_dropped_at_reserve = 0;
  uint64_t seen_in_other_queue = 0;  // Of both engines.
  SimPacketIo::Stats client, server;
  // With counts_sack: blocks in frames that arrived, and what the streams of
  // that host counted.
  uint64_t sack_blocks_to_client = 0;
  uint64_t sack_blocks_to_server = 0;
  EngineHost::TcpSums client_tcp, server_tcp;
};

EngineSimResult RunEngineSim(const EngineSimSetup& setup);

}  // namespace devwire

#endif  // TRANSPORT_SIM_ENGINE_SIM_H_
