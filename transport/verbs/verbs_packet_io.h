// PacketIo over a raw packet NIC: one control queue, data queues made when
// first needed, one send queue, and the thread that steers.
//
// Errors of the hardware. A queue with a completion in error is taken down and
// remade in place: its rules leave the NIC, its posted receives drain back to
// their pool, a new pair gets the rules again. Frames in between are lost, and
// TCP repairs that. When a receive queue reports a protection error twice with
// nothing received in between, or a send reports one, the region behind it is
// reported (PollRegions), and a receive queue of it is not remade: only the
// streams on that region end.
//
//   kReady --error--> kBreaking --rules gone--> kDraining --empty--> kMaking
//     ^                                                                 |
//     +-----------------------------------------------------------------+
//
// Threads:  as PacketIo. Destroyed by the thread that used it.
// Lifetime: borrows the device, the pools and the memory they are cut from;
//           all outlive it. Its destructor puts every posted slot back.
// Cost:     steady state: no allocation, no system call.
#ifndef TRANSPORT_VERBS_VERBS_PACKET_IO_H_
#define TRANSPORT_VERBS_VERBS_PACKET_IO_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/bell.h"
#include "base/counter.h"
#include "memreg/frag_pool.h"
#include "memreg/registered_region.h"
#include "transport/packet_io.h"
#include "transport/verbs/control_thread.h"
#include "transport/verbs/device.h"
#include "transport/verbs/rx_ring.h"
#include "transport/verbs/tx_ring.h"

namespace devwire {

class VerbsPacketIo final : public PacketIo {
 public:
  struct Options {
    uint32_t mtu = 0;               // Largest IP packet either way; the port's.
    std::optional<MacAddress> mac;  // Else the device's.
    // Ring depths in frames; rounded down to what the device and the pool have
    // room for.
    uint32_t control_ring_wrs = 1024;
    uint32_t data_ring_wrs = 1024;
    uint32_t send_ring_wrs = 1024;
    uint32_t max_data_queues = 16;  // The completion queue holds them all.
    uint32_t max_rules = 16384;
    // The NIC reports checksum-ok for IPv6, too: true of softnic's profile
    // `full`, of no mlx5.
    bool rx_checksum_ipv6 = false;
    // Of an engine that sleeps: event_fd() is there, and the bell is rung when
    // the control thread has an answer. Borrowed.
    Bell* bell = nullptr;
  };

  struct alignas(kCacheLine) Counters {
    Counter rx_frames;
    Counter rx_bytes;            // On the wire, as byte_len.
    Counter rx_errors;           // Receives completed in error, not flushed.
    Counter rx_flushed;          // Receives given back by a pair in error.
    Counter rx_slots_recovered;  // Of a pair that did not flush them.
    Counter rx_ring_short;       // Replenish() found the pool at its end.
    Counter rx_stale;            // Completions of pairs that are gone.
    Counter tx_frames;
    Counter tx_errors;      // Sends completed in error, not flushed.
    Counter tx_lost;        // Frames lost with a pair.
    Counter queues_failed;  // Went into error, for whatever reason.
    Counter queues_remade;
    Counter queues_dropped;   // Not remade: revoked region, or refused.
    Counter regions_revoked;  // As PollRegions reported them.
    Counter region_events_dropped;
  };

  // What a slot of the control pool must hold: a whole frame.
  static uint32_t ControlSlotBytes(const VerbsDevice& device, uint32_t mtu) {
    return mtu + device.link_header_bytes();
  }
  // A ring takes at most this part of its pool, and is at least this long: a
  // smaller pool is refused by name.
  static constexpr uint32_t kPoolShare = 4;
  static constexpr uint32_t kMinRingWrs = 16;

  // `control` is a host pool over `memory`, whose slots are ControlSlotBytes or
  // more. InvalidArgument where sizes do not fit, with the size that does.
  static absl::StatusOr<std::unique_ptr<VerbsPacketIo>> Open(
      VerbsDevice& device, FragPool& control, const HostArena& memory,
      const Options& options);
  ~VerbsPacketIo() override;

  // What a pool would look like: asked before it takes its memory.
  struct PoolShape {
    uint64_t slot_count = 0;
    uint32_t slot_bytes = 0;
    uint64_t region_bytes = 0;
  };
  // InvalidArgument, with the size that fits, when a slot is too small for the
  // MTU's payload, the region too small for the pool, the pool for a ring, or
  // there are more slots than a pool can number.
  absl::Status CheckPool(const PoolShape& shape) const;
  // Makes a device pool known, for OpenDataQueue: `pool` cuts `region` into
  // slots from its start. Fails as CheckPool.
  absl::Status AddPool(FragPool& pool, const RegisteredRegion& region);

