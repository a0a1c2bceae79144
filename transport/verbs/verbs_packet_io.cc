// The fast half of VerbsPacketIo, and its error paths.
#include "transport/verbs/verbs_packet_io.h"

#include <algorithm>
#include <span>

#include "base/check.h"
#include "memreg/verbs_library.h"

namespace devwire {

size_t VerbsPacketIo::RxBurst(std::span<RxFrame> out) {
  HandleQueueAnswers();
  PollSends();
  const int room = static_cast<int>(std::min(out.size(), kRxBatch));
  const int polled = VerbsTable::PollCq(rx_cq_.get(), room, rx_wcs_.data());
  if (any_queue_is_unwell_) DrainSome(polled <= 0);
  if (polled <= 0) return 0;  // Negative: the queue is broken (ibv_poll_cq(3)).
  return Classify({rx_wcs_.data(), static_cast<size_t>(polled)}, out);
}

size_t VerbsPacketIo::Classify(std::span<const ibv_wc> done,
                               std::span<RxFrame> out) {
  for (size_t i = 0; i < done.size(); ++i) {
    const ibv_wc& wc = done[i];
    const size_t index = RxRing::QueueOf(wc.wr_id);
    ReceiveQueue* queue =
        index < queues_.size() ? queues_[index].get() : nullptr;
    if (queue != nullptr && !queue->ring.Owns(wc.wr_id)) queue = nullptr;
    rx_queues_[i] = queue;
    if (queue == nullptr) continue;
    // 66 bytes or more: the TCP options lie in a second line.
    const std::byte* const header = queue->ring.HeaderOf(wc.wr_id);
    __builtin_prefetch(header);
    __builtin_prefetch(header + kCacheLine);
  }
  size_t count = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < done.size(); ++i) {
    const ibv_wc& wc = done[i];
    ReceiveQueue* const queue = rx_queues_[i];
    if (queue == nullptr) [[unlikely]] {
      counters_.rx_stale.Add();
    } else if (wc.status != IBV_WC_SUCCESS) [[unlikely]] {
      OnReceiveError(wc);
    } else {
      queue->protection_errors = 0;
      queue->ring.OnReceived(wc, &out[count++]);
      bytes += wc.byte_len;
    }
  }
  counters_.rx_frames.Add(count);
  counters_.rx_bytes.Add(bytes);
  return count;
}

void VerbsPacketIo::Replenish() {
  for (const auto& queue : queues_) {
    if (queue->state != QueueState::kReady) continue;
    RxRing& ring = queue->ring;
    if (ring.Replenish() != 0) {
      Fail(*queue);
    } else if (ring.outstanding() < ring.depth()) {
      counters_.rx_ring_short.Add();
    }
  }
}

uint64_t VerbsPacketIo::TxPost(const TxFrame& frame) {
  DCHECK(frame.tso_mss == 0 || limits_.max_tso_payload > 0);
  DCHECK_LE(frame.piece_count, limits_.max_tx_pieces);
  counters_.tx_frames.Add();
  return tx_->Post(frame);
}

void VerbsPacketIo::TxFlush() {
  tx_->Flush();
  if (tx_->refusal() != 0) [[unlikely]]
    FailSend();
}

void VerbsPacketIo::PollSends() {
  if (tx_->refusal() != 0) [[unlikely]]
    FailSend();
  if (tx_->is_idle()) return;
  const int polled = VerbsTable::PollCq(tx_cq_.get(), kTxBatch, tx_wcs_.data());
  for (int i = 0; i < polled; ++i) {
    const ibv_wc& wc = tx_wcs_[static_cast<size_t>(i)];
    if (!tx_->Owns(wc.wr_id)) {
      counters_.rx_stale.Add();
    } else if (wc.status == IBV_WC_SUCCESS) [[likely]] {
      tx_->OnCompleted(wc.wr_id);
    } else {
      OnSendError(wc);
    }
  }
}

RuleId VerbsPacketIo::AddRule(const FlowMatch& match, QueueId to) {
  return control_->AddRule(match, to);
}

void VerbsPacketIo::RemoveRule(RuleId rule) { control_->RemoveRule(rule); }

size_t VerbsPacketIo::PollRules(std::span<RuleEvent> out) {
  const size_t count = control_->PollRules(out);
  // What came of a rule's queue was answered before the rule: by the time the
  // caller knows of the rule, receives are posted.
  if (count > 0) HandleQueueAnswers();
  return count;
}

size_t VerbsPacketIo::PollRegions(std::span<RegionEvent> out) {
  size_t count = 0;
  for (; count < out.size() && !region_events_.empty(); ++count) {
    out[count] = region_events_.front();
    region_events_.PopFront();
  }
  return count;
}

int VerbsPacketIo::ArmEvents() {
  ibv_cq* cq = nullptr;
  void* context = nullptr;
  while (verbs().get_cq_event(channel_.get(), &cq, &context) == 0) {
    verbs().ack_cq_events(cq, 1);
  }
  if (int e = VerbsTable::ReqNotifyCq(rx_cq_.get())) return e;
  return VerbsTable::ReqNotifyCq(tx_cq_.get());
}

// -- errors -------------------------------------------------------------------

void VerbsPacketIo::OnReceiveError(const ibv_wc& wc) {
  ReceiveQueue& queue = *queues_[RxRing::QueueOf(wc.wr_id)];
  queue.ring.OnFailed(wc);
  if (wc.status == IBV_WC_WR_FLUSH_ERR) {
    counters_.rx_flushed.Add();
  } else {
    counters_.rx_errors.Add();
  }
  // Once may be an accident of one frame; twice without a frame in between is
  // the region. Headers and host slots are ours: nobody revokes those.
  if (wc.status == IBV_WC_LOC_PROT_ERR && queue.ring.sges() == 2 &&
      ++queue.protection_errors == 2) {
    OnRegionRevoked(queue.ring.pool().id());
  }
  Fail(queue);
}

