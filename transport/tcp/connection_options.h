// What a Connection is made with: the engine's choices for it, and the knobs of
// sockets/tcp_knobs.h that TCP itself reads.
#ifndef TRANSPORT_TCP_CONNECTION_OPTIONS_H_
#define TRANSPORT_TCP_CONNECTION_OPTIONS_H_

#include <cstdint>
#include <optional>

#include "base/time.h"
#include "transport/seq.h"
#include "transport/tcp/challenge_budget.h"
#include "transport/tcp/congestion.h"
#include "transport/tcp/ecn.h"
#include "transport/tcp/keepalive.h"
#include "transport/tcp/newreno.h"
#include "transport/tcp/receive_window.h"
#include "transport/tcp/rtt.h"

namespace devwire {

struct ConnectionOptions {
  // Ours to announce: IP MTU less 40 (IPv4) or 60 (IPv6). RFC 6691.
  uint16_t mss = 1460;
  // The peer's, when its SYN does not say: 1220 over IPv6. MUST-15.
  uint16_t default_mss = 536;
  // What the path is known to carry, counted in the same way.
  uint16_t path_mss = UINT16_MAX;
  bool use_timestamps = true;
  bool use_window_scale = true;
  bool use_sack = true;
  bool nodelay = false;    // Nagle off. RFC 9293 3.7.4.
  SeqNum iss;              // RFC 6528: from the engine, per connection.
  uint32_t ts_offset = 0;  // Added to our millisecond ticks. RFC 7323 7.1.

  RttEstimator::Options rtt;
  Duration delayed_ack_time = 40_ms;  // Below 500 ms: RFC 9293 MUST-40.
  Duration time_wait = 60_s;          // 2 MSL; Linux's.
  Duration fin_wait_2 = 60_s;         // With reading shut down; Linux's.
  Duration cork_time = 200_ms;        // A corked tail waits so long; Linux's.
  // 247 s of SYNs. Linux's 6 are 127 s, and MUST-23 asks for three minutes.
  int syn_retries = 7;
  int synack_retries = 5;  // Linux's tcp_synack_retries.
  int data_retries = 15;   // R2; Linux's tcp_retries2.
  int orphan_retries = 8;  // R2 once nobody holds it; Linux's value for 0.
  std::optional<Duration> user_timeout;  // RFC 5482. Empty: data_retries.
  std::optional<KeepAlive::Options> keepalive;  // Empty: off. MUST-25.
  Duration challenge_ack_interval = 500_ms;     // RFC 5961 7: 10 in 5 s.
  // Shared by the connections of an engine, which outlives them; null: none.
  ChallengeBudget* challenge_budget = nullptr;
  // How often a path that is narrower than it should be is tried again with
  // all that it might carry. RFC 4821 7.6.3; Linux's tcp_probe_interval.
  Duration path_search_time = 600_s;
  CongestionFactory congestion = &NewNewReno;
  // IW, RFC 6928 2; empty: its ten segments or about 14,600 bytes.
  std::optional<uint32_t> initial_window_segments;
  EcnMode ecn = EcnMode::kWhenAsked;  // Linux's tcp_ecn.
  bool use_pacing = false;

  // The receive window. max_slot_quota sizes the rings: SetReceiveLimits
  // cannot go above it.
  ReceiveLimits receive{.byte_budget = 1 << 20, .slot_quota = 512};
  // What the window begins with; it grows with what the application reads,
  // up to receive.byte_budget. UINT64_MAX: all of it at once.
  uint64_t receive_initial_bytes = UINT64_MAX;
  uint32_t max_slot_quota = 512;
  uint32_t slot_bytes = 2048;
  uint32_t slot_reserve = 1;

  uint64_t send_queue_limit_bytes = 1 << 20;  // Queued and unacknowledged.
  uint32_t max_segments_in_flight = 1024;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_CONNECTION_OPTIONS_H_
