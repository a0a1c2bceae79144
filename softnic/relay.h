// A wire between two ports: what comes in at one goes out at the other, through
// a queue of bounded length each way, like a switch's.
//
//   port a -> [ queue, drops its tail ] -> port b   (b's rate, loss and delay)
//   port b -> [ queue, drops its tail ] -> port a   (a's)
//
// With FaultyPorts on both sides it emulates a path between any two of the
// things that softnic has a port for: two Linux hosts, two devices, one of
// each; all of them get the same path.
//
// Threads:  one, as Port.
// Lifetime: the ports outlive it.
// Cost:     copies each frame once; memory for the queues is taken at the
// start.
#ifndef SOFTNIC_RELAY_H_
#define SOFTNIC_RELAY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/counter.h"
#include "base/ring.h"
#include "softnic/port.h"

namespace softnic {

class Relay {
 public:
  // Frames taken in from one port before the other has its turn.
  static constexpr uint32_t kBurst = 64;

  struct Options {
    uint32_t queue_frames = 1000;     // each way; what finds no room is dropped
    uint32_t max_frame_bytes = 2048;  // longer ones are dropped
  };
  struct Counters {
    devwire::Counter frames;    // passed on
    devwire::Counter bytes;     // of those
    devwire::Counter dropped;   // the queue was full
    devwire::Counter too_long;  // dropped for that
  };

  Relay(Port* a, Port* b, const Options& options);

  // Takes in what has arrived, passes on what may go. False: nothing moved.
  bool Turn();

  const Counters& a_to_b() const { return to_b_.counters(); }
  const Counters& b_to_a() const { return to_a_.counters(); }

 private:
  class Direction final : public Receiver {
   public:
    Direction(Port* from, Port* to, const Options& options);
    void OnFrame(const RxFrame& frame) override;
    bool Turn();
    const Counters& counters() const { return counters_; }

   private:
    struct Waiting {
      std::byte* bytes = nullptr;  // a slot of memory_
      uint32_t length = 0;
      RxChecksum checksum = RxChecksum::kUnknown;
    };
    bool Forward(const Waiting& frame);

    Port* const from_;
    Port* const to_;
    const Options options_;
    std::vector<std::byte> memory_;  // queue_frames slots, used in turn
    uint32_t next_slot_ = 0;
    devwire::Ring<Waiting> queue_;
    bool has_taken_ = false;
    Counters counters_;
  };

  Direction to_b_;
  Direction to_a_;
};

}  // namespace softnic

#endif  // SOFTNIC_RELAY_H_
