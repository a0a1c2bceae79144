#include "sockets/tcp_knobs.h"

#include <cerrno>

#include "absl/strings/str_format.h"
#include "sockets/errno_map.h"

namespace devwire {
namespace {

constexpr Duration kMillisecond = 1_ms;
constexpr Duration kTwoMinutes = 120_s;
constexpr Duration kTenMinutes = 600_s;

absl::Status Check(const char* knob, uint64_t value, uint64_t low,
                   uint64_t high) {
  if (low <= value && value <= high) return absl::OkStatus();
  return ErrnoStatus(
      EINVAL, absl::StrFormat("TcpKnobs::%s is %u: set it to %u to %u", knob,
                              value, low, high));
}

absl::Status Check(const char* knob, Duration value, Duration low,
                   Duration high) {
  if (low <= value && value <= high) return absl::OkStatus();
  return ErrnoStatus(
      EINVAL,
      absl::StrFormat("TcpKnobs::%s is %g s: set it to %g s to %g s", knob,
                      value.seconds(), low.seconds(), high.seconds()));
}

absl::Status CheckRetries(const char* knob, int value) {
  constexpr int kMost = 127;  // As Linux's sysctls; the counter is a byte.
  if (0 <= value && value <= kMost) return absl::OkStatus();
  return ErrnoStatus(
      EINVAL, absl::StrFormat("TcpKnobs::%s is %d: set it to 0 to %d", knob,
                              value, kMost));
}

absl::Status CheckRto(const StreamKnobs& k) {
  absl::Status status = Check("rto_min", k.rto_min, kMillisecond, kTwoMinutes);
  if (status.ok()) {
    status = Check("rto_initial", k.rto_initial, k.rto_min, k.rto_max);
  }
  if (status.ok()) {
    status = Check("rto_max", k.rto_max, k.rto_initial, kTwoMinutes);
  }
  return status;
}

absl::Status CheckCongestion(std::string_view name) {
  if (name.empty() || FindCongestion(name) != nullptr) return absl::OkStatus();
  return ErrnoStatus(
      EINVAL, absl::StrFormat("congestion control \"%s\" is unknown: use one "
                              "of %s",
                              name, CongestionNames()));
}

}  // namespace

absl::Status CheckKeepAlive(const KeepAliveOptions& options) {
  constexpr Duration kMost = 32767_s;  // Linux's MAX_TCP_KEEPIDLE, KEEPINTVL.
  absl::Status status =
      Check("keepalive.idle", options.idle, kMillisecond, kMost);
  if (status.ok()) {
    status = Check("keepalive.interval", options.interval, kMillisecond, kMost);
  }
  if (status.ok()) {
    status = Check(
        "keepalive.probes",
        static_cast<uint64_t>(options.probes > 0 ? options.probes : 0), 1, 127);
  }
  return status;
}

absl::Status CheckUserTimeout(Duration timeout) {
  return Check("user_timeout", timeout, kMillisecond, 86'400_s);
}

absl::Status CheckStreamKnobs(const StreamKnobs& k) {
  absl::Status checks[] = {
      // Linux's TCP_MIN_MSS; the most that an IPv4 packet holds.
      Check("max_mss", k.max_mss == 0 ? 88u : k.max_mss, 88, 65495),
      Check("send_budget_bytes", k.send_budget_bytes, 4096, uint64_t{1} << 40),
      Check("receive_budget_bytes", k.receive_budget_bytes, 4096,
            uint64_t{1} << 30),
      Check("initial_receive_window_bytes", k.initial_receive_window_bytes,
            4096, uint64_t{1} << 30),
      CheckCongestion(k.congestion),
      Check("initial_window_segments", k.initial_window_segments.value_or(1), 1,
            1000),
      Check("ttl", k.ttl, 1, 255),
      Check("dscp", k.dscp, 0, 63),
      Check("delayed_ack_time", k.delayed_ack_time, Duration(), 499_ms),
      CheckRto(k),
      CheckRetries("syn_retries", k.syn_retries),
      CheckRetries("synack_retries", k.synack_retries),
      CheckRetries("data_retries", k.data_retries),
      CheckRetries("orphan_retries", k.orphan_retries),
      CheckUserTimeout(k.user_timeout),
      k.keepalive ? CheckKeepAlive(*k.keepalive) : absl::OkStatus(),
      Check("time_wait", k.time_wait, Duration(), kTenMinutes),
      Check("fin_wait_2", k.fin_wait_2, Duration(), kTenMinutes),
      Check("challenge_ack_interval", k.challenge_ack_interval, Duration(),
            10_s)};
  for (absl::Status& status : checks) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckTcpKnobs(const TcpKnobs& k) {
  absl::Status status = CheckStreamKnobs(k);
  if (status.ok()) status = Check("max_orphans", k.max_orphans, 0, 65535);
  if (status.ok()) {
    status = Check("challenge_acks_per_second", k.challenge_acks_per_second, 0,
                   1'000'000);
  }
  return status;
}

namespace {

void ApplyStreamKnobs(const StreamKnobs& k, StreamSettings* settings) {
  Connection::Options& tcp = settings->tcp;
  tcp.use_timestamps = k.timestamps;
  tcp.use_window_scale = k.window_scale;
  tcp.use_sack = k.sack;
  tcp.nodelay = k.no_delay;
  if (!k.congestion.empty()) tcp.congestion = FindCongestion(k.congestion);
  tcp.initial_window_segments = k.initial_window_segments;
  tcp.ecn = k.ecn;
  tcp.use_pacing = k.pacing;
  tcp.rtt.rto_min = k.rto_min;
  tcp.rtt.rto_initial = k.rto_initial;
  tcp.rtt.rto_max = k.rto_max;
  tcp.delayed_ack_time = k.delayed_ack_time;
  tcp.time_wait = k.time_wait;
  tcp.fin_wait_2 = k.fin_wait_2;
  tcp.syn_retries = k.syn_retries;
  tcp.synack_retries = k.synack_retries;
  tcp.data_retries = k.data_retries;
  tcp.orphan_retries = k.orphan_retries;
  tcp.user_timeout = k.user_timeout;
  tcp.keepalive = k.keepalive;
  tcp.challenge_ack_interval = k.challenge_ack_interval;
  settings->max_mss = k.max_mss;
  settings->receive_initial_bytes = k.initial_receive_window_bytes;
  settings->receive_budget_bytes = k.receive_budget_bytes;
  settings->send_budget_bytes = k.send_budget_bytes;
  settings->ip = {.ttl = k.ttl, .dscp = k.dscp};
}

}  // namespace

void ApplyTcpKnobs(const TcpKnobs& k, EngineOptions* engine) {
  ApplyStreamKnobs(k, engine);
  engine->challenge_acks_per_second = k.challenge_acks_per_second;
  engine->max_orphans = k.max_orphans;
}

absl::StatusOr<StreamSettings> MakeStreamSettings(const StreamKnobs& knobs,
                                                  std::string_view congestion) {
  absl::Status status = CheckStreamKnobs(knobs);
  if (status.ok()) status = CheckCongestion(congestion);
  if (!status.ok()) return status;
  StreamSettings settings;
  ApplyStreamKnobs(knobs, &settings);
  if (!congestion.empty()) settings.tcp.congestion = FindCongestion(congestion);
  return settings;
}

}  // namespace devwire
