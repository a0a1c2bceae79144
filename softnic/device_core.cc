// Commands: what a driver tells the firmware.
#include "softnic/device_core.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace softnic {

DeviceCore::DeviceCore(const DeviceConfig& config, Arena* arena,
                       uint64_t shared_at, pid_t application,
                       const devwire::Clock* clock)
    : config_(config),
      arena_(arena),
      shared_(arena->At<DeviceShared>(shared_at)),
      clock_(clock),
      host_(application),
      mrs_(host_.is_local()),
      flows_(config.rules),
      qps_(kMaxQps),
      prng_(config.faults.seed),
      stage_(&host_),
      counter_file_(config.counters, shared_) {
  ApplyFaults();
}

DeviceCore::~DeviceCore() {
  for (const auto* list : {&contexts_, &channels_}) {
    for (const Listener& listener : *list) {
      if (listener.events != nullptr) close(listener.event_fd);
    }
  }
}

Reply DeviceCore::Execute(const Command& command, int fd,
                          std::string_view text) {
  Reply reply;
  switch (command.op) {
    case Op::kOpenContext:
      reply.error = OpenContext(command, fd, &reply);
      break;
    case Op::kCloseContext:
      reply.error = CloseContext(command.object);
      break;
    case Op::kOpenChannel:
      reply.error =
          OpenListener(&channels_, command.events_at, fd, &reply.object);
      break;
    case Op::kCloseChannel:
      reply.error = CloseListener(&channels_, command.object);
      break;
    case Op::kCreateCq:
      reply.error = CreateCq(command.cq, &reply.object);
      break;
    case Op::kDestroyCq:
      reply.error = DestroyCq(command.object);
      break;
    case Op::kCreateQp:
      reply.error = CreateQp(command.qp, &reply.object);
      break;
    case Op::kModifyQp:
      reply.error =
          ModifyQp(command.object, static_cast<ibv_qp_state>(command.state));
      break;
    case Op::kQueryQp:
      if (QueuePair* qp = FindQp(command.object); qp != nullptr) {
        reply.value = qp->state();
      } else {
        reply.error = EINVAL;
      }
      break;
    case Op::kDestroyQp:
      reply.error = DestroyQp(command.object);
      break;
    case Op::kRegisterMr:
      reply.error = RegisterMr(command.mr, fd, &reply.object);
      break;
    case Op::kDeregisterMr:
      reply.error = DeregisterMr(command.object);
      break;
    case Op::kCreateFlow:
      reply.error = CreateFlow(command.flow, &reply.object);
      break;
    case Op::kDestroyFlow:
      reply.error = DestroyFlow(command.object);
      break;
    case Op::kQueryPort:
      Progress(0);
      reply.value = shared_->link_up.load(std::memory_order_relaxed);
      break;
    case Op::kConfigure:
      reply.error = Configure(text, &reply);
      break;
    case Op::kMakeVisible:
      RunLateWrites(/*all=*/true);
      host_.Flush();
      break;
  }
  return reply;
}

absl::Status DeviceCore::PlugPort() {
  absl::StatusOr<Wire> wire = MakePort(config_, clock_);
  if (!wire.ok()) return wire.status();
  if (!config_.pcap.empty()) {
    auto pcap = PcapWriter::Open(config_.pcap, config_.name);
    if (!pcap.ok()) return pcap.status();
    pcap_ = *std::move(pcap);
  }
  wire_ = *std::move(wire);
  port_ = wire_.port.get();
  link_was_up_ = port_->link_up();
  shared_->link_up.store(link_was_up_, std::memory_order_relaxed);
  return absl::OkStatus();
}

int DeviceCore::OpenContext(const Command& command, int fd, Reply* reply) {
  if (port_ == nullptr) {
    const absl::Status status = PlugPort();
    if (!status.ok()) {
      const absl::string_view why = status.message();
      snprintf(reply->message, sizeof(reply->message), "%.*s",
               static_cast<int>(why.size()), why.data());
      return status.code() == absl::StatusCode::kAlreadyExists ? EBUSY : EIO;
    }
  }
  const int error =
      OpenListener(&contexts_, command.events_at, fd, &reply->object);
  if (error == 0) ++open_contexts_;
  return error;
}

