// PacketIo on a simulated NIC and wire, in virtual time: a whole Engine runs
// over it.
//
// It does to frames what a NIC's raw packet queues do (docs/wire.md): matches
// rules by priority, splits at the shape's byte count whatever the headers are,
// verifies and inserts checksums, cuts TSO, drops when a ring is dry, and reads
// a send's memory only at its completion, which comes late ("late gather").
// Memory is named by iova and key; nothing but the NIC and the test reads it.
//
//   TxPost  -> [posted ... gather, cut, checksum] -> out link
//   in link -> [MAC, rules, checksum, split]      -> RxBurst
//
// Threads:  one. Lifetime: clock, links, pools and memory outlive it; posted
//           slots go back to their pools when it is destroyed.
// Tests only: it allocates.
#ifndef TRANSPORT_SIM_SIM_PACKET_IO_H_
#define TRANSPORT_SIM_SIM_PACKET_IO_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/prng.h"
#include "transport/packet_io.h"
#include "transport/sim/sim_link.h"
#include "transport/wire/frame.h"

namespace devwire {

class SimPacketIo final : public PacketIo {
 public:
  struct Options {
    Limits limits;                // mac, mtu, max_tso_payload...
    uint32_t rx_ring_slots = 64;  // Per queue.
    uint32_t tx_depth = 64;
    Duration gather_delay;       // From TxFlush to completion, at most.
    Duration rule_delay;         // From AddRule to its answer, at most.
    uint32_t max_rules = 65536;  // More are refused with ENOMEM.
    double rule_refusals = 0;    // Probability of ENOMEM, for connections'.
    // So long after a connection's rule came in or went, its frames are
    // delivered to both queues.
    Duration move_time;
    uint64_t seed = 1;
  };

  struct Stats {
    uint64_t rx_frames = 0;
    uint64_t rx_other_mac = 0;
    uint64_t rx_no_rule = 0;
    uint64_t rx_ring_dry = 0;
    uint64_t rx_too_long = 0;  // For header and payload slot together.
    uint64_t rx_bad_checksum = 0;
    uint64_t data_queue_frames = 0;
    uint64_t copies = 0;                 // To a second queue, around a move.
    uint64_t control_payload_bytes = 0;  // TCP payload landed in host memory.
    uint64_t tx_frames = 0;              // After TSO.
    uint64_t tso_sends = 0;
  };

  SimPacketIo(const Options& options, const Clock& clock, SimLink& out,
              SimLink& in);
  ~SimPacketIo() override;

  // Memory that sends may be gathered from. The iova is the test's choice.
  void RegisterSendMemory(uint64_t iova, uint32_t lkey,
                          std::span<std::byte> memory);
  // Hears of each piece that a send is gathered from, at that moment.
  using GatherObserver = std::function<void(uint64_t addr, uint32_t length)>;
  void set_gather_observer(GatherObserver observer) {
    gather_observer_ = std::move(observer);
  }
  // A pool that queues may post slots of; memory holds all of them. The one
  // with `is_control` feeds the control queue; exactly one has it.
  void AddPool(FragPool& pool, std::span<std::byte> memory, bool is_control);

  // The bytes of a frag, for the test's application.
  std::span<const std::byte> BytesOf(const Frag& frag) const;

  // When this NIC will do something of itself: an arrival, a completion, a
  // rule's answer. Never() when nothing is pending.
  Instant NextEvent() const;
  uint64_t tx_posted() const { return tx_posted_; }
  const Stats& stats() const { return stats_; }
  size_t rules() const { return rules_.size(); }  // Installed, or asked for.

  // PacketIo.
  const Limits& limits() const override { return options_.limits; }
  size_t RxBurst(std::span<RxFrame> out) override;
  void Replenish() override;
  std::byte* TxHeader() override;
  uint64_t TxPost(const TxFrame& frame) override;
  void TxFlush() override;
  uint64_t tx_completed() const override { return tx_completed_; }
  absl::StatusOr<QueueId> OpenDataQueue(PoolId pool,
                                        HeaderShape shape) override;
  RuleId AddRule(const FlowMatch& match, QueueId to) override;
  void RemoveRule(RuleId rule) override;
  size_t PollRules(std::span<RuleEvent> out) override;

 private:
  struct Pool {
    FragPool* pool;
    std::span<std::byte> memory;
    bool is_control;
  };
  struct Receive {
    SlotIndex slot{};
    uint32_t header_slot = 0;
  };
  struct Queue {
    QueueId id{};
    size_t pool = 0;     // Index in pools_.
    uint32_t split = 0;  // 0: the control queue.
    HeaderShape shape{};
    std::vector<std::byte> headers;  // rx_ring_slots * split, twice.
    std::vector<uint32_t> free_headers;
    std::vector<uint32_t> lent_headers;  // Until Replenish().
    std::deque<Receive> posted;
    std::deque<RxFrame> completed;
  };
  struct Rule {
    RuleId id{};
    FlowMatch match;
    QueueId to{};
    Instant due;
    bool is_answered = false;
    int error = 0;
    Instant removed = Instant::Never();
  };
  struct Send {
    TxFrame frame;
    std::vector<std::byte> header;
    Instant due;
    bool is_flushed = false;
  };
  struct Region {
    uint64_t iova;
    uint32_t lkey;
    std::span<std::byte> memory;
  };

  void RunTx(Instant now);
  void Gather(const Send& send, SimFrame* payload) const;
  void SendFrame(std::span<const std::byte> header,
                 std::span<const std::byte> payload, bool insert_checksums);
  void SendCut(const Send& send, std::span<const std::byte> payload);
  void RunRx(Instant now);
  void Arrive(const SimFrame& frame);
  Queue* Steer(const SimFrame& frame, ParseResult kind, const ParsedFrame& p);
  void LandCopy(const Queue& first, const SimFrame& frame,
                const ParsedFrame& parsed, bool checksum_ok);
  void Land(Queue& queue, const SimFrame& frame, const ParsedFrame& parsed,
            bool checksum_ok);
  static bool Matches(const FlowMatch& match, const ParsedFrame& parsed);

  const Options options_;
  const Clock& clock_;
  SimLink& out_;
  SimLink& in_;
  Prng prng_;
  std::vector<Pool> pools_;
  std::vector<Region> regions_;
  std::vector<std::unique_ptr<Queue>> queues_;  // By QueueId; 0 is control.
  std::vector<Rule> rules_;
  std::vector<Rule> gone_;  // Connections', removed less than move_time ago.
  uint32_t next_rule_ = 1;

  std::vector<std::byte> tx_headers_;  // tx_depth of them.
  std::deque<Send> sends_;
  GatherObserver gather_observer_;
  uint64_t tx_posted_ = 0;
  uint64_t tx_completed_ = 0;
  Stats stats_;
};

}  // namespace devwire

#endif  // TRANSPORT_SIM_SIM_PACKET_IO_H_
