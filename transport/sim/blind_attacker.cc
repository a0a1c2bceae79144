#include "transport/sim/blind_attacker.h"

#include <algorithm>
#include <span>

#include "transport/wire/frame.h"

namespace devwire {

SeqNum BlindAttacker::GuessSeq(const Connection& victim) {
  const SeqNum rcv_nxt = victim.tcb().rcv_nxt;
  const uint32_t wnd = std::max(victim.stats().rcv_wnd, 1u);
  switch (prng_.Below(5)) {
    case 0:  // In the window.
    case 1:
      return rcv_nxt + static_cast<SeqLen>(prng_.Below(wnd));
    case 2:  // Just before it, or far.
      return rcv_nxt - static_cast<SeqLen>(1 + prng_.Below(100'000));
    case 3:  // Just behind it.
      return rcv_nxt + wnd + static_cast<SeqLen>(prng_.Below(100'000));
    default:
      return SeqNum(prng_.Next32());
  }
}

// Never in [SND.UNA - MAX.SND.WND, SND.NXT], nor the byte of a window probe.
SeqNum BlindAttacker::GuessAck(const Connection& victim) {
  const Tcb& tcb = victim.tcb();
  const SeqNum low = tcb.snd_una - tcb.max_snd_wnd;
  const SeqNum high = tcb.snd_nxt + 1;
  const SeqLen taken = high - low;
  const auto beside = static_cast<SeqLen>(
      prng_.Chance(0.5) ? prng_.Below(1'000'000)
                        : prng_.Below(UINT32_MAX - uint64_t{taken}));
  return high + 1 + std::min(beside, UINT32_MAX - taken - 1);
}

void BlindAttacker::Count(Kind kind, SeqNum seq, const Connection& victim) {
  const SeqLen ahead = seq - victim.tcb().rcv_nxt;
  const bool is_in = ahead < std::max(victim.stats().rcv_wnd, 1u);
  ++(is_in ? tally_.in_window : tally_.outside)[static_cast<size_t>(kind)];
}

SimFrame BlindAttacker::Guess(const Connection& victim,
                              const FourTuple& tuple) {
  ++guesses_;
  TcpHeader header;
  header.seq = GuessSeq(victim);
  header.wnd = static_cast<uint16_t>(prng_.Next32());
  uint32_t payload_bytes = 0;
  Kind kind = Kind::kReset;
  switch (prng_.Below(6)) {
    case 0:
      header.flags = kRst;
      break;
    case 1:
      header.flags = kRst | kAck;
      break;
    case 2:
      kind = Kind::kSyn;
      header.flags = kSyn;
      header.options.mss = uint16_t{1460};
      break;
    case 3:
      kind = Kind::kSyn;
      header.flags = kSyn | kAck;
      break;
    case 4:
      kind = Kind::kAck;
      header.flags = kAck;
      break;
    default:
      kind = Kind::kText;
      header.flags = kAck | kPsh | (prng_.Chance(0.3) ? kFin : 0);
      payload_bytes = static_cast<uint32_t>(1 + prng_.Below(1400));
      break;
  }
  if ((header.flags & kAck) != 0) header.ack = GuessAck(victim);
  if ((header.flags & kRst) != 0 && header.seq == victim.tcb().rcv_nxt) {
    header.seq += 1;
  }
  Count(kind, header.seq, victim);
  if (prng_.Chance(0.5)) {
    header.options.timestamps = {prng_.Next32(), prng_.Next32()};
  }
  HeaderTemplate::Options o;
  o.tuple = {.local = tuple.remote, .remote = tuple.local};
  const HeaderTemplate headers(o);
  SimFrame frame(192 + payload_bytes);
  const uint32_t header_bytes =
      headers.Emit(header, {.payload_bytes = payload_bytes}, frame.data());
  frame.resize(header_bytes + payload_bytes);
  const auto payload = std::span(frame).subspan(header_bytes);
  std::fill(payload.begin(), payload.end(), std::byte{0xee});
  WriteTcpChecksum(frame.data(), headers.l4_offset(), header_bytes, payload);
  return frame;
}

}  // namespace devwire
