#include "transport/tcp/state.h"

#include <array>
#include <cstddef>

namespace devwire {
namespace {

constexpr uint16_t Bit(State s) {
  return static_cast<uint16_t>(1u << static_cast<int>(s));
}

// Successors of each state, in the order of the enum. RFC 9293 Figure 5; the
// way back from SYN-RECEIVED to LISTEN does not exist here: a passive
// Connection belongs to one SYN, its listener outlives it.
constexpr std::array<uint16_t, kStateCount> kNext = {
    /* CLOSED       */ Bit(State::kListen) | Bit(State::kSynSent),
    /* LISTEN       */ Bit(State::kSynReceived),
    /* SYN-SENT     */ Bit(State::kSynReceived) | Bit(State::kEstablished),
    /* SYN-RECEIVED */ Bit(State::kEstablished),
    /* ESTABLISHED  */ Bit(State::kFinWait1) | Bit(State::kCloseWait),
    /* FIN-WAIT-1   */ Bit(State::kFinWait2) | Bit(State::kClosing) |
        Bit(State::kTimeWait),
    /* FIN-WAIT-2   */ Bit(State::kTimeWait),
    /* CLOSE-WAIT   */ Bit(State::kLastAck),
    /* CLOSING      */ Bit(State::kTimeWait),
    /* LAST-ACK     */ 0,
    /* TIME-WAIT    */ 0,
};

}  // namespace

const char* StateName(State state) {
  switch (state) {
    case State::kClosed:
      return "CLOSED";
    case State::kListen:
      return "LISTEN";
    case State::kSynSent:
      return "SYN-SENT";
    case State::kSynReceived:
      return "SYN-RECEIVED";
    case State::kEstablished:
      return "ESTABLISHED";
    case State::kFinWait1:
      return "FIN-WAIT-1";
    case State::kFinWait2:
      return "FIN-WAIT-2";
    case State::kCloseWait:
      return "CLOSE-WAIT";
    case State::kClosing:
      return "CLOSING";
    case State::kLastAck:
      return "LAST-ACK";
    case State::kTimeWait:
      return "TIME-WAIT";
  }
  return "?";
}

bool IsStateEdge(State from, State to) {
  if (to == State::kClosed) return from != State::kClosed;
  return (kNext[static_cast<size_t>(from)] & Bit(to)) != 0;
}

}  // namespace devwire
