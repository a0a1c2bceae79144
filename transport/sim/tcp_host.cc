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
                    .slot_count = options.slot_count,
                    .slot_bytes = kLinearSlotBytes}),
      device_memory_(size_t{options.slot_count} * options.slot_bytes),
      linear_memory_(size_t{options.slot_count} * kLinearSlotBytes),
      headers_(options.addresses) {}

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
  next_write_ = next_read_ = now;
  if (options_.app.abort_after) abort_at_ = now + *options_.app.abort_after;
  if (!options_.is_client) return;
  has_started_ = true;
  connection_.emplace(options_.connection, static_cast<FragSink&>(*this));
  connection_->OpenActive(now);
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
  if (device_pool_.free_slots() <= options_.pool_reserve) {
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

void TcpHost::OnFrame(const SimFrame& frame, Instant now) {
  ++frames_in_;
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
  Trace("<-", parsed.tcp, parsed.payload_bytes, now);
  Segment segment;
  static_cast<TcpHeader&>(segment) = parsed.tcp;
  segment.arrival = now;
  segment.ecn = static_cast<uint8_t>(parsed.ecn);

  if (!has_started_ && segment.has_syn() && !segment.has_ack()) {
    has_started_ = true;
    connection_.emplace(options_.connection, static_cast<FragSink&>(*this));
    (void)connection_->OpenPassive(segment, now);
    return;
  }
  if (!connection_) {
    segment.payload_bytes = parsed.payload_bytes;
    const auto reset = ResetForUnknown(segment);
    if (reset) SendSegment(*reset, now);
    return;
  }
  if (TakeText(frame, parsed, &segment)) {
    (void)connection_->OnSegment(segment, now);
  }
}

void TcpHost::SendSegment(const TxSegment& segment, Instant now) {
  TcpHeader header;
  header.seq = segment.seq;
  header.ack = segment.ack;
  header.wnd = segment.wnd;
  header.urgent_pointer = segment.urgent_pointer;
  header.flags = segment.flags;
  header.options = segment.options;
  if (segment.stream_offset + segment.payload_bytes > bytes_written_) {
    return Fail("sends bytes that were never written");
  }
  if (segment.tso_mss == 0) {
    return SendFrame(header, segment.stream_offset, segment.payload_bytes,
                     segment.ecn, now);
  }
  if (segment.payload_bytes > options_.max_tso_payload) {
    return Fail("more in one send than TSO takes");
  }
  for (uint32_t at = 0; at < segment.payload_bytes; at += segment.tso_mss) {
    const uint32_t bytes =
        std::min<uint32_t>(segment.tso_mss, segment.payload_bytes - at);
    header.seq = segment.seq + at;
    header.flags = segment.flags;
    if (at + bytes < segment.payload_bytes) {
      header.flags &= static_cast<uint8_t>(~(kFin | kPsh));
    }
    SendFrame(header, segment.stream_offset + at, bytes, segment.ecn, now);
  }
}

void TcpHost::SendFrame(const TcpHeader& header, uint64_t stream_offset,
                        uint32_t payload_bytes, uint8_t ecn, Instant now) {
  Trace("->", header, payload_bytes, now);
  SimFrame frame(192 + payload_bytes);
  const uint32_t header_bytes =
      headers_.Emit(header,
                    {.payload_bytes = payload_bytes,
                     .ecn = static_cast<Ecn>(ecn),
                     .identification = identification_++},
                    frame.data());
  frame.resize(header_bytes + payload_bytes);
  const auto payload = std::span(frame).subspan(header_bytes);
  FillStream(options_.write_stream, stream_offset, payload);
  WriteTcpChecksum(frame.data(), headers_.l4_offset(), header_bytes, payload);
  out_.Send(std::move(frame), now);
}

// -- the application's side ---------------------------------------------------

void TcpHost::OnTime(Instant now) {
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
  has_started_ = true;  // A server that no SYN reached stops listening.
  if (connection_) connection_->Abort(TcpError::kAborted);
  Finish(now);
}

void TcpHost::Write(Instant now) {
  const uint64_t left = options_.app.bytes_to_write - bytes_written_;
  if (left == 0 || has_closed_) {
    next_write_ = Instant::Never();
    return;
  }
  const uint64_t want =
      std::min<uint64_t>(left, 1 + prng_.Below(options_.app.max_write));
  const uint64_t taken = connection_->Send(want);
  if (taken > want) Fail("Send took more than it was offered");
  bytes_written_ += taken;
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
    const auto token = pool.Lend(frag, kStream);
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
    if (!IsStream(options_.read_stream, bytes_read_, bytes)) {
      return Fail(absl::StrCat("wrong bytes at ", bytes_read_, ", ",
                               frag.length, " of them"));
    }
    bytes_read_ += frag.length;
    left -= frag.length;
    tokens_.push({now + UpTo(options_.app.token_delay), *token, frag.pool});
  }
  next_read_ = now + 1_us + UpTo(options_.app.read_gap);
}

