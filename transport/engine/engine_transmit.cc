// Engine: the poll loop, and what follows from it for each stream: segments
// out, events, finished sends, readiness.
#include <algorithm>

#include "base/check.h"
#include "transport/engine/engine.h"

namespace devwire {

bool Engine::Poll() {
  now_ = clock_.Now();
  worked_ = false;
  if (device_error_ == 0 && io_.fatal_error() != 0) [[unlikely]] {
    OnDeviceFailed(io_.fatal_error());
  }
  // Before RxBurst: a rule that is in leads to a queue whose making RxBurst
  // hears of, and Replenish fills before the peer is let go on.
  PollRules();
  burst_size_ = io_.RxBurst(burst_);
  tails_are_fresh_ = false;
  for (burst_at_ = 0; burst_at_ < burst_size_; ++burst_at_) {
    if (burst_at_ + 1 < burst_size_) {
      __builtin_prefetch(burst_[burst_at_ + 1].header);
    }
    ProcessFrame(burst_[burst_at_]);
  }
  worked_ |= burst_size_ > 0;
  DrainTokens();
  PollRegions();
  PollNeighbors();
  PollPathMtus();
  PollDeadlines();
  io_.Replenish();
  PollDirty();
  RetireEchoes();
  WakeForSendBuffers();
  io_.TxFlush();
  return worked_;
}

Instant Engine::NextDeadline() const {
  if (!dirty_.empty()) return now_;
  if (!send_buffer_waits_.empty() && send_buffers_.has_free()) return now_;
  return std::min({timers_.NextDeadline(), neighbors_.NextDeadline(),
                   path_mtus_.NextDeadline()});
}

void Engine::DrainTokens() {
  FragPool::Returned returned[kBurst];
  const uint32_t pools = pool_count_;
  for (uint32_t p = 0; p < pools; ++p) {
    size_t count;
    do {
      count = pools_[p].pool->Drain(returned, kBurst);
      for (size_t i = 0; i < count; ++i) {
        EngineStream* s = Find(returned[i].stream);
        if (s == nullptr) {
          const auto kept = kept_.find(returned[i].stream);
          if (kept != kept_.end() && --kept->second == 0) kept_.erase(kept);
          continue;
        }
        if (s->lent_pieces > 0) --s->lent_pieces;
        s->connection.OnReleased(returned[i].bytes,
                                 returned[i].slot_freed ? 1 : 0);
        if (returned[i].slot_freed) ReleaseAsGuest(pools_[p].pool->id(), *s, 1);
        MarkDirty(*s);
      }
      worked_ |= count > 0;
    } while (count == kBurst);
  }
}

void Engine::PollDeadlines() {
  uint32_t index;
  while (timers_.PopDue(now_, &index)) {
    worked_ = true;
    EngineStream& s = *streams_[index];
    if (s.rule_deadline <= now_) {
      counters_.Count(EngineEvent::kHandshakesWithoutRule);
      ReleaseHandshake(s);
    }
    if (s.accept_deadline <= now_) Offer(s);
    s.connection.OnDeadline(now_);
    MarkDirty(s);
  }
}

void Engine::PollDirty() {
  // Streams that still have to send, or wait for the NIC to finish with their
  // memory, come again at the next poll: each gets one turn per poll.
  List<EngineStream, DirtyTag> again;
  while (EngineStream* s = dirty_.PopFront()) {
    worked_ = true;
    if (Settle(*s)) {
      s->ListNode<EngineStream, DirtyTag>::Unlink();
      again.PushBack(s);
    }
  }
  while (EngineStream* s = again.PopFront()) dirty_.PushBack(s);
}

// Returns whether the stream wants another turn without a further input.
bool Engine::Settle(EngineStream& s) {
  Transmit(s);
  const bool wants_turn = s.wants_turn;
  PollEvents(s);
  FinishSends(s);
  if (s.connection.is_finished() && !s.is_finished) {
    s.is_finished = true;
    if (s.error == TcpError::kNone) s.error = s.connection.error();
    RemoveRule(s);
    ReleaseHandshake(s);
    ForgetTuple(s);
    ForgetPeer(s);
    if (s.listener.has_value()) {  // Died before it was accepted.
      const uint32_t listener = *s.listener;
      LeaveListener(s);
      PublishListener(listener);
      Close(s, /*keep_frags=*/false);
    }
  }
  // Nothing follows that needs its queue: the rule's room is others'.
  if (s.connection.state() == State::kTimeWait) {
    RemoveRule(s);
    ForgetPeer(s);
    if (!s.is_open && !s.ListNode<EngineStream, TimeWaitTag>::is_linked()) {
      time_waits_.PushBack(&s);
    }
  }
  if (s.is_orphan) UncountOrphan(s);
  SetTimer(s);
  if (s.is_finished && !s.is_open && s.send_queue.empty()) {
    Destroy(s);
    return false;
  }
  Publish(s);
  // Posted sends of an ended stream finish without any input of its own.
  const bool waits_for_nic = !s.send_queue.empty() && FrontWaitsForNic(s);
  return wants_turn || (waits_for_nic && device_error_ == 0);
}

// Not when it is done, and waits for its completion to be polled.
bool Engine::FrontWaitsForNic(const EngineStream& s) const {
  if (s.send_queue.front_ticket() <= io_.tx_completed()) return false;
  return s.is_finished ||
         s.connection.acked_offset() >= s.send_queue.front_end();
}

void Engine::Transmit(EngineStream& s) {
  s.wants_turn = false;
  const TxLimits limits{.max_tso_payload = io_.limits().max_tso_payload,
                        .source = &s.send_queue};
  if (device_error_ != 0) [[unlikely]] {  // The last reset goes nowhere.
    TxSegment lost;
    while (s.connection.PollTransmit(now_, limits, &lost)) continue;
    return;
  }
  if (!s.has_mac) return;
  for (uint32_t i = 0; i < options_.tx_frames_per_turn; ++i) {
    std::byte* at = io_.TxHeader();
    if (at == nullptr) {
      counters_.Count(EngineEvent::kTxRingFull);
      s.wants_turn = true;
      return;
    }
    TxSegment segment;
    if (!s.connection.PollTransmit(now_, limits, &segment)) return;
    PostSegment(s, segment, at);
  }
  s.wants_turn = true;
}

void Engine::PostSegment(EngineStream& s, const TxSegment& segment,
                         std::byte* at) {
  TcpHeader tcp;
  tcp.seq = segment.seq;
  tcp.ack = segment.ack;
  tcp.wnd = segment.wnd;
  tcp.urgent_pointer = segment.urgent_pointer;
  tcp.flags = segment.flags;
  tcp.options = segment.options;
  const bool is_tso = segment.tso_mss != 0;
  TxFrame frame;
  frame.header_bytes = s.headers.Emit(tcp,
                                      {.payload_bytes = segment.payload_bytes,
                                       .is_tso = is_tso,
                                       .ecn = static_cast<Ecn>(segment.ecn),
                                       .identification = s.identification},
                                      at);
  const uint32_t segments =
      is_tso ? (segment.payload_bytes + segment.tso_mss - 1) / segment.tso_mss
             : 1;
  s.identification = static_cast<uint16_t>(s.identification + segments);
  frame.tso_mss = segment.tso_mss;
  size_t pieces = 0;
  const uint32_t gathered = s.send_queue.Gather(
      segment.stream_offset, segment.payload_bytes, frame.pieces, &pieces);
  CHECK_EQ(gathered, segment.payload_bytes);
  frame.piece_count = static_cast<uint8_t>(pieces);
  if (capture_ != nullptr) {
    Record(true, {at, frame.header_bytes},
           frame.header_bytes + segment.payload_bytes, nullptr);
  }
  const uint64_t ticket = io_.TxPost(frame);
  s.send_queue.Posted(segment.stream_offset, segment.payload_bytes, ticket);
  counters_.frames_out.Add();
  counters_.segments_out.Add(segments);
  counters_.bytes_out.Add(segment.payload_bytes);
  if (segment.retransmission) counters_.retransmitted_segments.Add(segments);
}

void Engine::PollEvents(EngineStream& s) {
  while (const auto event = s.connection.PollEvent()) {
    switch (event->kind) {
      case Event::Kind::kConnected:
        s.was_connected = true;
        if (observer_ != nullptr) {
          s.is_observed = true;
          observer_->OnConnected(s.index, s.tuple.local, s.tuple.remote);
        }
        if (s.listener.has_value()) DeferOrOffer(s);
        break;
      case Event::Kind::kError:
        if (s.error == TcpError::kNone) s.error = s.connection.error();
        break;
      case Event::Kind::kReadable:
      case Event::Kind::kPeerClosed:
        ++s.readable_edge;
        if (s.accept_deadline != Instant::Never()) Offer(s);
        break;
      case Event::Kind::kUrgent:
        s.reports |= kReportUrgent;
        break;
      case Event::Kind::kStalled:  // RFC 9293 3.8.3 (b), SHLD-9.
        s.reports |= kReportStalled;
        neighbors_.OnDoubt(s.neighbor, now_);
        break;
      case Event::Kind::kAcked:
        GrowSendLimit(s);
        break;
      case Event::Kind::kWritable:
      case Event::Kind::kClosed:
        break;  // Levels: read from the Connection below.
    }
  }
}

// Hands back spans that are acknowledged and no longer posted.
void Engine::FinishSends(EngineStream& s) {
  const uint64_t acked = s.connection.acked_offset();
  const bool is_over = s.connection.is_finished();
  while (const SendQueue::Span* span =
             s.send_queue.Done(acked, io_.tx_completed(), is_over)) {
    if (span->is_host) {
      send_buffers_.Give(static_cast<uint32_t>(span->cookie));
    } else {
      if (span->ends_send && !s.completions_abandoned) {
        if (s.completions.full()) return;
        const bool is_delivered = span->start + span->length <= acked;
        CHECK(s.completions.Push(
            {span->cookie, s.send_bytes + span->length, is_delivered}));
      }
      s.send_bytes = span->ends_send ? 0 : s.send_bytes + span->length;
    }
    s.send_queue.PopDone();
  }
  if (s.connection.user_waits() && IsWritable(s)) {
    s.connection.OnSendRoom(now_);
  }
}

Readiness Engine::ReadinessOf(const EngineStream& s) const {
  const Connection& c = s.connection;
  Readiness ready = 0;
  if (c.readable_bytes() > 0 || c.is_at_end() || s.is_finished) {
    ready |= kReadable;
  }
  if (s.was_connected && !s.is_finished && IsWritable(s)) {
    ready |= kWritable;
  }
  if (!s.completions.empty()) ready |= kSendCompleted;
  if (s.was_connected) ready |= kConnected;
  if (s.error != TcpError::kNone) ready |= kFailed;
  if (s.reports != 0) ready |= kReported;
  return ready;
}

void Engine::Publish(EngineStream& s) {
  const Readiness ready = ReadinessOf(s);
  const bool more_to_read = s.readable_edge != s.published_edge;
  const bool is_new = (ready & ~s.readiness) != 0 || more_to_read;
  if (ready == s.readiness && !is_new) return;
  s.readiness = ready;
  s.published_edge = s.readable_edge;
  if (ready_sink_ != nullptr && s.is_open && !s.listener.has_value()) {
    ready_sink_->OnStreamReady(s.id, ready, is_new);
  }
}

void Engine::SetTimer(EngineStream& s) {
  timers_.Set(s.index, std::min({s.connection.NextDeadline(), s.rule_deadline,
                                 s.accept_deadline}));
}

// One congestion window in flight, and as much behind it for the time until the
// application comes again. Never back: a loss is over before the queue is, as
// in Linux's tcp_sndbuf_expand().
void Engine::GrowSendLimit(EngineStream& s) {
  const uint64_t want = 2 * uint64_t{s.connection.cwnd()};
  s.send_limit = std::max(s.send_limit, std::min(want, s.send_budget_bytes));
}

// What was acknowledged takes no room, though its span is not done: behind a
// long one the next is taken while the network still has work.
bool Engine::MayQueue(const EngineStream& s) const {
  const uint64_t end = s.send_queue.end();
  return end - s.connection.acked_offset() < s.send_limit &&
         end - s.connection.sent_offset() < s.notsent_low_water;
}

bool Engine::HasSendRoom(const EngineStream& s) const {
  return MayQueue(s) && s.send_queue.free_spans() > 0;
}

// Under a low water mark only at half of it: whoever waits is not woken for
// every segment that leaves. tcp_stream_memory_free() of Linux.
bool Engine::IsWritable(const EngineStream& s) const {
  const uint64_t unsent = s.send_queue.end() - s.connection.sent_offset();
  return HasSendRoom(s) && !s.waits_for_send_buffer() &&
         unsent <= (s.notsent_low_water - 1) / 2;
}

// All of them, whoever comes first takes it: one alone might not come.
void Engine::WakeForSendBuffers() {
  if (!send_buffers_.has_free()) return;
  while (EngineStream* s = send_buffer_waits_.PopFront()) {
    MarkDirty(*s);
  }
}

}  // namespace devwire
