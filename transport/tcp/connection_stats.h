// What one connection counted, and where it stands: for tcp_info and tests.
#ifndef TRANSPORT_TCP_CONNECTION_STATS_H_
#define TRANSPORT_TCP_CONNECTION_STATS_H_

#include <cstdint>

#include "base/time.h"
#include "transport/tcp/sender_time.h"

namespace devwire {

// Everything true at the moment of asking; bytes count payload only.
struct ConnectionStats {
  uint64_t segments_in = 0;
  uint64_t segments_out = 0;    // A TSO send counts as its segments.
  uint64_t bytes_received = 0;  // Readable ever: in order.
  uint64_t bytes_sent = 0;      // With retransmissions.
  uint64_t bytes_retransmitted = 0;
  uint64_t segments_retransmitted = 0;
  uint64_t bytes_acked = 0;
  uint64_t duplicate_acks_in = 0;
  uint64_t sack_blocks_in = 0;
  uint64_t sack_blocks_refused = 0;  // Neither in flight nor a DSACK.
  uint64_t sack_blocks_out = 0;
  uint64_t dsacks_in = 0;
  uint64_t dsack_segments = 0;  // That these say came twice.
  uint32_t reordering = 3;      // Segments by which one was overtaken, at most.
  uint64_t reorderings_seen = 0;
  uint64_t reneged = 0;  // Times that the peer threw away what it SACKed.
  uint64_t fast_recoveries = 0;
  uint64_t timeouts = 0;
  uint64_t rto_recoveries = 0;  // Timeouts that followed no other.
  Duration rto_time;            // From such a one to the end of its recovery.
  Instant rto_since;            // Of one that is not over; zero: none.
  uint64_t tlp_probes = 0;
  uint64_t tlp_repairs = 0;          // Losses that a probe repaired.
  uint64_t spurious_recoveries = 0;  // Undone, timeouts included.
  uint64_t spurious_timeouts = 0;    // Undone by F-RTO.
  uint64_t ecn_reductions = 0;  // Of the window, for marks that were echoed.
  uint64_t ece_acks_in = 0;
  uint64_t ce_segments_in = 0;  // With text, in the window.
  uint64_t window_probes = 0;
  uint64_t keepalive_probes = 0;
  uint64_t out_of_order_segments = 0;
  uint64_t duplicate_bytes = 0;
  uint64_t dropped_for_slots_bytes = 0;  // In window, unacknowledged.
  uint64_t given_up_frags = 0;           // Out-of-order, for want of slots.
  uint64_t dropped_at_reserve_bytes = 0;
  uint64_t challenge_acks = 0;
  uint64_t black_holes = 0;  // Times that full segments seemed to die.
  uint64_t path_probes = 0;  // Longer segments, to find out what gets through.
  uint64_t acks_without_data_out = 0;
  uint64_t data_segments_in = 0;
  uint64_t data_segments_out = 0;
  uint64_t segments_acked = 0;      // SYN and FIN count.
  uint64_t delivered_segments = 0;  // Acknowledged, or SACKed.
  uint64_t delivered_ce = 0;        // Of them, by ACKs with ECE.
  uint64_t delivery_rate = 0;       // Bytes per second; 0: no sample yet.
  bool delivery_rate_is_app_limited = true;
  bool ect_was_seen = false;  // From the peer.
  // What recovery is at; in the order of Linux's tcp_ca_state.
  enum class CaState : uint8_t { kOpen, kDisorder, kCwr, kRecovery, kLoss };
  CaState ca_state = CaState::kOpen;
  uint8_t retries = 0;      // Timeouts in a row, without an answer.
  uint8_t probes = 0;       // Of a closed window, likewise.
  uint32_t in_flight = 0;   // Segments, of which
  uint32_t sacked = 0;      // SACKed, or told by duplicate ACKs,
  uint32_t lost = 0;        // thought lost, also where sent again since, and
  uint32_t sent_again = 0;  // sent again, and neither SACKed nor lost again.
  SenderTime sender_time;
  Instant last_text_sent;   // Of ESTABLISHED, when there was none.
  Instant last_text_taken;  // In or out of order; zero: never.
  Instant last_ack_arrival;
  Duration delayed_ack_time;
  bool window_scale = false;
  uint16_t advmss = 0;     // What our SYN announced.
  Duration rcv_rtt;        // As the receiver sees it; zero before a sample.
  uint64_t rcv_space = 0;  // Bytes read in a round of WindowTuner's.
  uint32_t rcv_mss = 0;    // Of full segments in, as estimated.
  Duration srtt;           // Zero before a sample.
  Duration rttvar;
  Duration rtt_min;  // Zero before a sample.
  Duration rto;
  uint32_t backoffs = 0;
  uint32_t cwnd = 0;         // Bytes.
  uint32_t ssthresh = 0;     // Bytes; UINT32_MAX: none yet.
  uint32_t flight_size = 0;  // Bytes.
  uint32_t smss = 0;         // Payload of a full segment out.
  uint32_t snd_wnd = 0;
  uint32_t rcv_wnd = 0;
  uint64_t rcv_ssthresh = 0;  // Bytes that it may grow to, as it is used now.
  uint8_t snd_wind_shift = 0;
  uint8_t rcv_wind_shift = 0;
  bool timestamps = false;
  bool sack = false;
  bool ecn = false;          // Agreed with the peer.
  uint64_t pacing_rate = 0;  // Bytes per second; UINT64_MAX: not paced.
  uint64_t unsent_bytes = 0;
  uint64_t out_of_order_bytes = 0;
  uint64_t held_bytes = 0;  // Readable or with the application.
  uint32_t held_slots = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_CONNECTION_STATS_H_
