// Frames from anybody, seen through a header slot of any size.
//
// Input: two bytes choose the split, the rest is the frame.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "transport/wire/arp.h"
#include "transport/wire/frame.h"
#include "transport/wire/icmp.h"
#include "transport/wire/nd.h"

namespace devwire {
namespace {

void CheckLengths(const ParsedFrame& p, uint32_t split, uint32_t frame_bytes) {
  CHECK_LE(p.header_bytes + p.payload_bytes, frame_bytes);
  CHECK_LE(p.options_cut_bytes, kMaxTcpOptionBytes);
  CHECK_EQ(p.options_cut_bytes > 0, p.header_bytes > split);
  CHECK_LE(int{p.tcp.options.sack_block_count}, kMaxSackBlocks);
  const PayloadSplit s = SplitPayload(p, split);
  CHECK_EQ(s.linear_bytes + s.device_bytes, p.payload_bytes);
  CHECK_LE(p.header_bytes + s.linear_bytes,
           std::max<uint32_t>(split, p.header_bytes));
  CHECK_LE(split + s.device_offset + s.device_bytes,
           std::max(frame_bytes, split));
}

// What was understood, written and read again, is the same.
void CheckReEmission(const ParsedFrame& p) {
  if (TcpOptionsBytes(p.tcp.options) > kMaxTcpOptionBytes) return;
  HeaderTemplate::Options o;
  o.source_mac = p.source_mac;
  o.destination_mac = p.destination_mac;
  o.vlan_tci = p.vlan_tci;
  o.tuple = {.local = p.tuple.remote, .remote = p.tuple.local};
  o.ttl = p.ttl;
  std::byte at[192];
  const uint32_t payload = std::min(p.payload_bytes, 65000u);
  const uint32_t bytes = HeaderTemplate(o).Emit(
      p.tcp, {.payload_bytes = payload, .ecn = p.ecn}, at);
  ParsedFrame again;
  CHECK_EQ(ParseFrame(at, bytes, bytes + payload, &again), ParseResult::kTcp);
  CHECK(again.tcp == p.tcp);
  CHECK(again.tuple == p.tuple);
  CHECK_EQ(again.payload_bytes, payload);
  CHECK_EQ(again.ecn, p.ecn);
}

}  // namespace
}  // namespace devwire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace devwire;
  if (size < 2) return 0;
  const auto frame_bytes = static_cast<uint32_t>(size - 2);
  const uint32_t split =
      std::min((uint32_t{data[0]} << 8 | data[1]) % 300, frame_bytes);
  // Copies of exactly what may be read, for the sanitizer to watch.
  const auto* bytes = reinterpret_cast<const std::byte*>(data + 2);
  const std::vector<std::byte> visible(bytes, bytes + split);
  ParsedFrame p;
  if (ParseFrame(visible.data(), split, frame_bytes, &p) == ParseResult::kTcp) {
    CheckLengths(p, split, frame_bytes);
  }

  std::vector<std::byte> frame(bytes, bytes + frame_bytes);
  const ParseResult whole =
      ParseFrame(frame.data(), frame_bytes, frame_bytes, &p);
  switch (whole) {
    case ParseResult::kTcp:
      CheckLengths(p, frame_bytes, frame_bytes);
      ChecksumsAreRight(frame.data(), p);
      CheckReEmission(p);
      break;
    case ParseResult::kArp: {
      ArpPacket arp;
      ParseArp(frame.data() + p.l4_offset, frame_bytes - p.l4_offset, &arp);
      break;
    }
    case ParseResult::kIcmp:
    case ParseResult::kIcmpv6: {
      IcmpError error;
      ParseIcmpError(frame.data(), p, &error);
      NdMessage message;
      (void)ParseNd(frame.data(), p, &message);
      if (IsEchoRequest(frame.data(), p)) {
        MakeEchoReply(frame.data(), p);
        ParsedFrame reply;
        CHECK_EQ(ParseFrame(frame.data(), frame_bytes, frame_bytes, &reply),
                 whole);
        CHECK(ChecksumsAreRight(frame.data(), reply));
      }
      break;
    }
    default:
      break;
  }
  return 0;
}
