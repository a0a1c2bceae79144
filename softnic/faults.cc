#include "softnic/faults.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "softnic/frame_checksum.h"
#include "softnic/packet.h"

namespace softnic {

using devwire::Duration;
using devwire::Instant;
using devwire::Prng;

FaultStage::FaultStage(FaultSide direction, uint32_t max_frame_bytes)
    : direction_(direction),
      max_frame_bytes_(max_frame_bytes),
      prng_{Prng(0), Prng(0), Prng(0), Prng(0), Prng(0)} {
  Reseed();
  overtaken_.reserve(kMaxOvertaken);
}

void FaultStage::Reseed() {
  Prng seeds(config_.seed * 2 + (direction_ == FaultSide::kTx ? 0 : 1));
  for (Prng& prng : prng_) prng = Prng(seeds.Next64());
}

void FaultStage::Configure(const FaultConfig& config) {
  const bool is_reseeded =
      config.seed != config_.seed || config.seed_given != config_.seed_given;
  config_ = config;
  if (is_reseeded) Reseed();
  const bool is_ours =
      config.side == FaultSide::kBoth || config.side == direction_;
  const bool holds = config.dup > 0 || config.corrupt > 0 ||
                     config.reorder > 0 || config.delay > Duration() ||
                     config.delay_jitter > Duration();
  is_active_ = is_ours && (holds || config.loss > 0 || config.path_mtu > 0);
  if (is_ours && holds) TakeSlots();
}

void FaultStage::TakeSlots() {
  if (!slots_.empty()) return;
  slots_.resize(config_.hold_frames);
  memory_.resize(static_cast<size_t>(config_.hold_frames) * max_frame_bytes_);
  due_.reserve(slots_.size());
  free_.reserve(slots_.size());
  for (uint32_t i = config_.hold_frames; i-- > 0;) free_.push_back(i);
}

FaultStage::Decision FaultStage::Decide(uint32_t length) {
  Decision d;
  if (!is_active_) return d;
  const FaultConfig& c = config_;
  d.is_lost = c.loss > 0 && prng_[kLoss].Chance(c.loss);
  d.is_lost |= c.path_mtu > 0 && length > kEthernetBytes + c.path_mtu;
  d.is_doubled = c.dup > 0 && prng_[kDup].Chance(c.dup);
  d.is_corrupted = c.corrupt > 0 && prng_[kCorrupt].Chance(c.corrupt);
  if (c.reorder > 0 && prng_[kOvertake].Chance(c.reorder)) {
    d.overtakers =
        1 + static_cast<uint32_t>(prng_[kOvertake].Below(c.reorder_depth));
  }
  d.delay = c.delay;
  if (c.delay_jitter > Duration()) {
    d.delay += Duration::Nanoseconds(
        prng_[kDelay].Between(0, c.delay_jitter.nanoseconds()));
  }
  return d;
}

bool FaultStage::Offer(const StageFrame& frame, Instant now, StageSink& sink) {
  // What was due before goes before.
  if (held_ != 0 && !PassDue(now, sink)) return false;
  if (!decided_) decided_ = Decide(frame.length);
  const Decision d = *decided_;
  if (d.is_lost) {
    counters_.lost.Add();
  } else if (d.is_corrupted || d.overtakers != 0 || d.delay > Duration()) {
    PassCopy(frame, d, now);
    if (d.overtakers == 0) OneHasPassed(now);
    if (d.is_doubled) {
      counters_.doubled.Add();
      PassCopy(frame, {.delay = d.delay}, now);
      OneHasPassed(now);
    }
  } else if (!PassByReference(frame, d.is_doubled, now, sink)) {
    return false;
  }
  decided_.reset();
  if (held_ != 0) PassDue(now, sink);
  return true;
}

bool FaultStage::PassByReference(const StageFrame& frame, bool is_doubled,
                                 Instant now, StageSink& sink) {
  if (!sink.Pass(frame)) return false;
  OneHasPassed(now);
  if (is_doubled) {
    counters_.doubled.Add();
    PassCopy(frame, {}, now);
    OneHasPassed(now);
  }
  return true;
}

void FaultStage::PassCopy(const StageFrame& frame, const Decision& decision,
                          Instant now) {
  const std::optional<uint32_t> slot = Hold(frame);
  if (!slot) return;
  if (decision.is_corrupted) Corrupt(*slot);
  if (decision.delay > Duration()) counters_.delayed.Add();
  slots_[*slot].delay = decision.delay;
  if (decision.overtakers != 0 && overtaken_.size() < kMaxOvertaken) {
    counters_.overtaken.Add();
    slots_[*slot].overtakers = decision.overtakers;
    slots_[*slot].due = now + kMaxOvertakeWait;
    overtaken_.push_back(*slot);
  } else {
    WaitUntil(*slot, now + decision.delay);
  }
}

std::optional<uint32_t> FaultStage::Hold(const StageFrame& frame) {
  if (free_.empty()) {
    counters_.no_slot.Add();
    return std::nullopt;
  }
  DCHECK_LE(frame.length, max_frame_bytes_);
  const uint32_t index = free_.back();
  free_.pop_back();
  ++held_;
  std::byte* memory =
      memory_.data() + static_cast<size_t>(index) * max_frame_bytes_;
  const FrameBytes bytes = {frame.header, frame.pieces};
  bytes.Copy(0, frame.length, memory);

  Slot& slot = slots_[index];
  slot.frame = frame;
  slot.frame.slot = index;
  const auto header_bytes = static_cast<uint32_t>(frame.header.size());
  slot.frame.header = {memory, header_bytes};
  slot.piece = {memory + header_bytes, frame.length - header_bytes};
  slot.frame.pieces = {&slot.piece, slot.piece.length == 0 ? 0u : 1u};
  return index;
}

void FaultStage::Corrupt(uint32_t index) {
  StageFrame& frame = slots_[index].frame;
  std::byte* memory =
      memory_.data() + static_cast<size_t>(index) * max_frame_bytes_;
  if (frame.l4_checksum_owed || frame.checksum == RxChecksum::kOwed) {
    // A checksum made later would cover the damage.
    const std::span<const std::byte> whole(memory, frame.length);
    FinishOwedChecksum(ParseFrame(whole, frame.length), memory, {whole, {}});
  }
  frame.l4_checksum_owed = false;
  frame.checksum = RxChecksum::kUnknown;
  Prng& prng = prng_[kCorrupt];
  memory[prng.Below(frame.length)] ^=
      static_cast<std::byte>(1 + prng.Below(255));
  counters_.corrupted.Add();
}

bool FaultStage::IsLater(uint32_t a, uint32_t b) const {
  if (slots_[a].due != slots_[b].due) return slots_[a].due > slots_[b].due;
  return slots_[a].order > slots_[b].order;
}

void FaultStage::WaitUntil(uint32_t index, Instant due) {
  slots_[index].due = due;
  slots_[index].order = next_order_++;
  due_.push_back(index);
  std::push_heap(due_.begin(), due_.end(),
                 [this](uint32_t a, uint32_t b) { return IsLater(a, b); });
}

void FaultStage::OneHasPassed(Instant now) {
  if (overtaken_.empty()) return;
  std::erase_if(overtaken_, [&](uint32_t index) {
    Slot& slot = slots_[index];
    if (--slot.overtakers != 0) return false;
    WaitUntil(index, now + slot.delay);
    return true;
  });
}

bool FaultStage::PassDue(Instant now, StageSink& sink) {
  while (!due_.empty() && slots_[due_.front()].due <= now) {
    const uint32_t index = due_.front();
    if (!sink.Pass(slots_[index].frame)) return false;
    std::pop_heap(due_.begin(), due_.end(),
                  [this](uint32_t a, uint32_t b) { return IsLater(a, b); });
    due_.pop_back();
    --held_;
  }
  return true;
}

void FaultStage::Progress(Instant now, StageSink& sink) {
  if (held_ == 0) return;
  std::erase_if(overtaken_, [&](uint32_t index) {
    if (slots_[index].due > now) return false;
    WaitUntil(index, now + slots_[index].delay);
    return true;
  });
  PassDue(now, sink);
}

void FaultStage::Release(uint32_t slot) { free_.push_back(slot); }

}  // namespace softnic
