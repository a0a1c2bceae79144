// Two TcpHosts and the wire between them, run to the end in virtual time.
//
// Everything follows from the seed and the Setup: a failure is one line.
#ifndef TRANSPORT_SIM_TCP_SIM_H_
#define TRANSPORT_SIM_TCP_SIM_H_

#include <cstdint>
#include <string>

#include "transport/sim/sim_link.h"
#include "transport/sim/tcp_host.h"

namespace devwire {

struct TcpSimSetup {
  uint64_t seed = 1;
  LinkFaults faults;  // Both ways.
  TcpHost::App client;
  TcpHost::App server;
  Connection::Options connection;  // iss and the limits are set from the rest.
  uint32_t slot_count = 64;        // Per host.
  uint32_t slot_bytes = 2048;
  uint32_t pool_reserve = 0;
  uint32_t max_tso_payload = 0;
  bool is_traced = false;           // Segments to stderr.
  Duration give_up_after = 3600_s;  // Of virtual time.
};

struct TcpSimResult {
  // Empty: every invariant held and it came to an end. Else what, when, and
  // both hosts.
  std::string failure;
  Duration took;       // Virtual, until both were done; with TIME-WAIT.
  Duration data_took;  // Until the last byte was read.
  uint64_t client_read = 0;
  uint64_t server_read = 0;
  TcpError client_error = TcpError::kNone;
  TcpError server_error = TcpError::kNone;
  // One side aborted, and the other never learned of it.
  bool survivor_waited = false;
  uint64_t events = 0;
  Connection::Stats client;
  Connection::Stats server;
  SimLink::Stats up;  // Client to server.
  SimLink::Stats down;
};

TcpSimResult RunTcpSim(const TcpSimSetup& setup);

}  // namespace devwire

#endif  // TRANSPORT_SIM_TCP_SIM_H_
