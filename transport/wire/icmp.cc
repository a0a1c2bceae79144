#include "transport/wire/icmp.h"

#include <algorithm>

#include "base/check.h"

namespace devwire {
namespace {

// RFC 1191: code 4 of "unreachable" is "fragmentation needed and DF set".
constexpr uint8_t kFragmentationNeeded = 4;
constexpr uint8_t kProtocolUnreachable = 2;
constexpr uint8_t kPortUnreachable = 3;
constexpr uint8_t kIcmpv6PortUnreachable = 4;

bool KindOfV4(uint8_t type, uint8_t code, IcmpError::Kind* kind) {
  if (type == kIcmpTimeExceeded) {
    *kind = IcmpError::Kind::kTimeExceeded;
    return true;
  }
  if (type == kIcmpParameterProblem) {
    *kind = IcmpError::Kind::kUnreachable;
    return true;
  }
  if (type != kIcmpUnreachable) return false;
  switch (code) {
    case kFragmentationNeeded:
      *kind = IcmpError::Kind::kPacketTooBig;
      return true;
    case kProtocolUnreachable:
    case kPortUnreachable:
      *kind = IcmpError::Kind::kRefused;
      return true;
    default:
      *kind = IcmpError::Kind::kUnreachable;
      return true;
  }
}

bool KindOfV6(uint8_t type, uint8_t code, IcmpError::Kind* kind) {
  switch (type) {
    case kIcmpv6Unreachable:
      *kind = code == kIcmpv6PortUnreachable ? IcmpError::Kind::kRefused
                                             : IcmpError::Kind::kUnreachable;
      return true;
    case kIcmpv6PacketTooBig:
      *kind = IcmpError::Kind::kPacketTooBig;
      return true;
    case kIcmpv6ParameterProblem:
      *kind = IcmpError::Kind::kUnreachable;
      return true;
    case kIcmpv6TimeExceeded:
      *kind = IcmpError::Kind::kTimeExceeded;
      return true;
    default:
      return false;
  }
}

// The quoted IP header at `at`: fills the addresses and tells where TCP starts.
IcmpErrorResult ReadQuotedIp(const std::byte* at, uint32_t bytes, bool v4,
                             IcmpError* out, uint32_t* l4) {
  if (v4) {
    Ipv4Header ip;
    switch (ParseIpv4(at, bytes, &ip)) {
      case Ipv4Result::kOk:
        break;
      case Ipv4Result::kCut:
        return IcmpErrorResult::kTooShort;
      case Ipv4Result::kBadVersion:
      case Ipv4Result::kBadLength:
        return IcmpErrorResult::kNotAboutTcp;
    }
    if (ip.protocol != kProtocolTcp || ip.is_fragment()) {
      return IcmpErrorResult::kNotAboutTcp;
    }
    out->tuple.local.ip = ip.source;
    out->tuple.remote.ip = ip.destination;
    out->packet_bytes = ip.total_length;
    *l4 = ip.header_bytes;
    return IcmpErrorResult::kError;
  }
  Ipv6Header ip;
  switch (ParseIpv6(at, bytes, &ip)) {
    case Ipv6Result::kOk:
      break;
    case Ipv6Result::kCut:
      return IcmpErrorResult::kTooShort;
    case Ipv6Result::kBadVersion:
      return IcmpErrorResult::kNotAboutTcp;
  }
  if (ip.next_header != kProtocolTcp) return IcmpErrorResult::kNotAboutTcp;
  out->tuple.local.ip = ip.source;
  out->tuple.remote.ip = ip.destination;
  out->packet_bytes = kIpv6HeaderBytes + ip.payload_length;
  *l4 = kIpv6HeaderBytes;
  return IcmpErrorResult::kError;
}

}  // namespace

bool IsEchoRequest(const std::byte* frame, const ParsedFrame& parsed) {
  if (parsed.l4_bytes < kIcmpHeaderBytes) return false;
  const uint8_t type = Load8(frame + parsed.l4_offset);
  const uint8_t code = Load8(frame + parsed.l4_offset + 1);
  return code == 0 &&
         type == (parsed.tuple.local.ip.is_v4() ? kIcmpEchoRequest
                                                : kIcmpv6EchoRequest);
}

void MakeEchoReply(std::byte* frame, const ParsedFrame& parsed) {
  DCHECK(IsEchoRequest(frame, parsed));
  const bool v4 = parsed.tuple.local.ip.is_v4();
  std::byte* ip = frame + parsed.l3_offset;
  std::byte* icmp = frame + parsed.l4_offset;
  std::swap_ranges(frame, frame + 6, frame + 6);
  if (v4) {
    std::swap_ranges(ip + 12, ip + 16, ip + 16);
    Store8(ip + 8, 64);
    WriteIpv4Checksum(ip, static_cast<uint32_t>(icmp - ip));
  } else {
    std::swap_ranges(ip + 8, ip + 24, ip + 24);
    Store8(ip + 7, 64);
  }
  Store8(icmp, v4 ? kIcmpEchoReply : kIcmpv6EchoReply);
  StoreBe16(icmp + 2, 0);
  InternetSum sum;
  if (!v4) {
    sum = PseudoHeaderSum(parsed.tuple.local.ip, parsed.tuple.remote.ip,
                          kProtocolIcmpv6, parsed.l4_bytes);
  }
  sum.Add({icmp, parsed.l4_bytes});
  StoreBe16(icmp + 2, sum.Checksum());
}

IcmpErrorResult ParseIcmpError(const std::byte* frame,
                               const ParsedFrame& parsed, IcmpError* out) {
  *out = IcmpError();
  if (parsed.l4_bytes < kIcmpHeaderBytes) return IcmpErrorResult::kTooShort;
  const std::byte* icmp = frame + parsed.l4_offset;
  const bool v4 = parsed.tuple.local.ip.is_v4();
  const uint8_t type = Load8(icmp);
  out->code = Load8(icmp + 1);
  const bool is_error = v4 ? KindOfV4(type, out->code, &out->kind)
                           : KindOfV6(type, out->code, &out->kind);
  if (!is_error) return IcmpErrorResult::kNotAnError;
  if (out->kind == IcmpError::Kind::kPacketTooBig) {
    out->mtu = v4 ? LoadBe16(icmp + 6) : LoadBe32(icmp + 4);
  }

  const std::byte* quoted = icmp + kIcmpHeaderBytes;
  const uint32_t quoted_bytes = parsed.l4_bytes - kIcmpHeaderBytes;
  uint32_t l4 = 0;
  const IcmpErrorResult ip = ReadQuotedIp(quoted, quoted_bytes, v4, out, &l4);
  if (ip != IcmpErrorResult::kError) return ip;
  // RFC 792 promises no more of it than 8 bytes: ports and sequence number.
  if (quoted_bytes < l4 + 8) return IcmpErrorResult::kTooShort;
  out->tuple.local.port = Port{LoadBe16(quoted + l4)};
  out->tuple.remote.port = Port{LoadBe16(quoted + l4 + 2)};
  out->seq = SeqNum(LoadBe32(quoted + l4 + 4));
  return IcmpErrorResult::kError;
}

}  // namespace devwire
