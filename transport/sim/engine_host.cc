#include "transport/sim/engine_host.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "transport/sim/stream_bytes.h"

namespace devwire {
namespace {

constexpr uint32_t kLinearSlotBytes = 64;
constexpr std::byte kPoison{0xdd};

}  // namespace

// The device pool's memory, for option bytes alone.
class EngineHost::TailReader final : public DeviceMemory {
 public:
  TailReader(std::span<const std::byte> memory, bool can_read)
      : memory_(memory), can_read_(can_read) {}
  std::string_view name() const override { return "sim"; }
  size_t bytes() const override { return memory_.size(); }
  absl::StatusOr<DmaBuf> Export() const override {
    return absl::UnimplementedError("sim memory has no descriptor");
  }
  absl::Status CopyIn(uint64_t, std::span<const std::byte>) override {
    return absl::UnimplementedError("sim");
  }
  absl::Status CopyOut(uint64_t, std::span<std::byte>) const override {
    return absl::UnimplementedError("sim");
  }
  void MakeVisible() override {}
  bool needs_make_visible() const override { return false; }
  bool ReadOptionTails(std::span<const OptionTail> tails) override {
    if (!can_read_) return false;
    for (const OptionTail& tail : tails) {
      CHECK_LE(tail.length, kMaxOptionTailBytes);
      CHECK_LE(tail.offset + tail.length, memory_.size());
      std::memcpy(tail.out, memory_.data() + tail.offset, tail.length);
    }
    return true;
  }

