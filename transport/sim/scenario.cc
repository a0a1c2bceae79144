#include "transport/sim/scenario.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace devwire {
namespace {

using Closing = TcpHost::Closing;

// Evenly over the orders of magnitude from low to high.
uint64_t LogBelow(Prng& prng, uint64_t low, uint64_t high) {
  const double decades = std::log(static_cast<double>(high) / low);
  const double at = static_cast<double>(prng.Below(1 << 20)) / (1 << 20);
  return static_cast<uint64_t>(static_cast<double>(low) *
                               std::exp(decades * at));
}

Duration LogDuration(Prng& prng, Duration low, Duration high) {
  return Duration::Nanoseconds(static_cast<int64_t>(
      LogBelow(prng, static_cast<uint64_t>(low.nanoseconds()),
               static_cast<uint64_t>(high.nanoseconds()))));
}

LinkFaults DrawFaults(Prng& prng) {
  LinkFaults f;
  f.delay = LogDuration(prng, 10_us, 200_ms);
  if (prng.Chance(0.3)) f.jitter = LogDuration(prng, 1_us, 2 * f.delay);
  constexpr double kLoss[] = {0.001, 0.01, 0.03, 0.1};
  if (prng.Chance(0.4)) f.loss = kLoss[prng.Below(4)];
  if (prng.Chance(0.15)) {
    f.burst_loss = prng.Chance(0.5) ? 0.002 : 0.01;
    f.burst_end = 0.3;
  }
  if (prng.Chance(0.2)) f.duplicate = prng.Chance(0.5) ? 0.01 : 0.1;
  if (prng.Chance(0.25)) {
    f.reorder = prng.Chance(0.5) ? 0.02 : 0.2;
    f.reorder_delay = 2 * f.delay + 100_us;
  }
  if (prng.Chance(0.15)) f.corrupt = prng.Chance(0.5) ? 0.01 : 0.03;
  if (prng.Chance(0.4)) {
    f.bits_per_second = LogBelow(prng, 1'000'000, 10'000'000'000);
    f.queue_limit_frames = static_cast<uint32_t>(LogBelow(prng, 4, 200));
  }
  if (prng.Chance(0.08)) {
    // No round number: retransmissions that double from 1 s would meet one
    // forever.
    f.blackout_period = LogDuration(prng, 1'234'567_us, 5_s);
    f.blackout_length = LogDuration(prng, 1_ms, 400_ms);
  }
  return f;
}

Middlebox::Options DrawBox(Prng& prng) {
  Middlebox::Options box;
  box.strips_timestamps = prng.Chance(0.3);
  box.strips_sack = prng.Chance(0.3);
  box.strips_window_scale = prng.Chance(0.3);
  box.strips_later_segments = prng.Chance(0.3);
  if (prng.Chance(0.3)) {
    box.mss_clamp = static_cast<uint16_t>(100 + prng.Below(1300));
  }
  if (prng.Chance(0.4)) box.split = prng.Chance(0.5) ? 0.1 : 1;
  if (prng.Chance(0.4)) box.merge = prng.Chance(0.5) ? 0.1 : 1;
  return box;
}

Connection::Options DrawOptions(Prng& prng) {
  Connection::Options o;
  o.use_timestamps = prng.Chance(0.75);
  o.use_window_scale = prng.Chance(0.75);
  o.use_sack = prng.Chance(0.75);
  o.nodelay = prng.Chance(0.5);
  o.receive.byte_budget = LogBelow(prng, 3'000, 1'000'000);
  o.send_queue_limit_bytes = LogBelow(prng, 500, 1'000'000);
  if (prng.Chance(0.2)) o.max_segments_in_flight = 8;
  if (prng.Chance(0.2)) o.delayed_ack_time = 200_ms;
  // Longer than anything stays under way: an old duplicate finds no heir.
  o.time_wait = prng.Chance(0.5) ? 10_s : 60_s;
  o.syn_retries = 12;  // Loss alone does not end a scenario.
  return o;
}

TcpHost::App DrawApp(Prng& prng, uint16_t mss) {
  TcpHost::App app;
  // Few segments mostly: as many connections as possible for the time.
  app.bytes_to_write =
      prng.Chance(0.15)
          ? 0
          : std::min<uint64_t>(LogBelow(prng, 1, 300'000), 400 * mss);
  app.max_write = 30'000;
  if (prng.Chance(0.15)) {  // Tiny writes.
    app.max_write = static_cast<uint32_t>(1 + prng.Below(50));
    app.bytes_to_write %= 1'000;
  }
  if (prng.Chance(0.3)) app.write_gap = LogDuration(prng, 10_us, 20_ms);
  if (prng.Chance(0.3)) {  // A slow reader.
    app.max_read = static_cast<uint32_t>(LogBelow(prng, 100, 30'000));
    app.read_gap = LogDuration(prng, 10_us, 50_ms);
  }
  if (prng.Chance(0.4)) app.token_delay = LogDuration(prng, 1_us, 100_ms);
  app.closing = prng.Chance(0.5) ? Closing::kAfterWriting : Closing::kAfterPeer;
  return app;
}

// A path whose ICMP is lost becomes narrower, not below what every host takes.
// Not behind a box that merges segments: it would do so again and again.
void DrawNarrowing(Prng& prng, TcpScenario* s) {
  TcpSimSetup& t = s->setup;
  const auto merges = [](const std::optional<Middlebox::Options>& box) {
    return box && box->merge > 0;
  };
  if (!prng.Chance(0.1) || merges(t.box_up) || merges(t.box_down)) return;
  t.faults.path_mtu = static_cast<uint32_t>(576 + prng.Below(900));
  t.faults.narrows_after = LogDuration(prng, 1_ms, 2_s);
  s->name += " narrows";
}

// A SYN,ACK whose window scale is taken out leaves the client with the wrong
// unit for every window that the server offers: an eighth of it, say, then an
// eighth of what is left of that. RFC 7323 has no remedy. Such a connection
// gets on by a few bytes per round trip, and what lies beyond the window that
// was meant answers no keep-alive: no more than fits the first windows.
void LimitByBoxes(TcpSimSetup* t) {
  if (!t->box_up && !t->box_down) return;
  if ((!t->box_up || !t->box_up->strips_window_scale) &&
      (!t->box_down || !t->box_down->strips_window_scale)) {
    return;
  }
  constexpr uint64_t kMost = 3'000;
  t->client.bytes_to_write = std::min(t->client.bytes_to_write, kMost);
  t->server.bytes_to_write = std::min(t->server.bytes_to_write, kMost);
}

// How either end controls congestion, and what it probes with. From numbers of
// their own: what the rest of the scenario is does not change by it.
void DrawManners(Prng& prng, Connection::Options* o) {
  constexpr const char* kNames[] = {"cubic", "cubic", "newreno", "dctcp"};
  o->congestion = FindCongestion(kNames[prng.Below(4)]);
  if (prng.Chance(0.3)) o->ecn = EcnMode::kOn;
  o->use_pacing = prng.Chance(0.3);
  if (prng.Chance(0.2)) {
    o->keepalive = KeepAlive::Options{
        .idle = LogDuration(prng, 100_ms, 10_s), .interval = 1_s, .probes = 9};
  }
}

// What ends connections before their time.
void DrawEndings(Prng& prng, TcpScenario* s) {
  TcpSimSetup& t = s->setup;
  TcpHost::App& app = prng.Chance(0.5) ? t.client : t.server;
  const Duration when = LogDuration(prng, 100_us, 5_s);
  const uint64_t which = prng.Below(100);
  if (which < 6) {
    app.abort_after = when;
    s->name += " abort";
  } else if (which < 10) {
    app.closing = Closing::kWithoutReading;
    s->name += " unread";
  } else if (which < 13) {
    t.path_ends_after = when;
    s->name += " path-ends";
  } else if (which < 16) {
    t.client_dies_after = when;
    s->name += " client-dies";
    s->last_must_complete = true;
  } else if (which < 19) {
    t.server_dies_after = when;
    t.sessions = std::max(t.sessions, 2u);
    s->name += " server-dies";
  } else {
    return;
  }
  s->must_complete = false;
}

}  // namespace

TcpScenario DrawTcpScenario(uint64_t seed) {
  TcpScenario s;
  TcpSimSetup& t = s.setup;
  Prng prng(seed);
  t.seed = seed;
  t.faults = DrawFaults(prng);
  if (prng.Chance(0.3)) {
    t.faults_down = DrawFaults(prng);
    s.name += " asymmetric";
  }
  if (prng.Chance(0.2)) t.box_up = DrawBox(prng);
  if (prng.Chance(0.2)) t.box_down = DrawBox(prng);
  if (t.box_up || t.box_down) s.name += " middlebox";

  constexpr uint16_t kMss[] = {1460, 1460, 1448, 536, 1000, 100, 8960};
  const uint16_t mss = kMss[prng.Below(7)];
  t.connection = DrawOptions(prng);
  t.server_connection = DrawOptions(prng);
  t.connection.mss = t.server_connection->mss = mss;
  if (prng.Chance(0.2)) t.server_connection->mss = 600;
  t.slot_count = static_cast<uint32_t>(LogBelow(prng, 8, 128));
  t.slot_bytes = mss > 1460 ? 9216 : 2048;
  t.pool_reserve = prng.Chance(0.5) ? 2 : 0;
  t.max_tso_payload = prng.Chance(0.4) ? 60'000 : 0;
  t.client = DrawApp(prng, mss);
  t.server = DrawApp(prng, mss);
  LimitByBoxes(&t);
  // One of them has to begin.
  if (t.client.closing == Closing::kAfterPeer) {
    t.server.closing = Closing::kAfterWriting;
  }
  if (prng.Chance(0.05)) {
    t.opens_simultaneously = true;
    s.name += " simultaneous";
  } else {
    if (prng.Chance(0.08)) {
      t.sessions = 2;
      t.session_gap = prng.Chance(0.5) ? 1_ms : 100_ms;
      s.name += " again";
    }
    DrawEndings(prng, &s);
  }
  if (prng.Chance(0.12)) {
    t.attack_gap = LogDuration(prng, 20_us, 20_ms);
    s.name += " attacked";
  }
  Prng more(seed ^ 0xc0ffee);
  DrawManners(more, &t.connection);
  DrawManners(more, &*t.server_connection);
  if (more.Chance(0.3)) t.faults.mark_threshold_frames = 3;
  if (t.faults_down && more.Chance(0.3)) {
    t.faults_down->mark_threshold_frames = 3;
  }
  DrawNarrowing(prng, &s);
  return s;
}

std::string Judge(const TcpScenario& scenario, const TcpSimResult& r) {
  if (!r.failure.empty()) return r.failure;
  const TcpSimSetup& t = scenario.setup;
  const auto ended_well = [](const TcpHost::Session& s, uint64_t to_read) {
    return s.error == TcpError::kNone && s.was_connected && s.saw_end &&
           s.bytes_read == to_read;
  };
  if (scenario.last_must_complete &&
      !ended_well(r.client_sessions.back(), t.server.bytes_to_write)) {
    return absl::StrCat("seed ", t.seed,
                        ": the connection opened after the client's death "
                        "did not complete: ",
                        TcpErrorName(r.client_sessions.back().error));
  }
  if (!scenario.must_complete) return "";
  uint32_t served = 0;
  for (const TcpHost::Session& s : r.client_sessions) {
    if (!ended_well(s, t.server.bytes_to_write)) {
      return absl::StrCat("seed ", t.seed, ": the client read ", s.bytes_read,
                          " of ", t.server.bytes_to_write, ", ",
                          TcpErrorName(s.error));
    }
  }
  for (const TcpHost::Session& s : r.server_sessions) {
    if (!s.was_connected) continue;  // An old SYN's.
    ++served;
    if (!ended_well(s, t.client.bytes_to_write)) {
      return absl::StrCat("seed ", t.seed, ": the server read ", s.bytes_read,
                          " of ", t.client.bytes_to_write, ", ",
                          TcpErrorName(s.error));
    }
  }
  if (r.client_sessions.size() != t.sessions || served != t.sessions) {
    return absl::StrCat("seed ", t.seed, ": sessions: client ",
                        r.client_sessions.size(), ", server ", served, " of ",
                        t.sessions);
  }
  return "";
}

EngineSimSetup DrawEngineScenario(uint64_t seed) {
  Prng prng(seed);
  EngineSimSetup s;
  s.seed = seed;
  s.faults = DrawFaults(prng);
  s.streams = 1 + prng.Below(6);
  s.client_bytes = LogBelow(prng, 1, 60'000);
  s.server_bytes = LogBelow(prng, 1, 60'000);
  s.timestamps = prng.Chance(0.7);
  s.max_tso_payload = prng.Chance(0.5) ? 60'000 : 0;
  s.gather_delay =
      prng.Chance(0.5) ? LogDuration(prng, 1_us, 10_ms) : Duration();
  s.rule_delay = prng.Chance(0.5) ? LogDuration(prng, 1_us, 20_ms) : Duration();
  s.rule_refusals = prng.Chance(0.2) ? 0.3 : 0;
  s.device_slots = prng.Chance(0.5) ? 256 : 192;
  s.token_delay =
      prng.Chance(0.5) ? LogDuration(prng, 1_us, 20_ms) : Duration();
  s.can_read_option_tails = prng.Chance(0.7);
  s.max_send = prng.Chance(0.2) ? 40 : 20'000;
  if (s.max_send == 40) s.client_bytes %= 4'000, s.server_bytes %= 4'000;
  if (prng.Chance(0.3)) s.faults_down = DrawFaults(prng);
  if (prng.Chance(0.2)) {
    (prng.Chance(0.5) ? s.client_aborts_after : s.server_aborts_after) =
        LogDuration(prng, 100_us, 1_s);
  } else if (prng.Chance(0.2)) {
    s.hoarders = prng.Below(s.streams);
  }
  if (prng.Chance(0.2)) {
    s.box_up = DrawBox(prng);
    s.box_up->merge = 0;  // It stands where it cannot wait for another.
  }
  return s;
}

}  // namespace devwire
