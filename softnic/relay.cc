#include "softnic/relay.h"

#include "base/check.h"
#include "softnic/frame_checksum.h"
#include "softnic/packet.h"

namespace softnic {

Relay::Relay(Port* a, Port* b, const Options& options)
    : to_b_(a, b, options), to_a_(b, a, options) {}

bool Relay::Turn() {
  const bool to_b = to_b_.Turn();
  const bool to_a = to_a_.Turn();
  return to_b || to_a;
}

Relay::Direction::Direction(Port* from, Port* to, const Options& options)
    : from_(from),
      to_(to),
      options_(options),
      memory_(size_t{options.queue_frames} * options.max_frame_bytes),
      queue_(options.queue_frames) {}

void Relay::Direction::OnFrame(const RxFrame& frame) {
  has_taken_ = true;
  if (frame.length > options_.max_frame_bytes) {
    counters_.too_long.Add();
    return;
  }
  if (queue_.size() >= options_.queue_frames) {
    counters_.dropped.Add();
    return;
  }
  std::byte* slot = &memory_[size_t{next_slot_} * options_.max_frame_bytes];
  FrameBytes{{}, frame.pieces}.Copy(0, frame.length, slot);
  next_slot_ = (next_slot_ + 1) % options_.queue_frames;
  CHECK(queue_.Push({slot, frame.length, frame.checksum}));
}

bool Relay::Direction::Turn() {
  has_taken_ = false;
  from_->Progress(kBurst, *this);
  bool has_sent = false;
  while (!queue_.empty() && Forward(queue_.front())) {
    counters_.frames.Add();
    counters_.bytes.Add(queue_.front().length);
    queue_.PopFront();
    has_sent = true;
  }
  if (has_sent) to_->Flush();
  return has_taken_ || has_sent;
}

bool Relay::Direction::Forward(const Waiting& frame) {
  const std::span<std::byte> bytes(frame.bytes, frame.length);
  const ParsedFrame parsed = ParseFrame(bytes, frame.length);
  bool is_owed = frame.checksum == RxChecksum::kOwed;
  if (is_owed && !to_->offloads().checksum) {
    FinishOwedChecksum(parsed, bytes.data(), {bytes, {}});
    is_owed = false;
  }
  return to_->Send({.header = bytes,
                    .length = frame.length,
                    .layout = parsed.layout,
                    .l4_checksum_owed = is_owed});
}

}  // namespace softnic
