#include "transport/sim/sim_packet_io.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace devwire {
namespace {

Duration UpTo(Duration max, Prng& prng) {
  if (max <= Duration()) return Duration();
  return Duration::Nanoseconds(static_cast<int64_t>(
      prng.Below(static_cast<uint64_t>(max.nanoseconds()) + 1)));
}

bool IsGroup(const MacAddress& mac) { return (mac[0] & 1) != 0; }

ParseResult ParseWhole(const SimFrame& frame, ParsedFrame* out) {
  const auto bytes = static_cast<uint32_t>(frame.size());
  return ParseFrame(frame.data(), bytes, bytes, out);
}

}  // namespace

SimPacketIo::SimPacketIo(const Options& options, const Clock& clock,
                         SimLink& out, SimLink& in)
    : options_(options),
      clock_(clock),
      out_(out),
      in_(in),
      prng_(options.seed),
      tx_headers_(options.tx_depth * kMaxTxHeaderBytes) {}

SimPacketIo::~SimPacketIo() {
  for (auto& queue : queues_) {
    FragPool& pool = *pools_[queue->pool].pool;
    for (const Receive& r : queue->posted) pool.Free(r.slot);
    for (const RxFrame& f : queue->completed) pool.Free(f.slot);
  }
}

void SimPacketIo::RegisterSendMemory(uint64_t iova, uint32_t lkey,
                                     std::span<std::byte> memory) {
  regions_.push_back({iova, lkey, memory});
}

void SimPacketIo::AddPool(FragPool& pool, std::span<std::byte> memory,
                          bool is_control) {
  CHECK_LE(uint64_t{pool.slot_bytes()} * pool.slot_count(), memory.size());
  pools_.push_back({&pool, memory, is_control});
  if (!is_control) return;
  CHECK(queues_.empty()) << "one control pool";
  auto queue = std::make_unique<Queue>();
  queue->id = kControlQueue;
  queue->pool = pools_.size() - 1;
  queues_.push_back(std::move(queue));
}

std::span<const std::byte> SimPacketIo::BytesOf(const Frag& frag) const {
  for (const Pool& p : pools_) {
    if (p.pool->id() != frag.pool) continue;
    CHECK_LE(frag.offset + frag.length, p.pool->slot_bytes());
    const auto slot = static_cast<uint64_t>(frag.slot);
    return p.memory.subspan(slot * p.pool->slot_bytes() + frag.offset,
                            frag.length);
  }
  CHECK(false) << "no pool " << static_cast<int>(frag.pool);
  return {};
}

Instant SimPacketIo::NextEvent() const {
  Instant next = in_.NextArrival();
  if (!sends_.empty() && sends_.front().is_flushed) {
    next = std::min(next, sends_.front().due);
  }
  for (const Rule& rule : rules_) {
    if (!rule.is_answered) next = std::min(next, rule.due);
  }
  return next;
}

// -- transmit -----------------------------------------------------------------

std::byte* SimPacketIo::TxHeader() {
  if (tx_posted_ - tx_completed_ >= options_.tx_depth) return nullptr;
  return tx_headers_.data() +
         (tx_posted_ % options_.tx_depth) * kMaxTxHeaderBytes;
}

uint64_t SimPacketIo::TxPost(const TxFrame& frame) {
  CHECK_LT(tx_posted_ - tx_completed_, options_.tx_depth);
  CHECK_LE(frame.header_bytes, kMaxTxHeaderBytes);
  CHECK_LE(size_t{frame.piece_count}, kMaxTxPieces);
  const std::byte* header = TxHeader();
  sends_.push_back({frame, {header, header + frame.header_bytes}, {}, false});
  return ++tx_posted_;
}

void SimPacketIo::TxFlush() {
  Instant due = clock_.Now();
  for (Send& send : sends_) {
    if (send.is_flushed) {
      due = std::max(due, send.due);
      continue;
    }
    // In order: nothing completes before what was posted before it.
    due = std::max(due, clock_.Now() + UpTo(options_.gather_delay, prng_));
    send.due = due;
    send.is_flushed = true;
  }
  RunTx(clock_.Now());
}

void SimPacketIo::RunTx(Instant now) {
  while (!sends_.empty() && sends_.front().is_flushed &&
         sends_.front().due <= now) {
    const Send& send = sends_.front();
    SimFrame payload;
    Gather(send, &payload);
    if (send.frame.tso_mss == 0) {
      SendFrame(send.header, payload, send.frame.insert_checksums);
    } else {
      SendCut(send, payload);
    }
    sends_.pop_front();
    ++tx_completed_;
  }
}

