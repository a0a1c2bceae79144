#include "transport/sim/middlebox.h"

#include <algorithm>
#include <span>
#include <utility>

namespace devwire {
namespace {

// Flags of a segment that may be cut or merged; FIN and PSH go with the end.
constexpr uint8_t kCuttable = kAck | kPsh | kFin;

}  // namespace

void Middlebox::Take(const SimFrame& frame, Instant now) {
  Packet packet;
  ParsedFrame& p = packet.headers;
  const auto bytes = static_cast<uint32_t>(frame.size());
  if (ParseFrame(frame.data(), bytes, bytes, &p) != ParseResult::kTcp ||
      !ChecksumsAreRight(frame.data(), p)) {
    GiveOnHeld();
    ready_.push_back(frame);
    return;
  }
  packet.payload.assign(
      frame.begin() + p.header_bytes,
      frame.begin() + p.header_bytes + static_cast<int64_t>(p.payload_bytes));
  Rewrite(&p.tcp);
  if (held_ && CanAppend(packet)) {
    held_->payload.insert(held_->payload.end(), packet.payload.begin(),
                          packet.payload.end());
    held_->headers.tcp.flags |= p.tcp.flags;
    held_->headers.tcp.ack = p.tcp.ack;  // The newer ACK, as GRO keeps it.
    held_->headers.tcp.wnd = p.tcp.wnd;
    GiveOnHeld();
    return;
  }
  GiveOnHeld();
  const bool is_cuttable =
      !packet.payload.empty() && (p.tcp.flags & ~kCuttable) == 0;
  if (is_cuttable && !(p.tcp.flags & kFin) && prng_.Chance(options_.merge)) {
    held_ = std::move(packet);
    held_until_ = now + options_.merge_wait;
    return;
  }
  if (is_cuttable && packet.payload.size() > 1 &&
      prng_.Chance(options_.split)) {
    GiveOnHead(&packet, static_cast<uint32_t>(
                            1 + prng_.Below(packet.payload.size() - 1)));
  }
  GiveOn(packet);
}

void Middlebox::Rewrite(TcpHeader* tcp) const {
  TcpOptions& o = tcp->options;
  if ((tcp->flags & kSyn) != 0) {
    if (options_.strips_timestamps) o.timestamps.reset();
    if (options_.strips_sack) o.sack_permitted = false;
    if (options_.strips_window_scale) o.window_scale.reset();
    if (options_.mss_clamp && o.mss) {
      o.mss = std::min(*o.mss, *options_.mss_clamp);
    }
  } else if (options_.strips_later_segments) {
    if (options_.strips_timestamps) o.timestamps.reset();
    if (options_.strips_sack) o.sack_block_count = 0;
  }
}

// The held segment and `next` become one: the same flow of text, no longer than
// a packet may be, with nothing on either that only one of them says.
bool Middlebox::CanAppend(const Packet& next) const {
  const TcpHeader& a = held_->headers.tcp;
  const TcpHeader& b = next.headers.tcp;
  const auto held_bytes = static_cast<uint32_t>(held_->payload.size());
  return !next.payload.empty() && (b.flags & ~kCuttable) == 0 &&
         b.seq == a.seq + held_bytes && SeqLe(a.ack, b.ack) &&
         a.options == b.options &&
         next.headers.header_bytes - kEthernetHeaderBytes + held_bytes +
                 next.payload.size() <=
             options_.mtu;
}

void Middlebox::GiveOnHeld() {
  if (!held_) return;
  const Packet packet = std::move(*held_);
  held_.reset();
  held_until_ = Instant::Never();
  GiveOn(packet);
}

void Middlebox::GiveOnHead(Packet* packet, uint32_t bytes) {
  const auto end = packet->payload.begin() + bytes;
  Packet head{packet->headers, {packet->payload.begin(), end}};
  head.headers.tcp.flags &= static_cast<uint8_t>(~(kFin | kPsh));
  packet->payload.erase(packet->payload.begin(), end);
  packet->headers.tcp.seq += bytes;
  ready_.push_back(Build(head));
}

void Middlebox::GiveOn(const Packet& packet) {
  Packet rest = packet;
  while (options_.cut_bytes > 0 && rest.payload.size() > options_.cut_bytes) {
    GiveOnHead(&rest, options_.cut_bytes);
  }
  ready_.push_back(Build(rest));
}

SimFrame Middlebox::Build(const Packet& packet) {
  const ParsedFrame& p = packet.headers;
  HeaderTemplate::Options o;
  o.source_mac = p.source_mac;
  o.destination_mac = p.destination_mac;
  o.tuple = {.local = p.tuple.remote, .remote = p.tuple.local};
  o.ttl = p.ttl;
  const HeaderTemplate headers(o);
  const auto payload_bytes = static_cast<uint32_t>(packet.payload.size());
  SimFrame frame(192 + payload_bytes);
  const uint32_t header_bytes = headers.Emit(
      p.tcp, {.payload_bytes = payload_bytes, .ecn = p.ecn}, frame.data());
  frame.resize(header_bytes + payload_bytes);
  std::copy(packet.payload.begin(), packet.payload.end(),
            frame.begin() + header_bytes);
  WriteTcpChecksum(frame.data(), headers.l4_offset(), header_bytes,
                   packet.payload);
  return frame;
}

Instant Middlebox::NextEvent() const {
  return ready_.empty() ? held_until_ : Instant();
}

std::optional<SimFrame> Middlebox::Give(Instant now) {
  if (held_until_ <= now) GiveOnHeld();
  if (ready_.empty()) return std::nullopt;
  SimFrame frame = std::move(ready_.front());
  ready_.pop_front();
  return frame;
}

}  // namespace devwire
