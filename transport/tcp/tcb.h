// The transmission control block: the variables of RFC 9293 3.3.1, by their
// RFC names, and those of RFC 7323.
//
//   send:      1         2          3          4
//         ----------|----------|----------|----------
//                snd_una    snd_nxt    snd_una
//                                     + snd_wnd
//     1 acknowledged, 2 in flight, 3 may be sent, 4 not yet allowed
//
//   receive:       1          2          3
//             ----------|----------|----------
//                    rcv_nxt    rcv_nxt
//                              + rcv_wnd   (the edge: ReceiveWindow)
//     1 received and acknowledged, 2 acceptable, 3 not yet allowed
//
// Invariant: snd_una <= snd_nxt; SEG.ACK is accepted up to snd_max(), which is
// snd_nxt, or one byte more while a window probe is out.
#ifndef TRANSPORT_TCP_TCB_H_
#define TRANSPORT_TCP_TCB_H_

#include <cstdint>

#include "base/time.h"
#include "transport/seq.h"

namespace devwire {

struct Tcb {
  SeqNum snd_una;
  SeqNum snd_nxt;
  uint32_t snd_wnd = 0;      // Bytes: already scaled.
  uint32_t max_snd_wnd = 0;  // Largest seen: SWS avoidance, RFC 5961 5.
  SeqNum snd_wl1;
  SeqNum snd_wl2;
  SeqNum iss;

  SeqNum rcv_nxt;
  SeqNum irs;

  // RFC 7323.
  uint8_t snd_wind_shift = 0;
  uint8_t rcv_wind_shift = 0;
  bool snd_ts_ok = false;
  bool sack_permitted = false;
  uint32_t ts_recent = 0;
  Instant ts_recent_age;  // When ts_recent was last updated.
  SeqNum last_ack_sent;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_TCB_H_
