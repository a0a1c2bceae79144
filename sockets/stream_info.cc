// What a stream tells about itself: StreamInfo, and TcpInfo as Linux has it.
#include "sockets/stream_info.h"

#include <algorithm>

#include "sockets/stack_core.h"
#include "sockets/tcp_info.h"

namespace devwire {
namespace {

// The numbers of <netinet/tcp.h>; those of RFC 9293 have none.
uint8_t LinuxState(State state) {
  switch (state) {
    case State::kEstablished:
      return 1;
    case State::kSynSent:
      return 2;
    case State::kSynReceived:
      return 3;
    case State::kFinWait1:
      return 4;
    case State::kFinWait2:
      return 5;
    case State::kTimeWait:
      return 6;
    case State::kClosed:
      return 7;
    case State::kCloseWait:
      return 8;
    case State::kLastAck:
      return 9;
    case State::kListen:
      return 10;
    case State::kClosing:
      return 11;
  }
  return 0;
}

uint32_t Low32(uint64_t value) { return static_cast<uint32_t>(value); }
uint32_t Micros(Duration d) {
  return static_cast<uint32_t>(std::min<int64_t>(d.microseconds(), UINT32_MAX));
}
uint64_t Micros64(Duration d) {
  return static_cast<uint64_t>(std::max<int64_t>(d.microseconds(), 0));
}
// Since `then`; 0 for what never was.
uint32_t MillisSince(Instant then, Instant now) {
  if (then == Instant()) return 0;
  return static_cast<uint32_t>(
      std::max<int64_t>((now - then).milliseconds(), 0));
}

void FillTimes(const Connection::Stats& stats, Instant now, TcpInfo* info) {
  info->tcpi_rto = Micros(stats.rto);
  info->tcpi_rcv_rtt = Micros(stats.rcv_rtt);
  info->tcpi_ato = Micros(stats.delayed_ack_time);
  info->tcpi_rtt = Micros(stats.srtt);
  info->tcpi_rttvar = Micros(stats.rttvar);
  info->tcpi_min_rtt = Micros(stats.rtt_min);
  const SenderTime& sender = stats.sender_time;
  info->tcpi_busy_time = Micros64(sender.busy(now));
  info->tcpi_rwnd_limited = Micros64(sender.rwnd_limited(now));
  info->tcpi_sndbuf_limited = Micros64(sender.sndbuf_limited(now));
  info->tcpi_last_data_sent = MillisSince(stats.last_text_sent, now);
  info->tcpi_last_data_recv = MillisSince(stats.last_text_taken, now);
  info->tcpi_last_ack_recv = MillisSince(stats.last_ack_arrival, now);
}

void FillWindows(const Connection::Stats& stats, TcpInfo* info) {
  constexpr uint32_t kNoSsthresh = 0x7fffffff;  // TCP_INFINITE_SSTHRESH.
  const uint32_t smss = std::max<uint32_t>(stats.smss, 1);
  info->tcpi_snd_wscale = stats.snd_wind_shift & 15;
  info->tcpi_rcv_wscale = stats.rcv_wind_shift & 15;
  info->tcpi_snd_mss = stats.smss;
  info->tcpi_rcv_mss = stats.rcv_mss;
  info->tcpi_advmss = stats.advmss;
  info->tcpi_snd_cwnd = stats.cwnd / smss;
  info->tcpi_snd_ssthresh =
      stats.ssthresh == UINT32_MAX ? kNoSsthresh : stats.ssthresh / smss;
  info->tcpi_snd_wnd = stats.snd_wnd;
  info->tcpi_rcv_wnd = stats.rcv_wnd;
  info->tcpi_rcv_ssthresh = Low32(stats.rcv_ssthresh);
  info->tcpi_rcv_space = Low32(stats.rcv_space);
  info->tcpi_pacing_rate = stats.pacing_rate;
  info->tcpi_max_pacing_rate = ~uint64_t{0};
}

// What arrived at the peer, how fast, how disordered; and timeouts.
void FillDelivery(const Connection::Stats& stats, Instant now, TcpInfo* info) {
  info->tcpi_delivered = Low32(stats.delivered_segments);
  info->tcpi_delivered_ce = Low32(stats.delivered_ce);
  info->tcpi_delivery_rate = stats.delivery_rate;
  info->tcpi_delivery_rate_app_limited =
      stats.delivery_rate_is_app_limited ? 1 : 0;
  info->tcpi_dsack_dups = Low32(stats.dsack_segments);
  info->tcpi_reordering = stats.reordering;
  info->tcpi_reord_seen = Low32(stats.reorderings_seen);
  info->tcpi_total_rto = static_cast<uint16_t>(stats.timeouts);
  info->tcpi_total_rto_recoveries = static_cast<uint16_t>(stats.rto_recoveries);
  info->tcpi_total_rto_time = static_cast<uint32_t>(
      stats.rto_time.milliseconds() + MillisSince(stats.rto_since, now));
}

}  // namespace

TcpInfo MakeTcpInfo(const EngineStream& s, uint32_t mtu, Instant now) {
  const Connection::Stats stats = s.connection.stats();
  TcpInfo info;
  info.tcpi_state = LinuxState(s.connection.state());
  info.tcpi_ca_state = static_cast<uint8_t>(stats.ca_state);
  info.tcpi_retransmits = stats.retries;
  info.tcpi_probes = stats.probes;
  info.tcpi_backoff = static_cast<uint8_t>(stats.backoffs);
  // TCPI_OPT_TIMESTAMPS, _SACK, _WSCALE, _ECN, _ECN_SEEN.
  info.tcpi_options =
      static_cast<uint8_t>((stats.timestamps ? 1 : 0) | (stats.sack ? 2 : 0) |
                           (stats.window_scale ? 4 : 0) | (stats.ecn ? 8 : 0) |
                           (stats.ect_was_seen ? 16 : 0));
  info.tcpi_pmtu = mtu;
  FillTimes(stats, now, &info);
  FillWindows(stats, &info);
  info.tcpi_unacked = stats.in_flight;
  info.tcpi_sacked = stats.sacked;
  info.tcpi_lost = stats.lost;
  info.tcpi_retrans = stats.sent_again;
  info.tcpi_total_retrans = Low32(stats.segments_retransmitted);
  info.tcpi_bytes_acked = stats.bytes_acked;
  info.tcpi_bytes_received = stats.bytes_received;
  info.tcpi_segs_out = Low32(stats.segments_out);
  info.tcpi_segs_in = Low32(stats.segments_in);
  info.tcpi_notsent_bytes = Low32(stats.unsent_bytes);
  info.tcpi_data_segs_in = Low32(stats.data_segments_in);
  info.tcpi_data_segs_out = Low32(stats.data_segments_out);
  FillDelivery(stats, now, &info);
  info.tcpi_bytes_sent = stats.bytes_sent;
  info.tcpi_bytes_retrans = stats.bytes_retransmitted;
  info.tcpi_rcv_ooopack = Low32(stats.out_of_order_segments);
  return info;
}

void StackCore::FillInfo(const EngineStream& s, StreamInfo* info) {
  const Connection::Stats stats = s.connection.stats();
  info->state = StateName(s.connection.state());
  info->rtt = stats.srtt;
  info->rttvar = stats.rttvar;
  info->rto = stats.rto;
  info->congestion = s.connection.congestion_name();
  info->snd_mss = stats.smss;
  info->cwnd = stats.cwnd;
  info->ssthresh = stats.ssthresh;
  info->pacing_rate = stats.pacing_rate;
  info->ecn = stats.ecn;
  info->snd_wnd = stats.snd_wnd;
  info->rcv_wnd = stats.rcv_wnd;
  info->segments_in = stats.segments_in;
  info->segments_out = stats.segments_out;
  info->bytes_acked = stats.bytes_acked;
  info->bytes_received = stats.bytes_received;
  info->retransmitted_segments = stats.segments_retransmitted;
  info->retransmitted_bytes = stats.bytes_retransmitted;
  info->sack_blocks_in = stats.sack_blocks_in;
  info->sack_blocks_out = stats.sack_blocks_out;
  info->bytes_unacked =
      s.connection.sent_offset() - s.connection.acked_offset();
  info->bytes_unsent = stats.unsent_bytes;
  info->bytes_readable = s.connection.readable_bytes();
  info->device_bytes = s.device_bytes;
  info->linear_bytes = s.linear_bytes;
  info->steered = s.steering == Steering::kSteered;
  info->steering = SteeringName(s.steering);
  if (s.steering == Steering::kNoQueue) {
    info->steering += ": " + std::string(engine->queue_error().message());
  }
}

}  // namespace devwire
