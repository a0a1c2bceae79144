#include "transport/wire/frame.h"

#include <algorithm>

#include "base/check.h"

namespace devwire {
namespace {

// nop, nop, kind 8, length 10: RFC 7323 appendix A.
constexpr uint32_t kAlignedTimestamps = 0x0101080a;
constexpr uint32_t kTimestampsBytes = 12;

// Ethernet, IPv4 of 20 bytes, no fragment, TCP with nothing but the aligned
// timestamps, or nothing. False: the long way decides.
bool ParseFast(const std::byte* frame, uint32_t available, uint32_t frame_bytes,
               ParsedFrame* out) {
  constexpr uint32_t kL4 = kEthernetHeaderBytes + kMinIpv4HeaderBytes;
  constexpr uint32_t kPlain = kL4 + kTcpFixedHeaderBytes;
  if (available < kPlain) return false;
  const std::byte* ip = frame + kEthernetHeaderBytes;
  const std::byte* tcp = frame + kL4;
  const bool usual_ip = LoadBe16(frame + 12) == kEtherTypeIpv4 &&
                        Load8(ip) == 0x45 && Load8(ip + 9) == kProtocolTcp &&
                        (LoadBe16(ip + 6) & (Ipv4Header::kMoreFragments |
                                             Ipv4Header::kOffsetMask)) == 0;
  if (!usual_ip) return false;
  const uint32_t tcp_bytes = TcpHeaderBytes(tcp);
  const bool timestamps = tcp_bytes == kTcpFixedHeaderBytes + kTimestampsBytes;
  if (timestamps) {
    if (available < kPlain + kTimestampsBytes) return false;
    if (LoadBe32(tcp + 20) != kAlignedTimestamps) return false;
  } else if (tcp_bytes != kTcpFixedHeaderBytes) {
    return false;
  }
  const uint32_t total = LoadBe16(ip + 2);
  if (total < kMinIpv4HeaderBytes + tcp_bytes ||
      total > frame_bytes - kEthernetHeaderBytes) {
    return false;
  }

  std::memcpy(out->destination_mac.data(), frame, 6);
  std::memcpy(out->source_mac.data(), frame + 6, 6);
  out->protocol = kProtocolTcp;
  out->ecn = static_cast<Ecn>(Load8(ip + 1) & 3);
  out->ttl = Load8(ip + 8);
  out->l3_offset = kEthernetHeaderBytes;
  out->l4_offset = kL4;
  out->l4_bytes = total - kMinIpv4HeaderBytes;
  std::memcpy(out->tuple.remote.ip.bytes.data(), ip + 12, 4);
  std::memcpy(out->tuple.local.ip.bytes.data(), ip + 16, 4);
  ParseTcpFixed(tcp, &out->tcp);
  out->tuple.remote.port = Port{out->tcp.source_port};
  out->tuple.local.port = Port{out->tcp.destination_port};
  if (timestamps) {
    out->tcp.options.timestamps =
        Timestamps{LoadBe32(tcp + 24), LoadBe32(tcp + 28)};
  }
  out->header_bytes = static_cast<uint16_t>(kL4 + tcp_bytes);
  out->payload_bytes = total - kMinIpv4HeaderBytes - tcp_bytes;
  return true;
}

// Where the IP header ends is known; TCP begins at out->l4_offset.
ParseResult ParseTcp(const std::byte* frame, uint32_t available,
                     ParsedFrame* out) {
  const uint32_t l4 = out->l4_offset;
  const uint32_t readable = available > l4 ? available - l4 : 0;
  if (out->l4_bytes < kTcpFixedHeaderBytes) {
    return ParseResult::kBadTcpDataOffset;
  }
  if (readable < 4) return ParseResult::kPortsCut;
  const std::byte* tcp = frame + l4;
  out->tuple.remote.port = Port{LoadBe16(tcp)};
  out->tuple.local.port = Port{LoadBe16(tcp + 2)};
  if (readable < kTcpFixedHeaderBytes) return ParseResult::kTcpHeaderCut;

  const uint32_t tcp_bytes = TcpHeaderBytes(tcp);
  if (tcp_bytes < kTcpFixedHeaderBytes || tcp_bytes > out->l4_bytes) {
    return ParseResult::kBadTcpDataOffset;
  }
  ParseTcpFixed(tcp, &out->tcp);
  out->header_bytes = static_cast<uint16_t>(l4 + tcp_bytes);
  out->payload_bytes = out->l4_bytes - tcp_bytes;
  if (tcp_bytes > readable) {
    out->options_cut_bytes = static_cast<uint8_t>(tcp_bytes - readable);
  }
  const uint32_t option_bytes = tcp_bytes - kTcpFixedHeaderBytes;
  const TcpOptionsResult options = ParseTcpOptions(
      tcp + kTcpFixedHeaderBytes, option_bytes - out->options_cut_bytes,
      option_bytes, &out->tcp.options);
  out->options_malformed = options == TcpOptionsResult::kMalformed;
  return ParseResult::kTcp;
}

ParseResult ParseByProtocol(const std::byte* frame, uint32_t available,
                            ParsedFrame* out) {
  const bool v4 = out->tuple.local.ip.is_v4();
  if (out->protocol == kProtocolTcp) return ParseTcp(frame, available, out);
  if (out->protocol == kProtocolIcmp && v4) return ParseResult::kIcmp;
  if (out->protocol == kProtocolIcmpv6 && !v4) return ParseResult::kIcmpv6;
  return ParseResult::kOtherProtocol;
}

// A header that the bytes at hand do not hold: does the frame end, or the
// header slot?
ParseResult CutOrShort(uint32_t needed, uint32_t frame_bytes) {
  return needed > frame_bytes ? ParseResult::kFrameTooShort
                              : ParseResult::kIpHeaderCut;
}

ParseResult ParseV4(const std::byte* frame, uint32_t available,
                    uint32_t frame_bytes, ParsedFrame* out) {
  const uint32_t l3 = out->l3_offset;
  Ipv4Header ip;
  switch (ParseIpv4(frame + l3, available - l3, &ip)) {
    case Ipv4Result::kOk:
      break;
    case Ipv4Result::kCut:
      return CutOrShort(l3 + kMinIpv4HeaderBytes, frame_bytes);
    case Ipv4Result::kBadVersion:
      return ParseResult::kBadIpVersion;
    case Ipv4Result::kBadLength:
      return ParseResult::kBadIpHeaderLength;
  }
  out->protocol = ip.protocol;
  out->ecn = ip.ecn();
  out->ttl = ip.ttl;
  out->ip_option_bytes =
      static_cast<uint8_t>(ip.header_bytes - kMinIpv4HeaderBytes);
  out->l4_offset = static_cast<uint16_t>(l3 + ip.header_bytes);
  out->l4_bytes = uint32_t{ip.total_length} - ip.header_bytes;
  out->tuple.local.ip = ip.destination;
  out->tuple.remote.ip = ip.source;
  if (ip.total_length > frame_bytes - l3) {
    return ParseResult::kIpLengthBeyondFrame;
  }
  if (ip.is_fragment()) return ParseResult::kIpFragment;
  return ParseByProtocol(frame, available, out);
}

// Whether every option of a hop-by-hop or destination options header may be
// passed over: padding, or one whose two high bits are 00. RFC 8200 4.2.
bool AreSkippableOptions(const std::byte* at, uint32_t bytes) {
  constexpr uint8_t kPad1 = 0;
  constexpr uint8_t kActionMask = 0xc0;
  while (bytes > 0) {
    const uint8_t type = Load8(at);
    if (type == kPad1) {
      ++at;
      --bytes;
      continue;
    }
    if (bytes < 2) return false;
    const uint32_t length = 2u + Load8(at + 1);
    if (length > bytes || (type & kActionMask) != 0) return false;
    at += length;
    bytes -= length;
  }
  return true;
}

// RFC 8200 4: moves out->l4_offset and out->protocol past what a host passes
// over. kTcp: done. No ICMP error is sent about the rest: it is counted.
ParseResult SkipExtensions(const std::byte* frame, uint32_t available,
                           ParsedFrame* out) {
  // More than anybody sends; RFC 8504 5.3 allows a limit.
  constexpr int kMaxExtensionHeaders = 8;
  for (int i = 0; IsIpv6Extension(out->protocol); ++i) {
    if (out->protocol == kIpv6Fragment) return ParseResult::kIpFragment;
    const bool has_options = out->protocol == kIpv6HopByHop ||
                             out->protocol == kIpv6DestinationOptions;
    const bool is_skippable = has_options || out->protocol == kIpv6Routing;
    const bool is_misplaced = out->protocol == kIpv6HopByHop && i > 0;
    if (!is_skippable || is_misplaced || i == kMaxExtensionHeaders) {
      return ParseResult::kIpv6Extension;
    }
    const uint32_t at = out->l4_offset;
    if (out->l4_bytes < 8) return ParseResult::kBadIpHeaderLength;
    if (at + 8 > available) return ParseResult::kPortsCut;
    const uint32_t bytes = (Load8(frame + at + 1) + 1u) * 8;
    if (bytes > out->l4_bytes) return ParseResult::kBadIpHeaderLength;
    if (at + bytes > available) return ParseResult::kPortsCut;
    // RFC 8200 4.4: a routing header that is done with says "0 segments left".
    const bool may_pass = has_options
                              ? AreSkippableOptions(frame + at + 2, bytes - 2)
                              : Load8(frame + at + 3) == 0;
    if (!may_pass) return ParseResult::kIpv6Extension;
    out->protocol = Load8(frame + at);
    out->l4_offset = static_cast<uint16_t>(at + bytes);
    out->l4_bytes -= bytes;
    out->ip_option_bytes = static_cast<uint8_t>(
        std::min<uint32_t>(255, out->ip_option_bytes + bytes));
  }
  return ParseResult::kTcp;
}

ParseResult ParseV6(const std::byte* frame, uint32_t available,
                    uint32_t frame_bytes, ParsedFrame* out) {
  const uint32_t l3 = out->l3_offset;
  Ipv6Header ip;
  switch (ParseIpv6(frame + l3, available - l3, &ip)) {
    case Ipv6Result::kOk:
      break;
    case Ipv6Result::kCut:
      return CutOrShort(l3 + kIpv6HeaderBytes, frame_bytes);
    case Ipv6Result::kBadVersion:
      return ParseResult::kBadIpVersion;
  }
  out->protocol = ip.next_header;
  out->ecn = ip.ecn();
  out->ttl = ip.hop_limit;
  out->l4_offset = static_cast<uint16_t>(l3 + kIpv6HeaderBytes);
  out->l4_bytes = ip.payload_length;
  out->tuple.local.ip = ip.destination;
  out->tuple.remote.ip = ip.source;
  if (kIpv6HeaderBytes + ip.payload_length > frame_bytes - l3) {
    return ParseResult::kIpLengthBeyondFrame;
  }
  const ParseResult extensions = SkipExtensions(frame, available, out);
  if (extensions != ParseResult::kTcp) return extensions;
  return ParseByProtocol(frame, available, out);
}

ParseResult ParseSlow(const std::byte* frame, uint32_t available,
                      uint32_t frame_bytes, ParsedFrame* out) {
  EthernetHeader ether;
  if (!ParseEthernet(frame, available, &ether)) {
    return CutOrShort(kEthernetHeaderBytes + kVlanTagBytes, frame_bytes);
  }
  out->destination_mac = ether.destination;
  out->source_mac = ether.source;
  out->vlan_tci = ether.vlan_tci;
  out->l3_offset = out->l4_offset = static_cast<uint16_t>(ether.bytes());
  switch (ether.ether_type) {
    case kEtherTypeIpv4:
      return ParseV4(frame, available, frame_bytes, out);
    case kEtherTypeIpv6:
      return ParseV6(frame, available, frame_bytes, out);
    case kEtherTypeArp:
      return ParseResult::kArp;
    case kEtherTypeVlan:
    case kEtherTypeStackedVlan:
      return ParseResult::kStackedVlan;
    default:
      return ParseResult::kOtherEtherType;
  }
}

}  // namespace

const char* ParseResultName(ParseResult result) {
  switch (result) {
    case ParseResult::kTcp:
      return "tcp";
    case ParseResult::kArp:
      return "arp";
    case ParseResult::kIcmp:
      return "icmp";
    case ParseResult::kIcmpv6:
      return "icmpv6";
    case ParseResult::kOtherEtherType:
      return "other_ether_type";
    case ParseResult::kOtherProtocol:
      return "other_protocol";
    case ParseResult::kStackedVlan:
      return "stacked_vlan";
    case ParseResult::kIpFragment:
      return "ip_fragment";
    case ParseResult::kIpv6Extension:
      return "ipv6_extension";
    case ParseResult::kIpHeaderCut:
      return "ip_header_cut";
    case ParseResult::kPortsCut:
      return "ports_cut";
    case ParseResult::kTcpHeaderCut:
      return "tcp_header_cut";
    case ParseResult::kFrameTooShort:
      return "frame_too_short";
    case ParseResult::kBadIpVersion:
      return "bad_ip_version";
    case ParseResult::kBadIpHeaderLength:
      return "bad_ip_header_length";
    case ParseResult::kIpLengthBeyondFrame:
      return "ip_length_beyond_frame";
    case ParseResult::kBadTcpDataOffset:
      return "bad_tcp_data_offset";
    case ParseResult::kCount:
      break;
  }
  return "?";
}

ParseResult ParseFrame(const std::byte* frame, uint32_t available,
                       uint32_t frame_bytes, ParsedFrame* out) {
  *out = ParsedFrame();
  available = std::min(available, frame_bytes);
  if (ParseFast(frame, available, frame_bytes, out)) return ParseResult::kTcp;
  return ParseSlow(frame, available, frame_bytes, out);
}

void ParseFetchedOptions(std::span<const std::byte> options,
                         ParsedFrame* parsed) {
  const auto bytes = static_cast<uint32_t>(options.size());
  DCHECK_EQ(parsed->l4_offset + kTcpFixedHeaderBytes + bytes,
            uint32_t{parsed->header_bytes});
  parsed->options_cut_bytes = 0;
  parsed->options_malformed =
      ParseTcpOptions(options.data(), bytes, bytes, &parsed->tcp.options) ==
      TcpOptionsResult::kMalformed;
}

PayloadSplit SplitPayload(const ParsedFrame& parsed, uint32_t split) {
  PayloadSplit result;
  if (split <= parsed.header_bytes) {
    result.device_offset = parsed.header_bytes - split;
  } else {
    result.linear_bytes =
        std::min(split - parsed.header_bytes, parsed.payload_bytes);
  }
  result.device_bytes = parsed.payload_bytes - result.linear_bytes;
  return result;
}

bool ChecksumsAreRight(const std::byte* frame, const ParsedFrame& parsed) {
  const bool v4 = parsed.tuple.local.ip.is_v4();
  if (v4 && !Ipv4ChecksumIsRight(frame + parsed.l3_offset,
                                 parsed.l4_offset - parsed.l3_offset)) {
    return false;
  }
  const std::span<const std::byte> l4(frame + parsed.l4_offset,
                                      parsed.l4_bytes);
  if (parsed.protocol == kProtocolTcp ||
      (parsed.protocol == kProtocolIcmpv6 && !v4)) {
    InternetSum sum =
        PseudoHeaderSum(parsed.tuple.remote.ip, parsed.tuple.local.ip,
                        parsed.protocol, parsed.l4_bytes);
    sum.Add(l4);
    return sum.Checksum() == 0;
  }
  if (parsed.protocol != kProtocolIcmp) return false;
  InternetSum sum;  // RFC 792: no pseudo header.
  sum.Add(l4);
  return sum.Checksum() == 0;
}

HeaderTemplate::HeaderTemplate(const Options& options)
    : is_v4_(options.tuple.local.ip.is_v4()),
      source_port_(static_cast<uint16_t>(options.tuple.local.port)),
      destination_port_(static_cast<uint16_t>(options.tuple.remote.port)),
      addresses_(PseudoHeaderSum(options.tuple.local.ip,
                                 options.tuple.remote.ip, kProtocolTcp, 0)) {
  DCHECK_EQ(options.tuple.remote.ip.is_v4(), is_v4_);
  const auto tos = static_cast<uint8_t>(options.dscp << 2);
  l3_offset_ = static_cast<uint8_t>(
      EmitEthernet({.destination = options.destination_mac,
                    .source = options.source_mac,
                    .vlan_tci = options.vlan_tci,
                    .ether_type = is_v4_ ? kEtherTypeIpv4 : kEtherTypeIpv6},
                   bytes_.data()));
  std::byte* ip = bytes_.data() + l3_offset_;
  uint32_t ip_bytes;
  if (is_v4_) {
    Ipv4Header header;
    header.tos = tos;
    header.ttl = options.ttl;
    header.protocol = kProtocolTcp;
    header.flags_and_offset = Ipv4Header::kDontFragment;
    header.source = options.tuple.local.ip;
    header.destination = options.tuple.remote.ip;
    ip_bytes = EmitIpv4(header, ip);
    ip_sum_.Add({ip, ip_bytes});
  } else {
    Ipv6Header header;
    header.traffic_class = tos;
    header.flow_label = options.flow_label;
    header.next_header = kProtocolTcp;
    header.hop_limit = options.ttl;
    header.source = options.tuple.local.ip;
    header.destination = options.tuple.remote.ip;
    ip_bytes = EmitIpv6(header, ip);
  }
  l4_offset_ = static_cast<uint8_t>(l3_offset_ + ip_bytes);
}

void HeaderTemplate::set_destination_mac(const MacAddress& mac) {
  std::memcpy(bytes_.data(), mac.data(), mac.size());
}

uint32_t HeaderTemplate::Emit(const TcpHeader& tcp, const SegmentShape& shape,
                              std::byte* at) const {
  DCHECK_GT(l4_offset_, 0);
  std::memcpy(at, bytes_.data(), bytes_.size());
  TcpHeader header = tcp;
  header.source_port = source_port_;
  header.destination_port = destination_port_;
  const uint32_t tcp_bytes = EmitTcp(header, 0, at + l4_offset_);
  const uint32_t l4_bytes = tcp_bytes + shape.payload_bytes;

  std::byte* ip = at + l3_offset_;
  const auto ecn = static_cast<uint8_t>(shape.ecn);
  const uint32_t length_field = l4_bytes + (is_v4_ ? kMinIpv4HeaderBytes : 0);
  const auto length =
      static_cast<uint16_t>(length_field <= 0xffff ? length_field : 0);
  if (is_v4_) {
    Store8(ip + 1, static_cast<uint8_t>(Load8(ip + 1) | ecn));
    StoreBe16(ip + 2, length);
    StoreBe16(ip + 4, shape.identification);
    InternetSum ip_sum = ip_sum_;
    ip_sum.AddWord(ecn);
    ip_sum.AddWord(length);
    ip_sum.AddWord(shape.identification);
    StoreBe16(ip + 10, ip_sum.Checksum());
  } else {
    // The ECN bits are bits 4 and 5 of the second byte.
    Store8(ip + 1, static_cast<uint8_t>(Load8(ip + 1) | ecn << 4));
    StoreBe16(ip + 4, length);
  }
  InternetSum pseudo = addresses_;
  if (!shape.is_tso) pseudo.AddLong(l4_bytes);
  StoreBe16(at + l4_offset_ + kTcpChecksumOffset, pseudo.Folded());
  return l4_offset_ + tcp_bytes;
}

void WriteTcpChecksum(std::byte* headers, uint32_t l4_offset,
                      uint32_t header_bytes,
                      std::span<const std::byte> payload) {
  std::byte* tcp = headers + l4_offset;
  // The field holds the pseudo header's sum, so summing over it completes it.
  InternetSum sum;
  sum.Add({tcp, header_bytes - l4_offset});
  sum.Add(payload);
  StoreBe16(tcp + kTcpChecksumOffset, sum.Checksum());
}

}  // namespace devwire
