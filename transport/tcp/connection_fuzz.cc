// A whole Connection under whatever a peer, an application and time may do.
//
// Input: six bytes of options, then steps. Each step is one byte that chooses
// among a segment, a user call and the passing of time, and the bytes that
// these take; what is missing reads as zero. Sequence numbers are written
// relative to the connection's own, so that a few bytes reach deep.
//
// After each step: invariants, exact slots, no busy loop, and nothing sent that
// was not queued.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/check.h"
#include "transport/tcp/connection.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), left_(size) {}

  bool empty() const { return left_ == 0; }
  uint8_t U8() {
    if (left_ == 0) return 0;
    --left_;
    return *at_++;
  }
  uint16_t U16() {
    const uint32_t high = U8();
    return static_cast<uint16_t>(high << 8 | U8());
  }
  uint32_t U32() {
    const uint32_t high = U16();
    return high << 16 | U16();
  }
  // Mostly small, both ways; at times anything.
  SeqLen Offset() {
    const uint8_t how = U8();
    if (how < 128) return how;
    if (how < 160) return 0u - (how - 127u);
    if (how < 224) return static_cast<SeqLen>(static_cast<int16_t>(U16()));
    return U32();
  }

 private:
  const uint8_t* at_;
  size_t left_;
};

class Fuzz {
 public:
  Fuzz(const uint8_t* data, size_t size) : in_(data, size) { Open(); }

  ~Fuzz() {
    connection_->Abort(TcpError::kAborted);
    Settle();
    CHECK(connection_->is_finished());
    connection_.reset();
    for (const Frag& frag : lent_) ledger_.Return(frag);
    CHECK_EQ(ledger_.slots_in_use(), 0u);
  }

  void Run() {
    while (!in_.empty()) {
      Step();
      Settle();
    }
  }

 private:
  void Open() {
    Connection::Options o;
    const uint8_t flags = in_.U8();
    o.use_timestamps = (flags & 1) != 0;
    o.use_window_scale = (flags & 2) != 0;
    o.use_sack = (flags & 4) != 0;
    o.nodelay = (flags & 8) != 0;
    if ((flags & 16) != 0) o.user_timeout = 30_s;
    has_tso_ = (flags & 32) != 0;
    o.mss = static_cast<uint16_t>(1 + in_.U16() % 9000);
    o.iss = SeqNum(0u - in_.U8() * 16u);
    o.max_slot_quota = 1 + in_.U8() % 32;
    o.receive.slot_quota = o.max_slot_quota;
    o.receive.byte_budget = 1 + in_.U16() * 4u;
    o.max_segments_in_flight = 16;
    o.send_queue_limit_bytes = 100'000;
    connection_ = std::make_unique<Connection>(o, ledger_);
    max_quota_ = o.max_slot_quota;
    if ((flags & 64) != 0) {
      connection_->OpenActive(now_);
      Settle();
      if ((flags & 128) == 0) return;
      Segment seg =
          SegmentAt(kSyn | kAck, SeqNum(in_.U32()), connection_->tcb().iss + 1);
      seg.options = SynOptions();
      connection_->OnSegment(seg, now_);
    } else {
      Segment seg = SegmentAt(kSyn, SeqNum(in_.U32()), SeqNum());
      seg.options = SynOptions();
      (void)connection_->OpenPassive(seg, now_);
    }
    Settle();
  }

  TcpOptions SynOptions() {
    const uint8_t which = in_.U8();
    TcpOptions o;
    if ((which & 1) != 0) o.mss = in_.U16();
    if ((which & 2) != 0) o.window_scale = in_.U8();
    o.sack_permitted = (which & 4) != 0;
    if ((which & 8) != 0) o.timestamps = {tsval_, 0};
    return o;
  }

  Segment SegmentAt(uint8_t flags, SeqNum seq, SeqNum ack) {
    Segment seg;
    seg.flags = flags;
    seg.seq = seq;
    if ((flags & kAck) != 0) seg.ack = ack;
    seg.wnd = in_.U16();
    seg.arrival = now_;
    return seg;
  }

  void Step() {
    switch (in_.U8() % 16) {
      case 0:
      case 1:
      case 2:
      case 3:
        return Arrive(in_.U8());
      case 4:  // The next text in order, everything acknowledged.
        return ArriveInOrder();
      case 5:
        return Arrive(kAck);
      case 6:
        if (connection_->NextDeadline() != Instant::Never()) {
          now_ = std::max(now_, connection_->NextDeadline());
        }
        return connection_->OnDeadline(now_);
      case 7:
        now_ += Duration::Nanoseconds(int64_t{1} << (in_.U8() % 48));
        return connection_->OnDeadline(now_);
      case 8:
      case 9:
        connection_->Send(in_.U16());
        return;
      case 10:
        return Receive();
      case 11:
        return Release(in_.U8());
      case 12:
        connection_->SetReceiveLimits(
            {.byte_budget = in_.U16() * 4u, .slot_quota = in_.U8() % 64u});
        return;
      case 13:
        return SetSwitches(in_.U8());
      case 14:
        return connection_->Close(now_);
      default:
        return Rare(in_.U8());
    }
  }

