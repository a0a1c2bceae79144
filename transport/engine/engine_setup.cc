// Engine: opening and closing streams and listeners. The slow half.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "transport/engine/engine.h"
#include "transport/engine/engine_tails.h"

namespace devwire {
namespace {

constexpr uint32_t kMaxSlotQuota = 8192;
constexpr uint32_t kMinSlotQuota = 8;

constexpr uint32_t IndexOf(StreamId id) {
  return static_cast<uint32_t>(id) & 0xffff;
}
constexpr StreamId MakeStreamId(uint32_t index, uint16_t generation) {
  return StreamId{uint32_t{generation} << 16 | index};
}

}  // namespace

Engine::Engine(const EngineOptions& options, PacketIo& io, const Clock& clock,
               std::span<const EnginePool> pools, const HostBuffer& send_memory)
    : options_(options),
      io_(io),
      clock_(clock),
      now_(clock.Now()),
      send_buffers_(send_memory),
      demux_(options.max_connections, options.secret.k0),
      timers_(options.max_connections),
      neighbors_(options.neighbors),
      path_mtus_({.link_mtu = options.mtu}),
      ports_(options.first_local_port, options.port_block_bits, options.secret),
      streams_(options.max_connections),
      generations_(options.max_connections, 1),
      listeners_(options.max_listeners),
      half_open_limit_(std::max<uint32_t>(
          1, std::min({options.max_half_open, options.max_connections / 2,
                       options.neighbors.max_entries / 2}))),
      pressure_half_open_(
          std::min(options.syn_pressure_half_open, half_open_limit_ / 2)),
      challenge_budget_(options.challenge_acks_per_second,
                        options.secret.k0 ^ options.secret.k1),
      echoes_(16),
      tails_(std::make_unique<TailBatch>()),
      reset_tokens_(options.resets_per_second),
      reset_refill_(now_) {
  CHECK(options.max_connections > 0 && options.max_connections <= 65535);
  CHECK_EQ(pools.size(), 2u);
  for (const EnginePool& pool : pools) AddPool(pool);
  for (size_t i = 0; i < guests_.size(); ++i) {
    // Half of the host pool is for host streams, which have quotas of it.
    const uint32_t usable = UsableSlots(PoolId{static_cast<uint8_t>(i)});
    const bool is_host = PoolId{static_cast<uint8_t>(i)} == kHostPool;
    guests_[i] = {SlotShares(is_host ? usable / 2 : usable),
                  std::vector<uint32_t>(pools_[i].pool->slot_count())};
  }
  free_streams_.reserve(options.max_connections);
  for (uint32_t i = options.max_connections; i-- > 0;) {
    free_streams_.push_back(i);
  }
  rules_.reserve(2 * options.max_connections);
  host_rule_ = io_.AddRule(
      {.kind = FlowMatch::Kind::kOwnedHost,
       .tuple = {.local = {options.route.address, Port{0}}, .remote = {}}},
      kControlQueue);
}

Engine::~Engine() {
  for (uint32_t i = 0; i < listeners_.size(); ++i) {
    if (listeners_[i].is_open) Unlisten(ListenerId{i});
  }
  ready_sink_ = nullptr;
  for (auto& stream : streams_) {
    if (stream == nullptr) continue;
    if (!stream->is_finished) Abort(*stream, TcpError::kStackClosed);
    Transmit(*stream);  // The reset, if there is room for it.
    Close(*stream, /*keep_frags=*/false);
  }
  io_.TxFlush();
  // Posted sends refer to headers and to memory of the application: the NIC
  // finishes them; a bounded wait for one that does not.
  for (int i = 0; i < 100'000 && stream_count_ > 0; ++i) {
    Poll();
    if (device_error_ != 0) break;
  }
  for (auto& stream : streams_) {
    if (stream != nullptr) Destroy(*stream);
  }
  // Frags that outlived their streams do not outlive the engine.
  for (const auto& [id, pieces] : kept_) {
    for (uint32_t i = 0; i < pool_count_; ++i) {
      pools_[i].pool->ReleaseAll(id);
    }
  }
  DrainTokens();
}

void Engine::AddPool(const EnginePool& pool) {
  const uint32_t index = pool_count_;
  CHECK_LT(index, kMaxPools);
  CHECK_EQ(static_cast<uint32_t>(pool.pool->id()), index);
  pools_[index] = pool;
  PoolUse& use = pool_use_[index];
  use.slot_fills.assign(pool.pool->slot_count(), 0);
  // A burst's worth of slots stays free for the rings, up to an eighth.
  use.reserve = std::min<uint32_t>(kBurst, pool.pool->slot_count() / 8);
  pool_count_ = index + 1;
}

uint32_t Engine::min_slot_fills(PoolId id) const {
  const auto& fills = pool_use_[static_cast<size_t>(id)].slot_fills;
  return fills.empty() ? 0 : *std::min_element(fills.begin(), fills.end());
}

bool Engine::AddStaticNeighbor(const IpAddress& ip, const MacAddress& mac) {
  return neighbors_.AddStatic(ip, mac);
}

OpenError Engine::CheckOpen(const IpAddress& ip,
                            std::optional<PoolId> pool) const {
  if (ip.family != options_.route.address.family) {
    return OpenError::kWrongFamily;
  }
  if (!ip.is_v4() && pool.has_value() && !io_.limits().rx_checksum_ipv6) {
    return OpenError::kIpv6Unsupported;
  }
  if (device_error_ != 0) return OpenError::kDeviceFailed;
  if (IsRevoked(pool)) return OpenError::kMemoryRevoked;
  return OpenError::kNone;
}

uint32_t Engine::UsableSlots(PoolId id) const {
  const EnginePool& pool = pools_[static_cast<size_t>(id)];
  const uint32_t slots = pool.pool->slot_count();
  const uint32_t kept =
      pool.posted_slots + pool_use_[static_cast<size_t>(id)].reserve;
  return slots > kept ? slots - kept : 1;
}

// An equal share of the pool for each of so many streams, and no more than the
// budget of this one.
ReceiveLimits Engine::LimitsOf(PoolId id, uint32_t streams,
                               uint64_t budget_bytes) const {
  streams = std::max<uint32_t>(1, streams);
  const uint32_t usable = UsableSlots(id);
  const uint32_t quota = std::clamp(
      usable / streams, std::min(usable, kMinSlotQuota), kMaxSlotQuota);
  const uint64_t slot_bytes =
      pools_[static_cast<size_t>(id)].pool->slot_bytes();
  return {.byte_budget =
              std::min<uint64_t>(budget_bytes, uint64_t{quota} * slot_bytes),
          .slot_quota = quota};
}

void Engine::SetShare(EngineStream& s) {
  const PoolId home = s.pool.value_or(kHostPool);
  s.connection.SetReceiveLimits(
      LimitsOf(home, pool_use_[static_cast<size_t>(home)].streams,
               s.receive_budget_bytes));
}

// A stream of this pool came or went. The more there are, the less often their
// shares change by it: of thousands, one does not cost a look at all.
void Engine::ShareOut(PoolId id) {
  PoolUse& use = pool_use_[static_cast<size_t>(id)];
  const uint32_t quota = LimitsOf(id, use.streams, UINT64_MAX).slot_quota;
  if (quota == use.slot_quota) return;
  use.slot_quota = quota;
  for (auto& s : streams_) {
    if (s != nullptr && s->pool.value_or(kHostPool) == id) SetShare(*s);
  }
}

// The stream counts among those of its pool from now on.
void Engine::TakeShare(EngineStream& s) {
  const PoolId home = s.pool.value_or(kHostPool);
  s.has_share = true;
  ++pool_use_[static_cast<size_t>(home)].streams;
  ShareOut(home);
  SetShare(s);
}

Connection::Options Engine::ConnectionOptions(
    const FourTuple& tuple, PoolId home, const StreamSettings& settings) const {
  const PoolUse& use = pool_use_[static_cast<size_t>(home)];
  Connection::Options tcp = settings.tcp;
  const bool is_v4 = tuple.local.ip.is_v4();
  tcp.mss = MssOf(tuple.local.ip, options_.mtu);
  tcp.path_mss = MssOf(tuple.remote.ip, path_mtus_.Mtu(tuple.remote.ip));
  if (settings.max_mss != 0) tcp.mss = std::min(tcp.mss, settings.max_mss);
  tcp.default_mss = is_v4 ? 536 : 1220;  // RFC 9293 MUST-15.
  tcp.iss = InitialSequenceNumber(tuple, options_.secret, now_);
  if (iss_above_ && !SeqGt(tcp.iss, *iss_above_)) {
    tcp.iss = *iss_above_ + 65537;  // Beyond any window of old; Linux's.
  }
  tcp.ts_offset = TimestampOffset(tuple, options_.secret);
  tcp.receive = LimitsOf(home, use.streams + 1, settings.receive_budget_bytes);
  tcp.receive_initial_bytes = settings.receive_initial_bytes;
  tcp.max_slot_quota = std::min(UsableSlots(home), kMaxSlotQuota);
  tcp.slot_bytes = pools_[static_cast<size_t>(home)].pool->slot_bytes();
  // The window of the send side is kept here, in SendDevice and SendHost.
  tcp.send_queue_limit_bytes = UINT64_MAX / 2;
  return tcp;
}

EngineStream* Engine::NewStream(const NewStreamOptions& open,
                                OpenError* error) {
  *error = OpenError::kTooMany;
  if (free_streams_.empty() && !EvictTimeWait()) return nullptr;
  const PoolId home = open.pool.value_or(kHostPool);
  const StreamSettings& settings = open.settings;
  Connection::Options tcp = ConnectionOptions(open.tuple, home, settings);
  tcp.challenge_budget = &challenge_budget_;
  if (open.cookie.has_value()) {
    tcp.iss = *open.cookie;  // The limits are as when the cookie was made.
    tcp.receive = LimitsOf(home, 1, settings.receive_budget_bytes);
  }
  auto stream = std::make_unique<EngineStream>(
      tcp, static_cast<FragSink&>(*this), options_.send_spans_per_stream,
      io_.limits().max_tx_pieces);
  EngineStream& s = *stream;
  s.index = free_streams_.back();
  s.id = MakeStreamId(s.index, generations_[s.index]);
  s.tuple = open.tuple;
  s.pool = open.pool;
  s.steering =
      open.pool.has_value() ? Steering::kNotYet : Steering::kHostStream;
  s.ip = settings.ip;
  s.receive_budget_bytes = settings.receive_budget_bytes;
  s.send_budget_bytes = settings.send_budget_bytes;
  s.send_limit =
      std::min(settings.send_initial_bytes, settings.send_budget_bytes);
  MakeHeaders(s);
  if (!AcquireNextHop(s, error)) return nullptr;
  CHECK(demux_.Insert(open.tuple, s.index));
  free_streams_.pop_back();
  streams_[s.index] = std::move(stream);
  ++stream_count_;
  counters_.connections_opened.Add();
  if (open.takes_share) TakeShare(s);
  *error = OpenError::kNone;
  return &s;
}

HeaderTemplate Engine::HeadersTo(const MacAddress& mac, const FourTuple& tuple,
                                 const IpFields& ip) const {
  return HeaderTemplate(
      {.source_mac = io_.limits().mac,
       .destination_mac = mac,
       .tuple = tuple,
       .ttl = ip.ttl,
       .dscp = ip.dscp,
       .flow_label =
           tuple.local.ip.is_v4() ? 0 : FlowLabel(tuple, options_.secret)});
}

bool Engine::AcquireNextHop(EngineStream& s, OpenError* error) {
  const auto next_hop = options_.route.NextHop(s.tuple.remote.ip);
  if (!next_hop.has_value()) {
    *error = OpenError::kNoRoute;
    return false;
  }
  const auto neighbor = neighbors_.Acquire(*next_hop, now_);
  if (!neighbor.has_value()) {
    *error = OpenError::kNeighborsFull;
    return false;
  }
  s.neighbor = *neighbor;
  const NeighborTable::Entry& entry = neighbors_.entry(*neighbor);
  s.has_mac = entry.has_mac();
  if (s.has_mac) s.headers.set_destination_mac(entry.mac);
  return true;
}

// Everything of the stream was given back, or the engine ends.
void Engine::Destroy(EngineStream& s) {
  const uint32_t index = s.index;
  const PoolId home = s.pool.value_or(kHostPool);
  const bool had_share = s.has_share;
  RemoveRule(s);
  s.ListNode<EngineStream, DirtyTag>::Unlink();
  s.ListNode<EngineStream, AcceptTag>::Unlink();
  s.ListNode<EngineStream, TimeWaitTag>::Unlink();
  s.ListNode<EngineStream, SendBufferTag>::Unlink();
  timers_.Set(index, Instant::Never());
  // Not when it gave it up: another stream may have it by now.
  ForgetTuple(s);
  ForgetPeer(s);
  if (s.is_orphan) --orphans_;
  neighbors_.Release(s.neighbor);
  while (!s.send_queue.empty()) {
    const auto* span = s.send_queue.Done(0, UINT64_MAX, /*abandoned=*/true);
    if (span->is_host) {
      send_buffers_.Give(static_cast<uint32_t>(span->cookie));
    }
    s.send_queue.PopDone();
  }
  if (const auto kept = kept_.find(s.id); kept != kept_.end()) {
    kept->second = s.lent_pieces;
    if (s.lent_pieces == 0) kept_.erase(kept);
  }
  // What is still lent outlives it, and is nobody's share any more.
  for (size_t i = 0; i < guests_.size(); ++i) {
    guests_[i].shares.OnFreed(&s.guest_slots[i], s.guest_slots[i]);
  }
  ++generations_[index];
  if (generations_[index] == 0) generations_[index] = 1;
  streams_[index].reset();
  free_streams_.push_back(index);
  --stream_count_;
  counters_.connections_closed.Add();
  if (!had_share) return;
  --pool_use_[static_cast<size_t>(home)].streams;
  ShareOut(home);
}

Engine::ListenResult Engine::Listen(const ListenRequest& request) {
  ListenResult result;
  result.error = CheckOpen(request.local.ip, request.pool);
  if (result.error != OpenError::kNone) return result;
  uint32_t index = 0;
  while (index < listeners_.size() && listeners_[index].is_open) ++index;
  if (index == listeners_.size()) {
    result.error = OpenError::kTooMany;
    return result;
  }
  Port port = request.local.port;
  if (port == Port{0}) {
    const auto free = ports_.FreeListenPort();
    if (!free.has_value()) {
      result.error = OpenError::kNoPort;
      return result;
    }
    port = *free;
  }
  const auto other = ports_.FirstListener(port);
  if (!ports_.AddListener(port, index, request.shares_port)) {
    result.error = OpenError::kPortInUse;
    return result;
  }
  Listening& l = listeners_[index];
  l.is_open = true;
  l.local = {request.local.ip, port};
  l.pool = request.pool;
  l.settings = request.settings != nullptr ? *request.settings : options_;
  l.backlog = request.backlog;
  l.defer_accept = Duration();
  l.half_open = l.acceptable = 0;
  l.was_ready = false;
  l.rule = other ? listeners_[*other].rule
                 : io_.AddRule({.kind = FlowMatch::Kind::kListener,
                                .tuple = {.local = l.local, .remote = {}}},
                               kControlQueue);
  result.id = ListenerId{index};
  result.port = port;
  return result;
}

void Engine::Unlisten(ListenerId listener) {
  const uint32_t index = static_cast<uint32_t>(listener);
  Listening& l = listeners_[index];
  if (!l.is_open) return;
  for (auto& s : streams_) {
    if (s == nullptr || s->listener != index) continue;
    LeaveListener(*s);
    Abort(*s, TcpError::kAborted);
    Close(*s, /*keep_frags=*/false);
  }
  ports_.RemoveListener(l.local.port, index);
  if (!ports_.FirstListener(l.local.port)) io_.RemoveRule(*l.rule);
  l.is_open = false;
  l.rule.reset();
}

std::optional<StreamId> Engine::Accept(ListenerId listener) {
  const uint32_t index = static_cast<uint32_t>(listener);
  Listening& l = listeners_[index];
  EngineStream* s = l.is_open ? l.ready.PopFront() : nullptr;
  if (s == nullptr) return std::nullopt;
  LeaveListener(*s);
  PublishListener(index);
  MarkDirty(*s);
  return s->id;
}

void Engine::PublishListener(uint32_t index) {
  Listening& l = listeners_[index];
  const bool is_ready = IsAcceptable(l);
  if (ready_sink_ != nullptr) {
    ready_sink_->OnListenerReady(ListenerId{index}, is_ready,
                                 is_ready && !l.was_ready);
  }
  l.was_ready = is_ready;
}

Engine::ConnectResult Engine::Connect(const Endpoint& remote,
                                      std::optional<Port> local_port,
                                      std::optional<PoolId> pool,
                                      const StreamSettings* settings) {
  now_ = clock_.Now();
  ConnectResult result;
  result.error = CheckOpen(remote.ip, pool);
  if (result.error != OpenError::kNone) return result;
  if (!options_.route.CanBePeer(remote.ip)) {
    result.error = OpenError::kNoPeer;
    return result;
  }
  FourTuple tuple{{options_.route.address, Port{0}}, remote};
  const auto is_taken = [&](Port port) {
    tuple.local.port = port;
    return demux_.Find(tuple).has_value();
  };
  if (local_port.has_value()) {
    if (ports_.FirstListener(*local_port).has_value() ||
        (is_taken(*local_port) && !IsReopenable(tuple))) {
      result.error = OpenError::kPortInUse;
      return result;
    }
    tuple.local.port = *local_port;
  } else {
    auto choice = ports_.Choose(tuple, now_, is_taken);
    if (!choice.has_value()) {  // Then one in TIME-WAIT, RFC 6191.
      choice = ports_.Choose(tuple, now_, [&](Port port) {
        return is_taken(port) && !IsReopenable(tuple);
      });
    }
    if (!choice.has_value()) {
      result.error = OpenError::kNoPort;
      return result;
    }
    tuple.local.port = choice->port;
    if (choice->opened_block) {
      io_.AddRule({.kind = FlowMatch::Kind::kPortBlock,
                   .tuple = {.local = {tuple.local.ip, choice->block_start},
                             .remote = {}},
                   .port_block_bits = ports_.block_bits()},
                  kControlQueue);
    }
  }
  if (const auto old = demux_.Find(tuple)) EndTimeWait(*streams_[*old]);
  EngineStream* s =
      NewStream({.tuple = tuple,
                 .pool = pool,
                 .settings = settings != nullptr ? *settings : options_},
                &result.error);
  iss_above_.reset();
  if (s == nullptr) return result;
  result.id = s->id;
  s->connection.OpenActive(now_);
  MarkDirty(*s);
  return result;
}

EngineStream* Engine::Find(StreamId id) {
  const uint32_t index = IndexOf(id);
  if (index >= streams_.size() || streams_[index] == nullptr) return nullptr;
  return streams_[index]->id == id ? streams_[index].get() : nullptr;
}

void Engine::CloseSend(EngineStream& s) {
  s.send_is_closed = true;
  s.connection.Close(now_);
  MarkDirty(s);
}

void Engine::Abort(EngineStream& s, TcpError error) {
  if (s.error == TcpError::kNone) s.error = error;
  s.connection.Abort(error);
  MarkDirty(s);
}

void Engine::Close(EngineStream& s, bool keep_frags) {
  if (!s.is_open) return;
  s.is_open = false;
  s.completions_abandoned = true;
  s.completions.Clear();
  if (keep_frags && s.lent_pieces > 0) kept_[s.id] = 0;
  if (!keep_frags && s.lent_pieces > 0) {
    for (uint32_t i = 0; i < pool_count_; ++i) {
      const uint32_t free_before = pools_[i].pool->free_slots();
      pools_[i].pool->ReleaseAll(s.id);
      ReleaseAsGuest(pools_[i].pool->id(), s,
                     pools_[i].pool->free_slots() - free_before);
    }
    s.lent_pieces = 0;
  }
  if (s.connection.readable_bytes() > 0) {
    s.connection.Abort(TcpError::kAborted);  // RFC 2525 2.17.
  } else {
    s.connection.Close(now_);
    s.connection.ShutdownReceive(now_);
    CountOrphan(s);
  }
  MarkDirty(s);
}

}  // namespace devwire
