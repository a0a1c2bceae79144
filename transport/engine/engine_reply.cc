// Engine: what it answers without a connection: ARP, echo, resets. (Neighbour
// discovery is in engine_nd.cc.)
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "transport/engine/engine.h"
#include "transport/tcp/reset.h"
#include "transport/wire/arp.h"
#include "transport/wire/ethernet.h"
#include "transport/wire/icmp.h"
#include "transport/wire/nd.h"

namespace devwire {

void Engine::OnArp(const RxFrame& frame, const ParsedFrame& parsed) {
  ArpPacket arp;
  const uint32_t available = frame.header_bytes > parsed.l4_offset
                                 ? frame.header_bytes - parsed.l4_offset
                                 : 0;
  if (!ParseArp(frame.header + parsed.l4_offset, available, &arp) ||
      (arp.sender_mac[0] & 1) != 0) {
    return DropFrame(frame, EngineDrop::kBadArp);
  }
  if (parsed.source_mac == io_.limits().mac) {  // See PollNeighbors.
    if (neighbors_.OnAnswer(options_.route.address, parsed.source_mac,
                            /*create=*/false, now_)) {
      AdoptNeighbor(options_.route.address);
    }
    return FinishFrame(frame);
  }
  const bool is_request_for_us =
      arp.operation == ArpPacket::Operation::kRequest &&
      arp.target_ip == options_.route.address;
  // RFC 826: the sender's address is taken over when it is known already, or
  // when it speaks to us. 0.0.0.0 is a probe (RFC 5227), nobody's address.
  const bool has_sender = arp.sender_ip != IpAddress();
  if (has_sender && arp.sender_ip != options_.route.address &&
      neighbors_.OnAnswer(arp.sender_ip, arp.sender_mac, is_request_for_us,
                          now_)) {
    AdoptNeighbor(arp.sender_ip);
  }
  if (is_request_for_us) {
    SendArp(/*is_reply=*/true, arp.sender_mac, arp.sender_ip, arp.sender_mac);
  }
  if (capture_ != nullptr) {
    Record(false, {frame.header, frame.header_bytes}, frame.frame_bytes,
           nullptr);
  }
  FinishFrame(frame);
}

void Engine::SendArp(bool is_reply, const MacAddress& to_mac,
                     const IpAddress& to_ip,
                     const MacAddress& ethernet_destination) {
  std::byte* at = io_.TxHeader();
  if (at == nullptr) return;  // Asked again: by the peer, or by our timer.
  uint32_t bytes = EmitEthernet({.destination = ethernet_destination,
                                 .source = io_.limits().mac,
                                 .ether_type = kEtherTypeArp},
                                at);
  bytes += EmitArp({.operation = is_reply ? ArpPacket::Operation::kReply
                                          : ArpPacket::Operation::kRequest,
                    .sender_mac = io_.limits().mac,
                    .sender_ip = options_.route.address,
                    .target_mac = to_mac,
                    .target_ip = to_ip},
                   at + bytes);
  std::memset(at + bytes, 0, kMinEthernetFrameBytes - bytes);
  if (capture_ != nullptr) {
    Record(true, {at, kMinEthernetFrameBytes}, kMinEthernetFrameBytes, nullptr);
  }
  io_.TxPost(
      {.header_bytes = kMinEthernetFrameBytes, .insert_checksums = false});
  counters_.frames_out.Add();
  counters_.Count(is_reply ? EngineEvent::kArpRepliesSent
                           : EngineEvent::kArpRequestsSent);
}

void Engine::PollNeighbors() {
  if (neighbors_.NextDeadline() > now_) return;
  worked_ = true;
  while (const auto request = neighbors_.PollRequest(now_)) {
    if (request->ip == options_.route.address) {
      // A stream to ourselves: does the NIC loop back what is for its own
      // address? The request that comes back is the answer, in IPv6 too.
      SendArp(/*is_reply=*/false, MacAddress{}, request->ip, io_.limits().mac);
    } else if (request->ip.is_v4()) {
      SendArp(/*is_reply=*/false, MacAddress{}, request->ip, kBroadcastMac);
    } else {
      SendSolicitation(*request);
    }
  }
  while (const auto ip = neighbors_.PollFailed()) {
    for (auto& s : streams_) {
      if (s == nullptr || s->has_mac) continue;
      if (neighbors_.entry(s->neighbor).ip != *ip) continue;
      s->cause = UnreachableCause::kNoNeighbor;
      Abort(*s, TcpError::kUnreachable);
    }
  }
}

void Engine::OnIcmp(const RxFrame& frame, const ParsedFrame& parsed) {
  // ICMP is only looked at where it lies wholly in host memory.
  if (!frame.whole_in_slot) return DropFrame(frame, EngineDrop::kBadIcmp);
  const uint8_t type =
      parsed.l4_bytes == 0 ? 0 : Load8(frame.header + parsed.l4_offset);
  if (parsed.protocol == kProtocolIcmpv6 &&
      (type == kNdSolicitation || type == kNdAdvertisement)) {
    return OnNd(frame, parsed);
  }
  if (!IsForUs(frame, parsed)) return;
  if (!ChecksumsAreRight(frame.header, parsed)) {
    return DropFrame(frame, EngineDrop::kBadChecksum);
  }
  if (IsEchoRequest(frame.header, parsed)) {
    SendEchoReply(frame, parsed);
  } else {
    IcmpError error;
    switch (ParseIcmpError(frame.header, parsed, &error)) {
      case IcmpErrorResult::kError:
        OnIcmpError(error);
        break;
      case IcmpErrorResult::kNotAnError:
        break;
      case IcmpErrorResult::kTooShort:
      case IcmpErrorResult::kNotAboutTcp:
        return DropFrame(frame, EngineDrop::kBadIcmp);
    }
  }
  if (capture_ != nullptr) {
    Record(false, {frame.header, frame.header_bytes}, frame.frame_bytes,
           nullptr);
  }
  FinishFrame(frame);
}

// A connection that is being opened gives up at once, as Linux does; an
// established one takes it as a hint, and lets its timers decide. RFC 5461.
void Engine::OnIcmpError(const IcmpError& error) {
  counters_.Count(EngineEvent::kIcmpErrorsReceived);
  const auto index = demux_.Find(error.tuple);
  if (!index.has_value()) return;
  EngineStream& s = *streams_[*index];
  const Tcb& tcb = s.connection.tcb();
  // RFC 5927: it must quote something that is in flight.
  if (!InClosedOpen(tcb.snd_una, error.seq, tcb.snd_nxt)) return;
  if (error.kind == IcmpError::Kind::kPacketTooBig) return OnTooBig(error);
  // RFC 9293 SHLD-25; of a hard error too: a router's word ends no stream.
  Report(s, error.kind == IcmpError::Kind::kTimeExceeded ? kReportTimeExceeded
                                                         : kReportUnreachable);
  if (s.connection.state() != State::kSynSent) return;
  s.cause = UnreachableCause::kIcmp;
  Abort(s, error.kind == IcmpError::Kind::kRefused ? TcpError::kRefused
                                                   : TcpError::kUnreachable);
}

// A router says that a segment of ours was too long. RFC 1191, RFC 8201.
void Engine::OnTooBig(const IcmpError& error) {
  // RFC 5927 7.2: a packet that fits was not refused for its length.
  if (error.mtu != 0 && error.packet_bytes <= error.mtu) return;
  const IpAddress& peer = error.tuple.remote.ip;
  const auto mtu = path_mtus_.OnTooBig(peer, error.mtu, now_);
  if (!mtu.has_value()) return;
  counters_.Count(EngineEvent::kPathMtusLowered);
  SetPathMtu(peer, *mtu);
}

void Engine::SetPathMtu(const IpAddress& peer, uint32_t mtu) {
  for (auto& s : streams_) {
    if (s == nullptr || s->tuple.remote.ip != peer) continue;
    s->connection.OnPathMss(MssOf(peer, mtu));
    MarkDirty(*s);
  }
}

// Paths change: after a while the link's own MTU is tried again.
void Engine::PollPathMtus() {
  if (path_mtus_.NextDeadline() > now_) return;
  worked_ = true;
  while (const auto peer = path_mtus_.PollExpired(now_)) {
    SetPathMtu(*peer, options_.mtu);
  }
}

void Engine::SendEchoReply(const RxFrame& frame, const ParsedFrame& parsed) {
  const uint32_t bytes =
      std::max(kMinEthernetFrameBytes, parsed.l4_offset + parsed.l4_bytes);
  if (echoes_.full() || bytes > SendBuffers::kBufferBytes ||
      frame.frame_bytes < parsed.l4_offset + parsed.l4_bytes) {
    return;
  }
  std::byte* at = io_.TxHeader();
  const auto buffer = at == nullptr ? std::nullopt : send_buffers_.Take();
  if (!buffer.has_value()) return;
  std::byte* copy = send_buffers_.at(*buffer);
  std::memset(copy, 0, bytes);
  std::memcpy(copy, frame.header, std::min(bytes, frame.frame_bytes));
  MakeEchoReply(copy, parsed);
  std::memcpy(at, copy, kEthernetHeaderBytes);
  TxFrame reply{.header_bytes = kEthernetHeaderBytes,
                .piece_count = 1,
                .insert_checksums = false};
  reply.pieces[0] = {send_buffers_.iova(*buffer) + kEthernetHeaderBytes,
                     bytes - kEthernetHeaderBytes, send_buffers_.lkey()};
  if (capture_ != nullptr) {
    Record(true, {copy, std::min(bytes, 128u)}, bytes, nullptr);
  }
  CHECK(echoes_.Push({io_.TxPost(reply), *buffer}));
  counters_.frames_out.Add();
  counters_.Count(EngineEvent::kEchoRepliesSent);
}

void Engine::RetireEchoes() {
  while (!echoes_.empty() && echoes_.front().ticket <= io_.tx_completed()) {
    send_buffers_.Give(echoes_.front().buffer);
    echoes_.PopFront();
  }
}

bool Engine::SendReset(const ParsedFrame& parsed, const Segment& segment) {
  const std::optional<TxSegment> reset = ResetForUnknown(segment);
  if (!reset.has_value()) return true;
  const double rate = options_.resets_per_second;
  reset_tokens_ =
      std::min(rate, reset_tokens_ + (now_ - reset_refill_).seconds() * rate);
  reset_refill_ = now_;
  if (reset_tokens_ < 1) return false;
  std::byte* at = io_.TxHeader();
  if (at == nullptr) return false;
  reset_tokens_ -= 1;
  // Back to where it came from: no neighbour is looked up for a stranger.
  const HeaderTemplate headers =
      HeadersTo(parsed.source_mac, parsed.tuple, options_.ip);
  TcpHeader tcp;
  tcp.seq = reset->seq;
  tcp.ack = reset->ack;
  tcp.wnd = reset->wnd;
  tcp.flags = reset->flags;
  const uint32_t bytes = headers.Emit(tcp, {}, at);
  if (capture_ != nullptr) Record(true, {at, bytes}, bytes, nullptr);
  io_.TxPost({.header_bytes = bytes});
  counters_.frames_out.Add();
  counters_.Count(EngineEvent::kResetsSent);
  return true;
}

}  // namespace devwire