void SimPacketIo::Gather(const Send& send, SimFrame* payload) const {
  for (int i = 0; i < send.frame.piece_count; ++i) {
    const TxPiece& piece = send.frame.pieces[i];
    const Region* found = nullptr;
    for (const Region& region : regions_) {
      if (region.lkey == piece.lkey && piece.addr >= region.iova &&
          piece.addr + piece.length <= region.iova + region.memory.size()) {
        found = &region;
      }
    }
    CHECK(found != nullptr) << "send from unregistered memory";
    if (gather_observer_) gather_observer_(piece.addr, piece.length);
    const auto bytes =
        found->memory.subspan(piece.addr - found->iova, piece.length);
    payload->insert(payload->end(), bytes.begin(), bytes.end());
  }
}

void SimPacketIo::SendFrame(std::span<const std::byte> header,
                            std::span<const std::byte> payload,
                            bool insert_checksums) {
  SimFrame frame(header.begin(), header.end());
  frame.insert(frame.end(), payload.begin(), payload.end());
  CHECK_LE(frame.size(),
           options_.limits.mtu + kEthernetHeaderBytes + kVlanTagBytes);
  if (insert_checksums) {
    ParsedFrame p;
    CHECK_EQ(ParseWhole(frame, &p), ParseResult::kTcp) << "insert_checksums";
    CHECK_EQ(p.header_bytes + p.payload_bytes, frame.size());
    std::byte* l4 = frame.data() + p.l4_offset;
    if (p.tuple.local.ip.is_v4()) {
      WriteIpv4Checksum(frame.data() + p.l3_offset, p.l4_offset - p.l3_offset);
    }
    StoreBe16(l4 + kTcpChecksumOffset, 0);
    InternetSum sum = PseudoHeaderSum(p.tuple.remote.ip, p.tuple.local.ip,
                                      kProtocolTcp, p.l4_bytes);
    sum.Add({l4, p.l4_bytes});
    StoreBe16(l4 + kTcpChecksumOffset, sum.Checksum());
  }
  if (frame.size() < kMinEthernetFrameBytes) {
    frame.resize(kMinEthernetFrameBytes);
  }
  ++stats_.tx_frames;
  out_.Send(std::move(frame), clock_.Now());
}

// What TSO does to each segment: lengths, identification, sequence number;
// FIN and PSH on the last alone, CWR on the first (RFC 3168 6.1.2).
void SimPacketIo::SendCut(const Send& send,
                          std::span<const std::byte> payload) {
  CHECK_LE(payload.size(), options_.limits.max_tso_payload);
  ++stats_.tso_sends;
  const uint32_t mss = send.frame.tso_mss;
  const bool v4 = LoadBe16(send.header.data() + 12) == kEtherTypeIpv4;
  const uint32_t l3 = kEthernetHeaderBytes;
  const uint32_t l4 = l3 + (v4 ? kMinIpv4HeaderBytes : kIpv6HeaderBytes);
  const auto tcp_bytes = static_cast<uint32_t>(send.header.size()) - l4;
  for (uint32_t at = 0; at < payload.size(); at += mss) {
    const auto bytes =
        std::min<uint32_t>(mss, static_cast<uint32_t>(payload.size()) - at);
    std::vector<std::byte> header = send.header;
    std::byte* ip = header.data() + l3;
    std::byte* tcp = header.data() + l4;
    if (v4) {
      StoreBe16(ip + 2, static_cast<uint16_t>(l4 - l3 + tcp_bytes + bytes));
      StoreBe16(ip + 4, static_cast<uint16_t>(LoadBe16(ip + 4) + at / mss));
    } else {
      StoreBe16(ip + 4, static_cast<uint16_t>(tcp_bytes + bytes));
    }
    StoreBe32(tcp + 4, LoadBe32(tcp + 4) + at);
    uint8_t flags = Load8(tcp + 13);
    if (at + bytes < payload.size()) {
      flags = static_cast<uint8_t>(flags & ~(kFin | kPsh));
    }
    if (at > 0) flags = static_cast<uint8_t>(flags & ~kCwr);
    Store8(tcp + 13, flags);
    SendFrame(header, payload.subspan(at, bytes), true);
  }
}

// -- receive ------------------------------------------------------------------

size_t SimPacketIo::RxBurst(std::span<RxFrame> out) {
  RunTx(clock_.Now());
  RunRx(clock_.Now());
  size_t count = 0;
  for (auto& queue : queues_) {
    while (count < out.size() && !queue->completed.empty()) {
      out[count++] = queue->completed.front();
      queue->completed.pop_front();
    }
  }
  return count;
}

