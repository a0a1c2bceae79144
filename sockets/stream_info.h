// What a stream says about itself: Linux's tcp_info fields under their own
// names where TCP is meant, and where the payload went.
#ifndef SOCKETS_STREAM_INFO_H_
#define SOCKETS_STREAM_INFO_H_

#include <cstdint>
#include <string>

#include "base/time.h"

namespace devwire {

struct StreamInfo {
  std::string state;  // RFC 9293 spelling: "ESTABLISHED"

  // TCP. Windows and cwnd in bytes.
  Duration rtt;  // smoothed; 0 before a sample
  Duration rttvar;
  Duration rto;
  std::string congestion;  // "newreno"
  uint32_t snd_mss = 0;
  uint32_t cwnd = 0;
  uint32_t ssthresh = 0;
  uint64_t pacing_rate = 0;  // bytes per second; UINT64_MAX: not paced
  bool ecn = false;          // agreed with the peer
  uint32_t snd_wnd = 0;
  uint32_t rcv_wnd = 0;
  uint64_t segments_in = 0;
  uint64_t segments_out = 0;
  uint64_t bytes_acked = 0;
  uint64_t bytes_received = 0;  // in order, and handed over or waiting
  uint64_t retransmitted_segments = 0;
  uint64_t retransmitted_bytes = 0;
  uint64_t sack_blocks_in = 0;   // taken in, and
  uint64_t sack_blocks_out = 0;  // sent, DSACKs included
  uint64_t bytes_unacked = 0;    // sent, not acknowledged
  uint64_t bytes_unsent = 0;     // queued, never sent
  uint64_t bytes_readable = 0;

  // Where the payload was delivered.
  uint64_t device_bytes = 0;
  uint64_t linear_bytes = 0;  // host memory, on a stream with device memory
  // The NIC steers this stream to its data queue. When not, why not.
  bool steered = false;
  std::string steering;
};

}  // namespace devwire

#endif  // SOCKETS_STREAM_INFO_H_
