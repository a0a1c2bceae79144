// Engine: from a received frame to Connection::OnSegment.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "transport/engine/engine.h"
#include "transport/engine/engine_tails.h"
#include "transport/tcp/reset.h"
#include "transport/wire/ethernet.h"

namespace devwire {
namespace {

bool IsGroup(const MacAddress& mac) { return (mac[0] & 1) != 0; }

// Negotiated, and behind the split. A SYN's need not be there: Linux's order
// puts them across it, and a SYN-ACK that comes again is only acknowledged.
bool LostTimestamps(const EngineStream& s, const ParsedFrame& parsed) {
  return s.connection.tcb().snd_ts_ok && !parsed.tcp.options.timestamps &&
         (parsed.tcp.flags & kSyn) == 0;
}

bool LiesInHeader(const RxFrame& frame, const ParsedFrame& parsed) {
  return parsed.header_bytes + parsed.payload_bytes <= frame.header_bytes;
}

}  // namespace

void Engine::Discard(const Frag& frag) {
  FragPool& pool = *pools_[static_cast<size_t>(frag.pool)].pool;
  const uint32_t free_before = pool.free_slots();
  pool.Discard(frag);
  if (frag.pool >= kFirstDevicePool || pool.free_slots() == free_before) return;
  const auto& holders = guests_[static_cast<size_t>(frag.pool)].streams;
  // Null: the stream is being destroyed, and was settled.
  const auto& s = streams_[holders[static_cast<uint32_t>(frag.slot)]];
  if (s != nullptr) ReleaseAsGuest(frag.pool, *s, 1);
}

void Engine::ProcessFrame(const RxFrame& frame) {
  counters_.frames_in.Add();
  ParsedFrame parsed;
  const ParseResult result =
      ParseFrame(frame.header, frame.header_bytes, frame.frame_bytes, &parsed);
  if (result == ParseResult::kTcp) [[likely]] {
    OnTcp(frame, parsed);
    return;
  }
  switch (result) {
    case ParseResult::kArp:
      OnArp(frame, parsed);
      break;
    case ParseResult::kIcmp:
    case ParseResult::kIcmpv6:
      OnIcmp(frame, parsed);
      break;
    case ParseResult::kPortsCut:
    case ParseResult::kTcpHeaderCut:
      OnHeaderCut(frame, parsed, result);
      break;
    default:  // The rest is only counted, under the parser's own name.
      DropFrame(frame, result);
      break;
  }
}

// The frame has no text that anybody keeps.
void Engine::FinishFrame(const RxFrame& frame) {
  pools_[static_cast<size_t>(frame.pool)].pool->Free(frame.slot);
}

// What lies in host memory may have payload behind the headers: that is
// nobody's business. Parsed again, but only while a capture runs.
void Engine::RecordFrame(const RxFrame& frame, const char* comment) {
  ParsedFrame parsed;
  uint32_t bytes = frame.header_bytes;
  if (ParseFrame(frame.header, frame.header_bytes, frame.frame_bytes,
                 &parsed) == ParseResult::kTcp) {
    bytes = std::min(bytes, uint32_t{parsed.header_bytes});
  }
  Record(/*is_outbound=*/false, {frame.header, bytes}, frame.frame_bytes,
         comment);
}

void Engine::DropFrame(const RxFrame& frame, DropCode code) {
  counters_.drops[static_cast<size_t>(code.index())].Add();
  if (capture_ != nullptr) RecordFrame(frame, code.name());
  FinishFrame(frame);
}

bool Engine::IsForUs(const RxFrame& frame, const ParsedFrame& parsed) {
  if (parsed.destination_mac != io_.limits().mac) {
    DropFrame(frame, EngineDrop::kOtherMac);
  } else if (parsed.tuple.local.ip != options_.route.address) {
    DropFrame(frame, EngineDrop::kOtherAddress);
  } else if (!options_.route.CanBePeer(parsed.tuple.remote.ip) ||
             IsGroup(parsed.source_mac)) {
    DropFrame(frame, EngineDrop::kBadSource);
  } else {
    return true;
  }
  return false;
}

bool Engine::ChecksumHolds(const RxFrame& frame, const ParsedFrame& parsed) {
  if (frame.checksum_ok) [[likely]]
    return true;
  if (!frame.whole_in_slot && !LiesInHeader(frame, parsed)) {
    DropFrame(frame, EngineDrop::kNoChecksumFlag);
    return false;
  }
  if (ChecksumsAreRight(frame.header, parsed)) return true;
  DropFrame(frame, EngineDrop::kBadChecksum);
  return false;
}

void Engine::OnTcp(const RxFrame& frame, ParsedFrame& parsed) {
  if (!IsForUs(frame, parsed) || !ChecksumHolds(frame, parsed)) return;
  Segment segment;
  segment.ecn = static_cast<uint8_t>(parsed.ecn);
  segment.payload_bytes = parsed.payload_bytes;
  segment.arrival = now_;

  const std::optional<uint32_t> index = demux_.Find(parsed.tuple);
  if (!index.has_value()) {
    static_cast<TcpHeader&>(segment) = parsed.tcp;
    const auto listener = ports_.FindListener(parsed.tuple);
    if (listener.has_value()) {
      OnSegmentToListener(frame, parsed, segment, *listener);
    } else {
      OnUnknown(frame, parsed, segment, EngineDrop::kNoConnection);
    }
    return;
  }
  EngineStream& s = *streams_[*index];
  if (s.connection.state() == State::kTimeWait &&
      (parsed.tcp.flags & kSyn) != 0 && ReopenTimeWait(frame, parsed, s)) {
    return;
  }
  if (s.is_half_open && IsAcceptQueueFull(s) &&
      (parsed.tcp.flags & kRst) == 0) {
    // As Linux: the SYN-ACK goes again, and its answer may find room.
    return DropFrame(frame, EngineDrop::kBacklogFull);
  }
  if (parsed.options_cut_bytes > 0 && !FetchOptions(frame, parsed, s)) {
    if (LostTimestamps(s, parsed)) {
      DropFrame(frame, EngineDrop::kTimestampsCut);
      if (++s.cut_headers >= kCutHeadersToMove) {
        MoveToControlQueue(s, Steering::kHeadersDiffer);
      }
      return;
    }
    segment.options_cut = true;
  }
  if (now_ < s.moves_until && !segment.options_cut) [[unlikely]] {
    if (WasSeenInOtherQueue(frame, parsed, s)) {
      return DropFrame(frame, EngineDrop::kSeenInOtherQueue);
    }
  }
  static_cast<TcpHeader&>(segment) = parsed.tcp;
  if (parsed.ip_option_bytes > 0 || parsed.vlan_tci.has_value()) {
    s.starts_on_control_queue = true;
  }
  TakeText(frame, parsed, s, &segment);
  const State before = s.connection.state();
  const Verdict verdict = s.connection.OnSegment(segment, now_);
  if (verdict.is_accepted()) {
    counters_.segments_in.Add();
  } else {
    counters_.drops[static_cast<size_t>(DropCode(verdict.reason).index())]
        .Add();
  }
  if (capture_ != nullptr) {
    RecordFrame(frame, verdict.is_accepted() ? nullptr
                                             : DropCode(verdict.reason).name());
  }
  AfterSegment(s, before);
}

// The identification tells repeated ACKs apart where the peer counts it up.
bool Engine::WasSeenInOtherQueue(const RxFrame& frame,
                                 const ParsedFrame& parsed,
                                 const EngineStream& s) {
  constexpr uint32_t kIdentification = 4;  // In the IPv4 header.
  MoveFilter::Frame f{.stream = s.index,
                      .payload_bytes = parsed.payload_bytes,
                      .is_on_control_queue = frame.queue == kControlQueue};
  if (s.tuple.local.ip.is_v4()) {
    f.identification =
        LoadBe16(frame.header + parsed.l3_offset + kIdentification);
  }
  return move_filter_.IsCopy(f, parsed.tcp);
}

void Engine::AfterSegment(EngineStream& s, State before) {
  if (before == State::kSynSent && s.connection.state() != State::kClosed &&
      s.connection.state() != State::kSynSent) {
    StartSteering(s, /*hold_handshake=*/true);
  }
  if (s.is_half_open && IsSynchronized(s.connection.state())) {
    OnHandshakeComplete(s);
  }
  MarkDirty(s);
}

// Names the text of the segment, or says that it is dropped. The slot of the
// frame is settled either way.
void Engine::TakeText(const RxFrame& frame, const ParsedFrame& parsed,
                      EngineStream& s, Segment* segment) {
  FragPool& pool = *pools_[static_cast<size_t>(frame.pool)].pool;
  if (parsed.payload_bytes == 0) {
    pool.Free(frame.slot);
    return;
  }
  PayloadSplit split{.device_offset = parsed.header_bytes,
                     .device_bytes = parsed.payload_bytes};
  if (!frame.whole_in_slot) split = SplitPayload(parsed, frame.header_bytes);
  bool is_dropped = !MayTakeText(frame.pool, s, *segment);
  std::optional<SlotIndex> linear;
  if (split.linear_bytes > 0 && !is_dropped) {
    linear = TakeLinearSlot(s, *segment);
    is_dropped = !linear.has_value();
  }
  if (is_dropped) {
    segment->text_dropped = true;
    pool.Free(frame.slot);
    return;
  }
  if (linear.has_value()) {
    FragPool& linear_pool = *pools_[static_cast<size_t>(kLinearPool)].pool;
    linear_pool.Receive(*linear, split.linear_bytes);
    std::memcpy(
        pools_[static_cast<size_t>(kLinearPool)].host_base +
            uint64_t{static_cast<uint32_t>(*linear)} * linear_pool.slot_bytes(),
        frame.header + parsed.header_bytes, split.linear_bytes);
    segment->text[segment->text_count++] = {*linear, 0, split.linear_bytes,
                                            kLinearPool};
  }
  if (split.device_bytes == 0) {
    pool.Free(frame.slot);
    return;
  }
  pool.Receive(frame.slot, split.device_bytes);
  if (IsGuest(s, frame.pool)) TakeAsGuest(frame.pool, frame.slot, s);
  PoolUse& use = pool_use_[static_cast<size_t>(frame.pool)];
  ++use.fills;
  ++use.slot_fills[static_cast<uint32_t>(frame.slot)];
  segment->text[segment->text_count++] = {frame.slot, split.device_offset,
                                          split.device_bytes, frame.pool};
}

// A slot for text that lies in the header slot; none: counted.
std::optional<SlotIndex> Engine::TakeLinearSlot(EngineStream& s,
                                                const Segment& segment) {
  if (!HasShare(kLinearPool, s, segment)) return std::nullopt;
  const auto slot = pools_[static_cast<size_t>(kLinearPool)].pool->Take();
  if (slot.has_value()) {
    TakeAsGuest(kLinearPool, *slot, s);
  } else {
    counters_.Count(EngineEvent::kLinearPoolDry);
  }
  return slot;
}

bool Engine::MayTakeText(PoolId pool, EngineStream& s, const Segment& segment) {
  if (IsAtReserve(pool, s, segment)) {
    counters_.Count(EngineEvent::kTextDroppedAtReserve);
    return false;
  }
  return !IsGuest(s, pool) || HasShare(pool, s, segment);
}

// With the next bytes in order the stream moves on: for them it gives up what
// came out of order. What the application holds is not to be had back.
bool Engine::HasShare(PoolId pool, EngineStream& s, const Segment& segment) {
  const size_t index = static_cast<size_t>(pool);
  const bool is_next = segment.text_seq() == s.connection.tcb().rcv_nxt;
  while (!guests_[index].shares.MayTake(s.guest_slots[index])) {
    if (is_next && s.connection.GiveUpOutOfOrder()) continue;
    counters_.Count(EngineEvent::kShareUsedUp);
    return false;
  }
  return true;
}

void Engine::TakeAsGuest(PoolId pool, SlotIndex slot, EngineStream& s) {
  const size_t index = static_cast<size_t>(pool);
  guests_[index].shares.OnTaken(&s.guest_slots[index]);
  guests_[index].streams[static_cast<uint32_t>(slot)] = s.index;
}

void Engine::ReleaseAsGuest(PoolId pool, EngineStream& s, uint32_t slots) {
  if (!IsGuest(s, pool)) return;
  const size_t index = static_cast<size_t>(pool);
  guests_[index].shares.OnFreed(&s.guest_slots[index], slots);
}

// The next bytes in order may use the last slots: with them the stream moves
// on, and its reader gives slots back.
bool Engine::IsAtReserve(PoolId id, const EngineStream& s,
                         const Segment& segment) const {
  const uint32_t free = pools_[static_cast<size_t>(id)].pool->free_slots();
  if (free > pool_use_[static_cast<size_t>(id)].reserve) [[likely]] {
    return false;
  }
  return free == 0 || segment.text_seq() != s.connection.tcb().rcv_nxt;
}

// Completes parsed.tcp.options from the payload slot. False: they stay cut.
bool Engine::FetchOptions(const RxFrame& frame, ParsedFrame& parsed,
                          EngineStream& s) {
  DeviceMemory* memory = pools_[static_cast<size_t>(frame.pool)].memory;
  // Timestamps beyond the split are a header that does not belong on this
  // queue at all; they are not fetched, the stream moves (docs/wire.md).
  if (LostTimestamps(s, parsed)) return false;
  using Tail = TailBatch::State;
  auto& tails = tails_->tails;
  if (!tails_are_fresh_) {
    for (auto& tail : tails) tail.state = Tail::kNone;
    tails_are_fresh_ = true;
  }
  if (tails[burst_at_].state == Tail::kNone) FetchTails(frame.pool, memory);
  if (tails[burst_at_].state == Tail::kUnreadable) {
    MoveToControlQueue(s, Steering::kNoOptionTail);
    return false;
  }
  const uint32_t start = parsed.l4_offset + kTcpFixedHeaderBytes;
  const uint32_t visible =
      frame.header_bytes > start ? frame.header_bytes - start : 0;
  std::array<std::byte, kMaxOptionTailBytes> options;
  std::memcpy(options.data(), frame.header + start, visible);
  std::memcpy(options.data() + visible, tails[burst_at_].bytes.data(),
              parsed.options_cut_bytes);
  const size_t total = visible + parsed.options_cut_bytes;
  ParseFetchedOptions({options.data(), total}, &parsed);
  return true;
}

// One call to the provider for all that the rest of this burst needs.
void Engine::FetchTails(PoolId pool, DeviceMemory* memory) {
  const EnginePool& p = pools_[static_cast<size_t>(pool)];
  size_t count = 0;
  std::array<size_t, kBurst> positions;
  for (size_t i = burst_at_; i < burst_size_; ++i) {
    const RxFrame& frame = burst_[i];
    if (frame.pool != pool || frame.whole_in_slot) continue;
    ParsedFrame parsed;
    if (ParseFrame(frame.header, frame.header_bytes, frame.frame_bytes,
                   &parsed) != ParseResult::kTcp ||
        parsed.options_cut_bytes == 0) {
      continue;
    }
    positions[count] = i;
    tails_->requests[count++] = {
        .offset = p.offset + uint64_t{static_cast<uint32_t>(frame.slot)} *
                                 p.pool->slot_bytes(),
        .length = parsed.options_cut_bytes,
        .out = tails_->tails[i].bytes.data()};
  }
  const bool is_read =
      memory != nullptr &&
      memory->ReadOptionTails({tails_->requests.data(), count});
  if (is_read) counters_.Count(EngineEvent::kOptionTailsRead, count);
  for (size_t i = 0; i < count; ++i) {
    tails_->tails[positions[i]].state =
        is_read ? TailBatch::State::kFetched : TailBatch::State::kUnreadable;
  }
}

// Cannot be demultiplexed or validated. What comes like this again and again
// does not belong on a queue that splits here.
void Engine::OnHeaderCut(const RxFrame& frame, const ParsedFrame& parsed,
                         ParseResult result) {
  const FourTuple tuple = parsed.tuple;
  const QueueId queue = frame.queue;
  DropFrame(frame, result);
  const auto strike = [&](EngineStream& s) {
    if (++s.cut_headers >= kCutHeadersToMove) {
      MoveToControlQueue(s, Steering::kHeadersDiffer);
    }
  };
  if (result == ParseResult::kTcpHeaderCut) {
    const auto index = demux_.Find(tuple);
    if (index.has_value()) strike(*streams_[*index]);
    return;
  }
  for (auto& s : streams_) {
    if (s != nullptr && s->queue == queue &&
        s->tuple.local.ip == tuple.local.ip &&
        s->tuple.remote.ip == tuple.remote.ip) {
      strike(*s);
    }
  }
}

void Engine::OnUnknown(const RxFrame& frame, const ParsedFrame& parsed,
                       const Segment& segment, DropCode code) {
  if (SendReset(parsed, segment)) {
    DropFrame(frame, code);
  } else {
    DropFrame(frame, EngineDrop::kNoConnectionQuiet);
  }
}

}  // namespace devwire
