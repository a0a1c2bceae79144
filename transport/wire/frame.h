// Ethernet..TCP headers in one pass, both ways.
//
// Receive: ParseFrame() reads what a queue put into the header slot, which may
// be less than the headers (docs/wire.md, "Where the split falls"), and says
// what was cut. Lengths come from IP, never from the NIC's byte count: Ethernet
// pads short frames.
//
// Send: a HeaderTemplate per connection writes the headers of a segment in a
// few stores. Checksum fields hold what a NIC completes.
//
// Threads:  pure functions; a HeaderTemplate belongs to one thread.
// Cost:     no allocation. Linux's ordinary data segment (IPv4 without options,
//           TCP with timestamps alone) takes a path without loops.
#ifndef TRANSPORT_WIRE_FRAME_H_
#define TRANSPORT_WIRE_FRAME_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "transport/address.h"
#include "transport/wire/ethernet.h"
#include "transport/wire/ipv4.h"
#include "transport/wire/ipv6.h"
#include "transport/wire/tcp_header.h"

namespace devwire {

// What a frame is. Everything after kIcmpv6 is dropped, and counted under
// ParseResultName().
enum class ParseResult : uint8_t {
  kTcp,   // All of ParsedFrame holds, but see options_cut_bytes.
  kArp,   // ether, vlan and l4_offset hold: ParseArp() at l4_offset.
  kIcmp,  // As kTcp without `tcp`: the message is at l4_offset.
  kIcmpv6,
  // For somebody else.
  kOtherEtherType,
  kOtherProtocol,
  kStackedVlan,    // A second tag.
  kIpFragment,     // Either family. We set DF; so does every TCP of today.
  kIpv6Extension,  // An extension header that may not be passed over.
  // Cut by the split; the rest lies in the payload slot.
  kIpHeaderCut,   // Not even the addresses. No shape's split does this.
  kPortsCut,      // tuple holds the addresses, ports are 0.
  kTcpHeaderCut,  // tuple holds; the fixed TCP header is incomplete.
  // Malformed.
  kFrameTooShort,        // Ends within its Ethernet or IP header.
  kBadIpVersion,         // Not what the EtherType says.
  kBadIpHeaderLength,    // IHL below 5, or total length below the header.
  kIpLengthBeyondFrame,  // The IP packet is longer than the frame.
  kBadTcpDataOffset,     // Below 5, or the TCP header is longer than the IP
                         // payload.
  kCount,
};
// "tcp", "ip_fragment", ...: names of counters and reasons in captures.
const char* ParseResultName(ParseResult result);

struct ParsedFrame {
  MacAddress source_mac{};
  MacAddress destination_mac{};
  std::optional<uint16_t> vlan_tci;
  uint8_t protocol = 0;  // Of IP.
  Ecn ecn = Ecn::kNotEct;
  uint8_t ttl = 0;  // Or hop limit.
  // IPv4 options; IPv6 extension headers, at most 255 of them.
  uint8_t ip_option_bytes = 0;
  uint16_t l3_offset = 0;  // Of the IP header in the frame.
  uint16_t l4_offset = 0;  // Of what follows it (for ARP, Ethernet).
  uint32_t l4_bytes = 0;   // IP's payload.
  FourTuple tuple;         // local is the destination, remote the source.

