// A bad wire: frames are lost, doubled, damaged, overtaken and late, as the
// configuration says and its seed decides.
//
//   frame -> lost? -> damaged? -> doubled? -> overtaken by others -> late -> on
//                                            [ held, in slots of our own    ]
//
// Threads:  as Port: one, under the device's lock.
// Lifetime: slots for held frames are taken when a fault that needs them is
//           first configured; later nothing is allocated.
// Cost:     with no fault configured one branch per call, frames pass by
//           reference and no clock is read.
// Random:   each kind of fault has a generator of its own, made from the seed
//           and the direction, so that switching one on does not move another's
//           choices. Same seed, same frames offered: same frames hit. Frames
//           wait for others by count; only a lull (kMaxOvertakeWait), `delay`
//           and `rate` look at the clock.
// Limits:   hold_frames slots, kMaxOvertaken frames waiting to be overtaken
// (the
//           next is not). A frame that finds no slot is lost and counted.
#ifndef SOFTNIC_FAULTS_H_
#define SOFTNIC_FAULTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/counter.h"
#include "base/prng.h"
#include "base/time.h"
#include "softnic/config.h"
#include "softnic/port.h"

namespace softnic {

// One frame on its way through a FaultStage, of either direction.
struct StageFrame {
  std::span<const std::byte> header;  // at least all headers; may be all of it
  std::span<const Piece> pieces;
  uint32_t length = 0;
  Layout layout;                               // sending only
  bool l4_checksum_owed = false;               // sending only
  RxChecksum checksum = RxChecksum::kUnknown;  // receiving only
  uint32_t slot = 0;  // of the stage's memory; kNotHeld: the caller's
  static constexpr uint32_t kNotHeld = 0xffffffff;
};

// Where a stage passes frames on.
class StageSink {
 public:
  virtual ~StageSink() = default;
  // False: no room now; the stage keeps the frame and tries again. True: taken;
  // a held frame's slot is the sink's to Release().
  [[nodiscard]] virtual bool Pass(const StageFrame& frame) = 0;
};

struct FaultCounters {
  devwire::Counter lost;       // by `loss` and `path_mtu`
  devwire::Counter doubled;    // by `dup`
  devwire::Counter corrupted;  // by `corrupt`
  devwire::Counter overtaken;  // by `reorder`
  devwire::Counter delayed;    // by `delay`
  devwire::Counter no_slot;    // lost because no slot was free
  devwire::Counter link_down;  // lost because the link was down
};

// The frame faults of one direction. Sans-IO: time comes in as `now`.
class FaultStage {
 public:
  // A frame is overtaken by 1 to reorder_depth frames that are not held for
  // that themselves; it waits this long at most when too few come.
  static constexpr devwire::Duration kMaxOvertakeWait =
      devwire::Duration::Nanoseconds(1'000'000);
  static constexpr size_t kMaxOvertaken = 64;

  // `direction` (FaultSide::kTx or kRx) picks the generators, and whether
  // `fault_side` means this stage. Frames are no longer than max_frame_bytes.
  FaultStage(FaultSide direction, uint32_t max_frame_bytes);

  // May be called at any time; held frames keep what was decided for them.
  void Configure(const FaultConfig& config);

  // Nothing to do to any frame, and none held: callers go around the stage.
  bool is_idle() const { return !is_active_ && held_ == 0; }
  // A fault of this direction is configured.
  bool is_active() const { return is_active_; }
  bool may_corrupt() const { return is_active_ && config_.corrupt > 0; }

  // Takes the frame (and passes on, holds or loses it), or returns false when
  // the sink has no room; the same frame must then be offered again next.
  [[nodiscard]] bool Offer(const StageFrame& frame, devwire::Instant now,
                           StageSink& sink);
  // Passes on what is due.
  void Progress(devwire::Instant now, StageSink& sink);
  // The sink is done with the bytes of a held frame.
  void Release(uint32_t slot);
  void CountLinkDown() { counters_.link_down.Add(); }

  const FaultCounters& counters() const { return counters_; }
  uint32_t held() const { return held_; }

 private:
  enum Fault { kLoss, kDup, kCorrupt, kOvertake, kDelay, kFaultCount };
  struct Decision {
    bool is_lost = false;
    bool is_doubled = false;
    bool is_corrupted = false;
    uint32_t overtakers = 0;  // 0: it is not held for that
    devwire::Duration delay;
  };
  struct Slot {
    StageFrame frame;
    Piece piece;  // the bytes behind frame.header
    devwire::Duration delay;
    uint32_t overtakers = 0;
    devwire::Instant due;
    uint64_t order = 0;  // among those due at one time
  };

  void Reseed();
  void TakeSlots();
  Decision Decide(uint32_t length);
  // Copies the frame; nothing when no slot is free (counted).
  std::optional<uint32_t> Hold(const StageFrame& frame);
  void Corrupt(uint32_t slot);
  void WaitUntil(uint32_t slot, devwire::Instant due);
  // Another frame has gone before those that wait for it.
  void OneHasPassed(devwire::Instant now);
  // True when nothing that is due is left.
  bool PassDue(devwire::Instant now, StageSink& sink);
  bool IsLater(uint32_t a, uint32_t b) const;
  // The frame itself, untouched and at once; its double if it has one.
  bool PassByReference(const StageFrame& frame, bool is_doubled,
                       devwire::Instant now, StageSink& sink);
  // A copy of the frame, with all that was decided for it.
  void PassCopy(const StageFrame& frame, const Decision& decision,
                devwire::Instant now);

  const FaultSide direction_;
  const uint32_t max_frame_bytes_;
  FaultConfig config_;
  bool is_active_ = false;
  std::array<devwire::Prng, kFaultCount> prng_;
  std::vector<std::byte> memory_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> overtaken_;  // wait to be; in order of arrival
  std::vector<uint32_t> due_;        // a heap, earliest (due, order) first
  uint32_t held_ = 0;                // slots in overtaken_ or due_
  uint64_t next_order_ = 0;
  std::optional<Decision> decided_;  // for the frame that was refused
  FaultCounters counters_;
};

}  // namespace softnic

#endif  // SOFTNIC_FAULTS_H_
