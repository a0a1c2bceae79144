#include "sockets/hand_peer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "base/clock.h"
#include "sockets/two_stacks.h"
#include "transport/wire/byte_order.h"
#include "transport/wire/checksum.h"
#include "transport/wire/icmp.h"

namespace devwire {
namespace {

constexpr uint16_t kVlanTci = 5;

// Makes room for `bytes` of NOPs behind the fixed IPv4 header. Returns the
// new length of the headers.
uint32_t InsertIpOptions(std::byte* frame, uint32_t l3, uint32_t header_bytes,
                         uint8_t bytes) {
  std::byte* const ip = frame + l3;
  std::byte* const options = ip + kMinIpv4HeaderBytes;
  std::memmove(options + bytes, options,
               header_bytes - l3 - kMinIpv4HeaderBytes);
  std::memset(options, 1, bytes);  // RFC 791 3.1, "No Operation".
  const uint32_t ip_bytes = kMinIpv4HeaderBytes + bytes;
  Store8(ip, static_cast<uint8_t>(0x40 | ip_bytes / 4));
  StoreBe16(ip + 2, static_cast<uint16_t>(LoadBe16(ip + 2) + bytes));
  WriteIpv4Checksum(ip, ip_bytes);
  return header_bytes + bytes;
}

}  // namespace

HandPeer::HandPeer(const Options& options)
    : options_(options),
      host_({.device = options.device,
             .ip = options.ip,
             .mtu = options.mtu,
             .ring_wrs = 64}) {
  FlowMatch match;
  match.kind = FlowMatch::Kind::kOwnedHost;
  host_.io().Replenish();
  CHECK_EQ(host_.AwaitRule(host_.io().AddRule(match, kControlQueue)), 0);
}

bool HandPeer::Connect(Port from, const Shape& shape) {
  port_ = from;
  HeaderTemplate::Options header;
  header.source_mac = host_.io().limits().mac;
  header.destination_mac = options_.remote_mac;
  header.tuple = {{options_.ip, from}, options_.remote};
  plain_ = HeaderTemplate(header);
  header.vlan_tci = kVlanTci;
  tagged_ = HeaderTemplate(header);
  is_connected_ = was_reset_ = saw_fin_ = false;
  acked_ = segments_in_ = 0;
  text_.clear();
  too_long_.clear();
  iss_ = SeqNum(0xffff0000u + static_cast<uint16_t>(from));  // Wraps soon.
  TcpHeader syn;
  syn.seq = iss_;
  syn.flags = options_.ecn ? kSyn | kEce | kCwr : kSyn;
  syn.wnd = 0xffff;
  syn.options.mss =
      static_cast<uint16_t>(options_.mtu - (options_.ip.is_v4() ? 40 : 60));
  syn.options.window_scale = 7;
  syn.options.sack_permitted = options_.sack;
  if (options_.timestamps) syn.options.timestamps = {++ticks_, 0};
  // What is sent before the cable's two ends have found each other is lost.
  const MonotonicClock clock;
  Instant next = clock.Now();
  if (!Eventually([&] {
        if (clock.Now() >= next) {
          SendRaw(Build(syn, shape, {}));
          next = clock.Now() + 20_ms;
        }
        options_.poll();
        Poll();
        return is_connected_;
      })) {
    return false;
  }
  Send(0, 0, shape);
  return true;
}

void HandPeer::Send(uint64_t offset, uint32_t bytes, const Shape& shape) {
  SendRaw(FrameOf(offset, bytes, shape));
}

std::vector<std::byte> HandPeer::FrameOf(uint64_t offset, uint32_t bytes,
                                         const Shape& shape) {
  std::vector<std::byte> payload(bytes);
  for (uint32_t i = 0; i < bytes; ++i) payload[i] = PatternByte(0, offset + i);
  TcpHeader tcp;
  tcp.seq = iss_ + 1 + static_cast<uint32_t>(offset);
  tcp.ack = rcv_nxt_;
  tcp.flags = shape.flags;
  tcp.wnd = 0xffff;
  if (options_.timestamps && shape.timestamps) {
    tcp.options.timestamps = {++ticks_, ts_recent_};
  }
  tcp.options.sack_block_count = shape.sack_blocks;
  for (uint8_t i = 0; i < shape.sack_blocks; ++i) {
    tcp.options.sack_blocks[i] = {rcv_nxt_ - 1, rcv_nxt_};
  }
  return Build(tcp, shape, payload);
}

void HandPeer::SendSegment(const TcpHeader& tcp, uint32_t payload_bytes) {
  SendRaw(Build(tcp, Shape(), std::vector<std::byte>(payload_bytes)));
}

std::vector<std::byte> HandPeer::Build(
    const TcpHeader& tcp, const Shape& shape,
    std::span<const std::byte> payload) const {
  const HeaderTemplate& header = shape.vlan ? tagged_ : plain_;
  std::vector<std::byte> frame(kMaxTxHeaderBytes + shape.ip_option_bytes);
  uint32_t header_bytes =
      header.Emit(tcp, {.payload_bytes = static_cast<uint32_t>(payload.size())},
                  frame.data());
  WriteTcpChecksum(frame.data(), header.l4_offset(), header_bytes, payload);
  if (shape.ip_option_bytes > 0) {
    header_bytes =
        InsertIpOptions(frame.data(), header.l4_offset() - kMinIpv4HeaderBytes,
                        header_bytes, shape.ip_option_bytes);
  }
  frame.resize(header_bytes);
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

// Returns when the NIC is done with it.
void HandPeer::SendRaw(std::span<const std::byte> bytes) {
  std::byte* const at = host_.io().TxHeader();
  CHECK(at != nullptr);
  TxFrame frame;
  frame.insert_checksums = false;
  frame.header_bytes =
      static_cast<uint32_t>(std::min(bytes.size(), kMaxTxHeaderBytes));
  std::copy_n(bytes.begin(), frame.header_bytes, at);
  const auto rest = bytes.subspan(frame.header_bytes);
  if (!rest.empty()) {
    CHECK(host_.memory().CopyIn(0, rest).ok());
    frame.piece_count = 1;
    frame.pieces[0] = {.addr = host_.region().iova(),
                       .length = static_cast<uint32_t>(rest.size()),
                       .lkey = host_.region().lkey()};
  }
  const uint64_t ticket = host_.io().TxPost(frame);
  host_.io().TxFlush();
  CHECK(Eventually([&] {
    options_.poll();
    Poll();
    return host_.io().tx_completed() >= ticket;
  }));
}

void HandPeer::SendTooBig(const std::vector<std::byte>& dropped) {
  const bool is_v4 = options_.ip.is_v4();
  const uint32_t ip_bytes = is_v4 ? kMinIpv4HeaderBytes : kIpv6HeaderBytes;
  const uint32_t quoted = ip_bytes + 8;
  const auto bytes = static_cast<uint16_t>(kIcmpHeaderBytes + quoted);
  std::vector<std::byte> frame(kEthernetHeaderBytes + ip_bytes + bytes);
  std::byte* at = frame.data();
  at += EmitEthernet({.destination = options_.remote_mac,
                      .source = mac(),
                      .ether_type = is_v4 ? kEtherTypeIpv4 : kEtherTypeIpv6},
                     at);
  std::byte* const icmp = at + ip_bytes;
  std::copy_n(dropped.data() + kEthernetHeaderBytes, quoted,
              icmp + kIcmpHeaderBytes);
  InternetSum sum;
  if (is_v4) {
    Ipv4Header ip;
    ip.protocol = kProtocolIcmp;
    ip.total_length = static_cast<uint16_t>(ip_bytes + bytes);
    ip.source = options_.ip;
    ip.destination = options_.remote.ip;
    EmitIpv4(ip, at);
    WriteIpv4Checksum(at, ip_bytes);
    Store8(icmp, kIcmpUnreachable);
    Store8(icmp + 1, 4);  // Fragmentation needed and DF set.
    StoreBe16(icmp + 6, static_cast<uint16_t>(options_.path_mtu));
  } else {
    Ipv6Header ip;
    ip.next_header = kProtocolIcmpv6;
    ip.payload_length = bytes;
    ip.source = options_.ip;
    ip.destination = options_.remote.ip;
    EmitIpv6(ip, at);
    Store8(icmp, kIcmpv6PacketTooBig);
    StoreBe32(icmp + 4, options_.path_mtu);
    sum = PseudoHeaderSum(ip.source, ip.destination, kProtocolIcmpv6, bytes);
  }
  sum.Add({icmp, bytes});
  StoreBe16(icmp + 2, sum.Checksum());
  SendRaw(frame);
}

void HandPeer::Poll() {
  std::array<RxFrame, 32> frames;
  const size_t count = host_.io().RxBurst(frames);
  for (size_t i = 0; i < count; ++i) {
    const RxFrame& frame = frames[i];
    ParsedFrame parsed;
    const ParseResult result = ParseFrame(frame.header, frame.header_bytes,
                                          frame.frame_bytes, &parsed);
    const bool is_too_long =
        options_.path_mtu != 0 &&
        frame.frame_bytes > kEthernetHeaderBytes + options_.path_mtu;
    if (result == ParseResult::kTcp && is_too_long) {
      too_long_.emplace_back(frame.header, frame.header + frame.header_bytes);
      host_.control_pool().Free(frame.slot);
      continue;
    }
    if (result == ParseResult::kIcmpv6) {
      nd_frames_.emplace_back(frame.header, frame.header + frame.header_bytes);
    }
    // A SYN-ACK that comes again says nothing new.
    const bool is_stale = is_connected_ && (parsed.tcp.flags & kSyn) != 0;
    if (result == ParseResult::kTcp && parsed.tuple.local.port == port_ &&
        !is_stale) {
      last_ = parsed.tcp;
      last_frame_.assign(frame.header, frame.header + frame.header_bytes);
      ++segments_in_;
      was_reset_ = was_reset_ || (last_.flags & kRst) != 0;
      saw_fin_ = saw_fin_ || (last_.flags & kFin) != 0;
      if (last_.options.timestamps) ts_recent_ = last_.options.timestamps->val;
      const uint32_t length =
          parsed.payload_bytes + ((last_.flags & (kSyn | kFin)) != 0 ? 1u : 0u);
      if ((last_.flags & kSyn) != 0) {
        rcv_nxt_ = last_.seq + 1;
        window_scale_ = last_.options.window_scale.value_or(0);
        is_connected_ = true;
      } else if (last_.seq == rcv_nxt_) {
        rcv_nxt_ = rcv_nxt_ + length;
        const std::byte* const at = frame.header + parsed.header_bytes;
        text_.insert(text_.end(), at, at + parsed.payload_bytes);
      }
      if ((last_.flags & kAck) != 0) {
        acked_ = static_cast<uint32_t>(last_.ack - (iss_ + 1));
      }
    }
    host_.control_pool().Free(frame.slot);
  }
  host_.io().Replenish();
}

}  // namespace devwire
