// Two TcpHosts and the path between them, run to the end in virtual time.
//
//   client -- link up, middlebox ----> server      an attacker beside it
//          <-- middlebox, link down --
//
// Everything follows from the seed and the Setup: a failure is one line.
#ifndef TRANSPORT_SIM_TCP_SIM_H_
#define TRANSPORT_SIM_TCP_SIM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "transport/sim/blind_attacker.h"
#include "transport/sim/middlebox.h"
#include "transport/sim/sim_link.h"
#include "transport/sim/tcp_host.h"
#include "transport/wire/pcapng.h"

namespace devwire {

struct TcpSimSetup {
  uint64_t seed = 1;
  LinkFaults faults;  // Client to server, and back unless
  std::optional<LinkFaults> faults_down;
  std::optional<Middlebox::Options> box_up;
  std::optional<Middlebox::Options> box_down;
  // From then on nothing passes, either way.
  std::optional<Duration> path_ends_after;

  TcpHost::App client;
  TcpHost::App server;
  Connection::Options connection;  // iss and the limits are set from the rest.
  std::optional<Connection::Options> server_connection;  // If it differs.
  uint32_t slot_count = 64;                              // Per host.
  uint32_t slot_bytes = 2048;
  uint32_t pool_reserve = 0;
  uint32_t max_tso_payload = 0;

  bool opens_simultaneously = false;  // The server opens, too.
  uint32_t sessions = 1;              // One after the other.
  Duration session_gap;
  std::optional<Duration> client_dies_after;
  std::optional<Duration> server_dies_after;
  Duration returns_after = 5_s;
  // Each host gets a forged segment so often, on average; 0: never.
  Duration attack_gap;
  uint64_t attack_limit = 1000;  // Segments.

  bool is_traced = false;           // Segments to stderr.
  PcapngWriter* capture = nullptr;  // Frames of both directions.
  Duration give_up_after = 3600_s;  // Of virtual time.
};

struct TcpSimResult {
  // Empty: every invariant held and it came to an end. Else what, when, and
  // both hosts.
  std::string failure;
  Duration took;       // Virtual, until both were done; with TIME-WAIT.
  Duration data_took;  // Until the last byte was read.
  // Of all sessions together.
  uint64_t client_read = 0;
  uint64_t server_read = 0;
  // The first error that either met.
  TcpError client_error = TcpError::kNone;
  TcpError server_error = TcpError::kNone;
  std::vector<TcpHost::Session> client_sessions;
  std::vector<TcpHost::Session> server_sessions;
  // One side is gone without an orderly end, and the other never learned of it.
  bool survivor_waited = false;
  uint64_t attacks = 0;
  BlindAttacker::Tally attacks_by_kind;
  uint64_t events = 0;
  Connection::Stats client;
  Connection::Stats server;
  SimLink::Stats up;  // Client to server.
  SimLink::Stats down;
};

TcpSimResult RunTcpSim(const TcpSimSetup& setup);

}  // namespace devwire

#endif  // TRANSPORT_SIM_TCP_SIM_H_
