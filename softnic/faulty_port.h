// A port with a bad wire before it: the frame faults of both directions, the
// rate and the state of the link.
//
//   device core <-> FaultyPort [FaultStage tx, FaultStage rx] <-> inner port
//
// Threads:  as Port.
// Cost:     with no fault configured frames pass by reference, no clock is read
//           and nothing is allocated, ever.
// Order:    sent() and completed() count frames in the order in which the core
//           offered them, whatever becomes of each: a frame that is lost or
//           copied completes with those before it.
#ifndef SOFTNIC_FAULTY_PORT_H_
#define SOFTNIC_FAULTY_PORT_H_

#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "base/ring.h"
#include "base/time.h"
#include "softnic/config.h"
#include "softnic/faults.h"
#include "softnic/packet.h"
#include "softnic/port.h"

namespace softnic {

class FaultyPort final : public Port, private Receiver {
 public:
  // Runs of frames whose completion we follow (see Run); Send refuses beyond.
  static constexpr size_t kMaxRuns = 16384;
  // What a sender may catch up after it was not polled for a while.
  static constexpr devwire::Duration kMaxBurst =
      devwire::Duration::Nanoseconds(100'000);
  // Preamble, FCS and the gap between frames, IEEE 802.3 3.1.1 and 4.4.2.
  static constexpr uint32_t kWireOverheadBytes = 24;

  // `inner` and `clock` outlive this. max_frame_bytes: of any frame in either
  // direction; a longer one passes untouched. config.hold_frames stays.
  FaultyPort(Port* inner, const devwire::Clock* clock, uint32_t max_frame_bytes,
             const FaultConfig& config);

  void Configure(const FaultConfig& config);

  Offloads offloads() const override;
  bool Send(const TxFrame& frame) override;
  void Flush() override { inner_->Flush(); }
  uint64_t sent() const override { return sent_; }
  uint64_t completed() const override;
  void Progress(uint32_t budget, Receiver& receiver) override;
  bool link_up() const override { return config_.link_up && inner_->link_up(); }
  void AddRegion(uint32_t region, int fd, uint64_t offset,
                 uint64_t length) override {
    inner_->AddRegion(region, fd, offset, length);
  }
  void RemoveRegion(uint32_t region) override { inner_->RemoveRegion(region); }
  int wait_fd() const override { return inner_->wait_fd(); }
  bool is_idle() const override {
    return tx_.held() == 0 && rx_.held() == 0 && inner_->is_idle();
  }
  bool PrepareToSleep() override { return inner_->PrepareToSleep(); }

  const FaultCounters& tx_counters() const { return tx_.counters(); }
  const FaultCounters& rx_counters() const { return rx_.counters(); }

 private:
  // Frames that we took, one after the other, and what their completion is.
  //   by reference: the i-th completes with the inner port's (inner_from +
  //   i)-th otherwise:    all complete once the inner port has completed
  //   inner_from
  struct Run {
    bool is_by_reference = false;
    uint64_t inner_from = 0;
    uint64_t count = 0;
  };
  struct TxSink final : StageSink {
    bool Pass(const StageFrame& frame) override;
    FaultyPort* port = nullptr;
    bool passed_reference = false;
  };
  struct RxSink final : StageSink {
    bool Pass(const StageFrame& frame) override;
    FaultyPort* port = nullptr;
    Receiver* receiver = nullptr;
  };

  void OnFrame(const RxFrame& frame) override;
  // Reads the clock if anything at hand needs it.
  void TellTime();
  // The wire is busy with this frame, under `rate`, until wire_free_.
  void TakeWireTime(uint32_t frame_bytes);
  void Count(bool is_by_reference, uint64_t inner_from);
  // How many frames of the run have completed.
  uint64_t DoneOf(const Run& run, uint64_t inner_completed) const;
  void DropFinishedRuns();

  Port* const inner_;
  const devwire::Clock* const clock_;
  const uint32_t max_frame_bytes_;
  FaultConfig config_;
  FaultStage tx_;
  FaultStage rx_;
  TxSink tx_sink_;
  RxSink rx_sink_;
  devwire::Instant now_;        // of the call at hand
  devwire::Instant wire_free_;  // when the last frame has left, under `rate`
  uint64_t sent_ = 0;
  uint64_t inner_sent_ = 0;  // frames that the inner port has taken
  uint64_t finished_ = 0;    // frames of runs that are no longer in runs_
  devwire::Ring<Run> runs_;
};

}  // namespace softnic

#endif  // SOFTNIC_FAULTY_PORT_H_