int DeviceCore::OpenListener(std::vector<Listener>* list, uint64_t events_at,
                             int fd, uint32_t* object) {
  const int event_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (event_fd < 0) return errno;
  auto free = std::find_if(list->begin(), list->end(),
                           [](const Listener& l) { return !l.events; });
  if (free == list->end()) free = list->insert(free, Listener{});
  *free = {arena_->At<EventRing>(events_at), event_fd};
  *object = static_cast<uint32_t>(free - list->begin());
  return 0;
}

int DeviceCore::CloseListener(std::vector<Listener>* list, uint32_t object) {
  if (object >= list->size() || (*list)[object].events == nullptr) {
    return EINVAL;
  }
  close((*list)[object].event_fd);
  (*list)[object] = Listener{};
  return 0;
}

int DeviceCore::CloseContext(uint32_t object) {
  if (const int error = CloseListener(&contexts_, object); error != 0) {
    return error;
  }
  if (--open_contexts_ == 0) {  // The cable is pulled out.
    if (counter_file_.is_wanted()) counter_file_.Write();
    port_ = nullptr;
    wire_.port = nullptr;
    wire_.bare = nullptr;
    pcap_ = nullptr;
  }
  return 0;
}

int DeviceCore::CreateCq(const CqSpec& spec, uint32_t* number) {
  *number = next_cq_++;
  auto cq = std::make_unique<CompletionQueue>(*number, spec, *arena_);
  cq_list_.push_back(cq.get());
  cqs_.emplace(*number, std::move(cq));
  return 0;
}

int DeviceCore::DestroyCq(uint32_t number) {
  auto it = cqs_.find(number);
  if (it == cqs_.end()) return EINVAL;
  if (it->second->users > 0) return EBUSY;
  std::erase(cq_list_, it->second.get());
  cqs_.erase(it);
  return 0;
}

QueuePair* DeviceCore::FindQp(uint32_t number) {
  const uint32_t index = number - kFirstQpNumber;
  return index < kMaxQps ? qps_[index].get() : nullptr;
}

int DeviceCore::CreateQp(const QpSpec& spec, uint32_t* number) {
  auto send_cq = cqs_.find(spec.send_cq);
  auto recv_cq = cqs_.find(spec.recv_cq);
  if (send_cq == cqs_.end() || recv_cq == cqs_.end()) return EINVAL;
  if (qp_list_.size() == kMaxQps) return ENOMEM;
  // Numbers are used again as late as possible.
  while (qps_[next_qp_ % kMaxQps] != nullptr) ++next_qp_;
  const uint32_t index = next_qp_++ % kMaxQps;
  *number = index + kFirstQpNumber;
  qps_[index] = std::make_unique<QueuePair>(
      *number, spec, send_cq->second.get(), recv_cq->second.get(), *arena_);
  qp_list_.push_back(qps_[index].get());
  ++send_cq->second->users;
  ++recv_cq->second->users;
  return 0;
}

int DeviceCore::ModifyQp(uint32_t number, ibv_qp_state state) {
  QueuePair* qp = FindQp(number);
  if (qp == nullptr) return EINVAL;
  switch (state) {
    case IBV_QPS_RESET:
      qp->Reset();
      stage_.Forget();
      return 0;
    case IBV_QPS_ERR:
      MoveToError(*qp);
      Progress(0);
      return 0;
    default:
      break;
  }
  // The front end knows the table of transitions; here only whether the queue
  // pair has moved to ERR behind its back.
  if (qp->state() == IBV_QPS_ERR) return EINVAL;
  qp->set_state(state);
  return 0;
}

int DeviceCore::DestroyQp(uint32_t number) {
  QueuePair* qp = FindQp(number);
  if (qp == nullptr) return EINVAL;
  if (flows_.HasRules(number)) return EBUSY;
  --qp->send_cq()->users;
  --qp->recv_cq()->users;
  stage_.Forget();
  std::erase(qp_list_, qp);
  qps_[number - kFirstQpNumber] = nullptr;
  return 0;
}

int DeviceCore::RegisterMr(const MrSpec& spec, int fd, uint32_t* lkey) {
  const int error = mrs_.Add(spec, fd, lkey);
  if (error != 0) return error;
  const Mr* mr = mrs_.Find(*lkey);
  if (spec.is_dmabuf && port_ != nullptr) {
    port_->AddRegion(mr->region, fd, spec.fd_offset, spec.length);
  }
  return 0;
}

