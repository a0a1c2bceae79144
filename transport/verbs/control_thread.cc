#include "transport/verbs/control_thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/thread.h"
#include "memreg/verbs_library.h"

namespace devwire {
namespace {

// Queue work in flight: one break and one make per queue.
constexpr size_t kQueueRequests = 2 * kMaxQueues;

size_t Index(QueueId queue) { return static_cast<size_t>(queue); }

}  // namespace

ControlThread::ControlThread(VerbsDevice& device, const Options& options)
    : device_(device),
      options_(options),
      requests_(4 * size_t{options.max_rules} + kQueueRequests),
      rule_answers_(2 * size_t{options.max_rules}),
      queue_answers_(2 * kQueueRequests) {
  rules_.reserve(options.max_rules);
  live_rules_.reserve(options.max_rules);
}

ControlThread::~ControlThread() {
  if (thread_.joinable()) {
    stop_.store(true);
    const uint64_t one = 1;
    CHECK_EQ(write(wake_fd_, &one, sizeof(one)),
             static_cast<ssize_t>(sizeof(one)));
    thread_.join();
  }
  if (wake_fd_ >= 0) close(wake_fd_);
  rules_.clear();  // A queue pair with flows cannot be destroyed.
}

absl::Status ControlThread::MakeQueueNow(QueueId id,
                                         const RawQpOptions& options,
                                         ibv_qp** qp) {
  CHECK(!thread_.joinable());
  Queue& queue = queues_[Index(id)];
  queue.options = options;
  const char* failed_call = nullptr;
  if (int e = CreateRawQp(options, &queue.qp, &failed_call)) {
    return RawQpStatus(device_.name(), failed_call, e);
  }
  *qp = queue.qp.get();
  return absl::OkStatus();
}

absl::Status ControlThread::Start() {
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int async_fd = device_.context()->async_fd;
  const int flags = fcntl(async_fd, F_GETFL);
  if (wake_fd_ < 0 || flags < 0 ||
      fcntl(async_fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "cannot prepare the event descriptors of %s: %s; see ulimit -n",
        device_.name(), VerbsErrorText(errno)));
  }
  thread_ = StartThread([this] { Run(); });
  return absl::OkStatus();
}

// -- engine thread ------------------------------------------------------------

void ControlThread::Ask(const Request& request) {
  {
    const std::lock_guard lock(mutex_);
    CHECK(requests_.Push(request));  // See Bounds.
  }
  const uint64_t one = 1;
  // EAGAIN: 2^64 - 2 wake-ups are waiting already.
  (void)!write(wake_fd_, &one, sizeof(one));
}

RuleId ControlThread::AddRule(const FlowMatch& match, QueueId to) {
  const RuleId id{next_rule_++};
  int error = live_rules_.size() >= options_.max_rules ? ENOMEM : 0;
  if (error == 0) {
    const std::lock_guard lock(mutex_);
    // This one, its removal, and what is promised to others.
    if (requests_.size() + live_rules_.size() + 2 + kQueueRequests >
        requests_.capacity()) {
      error = EAGAIN;
    }
  }
  if (error != 0) {
    Reply(RuleEvent{.rule = id, .error = error});
    return id;
  }
  live_rules_.insert(id);
  Request request;
  request.kind = Request::Kind::kAddRule;
  request.queue = to;
  request.rule = id;
  request.match = match;
  Ask(request);
  return id;
}

void ControlThread::RemoveRule(RuleId rule) {
  if (live_rules_.erase(rule) == 0) return;
  Request request;
  request.kind = Request::Kind::kRemoveRule;
  request.rule = rule;
  Ask(request);
}

size_t ControlThread::PollRules(std::span<RuleEvent> out) {
  if (rule_answers_waiting_.load(std::memory_order_acquire) == 0) return 0;
  const std::lock_guard lock(mutex_);
  size_t count = 0;
  for (; count < out.size() && !rule_answers_.empty(); ++count) {
    out[count] = rule_answers_.front();
    rule_answers_.PopFront();
    if (out[count].error != 0) live_rules_.erase(out[count].rule);
  }
  rule_answers_waiting_.store(rule_answers_.size(), std::memory_order_release);
  return count;
}

