// The thread that does what takes the NIC's firmware: flow rules, and taking
// down and remaking queue pairs. The engine asks and goes on.
//
//   engine thread                                control thread
//     AddRule, RemoveRule, BreakQueue, ... --> requests (bounded ring)
//     PollRules, PollQueue                 <-- answers  (bounded rings)
//
// It owns every queue pair and flow of a VerbsPacketIo, and it alone reads the
// context's asynchronous events.
//
// Bounds:   max_rules rules at a time; a further one, or one for which the
//           request ring has no room, is answered at once (ENOMEM, EAGAIN).
//           The ring keeps a place for the removal of each rule there is, so a
//           removal always fits. Rule answers that nobody polls are dropped
//           and counted.
// Order:    queue work first, then removals, then insertions: a removal makes
//           room. A rule removed before its turn is never installed.
// Cost:     an eventfd write per request; a poll is one atomic load
//           when there is no answer.
#ifndef TRANSPORT_VERBS_CONTROL_THREAD_H_
#define TRANSPORT_VERBS_CONTROL_THREAD_H_

#include <infiniband/verbs.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "base/bell.h"
#include "base/counter.h"
#include "base/ring.h"
#include "transport/packet_io.h"
#include "transport/verbs/device.h"
#include "transport/verbs/flow_rule.h"
#include "transport/verbs/handles.h"
#include "transport/verbs/raw_qp.h"

namespace devwire {

// Queue ids of receive rings run from 0; this one sends.
inline constexpr QueueId kTransmitQueue{255};
inline constexpr size_t kMaxQueues = 256;

class ControlThread {
 public:
  struct Options {
    MacAddress mac{};  // Of the frames that rules are to match.
    uint32_t max_rules = 16384;
    // Rung for every answer; null: nobody sleeps. Borrowed.
    Bell* bell = nullptr;
  };

  struct QueueAnswer {
    enum class Kind : uint8_t {
      kBroken,  // It is in ERR and has no rules in the NIC: it drains.
      kMade,    // It has `qp`, or none (error).
      kFailed,  // The device says so (IBV_EVENT_QP_FATAL and the like).
    };
    Kind kind = Kind::kBroken;
    QueueId queue{};
    int error = 0;
    ibv_qp* qp = nullptr;  // Owned here, until MakeQueue or DropQueue.
  };

  // Written by the control thread; readable from any.
  struct alignas(kCacheLine) Counters {
    Counter rules_installed;
    Counter rules_removed;
    Counter rules_refused;
    Counter rules_cancelled;  // Removed before their turn.
    Counter queues_made;
    Counter async_events;
    Counter answers_dropped;
  };

  ControlThread(VerbsDevice& device, const Options& options);
  ~ControlThread();  // Joins, then removes all flows and queue pairs.
  ControlThread(const ControlThread&) = delete;
  ControlThread& operator=(const ControlThread&) = delete;

  // Set-up, before Start(): makes a queue pair at once.
  absl::Status MakeQueueNow(QueueId queue, const RawQpOptions& options,
                            ibv_qp** qp);
  absl::Status Start();

  // -- engine thread ---------------------------------------------------------
  RuleId AddRule(const FlowMatch& match, QueueId to);
  void RemoveRule(RuleId rule);
  // Moves the pair to ERR and takes its rules out of the NIC; they are kept in
  // mind for MakeQueue.
  void BreakQueue(QueueId queue);
  // Destroys the old pair, makes a new one and puts its rules back. `options`
  // are those of the first time, unless given.
  void MakeQueue(QueueId queue);
  void MakeQueue(QueueId queue, const RawQpOptions& options);
  // Destroys the pair for good; its rules answer ENODEV.
  void DropQueue(QueueId queue);
  // A rule answered with an error is gone; RemoveRule of it does nothing.
  size_t PollRules(std::span<RuleEvent> out);
  bool PollQueue(QueueAnswer* answer) {
    if (queue_answers_waiting_.load(std::memory_order_acquire) == 0) {
      return false;
    }
    return TakeQueueAnswer(answer);
  }

  // 0, or EIO: the device as a whole has failed (IBV_EVENT_DEVICE_FATAL), or a
  // completion queue (IBV_EVENT_CQ_ERR).
  int device_error() const {
    return device_error_.load(std::memory_order_relaxed);
  }

  const Counters& counters() const { return counters_; }

 private:
  struct Request {
    enum class Kind : uint8_t {
      kAddRule,
      kRemoveRule,
      kBreakQueue,
      kMakeQueue,
      kDropQueue,
    };
    Kind kind = Kind::kAddRule;
    bool has_options = false;
    QueueId queue{};
    RuleId rule{};
    FlowMatch match;
    RawQpOptions options;
  };
  struct Rule {
    FlowMatch match;
    QueueId queue{};
    bool is_due = true;  // Not answered yet.
    InstalledFlows flows;
  };
  struct Queue {
    RawQpOptions options;
    UniqueQp qp;
    bool is_broken = false;
    bool is_dropped = false;
  };

  void Ask(const Request& request);
  bool TakeQueueAnswer(QueueAnswer* answer);
  void Reply(const RuleEvent& answer);
  void Reply(const QueueAnswer& answer);
  void RingBell();

  void Run();
  void FetchRequests();
  bool WorkOnce();
  void ReadAsyncEvents();
  void Install(RuleId id, Rule& rule);
  void Break(QueueId id);
  void Make(QueueId id);
  void Drop(QueueId id);

  VerbsDevice& device_;
  const Options options_;
  Counters counters_;

  // Engine thread.
  uint32_t next_rule_ = 1;
  absl::flat_hash_set<RuleId> live_rules_;

  // Shared.
  std::mutex mutex_;
  Ring<Request> requests_;
  Ring<RuleEvent> rule_answers_;
  Ring<QueueAnswer> queue_answers_;
  std::atomic<size_t> rule_answers_waiting_{0};
  std::atomic<size_t> queue_answers_waiting_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int> device_error_{0};
  int wake_fd_ = -1;

  // Control thread (and the destructor, after joining it).
  std::array<Queue, kMaxQueues> queues_;
  absl::flat_hash_map<RuleId, Rule> rules_;
  std::deque<Request> queue_work_;
  std::deque<RuleId> removals_;
  std::deque<RuleId> insertions_;

  std::thread thread_;
};

}  // namespace devwire

#endif  // TRANSPORT_VERBS_CONTROL_THREAD_H_
