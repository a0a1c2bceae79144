// A blind attacker: somebody off the path who knows the addresses and ports of
// a live connection, cannot see a segment of it, and sends guesses. RFC 5961.
//
// Guesses are drawn where they hurt: near the window, in it and beside it. Left
// out is what RFC 5961 counts as lost to whoever guesses it: a reset at RCV.NXT
// exactly, and an ACK that the fifth step takes (an attacker with 2^32 tries
// for each).
//
// Threads:  none of its own. Tests only.
#ifndef TRANSPORT_SIM_BLIND_ATTACKER_H_
#define TRANSPORT_SIM_BLIND_ATTACKER_H_

#include <array>
#include <cstdint>

#include "base/prng.h"
#include "transport/address.h"
#include "transport/sim/sim_link.h"
#include "transport/tcp/connection.h"

namespace devwire {

class BlindAttacker {
 public:
  explicit BlindAttacker(uint64_t seed) : prng_(seed) {}

  // A frame to the host whose connection this is, as if from its peer. The
  // connection is synchronized.
  SimFrame Guess(const Connection& victim, const FourTuple& tuple);
  uint64_t guesses() const { return guesses_; }

  // What was guessed, and whether its sequence number lay in the window.
  enum class Kind : uint8_t { kReset, kSyn, kAck, kText };
  struct Tally {
    std::array<uint64_t, 4> in_window{};  // By Kind.
    std::array<uint64_t, 4> outside{};
  };
  const Tally& tally() const { return tally_; }

 private:
  SeqNum GuessSeq(const Connection& victim);
  SeqNum GuessAck(const Connection& victim);
  void Count(Kind kind, SeqNum seq, const Connection& victim);

  Prng prng_;
  uint64_t guesses_ = 0;
  Tally tally_;
};

}  // namespace devwire

#endif  // TRANSPORT_SIM_BLIND_ATTACKER_H_