  const Limits& limits() const override { return limits_; }
  size_t RxBurst(std::span<RxFrame> out) override;
  void Replenish() override;
  std::byte* TxHeader() override { return tx_->Header(); }
  uint64_t TxPost(const TxFrame& frame) override;
  void TxFlush() override;
  uint64_t tx_completed() const override { return tx_->completed(); }
  absl::StatusOr<QueueId> OpenDataQueue(PoolId pool,
                                        HeaderShape shape) override;
  RuleId AddRule(const FlowMatch& match, QueueId to) override;
  void RemoveRule(RuleId rule) override;
  size_t PollRules(std::span<RuleEvent> out) override;
  size_t PollRegions(std::span<RegionEvent> out) override;
  int event_fd() const override {
    return channel_ == nullptr ? -1 : channel_->fd;
  }
  int ArmEvents() override;
  int fatal_error() const override {
    return fatal_error_ != 0 ? fatal_error_ : control_->device_error();
  }

  const Counters& counters() const { return counters_; }
  const ControlThread::Counters& control_counters() const {
    return control_->counters();
  }
  // Frames that queue has posted receives for, for tests and tools.
  uint32_t PostedReceives(QueueId queue) const;

 private:
  enum class QueueState : uint8_t {
    kMaking,
    kReady,
    kBreaking,
    kDraining,
    kDropped,
  };
  struct ReceiveQueue {
    explicit ReceiveQueue(const RxRing::Options& options) : ring(options) {}

    RxRing ring;
    HeaderShape shape{};  // Of a data queue.
    QueueState state = QueueState::kMaking;
    bool is_new = true;  // Not made before.
    bool region_is_revoked = false;
    uint8_t protection_errors = 0;  // Since the last success.
    uint32_t empty_polls = 0;       // While draining.
  };

  VerbsPacketIo(VerbsDevice& device, const Options& options)
      : device_(device), options_(options) {}

  // verbs_packet_io_setup.cc
  absl::Status SetUp(FragPool& control, const HostArena& memory);
  absl::Status CheckMtu() const;
  absl::Status SetUpMemory();
  absl::Status SetUpQueues(const SlotMemory& control);
  absl::Status SetUpCompletions(uint32_t rx_cqes, uint32_t send_wrs);
  uint32_t SplitOf(HeaderShape shape) const;
  RawQpOptions ReceiveQp(const RxRing& ring) const;
  RawQpOptions SendQp(uint32_t depth) const;
  uint32_t RingDepth(uint32_t wanted, const FragPool& pool) const;

  void HandleQueueAnswers();
  void OnQueueMade(const ControlThread::QueueAnswer& answer);
  void OnQueueBroken(QueueId queue);
  void OnReceiveError(const ibv_wc& wc);
  void OnSendError(const ibv_wc& wc);
  void Fail(ReceiveQueue& queue);
  void FailSend();
  void DrainSome(bool poll_was_empty);
  void OnRegionRevoked(PoolId pool);
  void PollSends();
  void ReportRegion(const RegionEvent& event);
  size_t Classify(std::span<const ibv_wc> done, std::span<RxFrame> out);

  static constexpr size_t kRxBatch = 64;
  static constexpr size_t kTxBatch = 16;
  // A pair that has flushed nothing in this many empty polls flushes nothing
  // more: destroying it is what ends its work for certain.
  static constexpr uint32_t kDrainPolls = 1024;
  static constexpr size_t kMaxRegionEvents = 64;

  VerbsDevice& device_;
  const Options options_;
  Limits limits_;
  Counters counters_;
  absl::flat_hash_map<PoolId, SlotMemory> pools_;

  UniqueChannel channel_;  // Null: nobody sleeps.
  UniqueCq rx_cq_;
  UniqueCq tx_cq_;
  std::optional<HostArena> headers_;  // Of the send ring, then of data rings.
  uint32_t data_ring_wrs_ = 0;        // Places in headers_ per data ring.
  std::unique_ptr<TxRing> tx_;
  QueueState tx_state_ = QueueState::kMaking;
  uint32_t tx_empty_polls_ = 0;
  std::vector<std::unique_ptr<ReceiveQueue>> queues_;  // By QueueId.
  bool any_queue_is_unwell_ = false;
  int fatal_error_ = 0;
  Ring<RegionEvent> region_events_{kMaxRegionEvents};
  std::array<RegionEvent, kMaxRegionEvents> reported_;  // Each once.
  size_t reported_count_ = 0;
  // Owns the pairs: destroyed first, so that rings, memory and completion
  // queues outlive them.
  std::unique_ptr<ControlThread> control_;

  std::array<ibv_wc, kRxBatch> rx_wcs_;
  std::array<ReceiveQueue*, kRxBatch> rx_queues_;  // Of each completion.
  std::array<ibv_wc, kTxBatch> tx_wcs_;
};

}  // namespace devwire

#endif  // TRANSPORT_VERBS_VERBS_PACKET_IO_H_
