// TcpInfo: what Linux's TCP_INFO says of a connection, in its layout (struct
// tcp_info of <linux/tcp.h>), under its names and in its units: microseconds
// for rto, ato, rtt, rttvar, min_rtt, rcv_rtt, busy_time, rwnd_limited,
// sndbuf_limited; milliseconds for tcpi_last_*;
// segments for cwnd, ssthresh and the counts; bytes where the name says so.
//
// Every field is true. Those that this TCP does not have are 0, as in a Linux
// that has not measured them: fackets and last_ack_sent (which Linux does not
// keep either), rehash, fastopen_client_fail. max_pacing_rate is ~0: no limit.
// reordering is what Linux would have measured; RACK decides by time.
#ifndef SOCKETS_TCP_INFO_H_
#define SOCKETS_TCP_INFO_H_

#include <cstdint>

namespace devwire {

struct TcpInfo {
  uint8_t tcpi_state = 0;  // As in <netinet/tcp.h>: 1 is ESTABLISHED.
  uint8_t tcpi_ca_state = 0;
  uint8_t tcpi_retransmits = 0;  // Timeouts in a row.
  uint8_t tcpi_probes = 0;
  uint8_t tcpi_backoff = 0;
  uint8_t tcpi_options = 0;  // 1 timestamps, 2 SACK, 4 window scale, 8 ECN.
  uint8_t tcpi_snd_wscale : 4 = 0, tcpi_rcv_wscale : 4 = 0;
  uint8_t tcpi_delivery_rate_app_limited : 1 = 0,
                                           tcpi_fastopen_client_fail : 2 = 0;

  uint32_t tcpi_rto = 0;
  uint32_t tcpi_ato = 0;
  uint32_t tcpi_snd_mss = 0;
  uint32_t tcpi_rcv_mss = 0;

  uint32_t tcpi_unacked = 0;
  uint32_t tcpi_sacked = 0;
  uint32_t tcpi_lost = 0;
  uint32_t tcpi_retrans = 0;
  uint32_t tcpi_fackets = 0;

  uint32_t tcpi_last_data_sent = 0;
  uint32_t tcpi_last_ack_sent = 0;
  uint32_t tcpi_last_data_recv = 0;
  uint32_t tcpi_last_ack_recv = 0;

  uint32_t tcpi_pmtu = 0;
  uint32_t tcpi_rcv_ssthresh = 0;
  uint32_t tcpi_rtt = 0;
  uint32_t tcpi_rttvar = 0;
  uint32_t tcpi_snd_ssthresh = 0;
  uint32_t tcpi_snd_cwnd = 0;
  uint32_t tcpi_advmss = 0;
  uint32_t tcpi_reordering = 0;

  uint32_t tcpi_rcv_rtt = 0;
  uint32_t tcpi_rcv_space = 0;

  uint32_t tcpi_total_retrans = 0;

  uint64_t tcpi_pacing_rate = 0;
  uint64_t tcpi_max_pacing_rate = 0;
  uint64_t tcpi_bytes_acked = 0;
  uint64_t tcpi_bytes_received = 0;
  uint32_t tcpi_segs_out = 0;
  uint32_t tcpi_segs_in = 0;

  uint32_t tcpi_notsent_bytes = 0;
  uint32_t tcpi_min_rtt = 0;
  uint32_t tcpi_data_segs_in = 0;
  uint32_t tcpi_data_segs_out = 0;

  uint64_t tcpi_delivery_rate = 0;

  uint64_t tcpi_busy_time = 0;
  uint64_t tcpi_rwnd_limited = 0;
  uint64_t tcpi_sndbuf_limited = 0;

  uint32_t tcpi_delivered = 0;
  uint32_t tcpi_delivered_ce = 0;

  uint64_t tcpi_bytes_sent = 0;
  uint64_t tcpi_bytes_retrans = 0;
  uint32_t tcpi_dsack_dups = 0;
  uint32_t tcpi_reord_seen = 0;

  uint32_t tcpi_rcv_ooopack = 0;

  uint32_t tcpi_snd_wnd = 0;

  // Since Linux 6.2 and 6.7.
  uint32_t tcpi_rcv_wnd = 0;
  uint32_t tcpi_rehash = 0;
  uint16_t tcpi_total_rto = 0;
  uint16_t tcpi_total_rto_recoveries = 0;
  uint32_t tcpi_total_rto_time = 0;
};

}  // namespace devwire

#endif  // SOCKETS_TCP_INFO_H_
