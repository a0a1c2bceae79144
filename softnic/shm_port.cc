// Frames: in and out of the rings. The handshake is in shm_port_setup.cc.
#include "softnic/shm_port.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace softnic {
namespace {

// Idle calls of Progress between two readings of the clock.
constexpr uint32_t kIdlePollsPerClock = 32;
// Frames between two times that the sender is told what was consumed.
constexpr uint32_t kFramesPerRelease = 8;

}  // namespace

uint64_t ShmPort::completed() const {
  if (state_ != State::kUp || peer_is_gone_) return sent_;
  const uint32_t head = out_->consumer.head.load(std::memory_order_acquire);
  return sent_ - (tail_ - head);
}

bool ShmPort::Send(const TxFrame& frame) {
  if (state_ != State::kUp) Look();
  if (state_ != State::kUp || peer_is_gone_) {
    // Somebody is about to answer: the frame waits for the handshake.
    if (state_ == State::kHandshake && clock_->Now() < handshake_until_) {
      return false;
    }
    ++sent_;  // Lost.
    return true;
  }
  if (!is_all_announced_) Announce();
  if (tail_ - head_ == ShmDirection::kDepth) ReloadHead();
  if (tail_ - head_ == ShmDirection::kDepth) {
    Flush();
    return false;
  }
  const uint32_t slot = tail_ % ShmDirection::kDepth;
  const uint64_t staging_tail = staging_tail_;
  ShmDescriptor& d = out_->descriptors[slot];
  if (!Fill(frame, &d)) {
    staging_tail_ = staging_tail;
    ReloadHead();
    if (!Fill(frame, &d)) {
      staging_tail_ = staging_tail;
      Flush();
      return false;
    }
  }
  staging_end_[slot] = staging_tail_;
  ++tail_;
  ++sent_;
  return true;
}

void ShmPort::Flush() {
  if (state_ != State::kUp || published_ == tail_) return;
  published_ = tail_;
  out_->producer.tail.store(tail_, std::memory_order_release);
  // Either we see that the other end sleeps, or it sees the frames.
  if (!out_->sleep.is_asleep.exchange(false, std::memory_order_acq_rel)) return;
  // A socket without room for it is readable at the other end as it is.
  Tell({.kind = ShmMessage::Kind::kBell}, -1);
}

void ShmPort::ReloadHead() {
  const uint32_t head = out_->consumer.head.load(std::memory_order_acquire);
  if (head == head_ || tail_ - head > ShmDirection::kDepth) return;
  head_ = head;
  staging_head_ = staging_end_[(head - 1) % ShmDirection::kDepth];
}

bool ShmPort::IsMappable(const Piece& piece) {
  if (piece.region == kNoRegion) return false;
  if (is_all_announced_) return true;
  const auto it = own_.find(piece.region);
  return it != own_.end() && it->second.is_announced;
}

bool ShmPort::Fill(const TxFrame& frame, ShmDescriptor* d) {
  d->length = frame.length;
  d->checksum = static_cast<uint8_t>(
      frame.l4_checksum_owed ? RxChecksum::kOwed : RxChecksum::kUnknown);
  d->piece_count = 0;
  const Piece header = {frame.header.data(),
                        static_cast<uint32_t>(frame.header.size()), kNoRegion,
                        0};
  if (!Stage({&header, 1}, d)) return false;
  size_t i = 0;
  while (i < frame.pieces.size()) {
    const Piece& piece = frame.pieces[i];
    // The last place of a descriptor takes all that is left, by copy.
    const bool is_last_place = d->piece_count + 1u == ShmDescriptor::kMaxPieces;
    const bool fits = !is_last_place || i + 1 == frame.pieces.size();
    if (fits && IsMappable(piece)) {
      d->pieces[d->piece_count++] = {piece.region, piece.length,
                                     piece.region_offset};
      ++i;
      continue;
    }
    size_t end = i + 1;
    while (end < frame.pieces.size() &&
           (!fits || !IsMappable(frame.pieces[end]))) {
      ++end;
    }
    if (!Stage(frame.pieces.subspan(i, end - i), d)) return false;
    i = end;
  }
  return true;
}

// Copies the pieces into staging, as one run.
bool ShmPort::Stage(std::span<const Piece> pieces, ShmDescriptor* d) {
  uint64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.length;
  constexpr uint64_t kSize = ShmDirection::kStagingBytes;
  uint64_t at = staging_tail_;
  if (at % kSize + bytes > kSize)
    at += kSize - at % kSize;  // not around the end
  if (at + bytes - staging_head_ > kSize) return false;
  std::byte* out = out_->staging + at % kSize;
  for (const Piece& piece : pieces) {
    memcpy(out, piece.data, piece.length);
    out += piece.length;
  }
  // Cache lines of different frames stay apart.
  staging_tail_ = (at + bytes + 63) & ~uint64_t{63};
  d->pieces[d->piece_count++] = {kNoRegion, static_cast<uint32_t>(bytes),
                                 at % kSize};
  return true;
}

