// What stands between two hosts and rewrites their segments: a firewall that
// strips options it does not know, a router that clamps the MSS, a proxy that
// cuts segments anew.
//
// It takes frames as they leave a link and gives them on, rewritten, with right
// checksums. What it cannot read (corrupted, not TCP) it passes as it came, and
// so it does everything in order.
//
// Threads:  none of its own. Tests only: it allocates.
#ifndef TRANSPORT_SIM_MIDDLEBOX_H_
#define TRANSPORT_SIM_MIDDLEBOX_H_

#include <cstdint>
#include <deque>
#include <optional>

#include "base/prng.h"
#include "base/time.h"
#include "transport/sim/sim_link.h"
#include "transport/wire/frame.h"

namespace devwire {

class Middlebox {
 public:
  struct Options {
    // From SYNs, so that the ends never agree on them (RFC 7323 and 2018 have
    // both ends offer), or, one way alone, believe different things.
    bool strips_timestamps = false;
    bool strips_sack = false;
    bool strips_window_scale = false;
    // Timestamps and SACK blocks of later segments go too: what was agreed on
    // does not come.
    bool strips_later_segments = false;
    std::optional<uint16_t> mss_clamp;  // A larger MSS option is lowered.
    uint32_t cut_bytes = 0;  // Not 0: no segment leaves with more text.
    double split = 0;        // Chance that a segment with text becomes two.
    double merge = 0;  // Chance that one waits for the next, to become one.
    Duration merge_wait = 2_ms;  // No longer than this.
    uint32_t mtu = 1500;         // What a merged packet may have.
  };

  Middlebox(const Options& options, uint64_t seed)
      : options_(options), prng_(seed) {}

  void Take(const SimFrame& frame, Instant now);
  // When a segment that waits for the next is given on alone.
  Instant NextEvent() const;
  std::optional<SimFrame> Give(Instant now);

 private:
  struct Packet {
    ParsedFrame headers;
    SimFrame payload;
  };

  void Rewrite(TcpHeader* tcp) const;
  bool CanAppend(const Packet& next) const;
  void GiveOn(const Packet& packet);
  // The first `bytes` of the packet's text leave; the rest stays in it.
  void GiveOnHead(Packet* packet, uint32_t bytes);
  void GiveOnHeld();
  static SimFrame Build(const Packet& packet);

  const Options options_;
  Prng prng_;
  std::optional<Packet> held_;
  Instant held_until_ = Instant::Never();
  std::deque<SimFrame> ready_;
};

}  // namespace devwire

#endif  // TRANSPORT_SIM_MIDDLEBOX_H_