void ControlThread::BreakQueue(QueueId queue) {
  Request request;
  request.kind = Request::Kind::kBreakQueue;
  request.queue = queue;
  Ask(request);
}

void ControlThread::MakeQueue(QueueId queue) {
  Request request;
  request.kind = Request::Kind::kMakeQueue;
  request.queue = queue;
  Ask(request);
}

void ControlThread::MakeQueue(QueueId queue, const RawQpOptions& options) {
  Request request;
  request.kind = Request::Kind::kMakeQueue;
  request.queue = queue;
  request.has_options = true;
  request.options = options;
  Ask(request);
}

void ControlThread::DropQueue(QueueId queue) {
  Request request;
  request.kind = Request::Kind::kDropQueue;
  request.queue = queue;
  Ask(request);
}

bool ControlThread::TakeQueueAnswer(QueueAnswer* answer) {
  const std::lock_guard lock(mutex_);
  if (queue_answers_.empty()) return false;
  *answer = queue_answers_.front();
  queue_answers_.PopFront();
  queue_answers_waiting_.store(queue_answers_.size(),
                               std::memory_order_release);
  return true;
}

// Either thread.
void ControlThread::Reply(const RuleEvent& answer) {
  {
    const std::lock_guard lock(mutex_);
    if (!rule_answers_.Push(answer)) counters_.answers_dropped.Add();
    rule_answers_waiting_.store(rule_answers_.size(),
                                std::memory_order_release);
  }
  RingBell();
}

void ControlThread::Reply(const QueueAnswer& answer) {
  {
    const std::lock_guard lock(mutex_);
    if (!queue_answers_.Push(answer)) counters_.answers_dropped.Add();
    queue_answers_waiting_.store(queue_answers_.size(),
                                 std::memory_order_release);
  }
  RingBell();
}

void ControlThread::RingBell() {
  if (options_.bell != nullptr) options_.bell->Ring();
}

// -- control thread -----------------------------------------------------------

void ControlThread::Run() {
  pollfd fds[2] = {{wake_fd_, POLLIN, 0},
                   {device_.context()->async_fd, POLLIN, 0}};
  while (!stop_.load()) {
    // Interrupted: all signals are blocked here, but a debugger may.
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
    if ((fds[1].revents & POLLIN) != 0) ReadAsyncEvents();
    uint64_t count = 0;
    (void)!read(wake_fd_, &count, sizeof(count));
    do {
      FetchRequests();
    } while (WorkOnce() && !stop_.load());
  }
}

// Sorts what the engine asked for. An insertion waits in the ring while as
// many rules as there may be are still to be removed.
void ControlThread::FetchRequests() {
  const std::lock_guard lock(mutex_);
  for (; !requests_.empty(); requests_.PopFront()) {
    const Request& request = requests_.front();
    switch (request.kind) {
      case Request::Kind::kAddRule:
        if (rules_.size() >= options_.max_rules) return;
        rules_[request.rule].match = request.match;
        rules_[request.rule].queue = request.queue;
        insertions_.push_back(request.rule);
        break;
      case Request::Kind::kRemoveRule: {
        const auto it = rules_.find(request.rule);
        if (it == rules_.end()) break;  // Its insertion has failed.
        if (it->second.is_due) {
          counters_.rules_cancelled.Add();
          rules_.erase(it);
        } else {
          removals_.push_back(request.rule);
        }
        break;
      }
      case Request::Kind::kBreakQueue:
      case Request::Kind::kMakeQueue:
      case Request::Kind::kDropQueue:
        queue_work_.push_back(request);
        break;
    }
  }
}

// One command to the device. False: nothing to do.
bool ControlThread::WorkOnce() {
  if (!queue_work_.empty()) {
    const Request request = queue_work_.front();
    queue_work_.pop_front();
    Queue& queue = queues_[Index(request.queue)];
    if (request.has_options) queue.options = request.options;
    if (request.kind == Request::Kind::kBreakQueue) Break(request.queue);
    if (request.kind == Request::Kind::kMakeQueue) Make(request.queue);
    if (request.kind == Request::Kind::kDropQueue) Drop(request.queue);
    return true;
  }
  if (!removals_.empty()) {
    const RuleId id = removals_.front();
    removals_.pop_front();
    rules_.erase(id);
    counters_.rules_removed.Add();
    return true;
  }
  if (!insertions_.empty()) {
    const RuleId id = insertions_.front();
    insertions_.pop_front();
    const auto it = rules_.find(id);
    if (it != rules_.end()) Install(id, it->second);
    return true;
  }
  return false;
}

