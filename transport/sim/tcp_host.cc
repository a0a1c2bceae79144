#include "transport/sim/tcp_host.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "transport/sim/stream_bytes.h"
#include "transport/tcp/reset.h"
#include "transport/wire/notation.h"

namespace devwire {
namespace {

constexpr PoolId kDevicePool{2};
constexpr PoolId kLinearPool{1};
constexpr uint32_t kLinearSlotBytes = 64;

}  // namespace

TcpHost::TcpHost(const Options& options, SimLink& out)
    : options_(options),
      out_(out),
      prng_(options.seed),
      device_pool_({.id = kDevicePool,
                    .slot_count = options.slot_count,
                    .slot_bytes = options.slot_bytes,
                    .max_lent_pieces = 4 * options.slot_count}),
      linear_pool_({.id = kLinearPool,
                    .slot_count = 2 * options.slot_count,
                    .slot_bytes = kLinearSlotBytes}),
      device_memory_(size_t{options.slot_count} * options.slot_bytes),
      linear_memory_(size_t{2} * options.slot_count * kLinearSlotBytes),
      headers_(options.addresses),
      sessions_to_open_(options.opens_actively ? options.sessions : 0),
      ts_offset_(options.connection.ts_offset) {}

TcpHost::~TcpHost() {
  connection_.reset();
  ReturnTokens(Instant::Never());
}

void TcpHost::Discard(const Frag& frag) { PoolOf(frag.pool).Discard(frag); }

Duration TcpHost::UpTo(Duration max) {
  if (max <= Duration()) return Duration();
  return Duration::Nanoseconds(static_cast<int64_t>(
      prng_.Below(static_cast<uint64_t>(max.nanoseconds()) + 1)));
}

void TcpHost::Fail(const std::string& what) {
  if (failure_.empty()) {
    failure_ = absl::StrCat(options_.is_client ? "client: " : "server: ", what);
  }
}

void TcpHost::Trace(const char* what, const TcpHeader& header,
                    uint32_t payload_bytes, Instant now) const {
  if (!options_.is_traced) return;
  std::fprintf(stderr, "%12.6f %s %s %s [%s]\n",
               static_cast<double>(now.nanoseconds()) / 1e9,
               options_.is_client ? "client" : "server", what,
               FormatSegment(header, payload_bytes).c_str(),
               connection_ ? StateName(connection_->state()) : "none");
}

void TcpHost::Start(Instant now) {
  start_ = now;
  if (sessions_to_open_ > 0) next_open_ = now;
  if (options_.dies_after) dies_at_ = now + *options_.dies_after;
}

// M of RFC 9293 3.4.1: it counts on while a host is dead.
SeqNum TcpHost::IssAt(Instant now) const {
  return options_.connection.iss +
         static_cast<SeqLen>((now - start_).microseconds() / 4);
}

// A new Connection, not opened yet.
void TcpHost::Open(Instant now) {
  Connection::Options o = options_.connection;
  o.iss = IssAt(now);
  o.ts_offset = ts_offset_;
  connection_.emplace(o, static_cast<FragSink&>(*this));
  rules_ = WireRules();
  largest_smss_ = 0;
  path_probes_ = 0;
  session_ = {.iss = o.iss};
  has_closed_ = false;
  next_write_ = next_read_ = now;
  abort_at_ = options_.app.abort_after ? now + *options_.app.abort_after
                                       : Instant::Never();
}

// -- the network's side -------------------------------------------------------

// A slot for these bytes; nothing when the pool is empty.
std::optional<Frag> TcpHost::Store(PoolId id, uint32_t offset,
                                   std::span<const std::byte> bytes) {
  FragPool& pool = PoolOf(id);
  const auto slot = pool.Take();
  if (!slot) return std::nullopt;
  const Frag frag{.slot = *slot,
                  .offset = offset,
                  .length = static_cast<uint32_t>(bytes.size()),
                  .pool = id};
  std::memcpy(MemoryOf(id).data() +
                  static_cast<size_t>(*slot) * pool.slot_bytes() + offset,
              bytes.data(), bytes.size());
  pool.Receive(*slot, frag.length);
  return frag;
}

// False when the ring is dry: the frame is lost.
bool TcpHost::TakeText(const SimFrame& frame, const ParsedFrame& parsed,
                       Segment* segment) {
  segment->payload_bytes = parsed.payload_bytes;
  if (parsed.payload_bytes == 0) return true;
  if (device_pool_.free_slots() == 0) return false;
  // As the engine: the next bytes in order may use the last slots.
  if (device_pool_.free_slots() <= options_.pool_reserve &&
      segment->text_seq() != connection_->tcb().rcv_nxt) {
    segment->text_dropped = true;
    return true;
  }
  const PayloadSplit split = SplitPayload(parsed, kSplit);
  const auto payload = std::span(frame).subspan(parsed.header_bytes);
  if (split.linear_bytes > 0) {
    const auto linear =
        Store(kLinearPool, 0, payload.first(split.linear_bytes));
    if (!linear) {
      segment->text_dropped = true;
      return true;
    }
    segment->text[segment->text_count++] = *linear;
  }
  if (split.device_bytes > 0) {
    segment->text[segment->text_count++] =
        *Store(kDevicePool, split.device_offset,
               payload.subspan(split.linear_bytes, split.device_bytes));
  }
  return true;
}

void TcpHost::TakeFrame(const SimFrame& frame, bool is_forged, Instant now) {
  if (is_dead_) return;
  ParsedFrame whole;
  const auto bytes = static_cast<uint32_t>(frame.size());
  if (ParseFrame(frame.data(), bytes, bytes, &whole) != ParseResult::kTcp ||
      !ChecksumsAreRight(frame.data(), whole)) {
    return;  // Corrupted on the way.
  }
  // What the header slot holds, and then the option bytes that it does not.
  ParsedFrame parsed;
  if (ParseFrame(frame.data(), std::min(kSplit, bytes), bytes, &parsed) !=
      ParseResult::kTcp) {
    return Fail("a header that the split cuts too short");
  }
  if (parsed.options_cut_bytes > 0) {
    const uint32_t options_at = parsed.l4_offset + kTcpFixedHeaderBytes;
    ParseFetchedOptions(
        std::span(frame).subspan(options_at, parsed.header_bytes - options_at),
        &parsed);
  }
  Trace(is_forged ? "<-?" : "<-", parsed.tcp, parsed.payload_bytes, now);
  Segment segment;
  static_cast<TcpHeader&>(segment) = parsed.tcp;
  segment.arrival = now;
  segment.ecn = static_cast<uint8_t>(parsed.ecn);

  const bool is_syn = segment.has_syn() && !segment.has_ack();
  if (!connection_ && !options_.opens_actively && is_syn) {
    Open(now);
    rules_.OnArrival(segment, connection_->tcb());
    (void)connection_->OpenPassive(segment, now);
    return;
  }
  if (!connection_) {
    segment.payload_bytes = parsed.payload_bytes;
    const auto reset = ResetForUnknown(segment);
    if (reset) SendOne(*reset, now);
    return;
  }
  if (!TakeText(frame, parsed, &segment)) return;
  const Tcb before = connection_->tcb();
  (void)connection_->OnSegment(segment, now);
  if (!is_forged) rules_.OnArrival(segment, before);
}

void TcpHost::SendSegment(const TxSegment& segment, Instant now) {
  if (segment.stream_offset + segment.payload_bytes > session_.bytes_written) {
    return Fail("sends bytes that were never written");
  }
  if (segment.tso_mss == 0) return SendOne(segment, now);
  if (segment.payload_bytes > options_.max_tso_payload) {
    return Fail("more in one send than TSO takes");
  }
  for (uint32_t at = 0; at < segment.payload_bytes; at += segment.tso_mss) {
    TxSegment cut = segment;
    cut.payload_bytes =
        std::min<uint32_t>(segment.tso_mss, segment.payload_bytes - at);
    cut.seq = segment.seq + at;
    cut.stream_offset = segment.stream_offset + at;
    if (at + cut.payload_bytes < segment.payload_bytes) {
      cut.flags &= static_cast<uint8_t>(~(kFin | kPsh));
    }
    if (at > 0) cut.flags &= static_cast<uint8_t>(~kCwr);
    SendOne(cut, now);
  }
}

// One frame, on the wire.
void TcpHost::SendOne(TxSegment segment, Instant now) {
  TcpHeader header;
  header.seq = segment.seq;
  header.ack = segment.ack;
  header.wnd = segment.wnd;
  header.urgent_pointer = segment.urgent_pointer;
  header.flags = segment.flags;
  header.options = segment.options;
  const uint32_t payload_bytes = segment.payload_bytes;
  Trace("->", header, payload_bytes, now);
  if (connection_) {
    const Connection::Stats stats = connection_->stats();
    largest_smss_ = std::max(largest_smss_, stats.smss);
    // RFC 4821: a probe of the path may be longer than the others.
    const bool is_probe = stats.path_probes != path_probes_;
    path_probes_ = stats.path_probes;
    const std::string wrong =
        rules_.OnSend(segment, payload_bytes, connection_->tcb(),
                      is_probe ? largest_smss_ : stats.smss);
    if (!wrong.empty()) {
      Fail(absl::StrCat(wrong, ": ", FormatSegment(header, payload_bytes)));
    }
  }
  SimFrame frame(192 + payload_bytes);
  const uint32_t header_bytes =
      headers_.Emit(header,
                    {.payload_bytes = payload_bytes,
                     .ecn = static_cast<Ecn>(segment.ecn),
                     .identification = identification_++},
                    frame.data());
  frame.resize(header_bytes + payload_bytes);
  const auto payload = std::span(frame).subspan(header_bytes);
  if (payload_bytes > 0) {
    FillStream(StreamOf(session_.iss), segment.stream_offset, payload);
  }
  WriteTcpChecksum(frame.data(), headers_.l4_offset(), header_bytes, payload);
  out_.Send(std::move(frame), now);
}

// -- the application's side ---------------------------------------------------

void TcpHost::OnTime(Instant now) {
  if (dies_at_ <= now) Die(now);
  if (returns_at_ <= now) {
    returns_at_ = Instant::Never();
    is_dead_ = false;
    ts_offset_ = prng_.Next32();
    if (sessions_to_open_ > 0) next_open_ = now;
  }
  if (next_open_ <= now && !connection_) {
    next_open_ = Instant::Never();
    Open(now);
    connection_->OpenActive(now);
  }
  if (connection_) {
    connection_->OnDeadline(now);
    if (abort_at_ <= now) {
      abort_at_ = Instant::Never();
      connection_->Abort(TcpError::kAborted);
    }
  }
  ReturnTokens(now);
  if (!connection_) return;
  if (next_write_ <= now) Write(now);
  if (next_read_ <= now) Read(now);
  CloseIfDone(now);
}

void TcpHost::GiveUp(Instant now) {
  if (!connection_) return;
  session_.was_alone = true;
  connection_->Abort(TcpError::kAborted);
  Finish(now);
}

// Power off: no segment, no memory; the pools start anew.
void TcpHost::Die(Instant now) {
  dies_at_ = Instant::Never();
  returns_at_ = now + options_.returns_after;
  next_open_ = Instant::Never();
  is_dead_ = true;
  if (connection_) {
    session_.was_alone = true;
    connection_.reset();
    sessions_.push_back(session_);
    session_ = Session();
  }
  for (; !tokens_.empty(); tokens_.pop()) {
    const Token& t = tokens_.top();
    (void)PoolOf(t.pool).Return(t.token, t.stream);
  }
  FragPool::Returned returned[4];
  while (device_pool_.Drain(returned, 4) + linear_pool_.Drain(returned, 4) >
         0) {
  }
}

void TcpHost::Write(Instant now) {
  const uint64_t left = options_.app.bytes_to_write - session_.bytes_written;
  if (left == 0 || has_closed_) {
    next_write_ = Instant::Never();
    return;
  }
  const uint64_t want =
      std::min<uint64_t>(left, 1 + prng_.Below(options_.app.max_write));
  const uint64_t taken = connection_->Send(want);
  if (taken > want) Fail("Send took more than it was offered");
  session_.bytes_written += taken;
  // Not a nanosecond apart: a real application takes time for a call.
  next_write_ = now + 1_us + UpTo(options_.app.write_gap);
  if (taken < want) next_write_ = Instant::Never();  // Until kWritable.
}

void TcpHost::Read(Instant now) {
  if (has_closed_ && options_.app.closing == Closing::kWithoutReading) return;
  uint64_t left = 1 + prng_.Below(options_.app.max_read);
  while (left > 0 && connection_->PeekReadable() != nullptr) {
    Frag frag = *connection_->PeekReadable();
    frag.length = static_cast<uint32_t>(std::min<uint64_t>(frag.length, left));
    FragPool& pool = PoolOf(frag.pool);
    const auto token = pool.Lend(frag, stream());
    if (!token) break;  // All pieces are out; the bytes stay readable.
    Frag taken;
    if (connection_->Receive({&taken, 1}, frag.length) != 1 || taken != frag) {
      return Fail("Receive gave another frag than PeekReadable showed");
    }
    const auto bytes =
        std::span(MemoryOf(frag.pool))
            .subspan(static_cast<size_t>(frag.slot) * pool.slot_bytes() +
                         frag.offset,
                     frag.length);
    const uint64_t written = StreamOf(connection_->tcb().irs);
    if (!IsStream(written, session_.bytes_read, bytes)) {
      return Fail(absl::StrCat("wrong bytes at ", session_.bytes_read, ", ",
                               frag.length, " of them"));
    }
    session_.bytes_read += frag.length;
    left -= frag.length;
    tokens_.push(
        {now + UpTo(options_.app.token_delay), *token, frag.pool, stream()});
  }
  next_read_ = now + 1_us + UpTo(options_.app.read_gap);
}

void TcpHost::ReturnTokens(Instant now) {
  uint64_t bytes = 0;
  uint32_t slots = 0;
  while (!tokens_.empty() && tokens_.top().due <= now) {
    FragPool& pool = PoolOf(tokens_.top().pool);
    if (pool.Return(tokens_.top().token, tokens_.top().stream) !=
        ReturnResult::kReturned) {
      Fail("a token was refused");
    }
    tokens_.pop();
    FragPool::Returned returned[4];
    const size_t count = pool.Drain(returned, 4);
    for (size_t i = 0; i < count; ++i) {
      // Of a connection that is over: the pool's business alone.
      if (returned[i].stream != stream()) continue;
      bytes += returned[i].bytes;
      slots += returned[i].slot_freed ? 1 : 0;
    }
  }
  if (bytes > 0 && connection_) connection_->OnReleased(bytes, slots);
}

void TcpHost::CloseIfDone(Instant now) {
  if (has_closed_ || session_.bytes_written < options_.app.bytes_to_write) {
    return;
  }
  if (!session_.was_connected) return;
  if (options_.app.closing == Closing::kAfterPeer &&
      !connection_->is_at_end()) {
    return;
  }
  has_closed_ = true;
  connection_->Close(now);
  if (options_.app.closing == Closing::kWithoutReading) {
    connection_->ShutdownReceive(now);
    next_read_ = Instant::Never();
  }
}

void TcpHost::Finish(Instant now) {
  if (connection_) {
    TxSegment segment;
    int sent = 0;
    while (connection_->PollTransmit(
        now, {.max_tso_payload = options_.max_tso_payload}, &segment)) {
      SendSegment(segment, now);
      if (++sent > 10'000) return Fail("PollTransmit does not end");
    }
    if (connection_->NextDeadline() <= now) {
      Fail(absl::StrCat("busy loop: a deadline is due after PollTransmit, in ",
                        StateName(connection_->state())));
    }
    while (const auto event = connection_->PollEvent()) {
      if (event->kind == Event::Kind::kConnected) session_.was_connected = true;
      if (event->kind == Event::Kind::kWritable) next_write_ = now + 1_us;
    }
    session_.error = connection_->error();
    session_.irs = connection_->tcb().irs;
    // An abort discards what was not read: no end of the stream's.
    if (session_.was_connected && session_.error == TcpError::kNone &&
        connection_->is_at_end()) {
      session_.saw_end = true;
    }
    connection_->CheckInvariants();
    CheckLimits();
    EndSession(now);
  }
  CheckPools();
}

// A recount of every slot, when a slot changed hands: it costs more than the
// rest of a step.
void TcpHost::CheckPools() {
  const auto check = [](const FragPool& pool, FragPool::Owners* last) {
    const FragPool::Owners& now = pool.owners();
    if (now.free == last->free && now.reassembly == last->reassembly &&
        now.application == last->application) {
      return;
    }
    *last = now;
    pool.CheckInvariants();
  };
  check(device_pool_, &device_owners_);
  check(linear_pool_, &linear_owners_);
}

// What the application and the pools allow, nobody passes.
void TcpHost::CheckLimits() {
  last_stats_ = connection_->stats();
  const Connection::Stats& s = last_stats_;
  const Connection::Options& o = options_.connection;
  if (s.held_slots > o.max_slot_quota) Fail("more slots held than the quota");
  if (connection_->queued_offset() - connection_->acked_offset() >
      o.send_queue_limit_bytes) {
    Fail("more queued than send_queue_limit_bytes");
  }
  if (connection_->acked_offset() > session_.bytes_written) {
    Fail("bytes are acknowledged that were never written");
  }
}

// If it is over, and nobody reads on.
void TcpHost::EndSession(Instant now) {
  if (!connection_->is_finished()) return;
  const bool will_read = session_.error == TcpError::kNone &&
                         next_read_ != Instant::Never() &&
                         connection_->readable_bytes() > 0;
  if (will_read) return;
  connection_.reset();
  sessions_.push_back(session_);
  session_ = Session();
  if (options_.opens_actively && --sessions_to_open_ > 0) {
    next_open_ = now + 1_us + UpTo(options_.session_gap);
  }
}

Instant TcpHost::NextEvent() const {
  Instant next = std::min({dies_at_, returns_at_, next_open_});
  if (!tokens_.empty()) next = std::min(next, tokens_.top().due);
  if (!connection_) return next;
  next = std::min({next, connection_->NextDeadline(), abort_at_});
  // Writing and reading are events while there is something to do.
  next = std::min(next, next_write_);
  if (connection_->readable_bytes() > 0 &&
      device_pool_.owners().application + linear_pool_.owners().application <
          2 * options_.slot_count) {
    next = std::min(next, next_read_);
  }
  return next;
}

bool TcpHost::is_done() const {
  return sessions_to_open_ == 0 && !connection_ && !is_dead_ &&
         tokens_.empty() &&
         device_pool_.free_slots() == device_pool_.slot_count() &&
         linear_pool_.free_slots() == linear_pool_.slot_count();
}

std::string TcpHost::ToString() const {
  std::string text = absl::StrCat(
      options_.is_client ? "client" : "server", " sessions ended ",
      sessions_.size(), ", now ",
      is_dead_ ? "dead"
               : (connection_ ? StateName(connection_->state()) : "none"),
      " wrote ", session_.bytes_written, "/", options_.app.bytes_to_write,
      " read ", session_.bytes_read, " error '", TcpErrorName(session_.error),
      "' tokens ", tokens_.size(), " device ", device_pool_.OwnersString(),
      " linear ", linear_pool_.OwnersString());
  const Connection::Stats& s = last_stats_;
  absl::StrAppend(&text, " rto_ns ", s.rto.nanoseconds(), " timeouts ",
                  s.timeouts, " retransmitted ", s.segments_retransmitted,
                  " cwnd ", s.cwnd, " flight ", s.flight_size, " snd_wnd ",
                  s.snd_wnd, " rcv_wnd ", s.rcv_wnd, " unsent ", s.unsent_bytes,
                  " out_of_order ", s.out_of_order_bytes);
  return text;
}

}  // namespace devwire
