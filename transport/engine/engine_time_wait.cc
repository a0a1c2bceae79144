// Engine: streams without a user. A 4-tuple in TIME-WAIT may be opened anew
// (RFC 6191, RFC 9293 SHLD-4); closed streams that still have a peer, orphans,
// are limited in number, and those in TIME-WAIT make room for others.
#include <utility>

#include "base/check.h"
#include "transport/engine/engine.h"

namespace devwire {

void Engine::ForgetTuple(EngineStream& s) {
  if (!s.is_in_demux) return;
  demux_.Erase(s.tuple);
  s.is_in_demux = false;
}

// Its 4-tuple is needed again.
void Engine::EndTimeWait(EngineStream& s) {
  // The next one's sequence numbers lie beyond those in use. MAY-2 (1).
  iss_above_ = s.connection.tcb().snd_nxt;
  s.connection.EndTimeWait();
  RemoveRule(s);
  ForgetTuple(s);
  counters_.Count(EngineEvent::kTimeWaitsReopened);
  MarkDirty(s);
}

// A SYN for a stream in TIME-WAIT: true when it went to the listener. Else the
// connection answers it with a challenge ACK.
bool Engine::ReopenTimeWait(const RxFrame& frame, ParsedFrame& parsed,
                            EngineStream& s) {
  const auto listener = ports_.FindListener(parsed.tuple);
  // A cookie would keep nothing, and so would not know what to be above.
  if (!listener.has_value() || !HasHalfOpenRoom(listeners_[*listener])) {
    return false;
  }
  // Without all its options it could not be opened with what it offers.
  if (parsed.options_cut_bytes > 0 && !FetchOptions(frame, parsed, s)) {
    return false;
  }
  Segment segment;
  static_cast<TcpHeader&>(segment) = parsed.tcp;
  segment.payload_bytes = parsed.payload_bytes;
  segment.arrival = now_;
  if (!s.connection.MayBeReopenedBy(segment)) return false;
  EndTimeWait(s);
  OnSegmentToListener(frame, parsed, segment, *listener);
  iss_above_.reset();
  return true;
}

// For an active open. False: the 4-tuple stays in use.
bool Engine::IsReopenable(const FourTuple& tuple) {
  const auto index = demux_.Find(tuple);
  return index.has_value() && streams_[*index]->connection.MayBeReopened(now_);
}

// Room for one more stream, by ending the oldest TIME-WAIT. Its only task is to
// answer a FIN that comes again (with a reset, now) and to keep the 4-tuple
// from old duplicates, against which the next one's ISS and timestamps help
// too: a new peer is worth more. As Linux beyond tcp_max_tw_buckets.
bool Engine::EvictTimeWait() {
  EngineStream* s = time_waits_.front();
  // What was sent from is the application's until the NIC has let go of it.
  while (s != nullptr && !s->send_queue.empty()) s = time_waits_.Next(s);
  if (s == nullptr) return false;
  counters_.Count(EngineEvent::kTimeWaitsEvicted);
  Destroy(*s);
  return true;
}

void Engine::ForgetPeer(EngineStream& s) {
  if (std::exchange(s.is_observed, false)) observer_->OnEnded(s.index);
}

uint64_t Engine::undelivered() const {
  uint64_t octets = 0;
  for (const auto& s : streams_) {
    if (s == nullptr || s->connection.state() == State::kClosed) continue;
    const Connection& c = s->connection;
    const bool fin_is_out = c.state() == State::kFinWait1 ||
                            c.state() == State::kClosing ||
                            c.state() == State::kLastAck;
    octets += c.queued_offset() - c.acked_offset() + (fin_is_out ? 1 : 0);
  }
  return octets;
}

// The handle is gone, the peer is not: text is still to be delivered, or its
// FIN awaited. At the limit the peer gets a reset, as Linux's tcp_max_orphans
// has it. TIME-WAIT is no orphan: it asks nothing of anybody.
void Engine::CountOrphan(EngineStream& s) {
  const State state = s.connection.state();
  if (state == State::kClosed || state == State::kTimeWait) return;
  if (orphans_ >= options_.max_orphans) {
    counters_.Count(EngineEvent::kOrphansReset);
    s.connection.Abort(TcpError::kAborted);
    return;
  }
  s.is_orphan = true;
  ++orphans_;
}

void Engine::UncountOrphan(EngineStream& s) {
  const State state = s.connection.state();
  if (state != State::kClosed && state != State::kTimeWait) return;
  s.is_orphan = false;
  --orphans_;
}

}  // namespace devwire
