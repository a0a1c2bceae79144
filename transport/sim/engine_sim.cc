#include "transport/sim/engine_sim.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "transport/sim/run_clock.h"
#include "transport/sim/seed_on_abort.h"

namespace devwire {
namespace {

EngineHost::Options HostOptions(const EngineSimSetup& s, bool is_client) {
  EngineHost::Options o;
  o.ip = IpAddress::V4(10, 0, 0, is_client ? 1 : 2);
  o.nic.limits.mac = {2, 0, 0, 0, 0, static_cast<uint8_t>(is_client ? 1 : 2)};
  o.nic.limits.mtu = 1500;
  o.nic.limits.max_tso_payload = s.max_tso_payload;
  o.nic.gather_delay = s.gather_delay;
  o.nic.rule_delay = s.rule_delay;
  o.nic.rule_refusals = s.rule_refusals;
  o.nic.move_time = s.move_time;
  o.nic.seed = s.seed * 2 + is_client;
  o.host_slots = s.host_slots;
  o.device_slots = s.device_slots;
  o.tcp.use_timestamps = s.timestamps;
  o.tcp.use_sack = s.sack;
  o.tcp.nodelay = s.nodelay;
  o.bytes_per_stream = is_client ? s.client_bytes : s.server_bytes;
  o.max_send = s.max_send;
  o.token_delay = s.token_delay;
  o.hoarders = is_client ? 0 : s.hoarders;
  o.sums_tcp = s.counts_sack;
  o.can_read_option_tails = s.can_read_option_tails;
  o.abort_after = is_client ? s.client_aborts_after : s.server_aborts_after;
  o.expects_aborts = s.client_aborts_after || s.server_aborts_after;
  o.seed = s.seed * 2 + is_client;
  return o;
}

void CaptureLink(SimLink& link, PcapngWriter::Direction direction,
                 PcapngWriter* capture) {
  if (capture == nullptr) return;
  link.set_observer([=](const SimFrame& frame, Instant now, const char* fate) {
    capture->Add(direction, now, frame, static_cast<uint32_t>(frame.size()),
                 fate);
  });
}

// Blocks in frames that the link will deliver.
void CountSackBlocks(SimLink& link, uint64_t* blocks) {
  link.set_observer([=](const SimFrame& frame, Instant, const char* fate) {
    ParsedFrame parsed;
    const auto bytes = static_cast<uint32_t>(frame.size());
    if (*fate == '\0' &&
        ParseFrame(frame.data(), bytes, bytes, &parsed) == ParseResult::kTcp) {
      *blocks += parsed.tcp.options.sack_block_count;
    }
  });
}

void PutBefore(SimLink& link, Middlebox& box) {
  link.set_rewriter([&box](const SimFrame& frame, Instant now) {
    box.Take(frame, now);
    std::vector<SimFrame> out;
    while (auto one = box.Give(now)) out.push_back(std::move(*one));
    return out;
  });
}

void FillResult(EngineHost& client, EngineHost& server,
                EngineSimResult* result) {
  result->text_dropped_at_reserve =
      server.engine().counters().value(EngineEvent::kTextDroppedAtReserve);
  for (EngineHost* host : {&client, &server}) {
    result->seen_in_other_queue +=
        host->engine().counters().value(EngineDrop::kSeenInOtherQueue);
  }
  result->linear_bytes = client.linear_bytes() + server.linear_bytes();
  result->client_tcp = client.tcp_sums();
  result->server_tcp = server.tcp_sums();
  result->client = client.nic_stats();
  result->server = server.nic_stats();
}

}  // namespace

EngineSimResult RunEngineSim(const EngineSimSetup& setup) {
  TellSeedOnAbort(setup.seed);
  RunClock clock;
  const Instant start = clock.Now();
  SimLink up(setup.faults, setup.seed ^ 0xaaaa);
  SimLink down(setup.faults_down.value_or(setup.faults), setup.seed ^ 0x5555);
  CaptureLink(up, PcapngWriter::Direction::kOut, setup.capture);
  CaptureLink(down, PcapngWriter::Direction::kIn, setup.capture);
  EngineSimResult result;
  if (setup.counts_sack) {
    CountSackBlocks(up, &result.sack_blocks_to_server);
    CountSackBlocks(down, &result.sack_blocks_to_client);
  }
  std::optional<Middlebox> box;
  if (setup.box_up) PutBefore(up, box.emplace(*setup.box_up, setup.seed));
  EngineHost server(HostOptions(setup, false), clock, down, up);
  EngineHost client(HostOptions(setup, true), clock, up, down);
  server.Listen(Port{80});
  server.Turn();  // Rules of the listener.
  client.Turn();
  // Until they are installed: a host whose wide rules are not in is deaf.
  clock.Set(start + setup.rule_delay);
  server.Turn();
  client.Turn();
  for (size_t i = 0; i < setup.streams; ++i) {
    client.Connect({IpAddress::V4(10, 0, 0, 2), Port{80}});
  }
  std::string failure;
  while (failure.empty()) {
    int turns = 0;
    while ((client.Turn() | server.Turn()) && failure.empty()) {
      if (++turns > 5'000) failure = "busy loop";
    }
    if (result.others_took == Duration() &&
        server.finished_streams() + setup.hoarders >= setup.streams) {
      result.others_took = clock.Now() - start;
      result.hoarded_slots = server.max_application_slots();
      server.Relent();
      continue;
    }
    if (client.is_done(setup.streams) && server.is_done(setup.streams)) break;
    if (!client.failure().empty()) failure = client.failure();
    if (!server.failure().empty()) failure = server.failure();
    const Instant next = std::min(client.NextEvent(), server.NextEvent());
    if (failure.empty() && next == Instant::Never())
      failure = "deadlock: nothing is pending";
    if (failure.empty() && next <= clock.Now()) {
      failure = "busy loop: a deadline is due";
    }
    // Whose peer aborted behind its own FIN, or lost its reset, is told
    // nothing: without keepalives it waits until its application gives up.
    if (clock.Now() - start > 300_s &&
        (setup.client_aborts_after || setup.server_aborts_after)) {
      if (client.open_streams() == 0) server.GiveUp();
      if (server.open_streams() == 0) client.GiveUp();
    }
    if (clock.Now() - start > 600_s) failure = "does not come to an end";
    if (failure.empty()) clock.Set(next);
  }
  result.took = clock.Now() - start;
  if (!failure.empty()) {
    result.failure = "seed " + std::to_string(setup.seed) + " at " +
                     std::to_string(result.took.microseconds()) +
                     " us: " + failure + "\n  " + client.ToString() + "\n  " +
                     server.ToString() + "\n  up: " + up.StatsString() +
                     "\n  down: " + down.StatsString();
  }
  clock.is_over = true;
  FillResult(client, server, &result);
  return result;
}

}  // namespace devwire
