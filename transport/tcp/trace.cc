#include "transport/tcp/trace.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "transport/wire/notation.h"

namespace devwire {

void SlotLedger::Arrive(SlotIndex slot, uint32_t bytes) {
  auto [it, is_new] = slots_.try_emplace(static_cast<uint32_t>(slot));
  CHECK(is_new) << "slot " << static_cast<uint32_t>(slot) << " is in use";
  it->second.assign(bytes, Byte::kWithTcp);
}

bool SlotLedger::Move(const Frag& frag, Byte from, Byte to) {
  auto it = slots_.find(static_cast<uint32_t>(frag.slot));
  CHECK(it != slots_.end())
      << "slot " << static_cast<uint32_t>(frag.slot) << " is free";
  std::vector<Byte>& bytes = it->second;
  CHECK_GT(frag.length, 0u);
  CHECK_LE(frag.offset + frag.length, bytes.size());
  for (uint32_t i = 0; i < frag.length; ++i) {
    CHECK_EQ(bytes[frag.offset + i], from) << "byte " << frag.offset + i;
    bytes[frag.offset + i] = to;
  }
  if (std::count(bytes.begin(), bytes.end(), Byte::kGone) <
      static_cast<std::ptrdiff_t>(bytes.size())) {
    return false;
  }
  slots_.erase(it);
  return true;
}

void SlotLedger::Discard(const Frag& frag) {
  discarded_bytes_ += frag.length;
  Move(frag, Byte::kWithTcp, Byte::kGone);
}
void SlotLedger::Lend(const Frag& frag) {
  Move(frag, Byte::kWithTcp, Byte::kLent);
}
bool SlotLedger::Return(const Frag& frag) {
  return Move(frag, Byte::kLent, Byte::kGone);
}

Trace::Trace(const Setup& setup)
    : setup_(setup), ledger_(std::make_unique<SlotLedger>()) {
  setup_.options.mss = setup.mss;
  setup_.options.iss = setup.iss;
  setup_.options.use_timestamps = setup.timestamps;
  setup_.options.use_sack = setup.sack;
  setup_.options.use_window_scale = setup.peer_scale.has_value();
  connection_ = std::make_unique<Connection>(setup_.options, *ledger_);
}

Trace::~Trace() {
  if (connection_ == nullptr) return;  // Moved from.
  connection_->Abort(TcpError::kAborted);
  connection_.reset();
  Release();
  EXPECT_EQ(ledger_->slots_in_use(), 0u) << "slots were lost\n" << log_;
}

Trace Trace::Established(const Setup& setup) {
  Trace t(setup);
  t.OpenActive();
  t.PollAll();
  std::string options = absl::StrCat("<mss ", setup.mss);
  if (setup.sack) options += ",sackOK";
  if (setup.timestamps) {
    options += absl::StrCat(",TS val 1000 ecr ", t.last_tsval_);
  }
  if (setup.peer_scale) options += absl::StrCat(",wscale ", *setup.peer_scale);
  const bool ecn = setup.options.ecn == EcnMode::kOn;
  t.In(absl::StrCat(ecn ? "SE." : "S.", " 0:0(0) ack 1 ", options, ">"));
  t.Out(".  1:1(0) ack 1").Expect(State::kEstablished);
  t.ExpectEvents("connected");
  if (setup.peer_scale) t.In(".  1:1(0) ack 1");  // The window, scaled.
  return t;
}

Trace Trace::SynReceived(const Setup& setup) {
  Trace t(setup);
  std::string options = absl::StrCat("<mss ", setup.mss);
  if (setup.sack) options += ",sackOK";
  if (setup.timestamps) options += ",TS val 1000 ecr 0";
  if (setup.peer_scale) options += absl::StrCat(",wscale ", *setup.peer_scale);
  std::string syn = absl::StrCat("S 0:0(0) ", options, ">");
  t.OpenPassive(syn).Out("S. 0:0(0) ack 1").Expect(State::kSynReceived);
  return t;
}

Trace& Trace::OpenByCookie(std::string_view syn, std::string_view ack) {
  Log(ack);
  Segment third = Parse(ack);
  if (third.payload_bytes > 0) {
    const SlotIndex slot{next_slot_++};
    ledger_->Arrive(slot, third.payload_bytes);
    third.text[third.text_count++] = {slot, 0, third.payload_bytes, PoolId{}};
  }
  last_verdict_ = connection_->OpenByCookie(Parse(syn), third, now_);
  Check();
  return *this;
}

Trace& Trace::At(Duration time) {
  EXPECT_GE(start_ + time, now_) << "time runs backwards";
  now_ = start_ + time;
  return *this;
}

void Trace::Log(std::string_view what) {
  absl::StrAppend(&log_, (now_ - start_).microseconds(), " us  ",
                  std::string(what), "\n");
}

void Trace::Check() { connection_->CheckInvariants(); }

Segment Trace::Parse(std::string_view text) {
  auto parsed = ParseSegment(text);
  CHECK(parsed.ok()) << text << ": " << parsed.status().ToString();
  Segment seg;
  static_cast<TcpHeader&>(seg) = parsed->header;
  seg.seq = setup_.peer_iss + seg.seq.raw();
  if (seg.has_ack()) seg.ack = setup_.iss + seg.ack.raw();
  for (size_t i = 0; i < seg.options.sack_block_count; ++i) {
    SackBlock& block = seg.options.sack_blocks[i];
    block = {setup_.iss + block.left.raw(), setup_.iss + block.right.raw()};
  }
  if (!parsed->has_wnd) seg.wnd = setup_.peer_wnd;
  if (setup_.timestamps && !parsed->has_options) {
    uint32_t ms = static_cast<uint32_t>((now_ - start_).milliseconds());
    seg.options.timestamps = {1000 + ms, last_tsval_};
  }
  seg.payload_bytes = parsed->payload_bytes;
  seg.arrival = now_;
  seg.ecn = next_ecn_;
  return seg;
}

Trace& Trace::In(std::string_view text, std::optional<Slot> slot,
                 uint32_t first_bytes) {
  Log("> " + std::string(text));
  Segment seg = Parse(text);
  auto add = [&](uint32_t index, uint32_t bytes) {
    if (bytes == 0) return;
    ledger_->Arrive(SlotIndex{index}, bytes);
    seg.text[seg.text_count++] = {.slot = SlotIndex{index}, .length = bytes};
  };
  add(next_slot_++, first_bytes);
  add(slot ? slot->index : next_slot_++, seg.payload_bytes - first_bytes);
  last_verdict_ = connection_->OnSegment(seg, now_);
  Check();
  return *this;
}

Trace& Trace::InMarked(std::string_view text) {
  next_ecn_ = kEcnCe;
  In(text);
  next_ecn_ = kEcnNotEct;
  return *this;
}

Trace& Trace::InTextDropped(std::string_view text) {
  Log("> (text dropped) " + std::string(text));
  Segment seg = Parse(text);
  seg.text_dropped = true;
  last_verdict_ = connection_->OnSegment(seg, now_);
  Check();
  return *this;
}

std::string Trace::Print(const TxSegment& out) const {
  TcpHeader header;
  header.seq = SeqNum(out.seq - setup_.iss);
  header.flags = out.flags;
  if ((out.flags & kAck) != 0) header.ack = SeqNum(out.ack - setup_.peer_iss);
  if ((out.flags & kRst) != 0) header.seq = SeqNum(out.seq - setup_.iss);
  header.wnd = out.wnd;
  header.urgent_pointer = out.urgent_pointer;
  header.options = out.options;
  for (size_t i = 0; i < out.options.sack_block_count; ++i) {
    SackBlock& block = header.options.sack_blocks[i];
    block = {SeqNum(block.left - setup_.peer_iss),
             SeqNum(block.right - setup_.peer_iss)};
  }
  return FormatSegment(header, out.payload_bytes);
}

// Compares text to text: what `expected` leaves out is left out of `out`.
bool Trace::Matches(const TxSegment& out, std::string_view expected) const {
  auto parsed = ParseSegment(expected);
  CHECK(parsed.ok()) << expected << ": " << parsed.status().ToString();
  auto printed = ParseSegment(Print(out));
  CHECK(printed.ok()) << Print(out);
  TcpHeader want = parsed->header;
  TcpHeader got = printed->header;
  // PSH tells the peer nothing it must know: compared only when asked for.
  if ((want.flags & kPsh) == 0) got.flags &= static_cast<uint8_t>(~kPsh);
  if (!parsed->has_wnd) got.wnd = want.wnd;
  if (!parsed->has_options) got.options = want.options;
  return FormatSegment(got, printed->payload_bytes) ==
         FormatSegment(want, parsed->payload_bytes);
}

std::vector<std::string> Trace::PollAll() {
  polled_.clear();
  std::vector<std::string> lines;
  TxSegment out;
  while (connection_->PollTransmit(now_, limits_, &out)) {
    Check();
    lines.push_back(Print(out));
    Log(absl::StrCat("  < ", lines.back()));
    polled_.push_back(out);
    last_out_ = out;
    if (out.options.timestamps) last_tsval_ = out.options.timestamps->val;
    CHECK_LT(polled_.size(), 10'000u) << "it never stops sending";
  }
  Check();
  EXPECT_GT(connection_->NextDeadline(), now_) << "busy loop\n" << log_;
  return lines;
}

Trace& Trace::OutAll(std::vector<std::string_view> expected) {
  std::vector<std::string> lines = PollAll();
  bool matches = lines.size() == expected.size();
  for (size_t i = 0; matches && i < expected.size(); ++i) {
    matches = Matches(polled_[i], expected[i]);
  }
  EXPECT_TRUE(matches) << "expected:\n  "
                       << absl::StrJoin(std::vector<std::string>(
                                            expected.begin(), expected.end()),
                                        "\n  ")
                       << "\nsent:\n  " << absl::StrJoin(lines, "\n  ")
                       << "\ntrace:\n"
                       << log_;
  return *this;
}

Trace& Trace::OutCount(size_t segments) {
  EXPECT_EQ(PollAll().size(), segments) << log_;
  return *this;
}

Trace& Trace::OutAt(Duration time, std::string_view segment) {
  ExpectQuietUntil(time - 1_ns);
  now_ = start_ + time;
  return OutAll({segment});
}

Trace& Trace::ExpectOneWithin(Duration wait) {
  const Instant end = now_ + wait;
  std::vector<std::string> lines = PollAll();
  while (lines.empty() && connection_->NextDeadline() <= end) {
    now_ = connection_->NextDeadline();
    lines = PollAll();
  }
  EXPECT_EQ(lines.size(), 1u) << log_;
  return *this;
}

Trace& Trace::ExpectQuietUntil(Duration time) {
  while (connection_->NextDeadline() <= start_ + time) {
    now_ = std::max(now_, connection_->NextDeadline());
    connection_->OnDeadline(now_);
    OutAll({});
  }
  now_ = std::max(now_, start_ + time);
  return *this;
}

Trace& Trace::OpenActive() {
  connection_->OpenActive(now_);
  Check();
  return *this;
}

Trace& Trace::Send(uint64_t bytes) {
  Log(absl::StrCat("send ", bytes));
  EXPECT_EQ(connection_->Send(bytes), bytes) << log_;
  Check();
  return *this;
}

Trace& Trace::OpenPassive(std::string_view syn) {
  Log("> " + std::string(syn));
  last_verdict_ = connection_->OpenPassive(Parse(syn), now_);
  Check();
  return *this;
}

Trace& Trace::Close() {
  Log("close");
  connection_->Close(now_);
  Check();
  return *this;
}

Trace& Trace::ShutdownReceive() {
  Log("shutdown receive");
  connection_->ShutdownReceive(now_);
  Check();
  return *this;
}

Trace& Trace::Abort() {
  Log("abort");
  connection_->Abort(TcpError::kAborted);
  Check();
  return *this;
}

std::vector<Frag> Trace::Recv(uint64_t max_bytes) {
  std::vector<Frag> frags(connection_->readable_frags() + 1);
  frags.resize(connection_->Receive(frags, max_bytes));
  for (const Frag& frag : frags) ledger_->Lend(frag);
  lent_.insert(lent_.end(), frags.begin(), frags.end());
  Check();
  return frags;
}

Trace& Trace::Release(size_t frags) {
  frags = std::min(frags, lent_.size());
  uint64_t bytes = 0;
  uint32_t slots = 0;
  for (size_t i = 0; i < frags; ++i) {
    bytes += lent_[i].length;
    slots += ledger_->Return(lent_[i]) ? 1 : 0;
  }
  lent_.erase(lent_.begin(),
              lent_.begin() + static_cast<std::ptrdiff_t>(frags));
  if (connection_ != nullptr) {
    connection_->OnReleased(bytes, slots);
    Check();
  }
  return *this;
}

Trace& Trace::Expect(State state) {
  EXPECT_STREQ(StateName(connection_->state()), StateName(state)) << log_;
  return *this;
}

Trace& Trace::ExpectReadable(uint64_t bytes) {
  EXPECT_EQ(connection_->readable_bytes(), bytes) << log_;
  return *this;
}

Trace& Trace::ExpectDrop(DropReason reason) {
  EXPECT_STREQ(DropReasonName(last_verdict_.reason), DropReasonName(reason))
      << log_;
  return *this;
}

Trace& Trace::ExpectEvents(std::string_view events) {
  constexpr const char* kNames[] = {"connected", "acked",    "readable",
                                    "urgent",    "writable", "peer-closed",
                                    "stalled",   "error",    "closed"};
  std::vector<const char*> got;
  while (std::optional<Event> event = connection_->PollEvent()) {
    got.push_back(kNames[static_cast<size_t>(event->kind)]);
  }
  EXPECT_EQ(absl::StrJoin(got, " "), events) << log_;
  return *this;
}

Trace& Trace::ExpectNoSlotsInUse() {
  EXPECT_EQ(ledger_->slots_in_use(), 0u) << log_;
  return *this;
}

}  // namespace devwire
