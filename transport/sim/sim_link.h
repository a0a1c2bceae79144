// One direction of a simulated wire, in virtual time, with seeded faults.
//
//   Send(frame, now) -> [loss][queue, rate][corrupt, duplicate][delay] ->
//   Receive(now)
//
// Same seed, same calls: same arrivals, on every machine. Frames keep their
// order, jitter or not, except those that the reorder fault holds back.
//
// Threads:  none of its own. Tests only: it allocates per frame.
#ifndef TRANSPORT_SIM_SIM_LINK_H_
#define TRANSPORT_SIM_SIM_LINK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "base/prng.h"
#include "base/time.h"

namespace devwire {

using SimFrame = std::vector<std::byte>;

// Probabilities are in [0, 1], each frame drawn by itself.
struct LinkFaults {
  Duration delay = 1_ms;
  Duration jitter;  // Added: uniform in [0, jitter].
  double loss = 0;
  // Burst loss (Gilbert's model): a burst begins with burst_loss and ends,
  // after each frame lost in it, with burst_end.
  double burst_loss = 0;
  double burst_end = 0.25;
  Duration burst_max = 100_ms;  // It ends then in any case.
  double duplicate = 0;
  double reorder = 0;  // Held back by up to reorder_delay; later ones overtake.
  Duration reorder_delay = 3_ms;
  // One bit of an IP packet flips: what the Internet checksum is sure to
  // notice. (The Ethernet header and ARP have only the FCS, which is not here.)
  double corrupt = 0;
  uint64_t bits_per_second = 0;  // 0: no limit.
  // Frames waiting for their turn on the wire; more are dropped.
  uint32_t queue_limit_frames = 100;
  // A frame that finds so many waiting is marked CE, if it is ECT; 0: none is.
  // A switch's K for DCTCP, RFC 8257 3.1.
  uint32_t mark_threshold_frames = 0;
  // Nothing passes in [period * k + period - length, period * (k + 1)).
  Duration blackout_period;  // 0: never.
  Duration blackout_length;
  // Longer frames, without their Ethernet header, are lost so long after the
  // first frame: a path that narrows, and whose ICMP is lost. 0: none.
  uint32_t path_mtu = 0;
  Duration narrows_after;
};

class SimLink {
 public:
  struct Stats {
    uint64_t sent = 0;
    uint64_t delivered = 0;  // Duplicates count.
    uint64_t lost = 0;       // Of all kinds but the queue's.
    uint64_t queue_dropped = 0;
    uint64_t duplicated = 0;
    uint64_t reordered = 0;
    uint64_t corrupted = 0;
    uint64_t marked = 0;
  };

  // Sees each frame as it was put on the wire, and what will become of it:
  // "lost", "queue full", "corrupted", "duplicated", or "".
  using Observer =
      std::function<void(const SimFrame&, Instant now, const char* fate)>;

  SimLink(const LinkFaults& faults, uint64_t seed)
      : faults_(faults), prng_(seed) {}

  // The sender's NIC puts a frame on the wire.
  void Send(SimFrame frame, Instant now);
  // When the next frame arrives; Never() when none is under way.
  Instant NextArrival() const;
  // A frame that has arrived by now, oldest first.
  std::optional<SimFrame> Receive(Instant now);

  // From now on; what is under way stays so.
  void set_faults(const LinkFaults& faults) { faults_ = faults; }
  const LinkFaults& faults() const { return faults_; }
  // A box at the near end: the frames that each sent one becomes.
  using Rewriter =
      std::function<std::vector<SimFrame>(const SimFrame&, Instant now)>;
  void set_rewriter(Rewriter rewriter) { rewriter_ = std::move(rewriter); }
  void set_observer(Observer observer) { observer_ = std::move(observer); }
  const Stats& stats() const { return stats_; }
  std::string StatsString() const;

 private:
  struct UnderWay {
    Instant arrival;
    uint64_t number;  // Ties arrive as they were sent.
    SimFrame frame;
    bool operator<(const UnderWay& b) const {
      return arrival != b.arrival ? arrival > b.arrival : number > b.number;
    }
  };

  void PutOnWire(SimFrame frame, Instant now);
  bool IsLost(Instant now);
  bool IsTooLong(const SimFrame& frame, Instant now);
  bool IsBlackout(Instant now) const;
  void Deliver(SimFrame frame, Instant departure);
  void Observe(const SimFrame& frame, Instant now, const char* fate) const {
    if (observer_) observer_(frame, now, fate);
  }

  LinkFaults faults_;
  Prng prng_;
  Observer observer_;
  Rewriter rewriter_;
  std::optional<Instant> narrows_at_;
  bool in_burst_ = false;
  Instant burst_began_;
  Instant wire_free_at_;
  Instant last_arrival_;            // Of those in order.
  std::queue<Instant> departures_;  // Of frames in the sender's queue.
  std::priority_queue<UnderWay> under_way_;
  uint64_t next_number_ = 0;
  Stats stats_;
};

}  // namespace devwire

#endif  // TRANSPORT_SIM_SIM_LINK_H_