  TcpHeader tcp;
  uint16_t header_bytes = 0;   // Ethernet..TCP options: payload starts here.
  uint32_t payload_bytes = 0;  // Of TCP, without Ethernet's padding.
  // > 0: so many bytes at the end of the options are not in the header slot.
  // Options before them stand; one that straddles the cut does not. A receiver
  // that negotiated timestamps and finds none here cannot use the segment.
  uint8_t options_cut_bytes = 0;
  bool options_malformed = false;  // Those before the bad one stand.
};

// Reads the first `available` bytes of a frame of `frame_bytes` bytes (without
// FCS). Overwrites *out. Verifies no checksum.
ParseResult ParseFrame(const std::byte* frame, uint32_t available,
                       uint32_t frame_bytes, ParsedFrame* out);

// Reads the options again once the cut ones were fetched: `options` is all
// parsed->tcp header bytes past the fixed 20. Clears options_cut_bytes.
void ParseFetchedOptions(std::span<const std::byte> options,
                         ParsedFrame* parsed);

// Which payload bytes lie where, after a queue split at `split` bytes: the
// first linear_bytes in the header slot, from header_bytes on; the rest in the
// payload slot, from device_offset on.
struct PayloadSplit {
  uint32_t linear_bytes = 0;
  uint32_t device_offset = 0;
  uint32_t device_bytes = 0;
};
// Defined for kTcp.
PayloadSplit SplitPayload(const ParsedFrame& parsed, uint32_t split);

// True when the IPv4 header and the TCP, ICMP or ICMPv6 checksum of a frame
// that lies wholly at `frame` are right. For frames in host memory that the
// NIC did not vouch for. Other protocols answer false.
bool ChecksumsAreRight(const std::byte* frame, const ParsedFrame& parsed);

// -- send ---------------------------------------------------------------------

// What, beside the TCP header, differs from segment to segment.
struct SegmentShape {
  uint32_t payload_bytes = 0;  // With TSO, of all segments together.
  bool is_tso = false;
  Ecn ecn = Ecn::kNotEct;
  // RFC 6864 4.1: with DF set the value means nothing; Linux counts it up.
  uint16_t identification = 0;
};

// The headers of one connection, or of one reply, prepared once.
class HeaderTemplate {
 public:
  struct Options {
    MacAddress source_mac{};
    MacAddress destination_mac{};
    std::optional<uint16_t> vlan_tci;
    FourTuple tuple;          // We are local. Both ends of one family.
    uint8_t ttl = 64;         // Linux's ip_default_ttl.
    uint8_t dscp = 0;         // 6 bits, RFC 2474 3.
    uint32_t flow_label = 0;  // IPv6, 20 bits; RFC 6437.
  };

  HeaderTemplate() = default;  // Emit() needs a real one.
  explicit HeaderTemplate(const Options& options);

  // The neighbour moved.
  void set_destination_mac(const MacAddress& mac);
  // Ethernet and IP: where the TCP header begins.
  uint32_t l4_offset() const { return l4_offset_; }

  // Writes Ethernet..TCP options at `at`, room for kMaxTxHeaderBytes
  // (transport/packet_io.h). Ports come from the template, not from `tcp`.
  // Returns the header length.
  //
  // The IPv4 checksum is complete. The TCP field holds the folded sum of the
  // pseudo header, as Linux hands it to every NIC (CHECKSUM_PARTIAL): with the
  // segment's length, or without it for TSO. mlx5 overwrites it, others
  // complete it. Software that sends without a NIC calls WriteTcpChecksum().
  //
  // TSO: the IP length is that of the whole, or 0 past 65,535; the NIC writes
  // each segment's length, sequence number, flags and identification.
  uint32_t Emit(const TcpHeader& tcp, const SegmentShape& shape,
                std::byte* at) const;

 private:
  static constexpr uint32_t kMaxBytes =
      kEthernetHeaderBytes + kVlanTagBytes + kIpv6HeaderBytes;

  std::array<std::byte, kMaxBytes> bytes_{};  // Ethernet and IP.
  uint8_t l3_offset_ = 0;
  uint8_t l4_offset_ = 0;
  bool is_v4_ = true;
  uint16_t source_port_ = 0;
  uint16_t destination_port_ = 0;
  InternetSum addresses_;  // Pseudo header without its length.
  InternetSum ip_sum_;     // IPv4 header without what Emit() fills in.
};

// Completes the TCP checksum of headers that Emit() wrote, in software.
void WriteTcpChecksum(std::byte* headers, uint32_t l4_offset,
                      uint32_t header_bytes,
                      std::span<const std::byte> payload);

}  // namespace devwire

#endif  // TRANSPORT_WIRE_FRAME_H_