int DeviceCore::DeregisterMr(uint32_t lkey) {
  const Mr* mr = mrs_.Find(lkey);
  if (mr == nullptr) return EINVAL;
  if (mr->region != kNoRegion && port_ != nullptr) {
    port_->RemoveRegion(mr->region);
  }
  return mrs_.Remove(lkey);
}

int DeviceCore::CreateFlow(const FlowRule& rule, uint32_t* handle) {
  if (FindQp(rule.qp_num) == nullptr) return EINVAL;
  const int error = flows_.Add(rule, handle);
  shared_->rules.store(flows_.size(), std::memory_order_relaxed);
  return error;
}

int DeviceCore::DestroyFlow(uint32_t handle) {
  const int error = flows_.Remove(handle);
  shared_->rules.store(flows_.size(), std::memory_order_relaxed);
  return error;
}

bool DeviceCore::Tell(const std::vector<Listener>& list, uint32_t which,
                      uint32_t type, uint32_t object) {
  if (which >= list.size() || list[which].events == nullptr) return false;
  if (!list[which].events->Push(type, object)) return false;
  const uint64_t one = 1;
  // The counter of an eventfd is far from full: the ring is smaller.
  return write(list[which].event_fd, &one, sizeof(one)) == sizeof(one);
}

void DeviceCore::Raise(uint32_t context, ibv_event_type type, uint32_t object) {
  if (!Tell(contexts_, context, static_cast<uint32_t>(type), object)) {
    shared_->events_lost.Add();
  }
}

void DeviceCore::RaiseCompletion(const CompletionQueue& cq) {
  if (config_.faults.lost_event > 0 &&
      prng_.Chance(config_.faults.lost_event)) {
    shared_->cq_events_dropped.Add();
    return;
  }
  if (Tell(channels_, cq.channel(), 0, cq.number())) {
    shared_->cq_events.Add();
  } else {
    shared_->events_lost.Add();
  }
}

void DeviceCore::RaisePortEvents() {
  const bool is_up = port_->link_up();
  if (is_up == link_was_up_) return;
  link_was_up_ = is_up;
  shared_->link_up.store(is_up, std::memory_order_relaxed);
  for (uint32_t i = 0; i < contexts_.size(); ++i) {
    Raise(i, is_up ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR, 1);
  }
}

bool DeviceCore::Progress(uint32_t receive_budget) {
  if (port_ == nullptr) return false;
  const uint64_t received = received_;
  port_->Progress(receive_budget, *this);
  bool moved = received != received_;
  for (QueuePair* qp : qp_list_) moved |= Send(*qp);
  if (!late_writes_.empty()) RunLateWrites(/*all=*/false);
  // The application unmapped memory that it had posted.
  if (!host_.is_local() && !host_.Flush()) shared_->rx_errors.Add();
  PublishCompletions();
  if (has_wire_faults_) CopyWireCounters();
  RaisePortEvents();
  if (counter_file_.is_wanted()) counter_file_.OnProgress(clock_->Now());
  return moved;
}

bool DeviceCore::IsIdle() const {
  if (port_ == nullptr) return true;
  if (!late_writes_.empty() || counter_file_.is_wanted()) return false;
  for (const QueuePair* qp : qp_list_) {
    if (qp->has_sends()) return false;
  }
  return port_->is_idle();
}

bool DeviceCore::PrepareToSleep() {
  return IsIdle() && (port_ == nullptr || port_->PrepareToSleep());
}

bool DeviceCore::IsAnyArmed() const {
  return std::any_of(cq_list_.begin(), cq_list_.end(),
                     [](const CompletionQueue* cq) { return cq->is_armed(); });
}

void DeviceCore::Send(uint32_t qp_num) {
  QueuePair* qp = FindQp(qp_num);
  if (qp == nullptr || port_ == nullptr) return;
  Send(*qp);
  PublishCompletions();
}

void DeviceCore::PublishCompletions() {
  for (CompletionQueue* cq : cq_list_) {
    if (cq->Publish()) RaiseCompletion(*cq);
  }
  if (pushed_ == shared_->completions.load(std::memory_order_relaxed)) return;
  shared_->completions.store(pushed_, std::memory_order_relaxed);
}

}  // namespace softnic