void ShmPort::Progress(uint32_t budget, Receiver& receiver) {
  if (state_ != State::kUp) {
    if (state_ == State::kHandshake || IsTimeToLook()) Look();
    if (state_ != State::kUp) return;
  }
  if (!is_all_announced_) Announce();
  Flush();
  const uint32_t tail = in_->producer.tail.load(std::memory_order_acquire);
  if (in_->producer.messages.load(std::memory_order_acquire) !=
      messages_read_) {
    ReadMessages();
  }
  const uint32_t ready = tail - in_head_;
  if (ready > ShmDirection::kDepth) {  // Garbage.
    LoseLink();
    return;
  }
  const uint32_t count = std::min(ready, budget);
  for (uint32_t i = 0; i < count; ++i) {
    const ShmDescriptor& d = in_->descriptors[in_head_ % ShmDirection::kDepth];
    if (Receive(d, receiver) == Verdict::kWait) break;
    ++in_head_;
    if (in_head_ % kFramesPerRelease == 0) {
      in_->consumer.head.store(in_head_, std::memory_order_release);
    }
  }
  if (count > 0) {
    in_->consumer.head.store(in_head_, std::memory_order_release);
    if (has_forgotten_) UnmapForgotten();
    idle_polls_ = 1;  // Whose frames come is there, too.
  } else if (peer_is_gone_ && ready == 0) {
    LoseLink();
  } else if (IsTimeToLook()) {
    Look();
  }
}

ShmPort::Verdict ShmPort::Receive(const ShmDescriptor& d, Receiver& receiver) {
  // Read once: the other end could change them under us.
  const uint32_t count = d.piece_count;
  const uint8_t checksum = d.checksum;
  if (count == 0 || count > ShmDescriptor::kMaxPieces) return Verdict::kDone;
  std::array<Piece, ShmDescriptor::kMaxPieces> pieces;
  uint32_t length = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const ShmPiece piece = d.pieces[i];
    bool is_unknown = false;
    pieces[i].data = Find(piece, &is_unknown);
    pieces[i].length = piece.length;
    if (pieces[i].data == nullptr) {
      // Its message may be on the way still, unless the other end is gone.
      return is_unknown && !peer_is_gone_ ? Verdict::kWait : Verdict::kDone;
    }
    length += piece.length;
  }
  RxFrame frame;
  frame.pieces = {pieces.data(), count};
  frame.length = length;
  frame.checksum = checksum == static_cast<uint8_t>(RxChecksum::kOwed)
                       ? RxChecksum::kOwed
                       : RxChecksum::kUnknown;
  receiver.OnFrame(frame);
  return Verdict::kDone;
}

const std::byte* ShmPort::Find(const ShmPiece& piece, bool* is_unknown) {
  const std::byte* base = in_->staging;
  uint64_t size = ShmDirection::kStagingBytes;
  if (piece.region != kNoRegion) {
    const PeerRegion* region = FindPeerRegion(piece.region);
    if (region == nullptr) {
      *is_unknown = true;
      return nullptr;
    }
    base = region->base;
    size = region->length;
  }
  if (piece.length == 0 || piece.length > size ||
      piece.offset > size - piece.length || base == nullptr) {
    return nullptr;
  }
  return base + piece.offset;
}

const ShmPort::PeerRegion* ShmPort::FindPeerRegion(uint32_t number) {
  if (number == last_number_) return last_region_;
  auto it = peer_.find(number);
  if (it == peer_.end()) {
    ReadMessages();
    it = peer_.find(number);
    if (it == peer_.end()) return nullptr;
  }
  last_number_ = number;
  last_region_ = &it->second;
  return last_region_;
}

bool ShmPort::IsTimeToLook() {
  if (state_ == State::kUp) {
    // A peer that consumes our frames is there: no need to ask.
    const uint32_t head = out_->consumer.head.load(std::memory_order_relaxed);
    if (head != idle_head_) {
      idle_head_ = head;
      idle_polls_ = 1;
      return false;
    }
  }
  if (idle_polls_++ % kIdlePollsPerClock != 0) return false;
  return clock_->Now() >= next_look_;
}

}  // namespace softnic