  void SetSwitches(uint8_t on) {
    connection_->SetNoDelay((on & 1) != 0);
    connection_->SetCork((on & 2) != 0);
    // Held only until the handshake is over.
    if (connection_->state() < State::kEstablished) {
      connection_->HoldHandshake((on & 4) != 0);
    } else {
      connection_->HoldHandshake(false);
    }
  }

  void Rare(uint8_t which) {
    if (which < 64) return connection_->ShutdownReceive(now_);
    if (which < 70) return connection_->Abort(TcpError::kAborted);
    connection_->OnDeadline(now_);
  }

  void ArriveInOrder() {
    const Tcb& tcb = connection_->tcb();
    Segment seg = SegmentAt(kAck | kPsh, tcb.rcv_nxt, tcb.snd_nxt);
    if (tcb.snd_ts_ok) seg.options.timestamps = {++tsval_, 0};
    AddText(&seg, in_.U16() % 2000);
    connection_->OnSegment(seg, now_);
  }

  void Arrive(uint8_t flags) {
    const Tcb& tcb = connection_->tcb();
    const uint8_t which = in_.U8();
    const SeqNum seq = tcb.rcv_nxt + in_.Offset();
    const SeqNum ack =
        ((which & 1) != 0 ? tcb.snd_una : tcb.snd_nxt) + in_.Offset();
    Segment seg = SegmentAt(flags, seq, ack);
    if ((which & 2) != 0) {
      tsval_ += in_.Offset();
      seg.options.timestamps = {tsval_, in_.U32()};
    }
    if ((flags & kSyn) != 0) seg.options = SynOptions();
    seg.options.sack_block_count = (which >> 2) & 3;
    for (size_t i = 0; i < seg.options.sack_block_count; ++i) {
      const SeqNum left = tcb.snd_una + in_.Offset();
      seg.options.sack_blocks[i] = {left, left + in_.Offset()};
    }
    seg.options_cut = (which & 16) != 0;
    seg.ecn = which >> 6;
    if ((which & 32) != 0) AddText(&seg, in_.U16() % 2000);
    connection_->OnSegment(seg, now_);
  }

  // In one slot or two; or the engine had none.
  void AddText(Segment* seg, uint32_t bytes) {
    seg->payload_bytes = bytes;
    if (bytes == 0) return;
    const uint8_t how = in_.U8();
    if (how == 255) {
      seg->text_dropped = true;
      return;
    }
    const uint32_t first = how < 40 ? std::min<uint32_t>(how, bytes) : 0;
    for (const uint32_t length : {first, bytes - first}) {
      if (length == 0) continue;
      const SlotIndex slot{next_slot_++};
      ledger_.Arrive(slot, length);
      seg->text[seg->text_count++] = {.slot = slot, .length = length};
    }
  }

  void Receive() {
    Frag frags[4];
    const size_t count =
        connection_->Receive(std::span(frags, 1 + in_.U8() % 4), in_.U16());
    for (size_t i = 0; i < count; ++i) {
      ledger_.Lend(frags[i]);
      lent_.push_back(frags[i]);
    }
  }

  void Release(size_t count) {
    uint64_t bytes = 0;
    uint32_t slots = 0;
    for (; count > 0 && !lent_.empty(); --count) {
      bytes += lent_.back().length;
      slots += ledger_.Return(lent_.back()) ? 1 : 0;
      lent_.pop_back();
    }
    connection_->OnReleased(bytes, slots);
  }

  void Settle() {
    TxSegment out;
    int sent = 0;
    const TxLimits limits{.max_tso_payload = has_tso_ ? 60'000u : 0};
    uint64_t probes = connection_->stats().path_probes;
    while (connection_->PollTransmit(now_, limits, &out)) {
      CHECK_LT(++sent, 10'000) << "it never stops sending";
      CHECK_LE(out.stream_offset + out.payload_bytes,
               connection_->queued_offset());
      const uint32_t one = out.tso_mss != 0 ? out.tso_mss : out.payload_bytes;
      // A probe of the path is longer than the others on purpose.
      const ConnectionStats stats = connection_->stats();
      if (stats.path_probes == probes) CHECK_LE(one, std::max(stats.smss, 1u));
      probes = stats.path_probes;
    }
    CHECK(connection_->NextDeadline() > now_) << "busy loop";
    while (connection_->PollEvent()) {
    }
    CHECK_LE(connection_->acked_offset(), connection_->sent_offset() + 1);
    CHECK_LE(connection_->stats().held_slots, max_quota_);
    connection_->CheckInvariants();
  }

  Input in_;
  SlotLedger ledger_;
  std::unique_ptr<Connection> connection_;
  Instant now_ = Instant::FromNanoseconds(1'000'000'000);
  uint32_t tsval_ = 1000;
  uint32_t next_slot_ = 0;
  uint32_t max_quota_ = 0;
  bool has_tso_ = false;
  std::vector<Frag> lent_;
};

}  // namespace
}  // namespace devwire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  devwire::Fuzz(data, size).Run();
  return 0;
}
