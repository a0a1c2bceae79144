// The connection states of RFC 9293 3.3.2 and what they allow.
#ifndef TRANSPORT_TCP_STATE_H_
#define TRANSPORT_TCP_STATE_H_

#include <cstdint>

namespace devwire {

enum class State : uint8_t {
  kClosed,
  kListen,
  kSynSent,
  kSynReceived,
  kEstablished,
  kFinWait1,
  kFinWait2,
  kCloseWait,
  kClosing,
  kLastAck,
  kTimeWait,
};
inline constexpr int kStateCount = 11;

// The RFC's spelling: "SYN-SENT".
const char* StateName(State state);

// Whether RFC 9293 Figure 5 (with 3.10 and simultaneous open) has this edge.
// Every state may also go to CLOSED: by ABORT, RST or timeout.
bool IsStateEdge(State from, State to);

// Both SYNs were exchanged and ours acknowledged.
constexpr bool IsSynchronized(State s) { return s >= State::kEstablished; }
// SEND is allowed: RFC 9293 3.10.2.
constexpr bool CanSend(State s) {
  return s == State::kEstablished || s == State::kCloseWait;
}
// The peer may still send text: no FIN of it was taken in.
constexpr bool CanReceiveText(State s) {
  return s == State::kEstablished || s == State::kFinWait1 ||
         s == State::kFinWait2;
}

}  // namespace devwire

#endif  // TRANSPORT_TCP_STATE_H_
