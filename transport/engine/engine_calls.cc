// Engine: receiving and sending for the application.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "transport/engine/engine.h"

namespace devwire {

Received Engine::ReceiveFrags(EngineStream& s, std::span<StreamFrag> out,
                              uint64_t max_bytes) {
  Received received;
  while (received.frags < out.size() && received.bytes < max_bytes) {
    const Frag* next = s.connection.PeekReadable();
    if (next == nullptr) break;
    Frag frag = *next;
    frag.length = static_cast<uint32_t>(
        std::min<uint64_t>(frag.length, max_bytes - received.bytes));
    const EnginePool& pool = pools_[static_cast<size_t>(frag.pool)];
    const auto token = pool.pool->Lend(frag, s.id);
    if (!token.has_value()) {  // All pieces are out: the bytes stay readable.
      counters_.Count(EngineEvent::kLendRefused);
      break;
    }
    Frag taken;
    CHECK_EQ(s.connection.Receive({&taken, 1}, frag.length), 1u);
    DCHECK(taken == frag);
    StreamFrag& to = out[received.frags++];
    const uint64_t in_pool =
        uint64_t{static_cast<uint32_t>(frag.slot)} * pool.pool->slot_bytes() +
        frag.offset;
    to.length = frag.length;
    to.token = *token;
    to.host = pool.host_base == nullptr ? nullptr : pool.host_base + in_pool;
    to.offset = pool.host_base == nullptr ? pool.offset + in_pool : 0;
    received.bytes += frag.length;
    ++s.lent_pieces;
    if (!s.pool.has_value()) {
      counters_.host_bytes.Add(frag.length);
    } else if (to.host != nullptr) {
      s.linear_bytes += frag.length;
      counters_.linear_bytes.Add(frag.length);
    } else {
      s.device_bytes += frag.length;
      counters_.device_bytes.Add(frag.length);
    }
  }
  received.end_of_stream = s.connection.is_at_end();
  MarkDirty(s);
  return received;
}

Received Engine::Read(EngineStream& s, std::span<std::byte> out) {
  Received received;
  while (received.bytes < out.size()) {
    Frag frag;
    if (s.connection.Receive({&frag, 1}, out.size() - received.bytes) == 0) {
      break;
    }
    const EnginePool& pool = pools_[static_cast<size_t>(frag.pool)];
    CHECK(pool.host_base != nullptr);
    std::memcpy(out.data() + received.bytes,
                pool.host_base +
                    uint64_t{static_cast<uint32_t>(frag.slot)} *
                        pool.pool->slot_bytes() +
                    frag.offset,
                frag.length);
    // Copied out: the slot is free when this was its last byte.
    const uint32_t free_before = pool.pool->free_slots();
    pool.pool->Discard(frag);
    s.connection.OnReleased(frag.length, pool.pool->free_slots() - free_before);
    received.bytes += frag.length;
    ++received.frags;
  }
  counters_.host_bytes.Add(received.bytes);
  received.end_of_stream = s.connection.is_at_end();
  MarkDirty(s);
  return received;
}

SendOutcome Engine::SendDevice(EngineStream& s, uint64_t iova, uint32_t lkey,
                               std::span<const DeviceSpan> spans,
                               uint64_t cookie) {
  if (!HasSendRoom(s) || s.send_queue.free_spans() < spans.size()) {
    s.connection.OnSendRefused(now_);
    Publish(s);  // Who finds no room may wait for the edge of the next.
    return SendOutcome::kWouldBlock;
  }
  uint64_t bytes = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    s.send_queue.Push({.addr = iova + spans[i].offset,
                       .length = spans[i].length,
                       .lkey = lkey,
                       .cookie = cookie,
                       .ends_send = i + 1 == spans.size()});
    bytes += spans[i].length;
  }
  CHECK_EQ(s.connection.Send(bytes), bytes);
  MarkDirty(s);
  return SendOutcome::kQueued;
}

size_t Engine::SendHost(EngineStream& s, std::span<const std::byte> bytes) {
  size_t taken = 0;
  while (taken < bytes.size() && MayQueue(s)) {
    // What is left in the newest buffer, else another one.
    SendQueue::Span* newest = s.send_queue.newest();
    uint32_t room = 0;
    uint32_t buffer = 0;
    if (newest != nullptr && newest->is_host) {
      room = SendBuffers::kBufferBytes - newest->length;
      buffer = static_cast<uint32_t>(newest->cookie);
    }
    const bool is_new = room == 0;
    if (is_new) {
      if (s.send_queue.free_spans() == 0) break;
      const auto fresh = send_buffers_.Take();
      if (!fresh.has_value()) {
        if (!s.waits_for_send_buffer()) send_buffer_waits_.PushBack(&s);
        break;
      }
      buffer = *fresh;
      room = SendBuffers::kBufferBytes;
    }
    const uint32_t take =
        static_cast<uint32_t>(std::min<uint64_t>(room, bytes.size() - taken));
    const uint32_t at = is_new ? 0 : newest->length;
    std::memcpy(send_buffers_.at(buffer) + at, bytes.data() + taken, take);
    if (is_new) {
      s.send_queue.Push({.addr = send_buffers_.iova(buffer),
                         .length = take,
                         .lkey = send_buffers_.lkey(),
                         .cookie = buffer,
                         .is_host = true});
    } else {
      s.send_queue.GrowNewest(take);
    }
    taken += take;
  }
  if (taken > 0) CHECK_EQ(s.connection.Send(taken), taken);
  if (taken < bytes.size()) {
    s.connection.OnSendRefused(now_);
    Publish(s);  // As in SendDevice().
  }
  MarkDirty(s);
  return taken;
}

size_t Engine::PollSendCompletions(EngineStream& s,
                                   std::span<SendCompletion> out) {
  size_t count = 0;
  if (device_error_ != 0) FinishSends(s);  // No poll does it any more.
  while (count < out.size() && !s.completions.empty()) {
    out[count++] = s.completions.front();
    s.completions.PopFront();
  }
  if (count > 0) {
    MarkDirty(s);
    Publish(s);  // Who has them all may wait for the edge of the next.
  }
  return count;
}

}  // namespace devwire