void VerbsPacketIo::OnRegionRevoked(PoolId pool) {
  for (const auto& queue : queues_) {
    if (queue->ring.pool().id() != pool) continue;
    queue->region_is_revoked = true;
    Fail(*queue);
    ReportRegion(
        {.is_receive = true, .pool = pool, .lkey = queue->ring.slot_lkey()});
  }
}

void VerbsPacketIo::OnSendError(const ibv_wc& wc) {
  if (wc.status == IBV_WC_WR_FLUSH_ERR) {
    counters_.tx_lost.Add();
  } else {
    counters_.tx_errors.Add();
  }
  if (wc.status == IBV_WC_LOC_PROT_ERR) {
    for (const uint32_t lkey : tx_->LkeysOf(wc.wr_id)) {
      ReportRegion({.is_receive = false, .lkey = lkey});
    }
  }
  tx_->OnCompleted(wc.wr_id);
  FailSend();
}

void VerbsPacketIo::ReportRegion(const RegionEvent& event) {
  for (size_t i = 0; i < reported_count_; ++i) {
    if (reported_[i] == event) return;
  }
  if (reported_count_ == reported_.size() || !region_events_.Push(event)) {
    counters_.region_events_dropped.Add();
    return;
  }
  reported_[reported_count_++] = event;
  counters_.regions_revoked.Add();
}

void VerbsPacketIo::Fail(ReceiveQueue& queue) {
  if (queue.state != QueueState::kReady) return;
  counters_.queues_failed.Add();
  queue.state = QueueState::kBreaking;
  any_queue_is_unwell_ = true;
  control_->BreakQueue(queue.ring.id());
}

void VerbsPacketIo::FailSend() {
  if (tx_state_ != QueueState::kReady) return;
  counters_.queues_failed.Add();
  tx_->Detach();
  tx_state_ = QueueState::kBreaking;
  any_queue_is_unwell_ = true;
  control_->BreakQueue(kTransmitQueue);
}

// Asks for the new pair of each queue that has given back all it held.
void VerbsPacketIo::DrainSome(bool poll_was_empty) {
  bool is_unwell = false;
  for (const auto& queue : queues_) {
    if (queue->state == QueueState::kBreaking) is_unwell = true;
    if (queue->state != QueueState::kDraining) continue;
    if (poll_was_empty) ++queue->empty_polls;
    if (queue->ring.outstanding() > 0 && queue->empty_polls < kDrainPolls) {
      is_unwell = true;
      continue;
    }
    queue->state = QueueState::kMaking;
    if (queue->region_is_revoked) {
      control_->DropQueue(queue->ring.id());
    } else {
      control_->MakeQueue(queue->ring.id());
    }
  }
  if (tx_state_ == QueueState::kBreaking) is_unwell = true;
  if (tx_state_ == QueueState::kDraining) {
    if (!tx_->is_idle() && ++tx_empty_polls_ < kDrainPolls) {
      is_unwell = true;
    } else {
      tx_state_ = QueueState::kMaking;
      control_->MakeQueue(kTransmitQueue);
    }
  }
  any_queue_is_unwell_ = is_unwell;
}

void VerbsPacketIo::HandleQueueAnswers() {
  ControlThread::QueueAnswer answer;
  while (control_->PollQueue(&answer)) {
    switch (answer.kind) {
      case ControlThread::QueueAnswer::Kind::kBroken:
        OnQueueBroken(answer.queue);
        break;
      case ControlThread::QueueAnswer::Kind::kMade:
        OnQueueMade(answer);
        break;
      case ControlThread::QueueAnswer::Kind::kFailed:
        if (answer.queue == kTransmitQueue) {
          FailSend();
        } else {
          Fail(*queues_[static_cast<size_t>(answer.queue)]);
        }
        break;
    }
  }
}

void VerbsPacketIo::OnQueueBroken(QueueId id) {
  any_queue_is_unwell_ = true;
  if (id == kTransmitQueue) {
    tx_state_ = QueueState::kDraining;
    tx_empty_polls_ = 0;
    return;
  }
  ReceiveQueue& queue = *queues_[static_cast<size_t>(id)];
  queue.state = QueueState::kDraining;
  queue.empty_polls = 0;
}

// The old pair is destroyed: nothing writes to its slots or reads its sends.
void VerbsPacketIo::OnQueueMade(const ControlThread::QueueAnswer& answer) {
  const bool is_made = answer.error == 0;
  if (answer.queue == kTransmitQueue) {
    counters_.tx_lost.Add(tx_->Recover());
    tx_state_ = is_made ? QueueState::kReady : QueueState::kDropped;
    if (is_made) tx_->Attach(answer.qp);
    (is_made ? counters_.queues_remade : counters_.queues_dropped).Add();
    if (!is_made) fatal_error_ = answer.error;
    return;
  }
  ReceiveQueue& queue = *queues_[static_cast<size_t>(answer.queue)];
  counters_.rx_slots_recovered.Add(queue.ring.Recover());
  queue.state = is_made ? QueueState::kReady : QueueState::kDropped;
  if (is_made) {
    queue.ring.Attach(answer.qp);
    // Of a queue remade, the caller may still be reading headers.
    if (queue.is_new && queue.ring.Replenish() != 0) Fail(queue);
  }
  if (!is_made) {
    counters_.queues_dropped.Add();
    if (answer.queue == kControlQueue) fatal_error_ = answer.error;
  } else if (!queue.is_new) {
    counters_.queues_remade.Add();
  }
  queue.is_new = false;
}

}  // namespace devwire