void SimPacketIo::RunRx(Instant now) {
  while (auto frame = in_.Receive(now)) Arrive(*frame);
}

void SimPacketIo::Arrive(const SimFrame& frame) {
  ParsedFrame parsed;
  const ParseResult kind = ParseWhole(frame, &parsed);
  if (parsed.destination_mac != options_.limits.mac &&
      !IsGroup(parsed.destination_mac)) {
    ++stats_.rx_other_mac;
    return;
  }
  Queue* queue = Steer(frame, kind, parsed);
  if (queue == nullptr) {
    ++stats_.rx_no_rule;
    return;
  }
  bool checksum_ok = kind == ParseResult::kTcp;
  if (checksum_ok && !ChecksumsAreRight(frame.data(), parsed)) {
    ++stats_.rx_bad_checksum;
    checksum_ok = false;
  }
  if (!parsed.tuple.local.ip.is_v4() && !options_.limits.rx_checksum_ipv6) {
    checksum_ok = false;
  }
  Land(*queue, frame, parsed, checksum_ok);
  if (options_.move_time > Duration()) {
    LandCopy(*queue, frame, parsed, checksum_ok);
  }
}

// Around a move: on the control queue what has just got a rule, on the data
// queue what has just lost it.
void SimPacketIo::LandCopy(const Queue& first, const SimFrame& frame,
                           const ParsedFrame& parsed, bool checksum_ok) {
  const Instant since = clock_.Now() - options_.move_time;
  const auto is_of = [&](const Rule& rule) {
    return rule.match.kind == FlowMatch::Kind::kConnection &&
           Matches(rule.match, parsed);
  };
  for (const Rule& rule : rules_) {
    if (rule.to == first.id && rule.due > since && is_of(rule)) {
      ++stats_.copies;
      Land(*queues_[0], frame, parsed, checksum_ok);
    }
  }
  std::erase_if(gone_, [&](const Rule& r) { return r.removed <= since; });
  for (const Rule& rule : gone_) {
    if (first.id == kControlQueue && is_of(rule)) {
      ++stats_.copies;
      Land(*queues_[static_cast<size_t>(rule.to)], frame, parsed, checksum_ok);
    }
  }
}

bool SimPacketIo::Matches(const FlowMatch& match, const ParsedFrame& parsed) {
  const Endpoint& local = parsed.tuple.local;
  if (match.kind == FlowMatch::Kind::kOwnedHost) return true;
  if (local.ip != match.tuple.local.ip) return false;
  switch (match.kind) {
    case FlowMatch::Kind::kConnection:
      return parsed.tuple == match.tuple;
    case FlowMatch::Kind::kPortBlock: {
      const int bits = match.port_block_bits;
      return static_cast<uint32_t>(local.port) >> bits ==
             static_cast<uint32_t>(match.tuple.local.port) >> bits;
    }
    case FlowMatch::Kind::kListener:
      return local.port == match.tuple.local.port;
    case FlowMatch::Kind::kOwnedHost:
      break;
  }
  return true;
}

SimPacketIo::Queue* SimPacketIo::Steer(const SimFrame&, ParseResult kind,
                                       const ParsedFrame& parsed) {
  const Rule* best = nullptr;
  for (const Rule& rule : rules_) {
    if (rule.error != 0 || clock_.Now() < rule.due) continue;
    // Fragments and malformed frames have no ports to match.
    if (rule.match.kind != FlowMatch::Kind::kOwnedHost &&
        kind != ParseResult::kTcp) {
      continue;
    }
    if (!Matches(rule.match, parsed)) continue;
    // Kinds are in order of priority.
    if (best == nullptr || rule.match.kind < best->match.kind) {
      best = &rule;
    } else {
      CHECK(rule.match.kind != best->match.kind)
          << "two rules of one priority match: a NIC delivers to both";
    }
  }
  return best == nullptr ? nullptr
                         : queues_[static_cast<size_t>(best->to)].get();
}

