// Each knob reaches the machine that it turns. What it does there is shown by
// transport/tcp's traces.
#include "sockets/tcp_knobs.h"

#include <functional>

#include "gtest/gtest.h"
#include "transport/tcp/dctcp.h"

namespace devwire {
namespace {

struct Row {
  const char* knob;
  std::function<void(TcpKnobs&)> turn;
  // Whether the engine has the turned value.
  std::function<bool(const EngineOptions&)> is_turned;
};

const Row kRows[] = {
    {"timestamps", [](TcpKnobs& k) { k.timestamps = false; },
     [](const EngineOptions& e) { return !e.tcp.use_timestamps; }},
    {"window_scale", [](TcpKnobs& k) { k.window_scale = false; },
     [](const EngineOptions& e) { return !e.tcp.use_window_scale; }},
    {"sack", [](TcpKnobs& k) { k.sack = false; },
     [](const EngineOptions& e) { return !e.tcp.use_sack; }},
    {"max_mss", [](TcpKnobs& k) { k.max_mss = 1000; },
     [](const EngineOptions& e) { return e.max_mss == 1000; }},
    {"no_delay", [](TcpKnobs& k) { k.no_delay = true; },
     [](const EngineOptions& e) { return e.tcp.nodelay; }},
    {"send_budget_bytes", [](TcpKnobs& k) { k.send_budget_bytes = 5000; },
     [](const EngineOptions& e) { return e.send_budget_bytes == 5000; }},
    {"ttl", [](TcpKnobs& k) { k.ttl = 9; },
     [](const EngineOptions& e) { return e.ip.ttl == 9; }},
    {"dscp", [](TcpKnobs& k) { k.dscp = 46; },
     [](const EngineOptions& e) { return e.ip.dscp == 46; }},
    {"initial_window_segments",
     [](TcpKnobs& k) { k.initial_window_segments = 3; },
     [](const EngineOptions& e) { return e.tcp.initial_window_segments == 3; }},
    {"congestion", [](TcpKnobs& k) { k.congestion = "dctcp"; },
     [](const EngineOptions& e) { return e.tcp.congestion == &NewDctcp; }},
    {"ecn", [](TcpKnobs& k) { k.ecn = EcnMode::kOn; },
     [](const EngineOptions& e) { return e.tcp.ecn == EcnMode::kOn; }},
    {"pacing", [](TcpKnobs& k) { k.pacing = false; },
     [](const EngineOptions& e) { return !e.tcp.use_pacing; }},
    {"initial_receive_window_bytes",
     [](TcpKnobs& k) { k.initial_receive_window_bytes = 5000; },
     [](const EngineOptions& e) { return e.receive_initial_bytes == 5000; }},
    {"receive_budget_bytes", [](TcpKnobs& k) { k.receive_budget_bytes = 5000; },
     [](const EngineOptions& e) { return e.receive_budget_bytes == 5000; }},
    {"delayed_ack_time", [](TcpKnobs& k) { k.delayed_ack_time = 7_ms; },
     [](const EngineOptions& e) { return e.tcp.delayed_ack_time == 7_ms; }},
    {"rto_min", [](TcpKnobs& k) { k.rto_min = 7_ms; },
     [](const EngineOptions& e) { return e.tcp.rtt.rto_min == 7_ms; }},
    {"rto_initial", [](TcpKnobs& k) { k.rto_initial = 700_ms; },
     [](const EngineOptions& e) { return e.tcp.rtt.rto_initial == 700_ms; }},
    {"rto_max", [](TcpKnobs& k) { k.rto_max = 7_s; },
     [](const EngineOptions& e) { return e.tcp.rtt.rto_max == 7_s; }},
    {"syn_retries", [](TcpKnobs& k) { k.syn_retries = 2; },
     [](const EngineOptions& e) { return e.tcp.syn_retries == 2; }},
    {"data_retries", [](TcpKnobs& k) { k.data_retries = 2; },
     [](const EngineOptions& e) { return e.tcp.data_retries == 2; }},
    {"orphan_retries", [](TcpKnobs& k) { k.orphan_retries = 2; },
     [](const EngineOptions& e) { return e.tcp.orphan_retries == 2; }},
    {"user_timeout", [](TcpKnobs& k) { k.user_timeout = 7_s; },
     [](const EngineOptions& e) { return e.tcp.user_timeout == 7_s; }},
    {"keepalive", [](TcpKnobs& k) { k.keepalive = KeepAliveOptions{}; },
     [](const EngineOptions& e) { return e.tcp.keepalive.has_value(); }},
    {"time_wait", [](TcpKnobs& k) { k.time_wait = 7_s; },
     [](const EngineOptions& e) { return e.tcp.time_wait == 7_s; }},
    {"fin_wait_2", [](TcpKnobs& k) { k.fin_wait_2 = 7_s; },
     [](const EngineOptions& e) { return e.tcp.fin_wait_2 == 7_s; }},
    {"max_orphans", [](TcpKnobs& k) { k.max_orphans = 7; },
     [](const EngineOptions& e) { return e.max_orphans == 7; }},
    {"challenge_acks_per_second",
     [](TcpKnobs& k) { k.challenge_acks_per_second = 7; },
     [](const EngineOptions& e) { return e.challenge_acks_per_second == 7; }},
    {"challenge_ack_interval",
     [](TcpKnobs& k) { k.challenge_ack_interval = 7_s; },
     [](const EngineOptions& e) {
       return e.tcp.challenge_ack_interval == 7_s;
     }},
};

TEST(TcpKnobs, EachReachesTheEngineAndNoOtherDoes) {
  for (const Row& turned : kRows) {
    TcpKnobs knobs;
    turned.turn(knobs);
    ASSERT_TRUE(CheckTcpKnobs(knobs).ok()) << turned.knob;
    EngineOptions engine;
    ApplyTcpKnobs(knobs, &engine);
    for (const Row& row : kRows) {
      EXPECT_EQ(row.is_turned(engine), row.knob == turned.knob)
          << row.knob << " when " << turned.knob << " was turned";
    }
  }
}

}  // namespace
}  // namespace devwire