void TcpHost::ReturnTokens(Instant now) {
  uint64_t bytes = 0;
  uint32_t slots = 0;
  while (!tokens_.empty() && tokens_.top().due <= now) {
    FragPool& pool = PoolOf(tokens_.top().pool);
    if (pool.Return(tokens_.top().token, kStream) != ReturnResult::kReturned) {
      Fail("a token was refused");
    }
    tokens_.pop();
    FragPool::Returned returned[4];
    const size_t count = pool.Drain(returned, 4);
    for (size_t i = 0; i < count; ++i) {
      bytes += returned[i].bytes;
      slots += returned[i].slot_freed ? 1 : 0;
    }
  }
  if (bytes > 0 && connection_) connection_->OnReleased(bytes, slots);
}

void TcpHost::CloseIfDone(Instant now) {
  if (has_closed_ || bytes_written_ < options_.app.bytes_to_write) return;
  if (!was_connected_) return;
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
      if (event->kind == Event::Kind::kConnected) was_connected_ = true;
      if (event->kind == Event::Kind::kPeerClosed) saw_peer_close_ = true;
      if (event->kind == Event::Kind::kWritable) next_write_ = now + 1_us;
      if (event->kind == Event::Kind::kError) error_ = connection_->error();
    }
    connection_->CheckInvariants();
    last_stats_ = connection_->stats();
    Retire();
  }
  device_pool_.CheckInvariants();
  linear_pool_.CheckInvariants();
}

// The connection ended, and nobody reads on.
void TcpHost::Retire() {
  if (!connection_->is_finished()) return;
  const bool will_read = error_ == TcpError::kNone &&
                         next_read_ != Instant::Never() &&
                         connection_->readable_bytes() > 0;
  if (!will_read) connection_.reset();
}

Instant TcpHost::NextEvent() const {
  Instant next = Instant::Never();
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
  return has_started_ && !connection_ && tokens_.empty() &&
         device_pool_.free_slots() == device_pool_.slot_count() &&
         linear_pool_.free_slots() == linear_pool_.slot_count();
}

std::string TcpHost::ToString() const {
  std::string text = absl::StrCat(
      options_.is_client ? "client" : "server", " ",
      connection_ ? StateName(connection_->state())
                  : (has_started_ ? "gone" : "not opened"),
      " wrote ", bytes_written_, "/", options_.app.bytes_to_write, " read ",
      bytes_read_, " error '", TcpErrorName(error_), "' tokens ",
      tokens_.size(), " device ", device_pool_.OwnersString(), " linear ",
      linear_pool_.OwnersString());
  const Connection::Stats& s = last_stats_;
  absl::StrAppend(&text, " rto_ns ", s.rto.nanoseconds(), " timeouts ",
                  s.timeouts, " retransmitted ", s.segments_retransmitted,
                  " cwnd ", s.cwnd, " flight ", s.flight_size, " snd_wnd ",
                  s.snd_wnd, " rcv_wnd ", s.rcv_wnd, " unsent ", s.unsent_bytes,
                  " out_of_order ", s.out_of_order_bytes);
  return text;
}

}  // namespace devwire