void SimPacketIo::Land(Queue& queue, const SimFrame& frame,
                       const ParsedFrame& parsed, bool checksum_ok) {
  const Pool& pool = pools_[queue.pool];
  const auto bytes = static_cast<uint32_t>(frame.size());
  if (bytes > queue.split + pool.pool->slot_bytes()) {
    ++stats_.rx_too_long;
    return;
  }
  if (queue.posted.empty()) {
    ++stats_.rx_ring_dry;
    return;
  }
  const Receive receive = queue.posted.front();
  queue.posted.pop_front();
  std::byte* slot = pool.memory.data() + static_cast<uint64_t>(receive.slot) *
                                             pool.pool->slot_bytes();
  RxFrame rx;
  rx.frame_bytes = bytes;
  rx.slot = receive.slot;
  rx.pool = pool.pool->id();
  rx.queue = queue.id;
  rx.checksum_ok = checksum_ok;
  rx.whole_in_slot = queue.split == 0;
  if (rx.whole_in_slot) {
    std::memcpy(slot, frame.data(), bytes);
    rx.header = slot;
    rx.header_bytes = bytes;
    stats_.control_payload_bytes += parsed.payload_bytes;
  } else {
    std::byte* header =
        queue.headers.data() + receive.header_slot * queue.split;
    rx.header = header;
    rx.header_bytes = std::min(bytes, queue.split);
    std::memcpy(header, frame.data(), rx.header_bytes);
    std::memcpy(slot, frame.data() + rx.header_bytes, bytes - rx.header_bytes);
    queue.lent_headers.push_back(receive.header_slot);
    ++stats_.data_queue_frames;
  }
  queue.completed.push_back(rx);
  ++stats_.rx_frames;
}

void SimPacketIo::Replenish() {
  for (auto& queue : queues_) {
    // A header that RxBurst has not handed out yet is still in use.
    while (queue->lent_headers.size() > queue->completed.size()) {
      queue->free_headers.push_back(queue->lent_headers.front());
      queue->lent_headers.erase(queue->lent_headers.begin());
    }
    while (queue->posted.size() + queue->completed.size() <
           options_.rx_ring_slots) {
      if (queue->split != 0 && queue->free_headers.empty()) break;
      const auto slot = pools_[queue->pool].pool->Take();
      if (!slot) break;
      Receive receive{*slot, 0};
      if (queue->split != 0) {
        receive.header_slot = queue->free_headers.back();
        queue->free_headers.pop_back();
      }
      queue->posted.push_back(receive);
    }
  }
}

// -- steering -----------------------------------------------------------------

absl::StatusOr<QueueId> SimPacketIo::OpenDataQueue(PoolId pool,
                                                   HeaderShape shape) {
  for (auto& queue : queues_) {
    if (queue->split != 0 && pools_[queue->pool].pool->id() == pool &&
        queue->shape == shape) {
      return queue->id;
    }
  }
  for (size_t i = 0; i < pools_.size(); ++i) {
    if (pools_[i].pool->id() != pool) continue;
    auto queue = std::make_unique<Queue>();
    queue->id = QueueId{static_cast<uint8_t>(queues_.size())};
    queue->pool = i;
    queue->split = SplitBytes(shape);
    queue->shape = shape;
    const uint32_t headers = 2 * options_.rx_ring_slots;
    queue->headers.resize(size_t{headers} * queue->split);
    for (uint32_t h = 0; h < headers; ++h) queue->free_headers.push_back(h);
    queues_.push_back(std::move(queue));
    return queues_.back()->id;
  }
  return absl::NotFoundError(absl::StrCat("no pool ", static_cast<int>(pool)));
}

RuleId SimPacketIo::AddRule(const FlowMatch& match, QueueId to) {
  Rule rule;
  rule.id = RuleId{next_rule_++};
  rule.match = match;
  rule.to = to;
  rule.due = clock_.Now() + UpTo(options_.rule_delay, prng_);
  // A host without its wide rules is deaf: that is no scenario.
  const bool is_wide = match.kind != FlowMatch::Kind::kConnection;
  if (rules_.size() >= options_.max_rules ||
      (!is_wide && prng_.Chance(options_.rule_refusals))) {
    rule.error = ENOMEM;
  }
  rules_.push_back(rule);
  return rule.id;
}

void SimPacketIo::RemoveRule(RuleId id) {
  for (const Rule& rule : rules_) {
    if (rule.id != id || rule.match.kind != FlowMatch::Kind::kConnection ||
        clock_.Now() < rule.due || options_.move_time == Duration()) {
      continue;
    }
    gone_.push_back(rule);
    gone_.back().removed = clock_.Now();
  }
  std::erase_if(rules_, [id](const Rule& rule) { return rule.id == id; });
}

size_t SimPacketIo::PollRules(std::span<RuleEvent> out) {
  size_t count = 0;
  for (Rule& rule : rules_) {
    if (count == out.size()) break;
    if (rule.is_answered || rule.due > clock_.Now()) continue;
    rule.is_answered = true;
    out[count++] = {rule.id, rule.error};
  }
  // A refused rule is gone with its answer.
  std::erase_if(rules_, [](const Rule& rule) {
    return rule.is_answered && rule.error != 0;
  });
  return count;
}

}  // namespace devwire