 private:
  const std::span<const std::byte> memory_;
  const bool can_read_;
};

EngineHost::EngineHost(const Options& options, const Clock& clock, SimLink& out,
                       SimLink& in)
    : options_(options),
      clock_(clock),
      prng_(options.seed),
      host_memory_(size_t{options.host_slots} * 2048),
      linear_memory_(size_t{options.device_slots} * kLinearSlotBytes),
      device_memory_(size_t{options.device_slots} * options.device_slot_bytes),
      send_memory_(kSendSlots * kSendSlotBytes, kPoison),
      host_buffers_(16 * SendBuffers::kBufferBytes),
      host_pool_({.id = kHostPool,
                  .slot_count = options.host_slots,
                  .slot_bytes = 2048}),
      linear_pool_({.id = kLinearPool,
                    .slot_count = options.device_slots,
                    .slot_bytes = kLinearSlotBytes}),
      device_pool_({.id = kFirstDevicePool,
                    .slot_count = options.device_slots,
                    .slot_bytes = options.device_slot_bytes}),
      tails_(std::make_unique<TailReader>(device_memory_,
                                          options.can_read_option_tails)),
      io_(std::make_unique<SimPacketIo>(options.nic, clock, out, in)) {
  for (uint32_t i = 0; i < kSendSlots; ++i) free_sends_.push_back(i);
  is_sending_.resize(kSendSlots);
  io_->set_gather_observer(
      [this](uint64_t addr, uint32_t) { CheckGather(addr); });
  io_->AddPool(host_pool_, host_memory_, /*is_control=*/true);
  io_->AddPool(device_pool_, device_memory_, /*is_control=*/false);
  io_->RegisterSendMemory(kSendIova, kSendKey, send_memory_);
  io_->RegisterSendMemory(kHostIova, kHostKey, host_buffers_);
  EngineOptions e;
  e.route.address = options.ip;
  e.route.gateway = options.gateway;
  e.mtu = options.nic.limits.mtu;
  e.neighbors.max_requests = 12;  // Loss alone does not end a scenario.
  e.secret = {options.seed, ~options.seed};
  e.tcp = options.tcp;
  const EnginePool pools[] = {
      {.pool = &host_pool_,
       .host_base = host_memory_.data(),
       .posted_slots = options.nic.rx_ring_slots},
      {.pool = &linear_pool_, .host_base = linear_memory_.data()}};
  engine_ =
      std::make_unique<Engine>(e, *io_, clock, pools,
                               HostBuffer{host_buffers_.data(), kHostIova,
                                          host_buffers_.size(), kHostKey});
  engine_->AddPool({.pool = &device_pool_,
                    .memory = tails_.get(),
                    .posted_slots = 2 * options.nic.rx_ring_slots});
}

EngineHost::~EngineHost() {
  Relent();
  while (!tokens_.empty()) {
    (void)Return(tokens_.top());
    tokens_.pop();
  }
  engine_.reset();
  io_.reset();
}

void EngineHost::Fail(const std::string& what) {
  if (failure_.empty()) {
    failure_ = absl::StrCat(options_.ip.ToString(), ": ", what);
  }
}

// A piece lies in one slot.
void EngineHost::CheckGather(uint64_t addr) {
  if (addr < kSendIova || addr >= kSendIova + send_memory_.size()) return;
  if (!is_sending_[(addr - kSendIova) / kSendSlotBytes]) {
    Fail("a send is gathered from memory that was given back");
  }
}

void EngineHost::Listen(Port port) {
  const auto result = engine_->Listen(
      {.local = {options_.ip, port}, .pool = kFirstDevicePool, .backlog = 64});
  CHECK(result.error == OpenError::kNone);
  listener_ = result.id;
}

void EngineHost::Connect(const Endpoint& remote,
                         std::optional<uint64_t> bytes) {
  const auto result = engine_->Connect(remote, std::nullopt, kFirstDevicePool);
  CHECK(result.error == OpenError::kNone) << static_cast<int>(result.error);
  Adopt(result.id);
  if (bytes.has_value()) streams_[result.id].to_write = *bytes;
}

// Both ends name a stream by the client's port; client and server differ.
void EngineHost::Adopt(StreamId id) {
  const FourTuple& tuple = engine_->Find(id)->tuple;
  const bool is_client = !listener_.has_value();
  const auto name =
      static_cast<uint64_t>(is_client ? tuple.local.port : tuple.remote.port);
  AppStream app;
  if (adopted_ == 0 && options_.abort_after) {
    app.abort_at = clock_.Now() + *options_.abort_after;
  }
  app.is_hoarder = adopted_++ < options_.hoarders;
  app.write_stream = name * 2 + (is_client ? 0 : 1);
  app.read_stream = name * 2 + (is_client ? 1 : 0);
  app.to_write = options_.bytes_per_stream;
  streams_[id] = app;
  if (options_.sums_tcp) tcp_stats_[id] = {};
}

EngineHost::TcpSums EngineHost::tcp_sums() const {
  TcpSums sums;
  for (const auto& [id, stats] : tcp_stats_) {
    sums.sack_blocks_in += stats.sack_blocks_in;
    sums.sack_blocks_out += stats.sack_blocks_out;
    sums.bytes_retransmitted += stats.bytes_retransmitted;
    sums.duplicate_acks_in += stats.duplicate_acks_in;
    sums.duplicate_bytes += stats.duplicate_bytes;
  }
  return sums;
}

bool EngineHost::Turn() {
  const SimPacketIo::Stats& n = io_->stats();
  const auto progress = [&] {
    return n.rx_frames + n.tx_frames + io_->tx_posted() + io_->tx_completed();
  };
  const uint64_t before = progress();
  // Its own answer is not asked: a stream that waits for the NIC to finish with
  // its memory has a turn in every poll.
  engine_->Poll();
  bool worked = progress() != before;
  if (listener_) {
    while (const auto id = engine_->Accept(*listener_)) {
      Adopt(*id);
      worked = true;
    }
  }
  worked |= ReturnTokens();
  for (auto it = streams_.begin(); it != streams_.end();) {
    const auto current = it++;
    worked |= RunStream(current->first, &current->second);
  }
  for (auto& [id, stats] : tcp_stats_) {
    const EngineStream* s = engine_->Find(id);
    if (s != nullptr) stats = s->connection.stats();
  }
  if (options_.checks_every_turn) {
    CheckPool(host_pool_, &host_owners_);
    CheckPool(linear_pool_, &linear_owners_);
    CheckPool(device_pool_, &device_owners_);
  }
  return worked;
}

void EngineHost::CheckPools() const {
  host_pool_.CheckInvariants();
  linear_pool_.CheckInvariants();
  device_pool_.CheckInvariants();
}

// A recount of every slot, when one changed hands.
void EngineHost::CheckPool(const FragPool& pool, FragPool::Owners* last) {
  const FragPool::Owners& now = pool.owners();
  if (now.free == last->free && now.reassembly == last->reassembly &&
      now.application == last->application) {
    return;
  }
  *last = now;
  pool.CheckInvariants();
}

bool EngineHost::RunStream(StreamId id, AppStream* app) {
  EngineStream* s = engine_->Find(id);
  if (s == nullptr) {
    Fail("a stream went away before its handle was closed");
    streams_.erase(id);
    return true;
  }
  const bool has_failed = s->error != TcpError::kNone;
  if (has_failed && !options_.expects_aborts) {
    Fail(absl::StrCat("stream ended: ", TcpErrorName(s->error)));
  }
  bool worked = ReadStream(*s, app);
  if (app->abort_at <= clock_.Now() && !has_failed) {
    app->abort_at = Instant::Never();
    engine_->Abort(*s, TcpError::kAborted);
    return true;
  }
  if (!has_failed) worked |= WriteStream(*s, app);
  worked |= CompleteSends(*s, app);
  const bool is_over = (has_failed || (app->at_end && app->is_write_closed)) &&
                       app->sends_out == 0;
  if (is_over) {
    engine_->Close(*s, /*keep_frags=*/true);
    streams_.erase(id);
    ++finished_;
    return true;
  }
  return worked;
}

bool EngineHost::ReadStream(EngineStream& s, AppStream* app) {
  const bool has_end = s.connection.is_at_end() && !app->at_end;
  if (s.connection.readable_bytes() == 0 && !has_end) return false;
  StreamFrag frags[8];
  const Received got = engine_->ReceiveFrags(s, frags, 1 + prng_.Below(30'000));
  for (size_t i = 0; i < got.frags; ++i) {
    const StreamFrag& f = frags[i];
    const std::byte* at =
        f.host != nullptr ? f.host : device_memory_.data() + f.offset;
    if (!IsStream(app->read_stream, app->read, {at, f.length})) {
      Fail(absl::StrCat("wrong bytes at ", app->read, ", ", f.length,
                        " of them, ", f.host != nullptr ? "linear" : "device"));
    }
    if (f.host != nullptr) linear_bytes_ += f.length;
    app->read += f.length;
    bytes_read_ += f.length;
    const Duration delay =
        Duration::Nanoseconds(static_cast<int64_t>(prng_.Below(
            static_cast<uint64_t>(options_.token_delay.nanoseconds()) + 1)));
    const Token token{clock_.Now() + delay, f.token, s.id};
    if (app->is_hoarder && !has_relented_) {
      hoard_.push_back(token);
    } else {
      tokens_.push(token);
    }
  }
  const bool news = got.end_of_stream && !app->at_end;
  app->at_end |= got.end_of_stream;
  return got.frags > 0 || news;
}

bool EngineHost::WriteStream(EngineStream& s, AppStream* app) {
  if (app->is_write_closed || !s.was_connected) return false;
  if (app->written == app->to_write) {
    app->is_write_closed = true;
    engine_->CloseSend(s);
    return true;
  }
  // Each stream that is left has its part of the send memory, used or not.
  if (free_sends_.empty() ||
      app->sends_out >= kSendSlots / (adopted_ - finished_)) {
    return false;
  }
  const uint32_t slot = free_sends_.back();
  const uint64_t at = uint64_t{slot} * kSendSlotBytes;
  const auto bytes = static_cast<uint32_t>(std::min<uint64_t>(
      app->to_write - app->written,
      1 + prng_.Below(std::min(options_.max_send, kSendSlotBytes))));
  FillStream(app->write_stream, app->written,
             std::span(send_memory_).subspan(at, bytes));
  // In two spans, so that segments are gathered across their border.
  const uint32_t first = bytes / 3;
  const DeviceSpan spans[] = {{at, first}, {at + first, bytes - first}};
  const auto used = first == 0 ? std::span(spans).last(1) : std::span(spans);
  if (engine_->SendDevice(s, kSendIova, kSendKey, used, slot) !=
      SendOutcome::kQueued) {
    return false;
  }
  free_sends_.pop_back();
  is_sending_[slot] = true;
  app->written += bytes;
  ++app->sends_out;
  return true;
}

bool EngineHost::CompleteSends(EngineStream& s, AppStream* app) {
  SendCompletion done[8];
  const size_t count = engine_->PollSendCompletions(s, done);
  for (size_t i = 0; i < count; ++i) {
    // A reset in LAST-ACK is no error of the stream's; the send has failed.
    const bool may_fail =
        options_.expects_aborts && s.connection.state() == State::kClosed;
    if (!done[i].delivered && !may_fail) {
      Fail("a send was not delivered");
    }
    const auto slot = static_cast<uint32_t>(done[i].cookie);
    const auto bytes =
        std::span(send_memory_)
            .subspan(uint64_t{slot} * kSendSlotBytes, kSendSlotBytes);
    std::fill(bytes.begin(), bytes.end(), kPoison);
    free_sends_.push_back(slot);
    is_sending_[slot] = false;
    --app->sends_out;
  }
  return count > 0;
}

ReturnResult EngineHost::Return(const Token& token) {
  const PoolId pool = FragPool::PoolOf(token.token);
  return engine_->pool(pool).pool->Return(token.token, token.stream);
}

void EngineHost::Relent() {
  has_relented_ = true;
  for (const Token& token : hoard_) tokens_.push(token);
  hoard_.clear();
}

void EngineHost::GiveUp() {
  if (has_given_up_) return;
  has_given_up_ = true;
  for (auto& [id, app] : streams_) app.abort_at = clock_.Now();
}

bool EngineHost::ReturnTokens() {
  max_application_slots_ =
      std::max(max_application_slots_, device_pool_.owners().application);
  bool worked = false;
  while (!tokens_.empty() && tokens_.top().due <= clock_.Now()) {
    if (Return(tokens_.top()) != ReturnResult::kReturned) {
      Fail("a token was refused");
    }
    tokens_.pop();
    worked = true;
  }
  return worked;
}

Instant EngineHost::NextEvent() const {
  Instant next = engine_->NextDeadline();
  // See Turn(): what such a stream waits for is an event of the NIC.
  if (next <= clock_.Now() && io_->tx_posted() > io_->tx_completed()) {
    next = Instant::Never();
  }
  next = std::min(next, io_->NextEvent());
  for (const auto& [id, app] : streams_) next = std::min(next, app.abort_at);
  if (!tokens_.empty()) next = std::min(next, tokens_.top().due);
  return next;
}

bool EngineHost::is_done(size_t streams) const {
  const bool is_complete = options_.expects_aborts || finished_ == streams;
  return is_complete && streams_.empty() && tokens_.empty() &&
         engine_->is_idle() && device_pool_.owners().application == 0 &&
         device_pool_.owners().reassembly == 0 &&
         linear_pool_.free_slots() == linear_pool_.slot_count() &&
         host_pool_.owners().reassembly == 0 &&
         host_pool_.owners().application == 0;
}

std::string EngineHost::ToString() const {
  const SimPacketIo::Stats& n = io_->stats();
  std::string text = absl::StrCat(
      options_.ip.ToString(), ": finished ", finished_, " open ",
      streams_.size(), " in engine ", engine_->stream_count(), " read ",
      bytes_read_, " device ", device_pool_.OwnersString(), " host ",
      host_pool_.OwnersString(), " linear ", linear_pool_.OwnersString(),
      " rx ", n.rx_frames, " no_rule ", n.rx_no_rule, " dry ", n.rx_ring_dry,
      " too_long ", n.rx_too_long, " bad ", n.rx_bad_checksum, " engine in ",
      (engine_->NextDeadline() - clock_.Now()).nanoseconds(), " ns, nic in ",
      (io_->NextEvent() - clock_.Now()).nanoseconds(), " ns");
  for (const auto& [id, app] : streams_) {
    const EngineStream* s = engine_->Find(id);
    absl::StrAppend(&text, "\n    stream ",
                    s == nullptr ? "gone" : StateName(s->connection.state()),
                    " ", s == nullptr ? "" : SteeringName(s->steering),
                    " written ", app.written, " read ", app.read, " sends ",
                    app.sends_out, app.at_end ? " at end" : "");
  }
  return text;
}

}  // namespace devwire
