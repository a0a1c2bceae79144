// Engine: flow rules, and what the hardware says of itself. Rules are a cache:
// a stream without one is correct, and its payload goes through host memory.
#include "base/check.h"
#include "transport/engine/engine.h"

namespace devwire {

const char* SteeringName(Steering steering) {
  switch (steering) {
    case Steering::kHostStream:
      return "host stream";
    case Steering::kNotYet:
      return "handshake not complete";
    case Steering::kRulePending:
      return "rule being installed";
    case Steering::kSteered:
      return "steered to its data queue";
    case Steering::kNoQueue:
      return "no data queue";
    case Steering::kRuleRefused:
      return "the NIC refused the rule";
    case Steering::kHeadersDiffer:
      return "headers do not fit the split";
    case Steering::kNoOptionTail:
      return "option bytes cannot be read from its memory";
  }
  return "?";
}

// The header shape is known: ask for the rule, and hold the segment that lets
// the peer send text until it is in. (Not where that has left already.)
void Engine::StartSteering(EngineStream& s, bool hold_handshake) {
  if (!s.pool.has_value() || s.steering != Steering::kNotYet) return;
  if (s.starts_on_control_queue) {
    s.steering = Steering::kHeadersDiffer;
    return;
  }
  const bool is_v4 = s.tuple.local.ip.is_v4();
  const bool has_timestamps = s.connection.tcb().snd_ts_ok;
  s.shape = is_v4 ? (has_timestamps ? HeaderShape::kIpv4Timestamps
                                    : HeaderShape::kIpv4Plain)
                  : (has_timestamps ? HeaderShape::kIpv6Timestamps
                                    : HeaderShape::kIpv6Plain);
  absl::StatusOr<QueueId> queue = io_.OpenDataQueue(*s.pool, s.shape);
  if (!queue.ok()) {
    queue_error_ = queue.status();
    s.steering = Steering::kNoQueue;
    counters_.Count(EngineEvent::kQueuesRefused);
    return;
  }
  s.queue = *queue;
  queues_[static_cast<size_t>(*queue)] = {true, *s.pool, s.shape};
  s.rule = io_.AddRule({.kind = FlowMatch::Kind::kConnection, .tuple = s.tuple},
                       *queue);
  rules_[static_cast<uint32_t>(*s.rule)] = s.index;
  s.steering = Steering::kRulePending;
  if (!hold_handshake) return;
  s.rule_deadline = now_ + options_.rule_wait;
  s.moves_until = Instant::Never();
  s.connection.HoldHandshake(true);
  SetTimer(s);
}

void Engine::ReleaseHandshake(EngineStream& s) {
  if (s.rule_deadline == Instant::Never()) return;
  s.rule_deadline = Instant::Never();
  s.connection.HoldHandshake(false);
  MarkDirty(s);
}

void Engine::PollRules() {
  RuleEvent events[kBurst];
  const size_t count = io_.PollRules(events);
  for (size_t i = 0; i < count; ++i) OnRuleEvent(events[i]);
  worked_ |= count > 0;
}

void Engine::OnRuleEvent(const RuleEvent& event) {
  counters_.Count(event.error == 0 ? EngineEvent::kRulesInstalled
                                   : EngineEvent::kRulesRefused);
  if (event.rule == host_rule_) host_rule_error_ = event.error;
  const auto found = rules_.find(static_cast<uint32_t>(event.rule));
  if (found == rules_.end()) return;  // A listener's, a block's, or gone.
  EngineStream& s = *streams_[found->second];
  DCHECK(s.rule == event.rule);
  s.moves_until = now_ + kMoveTime;
  if (event.error == 0) {
    s.steering = Steering::kSteered;
  } else {
    s.steering = Steering::kRuleRefused;
    s.queue = kControlQueue;
    rules_.erase(found);
    s.rule.reset();
  }
  ReleaseHandshake(s);
}

void Engine::PollRegions() {
  RegionEvent events[8];
  const size_t count = io_.PollRegions(events);
  for (size_t i = 0; i < count; ++i) OnRegionRevoked(events[i]);
  worked_ |= count > 0;
}

// Memory that was revoked ends the streams on it, and no other; later ones are
// refused. A send names all that it gathered from: our own buffers, which
// nobody revokes, and one region of the application's (SendQueue).
void Engine::OnRegionRevoked(const RegionEvent& event) {
  if (event.lkey == send_buffers_.lkey()) return;
  counters_.Count(EngineEvent::kRegionsRevoked);
  std::optional<PoolId> revoked;
  const uint32_t pools = pool_count_;
  for (uint32_t i = static_cast<uint32_t>(kFirstDevicePool); i < pools; ++i) {
    if (pools_[i].lkey != event.lkey) continue;
    pool_use_[i].is_revoked = true;
    revoked = pools_[i].pool->id();
  }
  for (auto& s : streams_) {
    if (s == nullptr || s->is_finished) continue;
    if ((IsRevoked(s->pool) && s->pool == revoked) ||
        s->send_queue.IsFrom(event.lkey)) {
      s->revoked = revoked;
      Abort(*s, TcpError::kRegionRevoked);
    }
  }
  for (uint32_t i = 0; i < listeners_.size(); ++i) {
    if (listeners_[i].is_open && IsRevoked(listeners_[i].pool)) {
      PublishListener(i);
    }
  }
}

// Nothing comes any more, not even what would end a stream: all end here.
void Engine::OnDeviceFailed(int error) {
  device_error_ = error;
  counters_.Count(EngineEvent::kDeviceFailed);
  worked_ = true;
  for (auto& s : streams_) {
    if (s != nullptr && !s->is_finished) Abort(*s, TcpError::kDeviceFailed);
  }
  for (uint32_t i = 0; i < listeners_.size(); ++i) {
    if (listeners_[i].is_open) PublishListener(i);
  }
}

void Engine::RemoveRule(EngineStream& s) {
  if (!s.rule.has_value()) return;
  rules_.erase(static_cast<uint32_t>(*s.rule));
  io_.RemoveRule(*s.rule);
  counters_.Count(EngineEvent::kRulesRemoved);
  s.rule.reset();
}

void Engine::MoveToControlQueue(EngineStream& s, Steering why) {
  if (!s.rule.has_value()) return;
  RemoveRule(s);
  s.queue = kControlQueue;
  s.moves_until = now_ + kMoveTime;
  s.steering = why;
  counters_.Count(EngineEvent::kMovedToControlQueue);
  ReleaseHandshake(s);
}

}  // namespace devwire
