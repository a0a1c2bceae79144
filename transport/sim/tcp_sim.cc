#include "transport/sim/tcp_sim.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "absl/strings/str_cat.h"

namespace devwire {
namespace {

// A CHECK of the code under test aborts the process: the seed is to be known
// all the same. write(2) is allowed in a signal handler.
char running[64] = "";
void OnAbort(int) { (void)!write(STDERR_FILENO, running, sizeof(running)); }

TcpHost::Options HostOptions(const TcpSimSetup& setup, bool is_client) {
  TcpHost::Options o;
  Prng prng(setup.seed * 2 + (is_client ? 1 : 0));
  o.is_client = is_client;
  const Endpoint client{IpAddress::V4(10, 0, 0, 1), Port{40000}};
  const Endpoint server{IpAddress::V4(10, 0, 0, 2), Port{80}};
  o.addresses.source_mac = {2, 0, 0, 0, 0, 1};
  o.addresses.destination_mac = {2, 0, 0, 0, 0, 2};
  o.addresses.tuple =
      is_client ? FourTuple{client, server} : FourTuple{server, client};
  o.connection = setup.connection;
  // Anywhere on the circle, and often just before its end.
  o.connection.iss =
      SeqNum(prng.Chance(0.5) ? 0u - prng.Next32() % 100'000 : prng.Next32());
  o.connection.ts_offset = prng.Next32();
  o.connection.slot_bytes = setup.slot_bytes;
  o.connection.max_slot_quota = setup.slot_count;
  o.connection.receive.slot_quota =
      setup.slot_count - std::min(setup.slot_count / 2, setup.pool_reserve);
  o.app = is_client ? setup.client : setup.server;
  o.slot_count = setup.slot_count;
  o.slot_bytes = setup.slot_bytes;
  o.pool_reserve = setup.pool_reserve;
  o.max_tso_payload = setup.max_tso_payload;
  o.write_stream = setup.seed * 4 + (is_client ? 0 : 1);
  o.read_stream = setup.seed * 4 + (is_client ? 1 : 0);
  o.seed = prng.Next64();
  o.is_traced = setup.is_traced;
  return o;
}

void TellSeedOnAbort(uint64_t seed) {
  std::snprintf(running, sizeof(running), "\nsimulation: aborted, seed %llu\n",
                static_cast<unsigned long long>(seed));
  std::signal(SIGABRT, OnAbort);
}

// What arrives by `link` now.
void TakeFrames(SimLink& link, TcpHost& to, Instant now) {
  while (auto frame = link.Receive(now)) {
    to.OnFrame(*frame, now);
    to.Finish(now);
  }
}

}  // namespace

TcpSimResult RunTcpSim(const TcpSimSetup& setup) {
  TellSeedOnAbort(setup.seed);
  SimLink up(setup.faults, setup.seed ^ 0xaaaa);
  SimLink down(setup.faults, setup.seed ^ 0x5555);
  TcpHost client(HostOptions(setup, true), up);
  TcpHost server(HostOptions(setup, false), down);
  const Instant start = Instant::FromNanoseconds(1'000'000'000);
  Instant now = start;
  TcpSimResult result;
  client.Start(now);
  server.Start(now);
  client.Finish(now);
  server.Finish(now);

  uint64_t read = 0;
  std::string failure;
  while (failure.empty()) {
    const bool quiet = up.NextArrival() == Instant::Never() &&
                       down.NextArrival() == Instant::Never();
    if (client.is_done() && server.is_done() && quiet) break;
    const Instant next = std::min({client.NextEvent(), server.NextEvent(),
                                   up.NextArrival(), down.NextArrival()});
    if (next == Instant::Never() && !result.survivor_waited &&
        (client.has_aborted() || server.has_aborted())) {
      // The reset was lost, or none was due, and the other end has nothing to
      // send: without keepalives it waits until its application gives up.
      result.survivor_waited = true;
      client.GiveUp(now);
      server.GiveUp(now);
      continue;
    }
    if (next == Instant::Never()) {
      failure = "deadlock: nothing is pending";
      break;
    }
    if (next - start > setup.give_up_after) {
      failure = "does not come to an end";
      break;
    }
    now = std::max(now, next);
    ++result.events;
    TakeFrames(up, server, now);
    TakeFrames(down, client, now);
    client.OnTime(now);
    server.OnTime(now);
    client.Finish(now);
    server.Finish(now);
    if (client.bytes_read() + server.bytes_read() != read) {
      read = client.bytes_read() + server.bytes_read();
      result.data_took = now - start;
    }
    failure = !client.failure().empty() ? client.failure() : server.failure();
  }
  result.took = now - start;
  if (!failure.empty()) {
    result.failure = absl::StrCat(
        "seed ", setup.seed, " at ", result.took.microseconds(),
        " us: ", failure, "\n  ", client.ToString(), "\n  ", server.ToString(),
        "\n  up: ", up.StatsString(), "\n  down: ", down.StatsString());
  }
  result.client_read = client.bytes_read();
  result.server_read = server.bytes_read();
  result.client_error = client.error();
  result.server_error = server.error();
  result.client = client.stats();
  result.server = server.stats();
  result.up = up.stats();
  result.down = down.stats();
  return result;
}

}  // namespace devwire