// Puts a rule into the NIC: for the first time, or again after its queue was
// remade. While the queue is being made it stays due: Make() comes back to it.
void ControlThread::Install(RuleId id, Rule& rule) {
  Queue& queue = queues_[Index(rule.queue)];
  if (!queue.is_dropped && (queue.qp == nullptr || queue.is_broken)) return;
  if (rule.flows[0] != nullptr) return;
  const int error = queue.is_dropped
                        ? ENODEV
                        : InstallRule(queue.qp.get(), device_.port(),
                                      options_.mac, rule.match, &rule.flows);
  const bool is_first_time = rule.is_due;
  rule.is_due = false;
  if (error == 0) {
    counters_.rules_installed.Add();
  } else {
    counters_.rules_refused.Add();
    rules_.erase(id);
  }
  if (error != 0 || is_first_time) {
    Reply(RuleEvent{.rule = id, .error = error});
  }
}

void ControlThread::Break(QueueId id) {
  Queue& queue = queues_[Index(id)];
  queue.is_broken = true;
  // A pair that is in ERR already refuses nothing here; were it gone with its
  // device, there would be nothing to drain.
  const int error = queue.qp == nullptr ? ENODEV : MoveToError(queue.qp.get());
  for (auto& [rule_id, rule] : rules_) {
    if (rule.queue == id) rule.flows = {};
  }
  Reply(QueueAnswer{
      .kind = QueueAnswer::Kind::kBroken, .queue = id, .error = error});
}

void ControlThread::Make(QueueId id) {
  Queue& queue = queues_[Index(id)];
  queue.qp.reset();
  const char* failed_call = nullptr;
  const int error = CreateRawQp(queue.options, &queue.qp, &failed_call);
  if (error != 0) {
    queue.is_dropped = true;
  } else {
    queue.is_broken = false;
    counters_.queues_made.Add();
  }
  // First the pair, so that receives are posted while rules go in.
  Reply(QueueAnswer{.kind = QueueAnswer::Kind::kMade,
                    .queue = id,
                    .error = error,
                    .qp = queue.qp.get()});
  // One at a time in WorkOnce, so that a removal need not wait for all.
  for (auto& [rule_id, rule] : rules_) {
    if (rule.queue == id) insertions_.push_back(rule_id);
  }
}

void ControlThread::Drop(QueueId id) {
  Queue& queue = queues_[Index(id)];
  queue.is_dropped = true;
  for (auto it = rules_.begin(); it != rules_.end();) {
    if (it->second.queue != id) {
      ++it;
      continue;
    }
    Reply(RuleEvent{.rule = it->first, .error = ENODEV});
    rules_.erase(it++);
  }
  queue.qp.reset();
  Reply(QueueAnswer{
      .kind = QueueAnswer::Kind::kMade, .queue = id, .error = ENODEV});
}

void ControlThread::ReadAsyncEvents() {
  ibv_async_event event;
  while (verbs().get_async_event(device_.context(), &event) == 0) {
    counters_.async_events.Add();
    const ibv_qp* qp = nullptr;
    switch (event.event_type) {
      case IBV_EVENT_QP_FATAL:
      case IBV_EVENT_QP_REQ_ERR:
      case IBV_EVENT_QP_ACCESS_ERR:
      case IBV_EVENT_PATH_MIG_ERR:
        qp = event.element.qp;
        break;
      case IBV_EVENT_DEVICE_FATAL:
      case IBV_EVENT_CQ_ERR:
        device_error_.store(EIO, std::memory_order_relaxed);
        RingBell();
        break;
      default:
        break;  // Counted. A port that goes down loses frames; TCP waits.
    }
    for (size_t i = 0; qp != nullptr && i < queues_.size(); ++i) {
      if (queues_[i].qp.get() != qp || queues_[i].is_broken) continue;
      Reply(QueueAnswer{.kind = QueueAnswer::Kind::kFailed,
                        .queue = QueueId{static_cast<uint8_t>(i)}});
    }
    verbs().ack_async_event(&event);
  }
}

}  // namespace devwire
