// How TCP behaves: StreamKnobs of one stream, TcpKnobs of a stack, which are
// those of every stream that is opened without its own. Every knob has a range;
// whatever takes knobs refuses what lies outside and names the knob and its
// range. The defaults are Linux's, but where a line says so.
//
//   StreamKnobs small = stack_options.tcp;  // The stack's, changed.
//   small.max_mss = 1000;
//   stack->Connect(remote, {.knobs = small});
#ifndef SOCKETS_TCP_KNOBS_H_
#define SOCKETS_TCP_KNOBS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "transport/engine/engine_options.h"
#include "transport/tcp/ecn.h"
#include "transport/tcp/keepalive.h"

namespace devwire {

using KeepAliveOptions = KeepAlive::Options;

struct StreamKnobs {
  // -- options of the SYN ----------------------------------------------------
  bool timestamps = true;    // RFC 7323 3
  bool window_scale = true;  // RFC 7323 2
  bool sack = true;          // RFC 2018, 2883
  // The largest segment to announce and to send (TCP_MAXSEG), without options.
  // 88 to 65495; 0: what the MTU allows. More than that is cut to it.
  uint16_t max_mss = 0;

  // -- sending ---------------------------------------------------------------
  bool no_delay = false;  // true: no Nagle (RFC 9293 3.7.4)
  // Bytes queued for sending in one stream, unacknowledged ones included: it
  // begins with 64 KiB and grows to twice the congestion window, at most to
  // this. 4 KiB to 1 TiB.
  uint64_t send_budget_bytes = 8u << 20;
  uint8_t ttl = 64;  // 1 to 255; or hop limit
  uint8_t dscp = 0;  // 0 to 63, RFC 2474; Stream::SetDscp changes one stream's

  // -- congestion control ----------------------------------------------------
  // Of streams that name no other: "cubic", "newreno", or "dctcp", which is for
  // networks of one operator and asks for ECN itself.
  std::string congestion = "cubic";
  // The initial window, 1 to 1000 segments. None: RFC 6928's, ten segments of
  // at most 1460 bytes, fewer of longer ones.
  std::optional<uint32_t> initial_window_segments;
  // Explicit congestion notification (RFC 3168): Linux's tcp_ecn 0, 1 or 2.
  EcnMode ecn = EcnMode::kWhenAsked;
  // Text leaves in bursts of a millisecond's worth, not a window at a time.
  bool pacing = true;

  // -- receiving -------------------------------------------------------------
  // What the receive window of a stream begins with, in bytes of payload; it
  // grows with what is read. 4 KiB to 1 GiB.
  uint64_t initial_receive_window_bytes = 64u << 10;
  // As far as it grows; bounded by the pool as well.
  // 4 KiB to 1 GiB, which is as far as scaling reaches.
  uint64_t receive_budget_bytes = 4u << 20;
  // 0 to 499 ms: RFC 9293 MUST-40. 0: every segment is acknowledged at once.
  Duration delayed_ack_time = Duration::Nanoseconds(40'000'000);

  // -- retransmission, RFC 6298 ----------------------------------------------
  // 1 ms to 2 min each, rto_min <= rto_initial <= rto_max.
  Duration rto_min = Duration::Nanoseconds(200'000'000);
  Duration rto_initial = Duration::Nanoseconds(1'000'000'000);
  Duration rto_max = Duration::Nanoseconds(120'000'000'000);
  // Of a SYN, 0 to 127. Linux's 6 would give up after 127 s; RFC 9293 MUST-23
  // asks for three minutes.
  int syn_retries = 7;
  int synack_retries = 5;  // Of a SYN-ACK, 0 to 127
  int data_retries = 15;   // 0 to 127
  int orphan_retries = 8;  // 0 to 127; once the stream was closed
  // No acknowledgment for this long ends the stream (RFC 5482). 1 ms to 1 day.
  // RFC 9293 3.9.1.1 says five minutes; Linux has none.
  Duration user_timeout = Duration::Nanoseconds(300'000'000'000);

  // -- idle and closing ------------------------------------------------------
  // Empty: off (RFC 9293 MUST-25). idle and interval 1 ms to 32767 s, probes 1
  // to 127; Stream::SetKeepAlive changes one stream's.
  std::optional<KeepAliveOptions> keepalive;
  // 2 MSL, 0 to 10 min; RFC 9293 3.4.2 has 4 min.
  Duration time_wait = Duration::Nanoseconds(60'000'000'000);
  // How long a closed stream waits for the peer's FIN, 0 to 10 min.
  Duration fin_wait_2 = Duration::Nanoseconds(60'000'000'000);

  // -- attacks ---------------------------------------------------------------
  // One stream sends a challenge ACK so often, at most (RFC 5961 7). 0 to 10 s.
  Duration challenge_ack_interval = Duration::Nanoseconds(500'000'000);
};

struct TcpKnobs : StreamKnobs {
  // Streams that were closed and still have a peer; more are reset. 0 to 65535.
  uint32_t max_orphans = 256;
  // All streams of an engine together so many, on average: the limit of each
  // second is random, so that nobody learns from it. 0: none. 0 to 1,000,000.
  uint32_t challenge_acks_per_second = 1000;
};

// OK, or EINVAL: which knob, its value and its range.
absl::Status CheckTcpKnobs(const TcpKnobs& knobs);
absl::Status CheckStreamKnobs(const StreamKnobs& knobs);
absl::Status CheckKeepAlive(const KeepAliveOptions& options);
absl::Status CheckUserTimeout(Duration timeout);

// Knobs that were checked, as the engine wants them.
void ApplyTcpKnobs(const TcpKnobs& knobs, EngineOptions* engine);
// Checks them too. `congestion` when not empty, instead of theirs.
absl::StatusOr<StreamSettings> MakeStreamSettings(const StreamKnobs& knobs,
                                                  std::string_view congestion);

}  // namespace devwire

#endif  // SOCKETS_TCP_KNOBS_H_
