#include "softnic/faulty_port.h"

#include <algorithm>

#include "base/check.h"

namespace softnic {

using devwire::Duration;
using devwire::Instant;

FaultyPort::FaultyPort(Port* inner, const devwire::Clock* clock,
                       uint32_t max_frame_bytes, const FaultConfig& config)
    : inner_(inner),
      clock_(clock),
      max_frame_bytes_(max_frame_bytes),
      tx_(FaultSide::kTx, max_frame_bytes),
      rx_(FaultSide::kRx, max_frame_bytes),
      inner_sent_(inner->sent()),
      runs_(kMaxRuns) {
  tx_sink_.port = this;
  Configure(config);
}

void FaultyPort::Configure(const FaultConfig& config) {
  config_ = config;
  tx_.Configure(config);
  rx_.Configure(config);
}

Port::Offloads FaultyPort::offloads() const {
  Offloads offloads = inner_->offloads();
  // A checksum is finished before a byte is changed, and each frame of the
  // wire has a fate of its own.
  if (tx_.may_corrupt()) offloads.checksum = false;
  if (tx_.is_active() || config_.rate != 0) offloads.segmentation = false;
  return offloads;
}

void FaultyPort::TellTime() {
  if (!tx_.is_idle() || !rx_.is_idle() || config_.rate != 0) {
    now_ = clock_->Now();
  }
}

void FaultyPort::TakeWireTime(uint32_t frame_bytes) {
  if (config_.rate == 0) return;
  const uint64_t bits = 8 * (std::max(frame_bytes, kMinFrameBytes) +
                             uint64_t{kWireOverheadBytes});
  const auto ns = static_cast<int64_t>(bits * 1'000'000'000 / config_.rate);
  wire_free_ =
      std::max(wire_free_, now_ - kMaxBurst) + Duration::Nanoseconds(ns);
}

void FaultyPort::Count(bool is_by_reference, uint64_t inner_from) {
  ++sent_;
  if (!runs_.empty()) {
    Run& last = runs_.back();
    const uint64_t next =
        last.inner_from + (last.is_by_reference ? last.count : 0);
    if (last.is_by_reference == is_by_reference && next == inner_from) {
      ++last.count;
      return;
    }
  }
  CHECK(runs_.Push({is_by_reference, inner_from, 1}));  // Send made room.
}

uint64_t FaultyPort::DoneOf(const Run& run, uint64_t inner_completed) const {
  if (inner_completed < run.inner_from) return 0;
  if (!run.is_by_reference) return run.count;
  return std::min(run.count, inner_completed - run.inner_from);
}

uint64_t FaultyPort::completed() const {
  const uint64_t inner_completed = inner_->completed();
  uint64_t total = finished_;
  for (size_t i = 0; i < runs_.size(); ++i) {
    const uint64_t done = DoneOf(runs_[i], inner_completed);
    total += done;
    if (done != runs_[i].count) break;
  }
  return total;
}

void FaultyPort::DropFinishedRuns() {
  const uint64_t inner_completed = inner_->completed();
  while (!runs_.empty()) {
    const Run& front = runs_.front();
    if (DoneOf(front, inner_completed) != front.count) break;
    finished_ += front.count;
    runs_.PopFront();
  }
}

bool FaultyPort::TxSink::Pass(const StageFrame& frame) {
  const TxFrame out = {.header = frame.header,
                       .pieces = frame.pieces,
                       .length = frame.length,
                       .layout = frame.layout,
                       .l4_checksum_owed = frame.l4_checksum_owed};
  if (!port->inner_->Send(out)) return false;
  const uint64_t index = port->inner_sent_++;
  if (frame.slot == StageFrame::kNotHeld) {
    port->Count(true, index);
    passed_reference = true;
  } else {
    // Bytes in no region are the inner port's during Send only.
    port->tx_.Release(frame.slot);
  }
  return true;
}

bool FaultyPort::Send(const TxFrame& frame) {
  if (runs_.size() + 2 > runs_.capacity()) {
    DropFinishedRuns();
    if (runs_.size() + 2 > runs_.capacity()) return false;
  }
  TellTime();
  if (config_.rate != 0 && wire_free_ > now_) return false;
  if (!config_.link_up) {
    tx_.CountLinkDown();
    Count(false, inner_sent_);
    return true;
  }
  if (tx_.is_idle() || frame.mss != 0 || frame.length > max_frame_bytes_) {
    if (!inner_->Send(frame)) return false;
    Count(true, inner_sent_++);
  } else {
    tx_sink_.passed_reference = false;
    const StageFrame staged = {.header = frame.header,
                               .pieces = frame.pieces,
                               .length = frame.length,
                               .layout = frame.layout,
                               .l4_checksum_owed = frame.l4_checksum_owed,
                               .slot = StageFrame::kNotHeld};
    if (!tx_.Offer(staged, now_, tx_sink_)) return false;
    if (!tx_sink_.passed_reference) Count(false, inner_sent_);
  }
  TakeWireTime(frame.length);
  return true;
}

bool FaultyPort::RxSink::Pass(const StageFrame& frame) {
  receiver->OnFrame({frame.pieces, frame.length, frame.checksum});
  // The receiver is done with the bytes when it returns.
  if (frame.slot != StageFrame::kNotHeld) port->rx_.Release(frame.slot);
  return true;
}

void FaultyPort::OnFrame(const RxFrame& frame) {
  if (!config_.link_up) {
    rx_.CountLinkDown();
    return;
  }
  if (frame.length > max_frame_bytes_) {
    rx_sink_.receiver->OnFrame(frame);
    return;
  }
  const StageFrame staged = {.pieces = frame.pieces,
                             .length = frame.length,
                             .checksum = frame.checksum,
                             .slot = StageFrame::kNotHeld};
  // A receiver always has room.
  CHECK(rx_.Offer(staged, now_, rx_sink_));
}

void FaultyPort::Progress(uint32_t budget, Receiver& receiver) {
  TellTime();
  rx_sink_.port = this;
  rx_sink_.receiver = &receiver;
  if (rx_.is_idle() && config_.link_up) {
    inner_->Progress(budget, receiver);
  } else {
    inner_->Progress(budget, *this);
    rx_.Progress(now_, rx_sink_);
  }
  if (!tx_.is_idle()) {
    tx_.Progress(now_, tx_sink_);
    inner_->Flush();
  }
  DropFinishedRuns();
}

}  // namespace softnic
