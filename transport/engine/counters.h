// What one engine counted: events by name, and frames dropped by reason.
//
// A frame is dropped by the parser (ParseResult), by the engine (EngineDrop)
// or by TCP (DropReason). The three lists are one to a reader: DropCode names
// any of them, and stands in the capture as the packet's comment.
//
// Threads: one writer, the engine's; any thread may read.
#ifndef TRANSPORT_ENGINE_COUNTERS_H_
#define TRANSPORT_ENGINE_COUNTERS_H_

#include <array>
#include <cstdint>

#include "base/counter.h"
#include "transport/tcp/drop_reason.h"
#include "transport/wire/frame.h"

namespace devwire {

enum class EngineDrop : uint8_t {
  kOtherMac,           // Neither ours, nor broadcast, nor multicast.
  kOtherAddress,       // IP: not our address.
  kBadSource,          // From a multicast or broadcast address. RFC 1122.
  kBadChecksum,        // Verified in software, wrong.
  kNoChecksumFlag,     // Payload in device memory, and the NIC did not vouch.
  kTimestampsCut,      // Negotiated, and not within the header slot.
  kSeenInOtherQueue,   // Around a move; it counted when it came first.
  kNoConnection,       // No such stream: answered with a reset.
  kNoConnectionQuiet,  // The same, beyond the rate of resets.
  kBacklogFull,        // Too many wait to be accepted, or no cookie left.
  kConnectionsFull,    // SYN: max_connections.
  kMemoryRevoked,      // SYN: the listener's memory is. Reset, as without one.
  kNoRoute,            // SYN: no route back.
  kNoNeighborRoom,     // SYN: the neighbour table is full.
  kBadArp,
  kBadNd,  // What RFC 4861 7.1 discards.
  kBadIcmp,
  kCount,
};

// Any of the three, as one number.
class DropCode {
 public:
  static constexpr int kParse = 0;
  static constexpr int kEngine = static_cast<int>(ParseResult::kCount);
  static constexpr int kTcp = kEngine + static_cast<int>(EngineDrop::kCount);
  static constexpr int kCodes = kTcp + kDropReasonCount;

  constexpr DropCode(ParseResult r)  // NOLINT: implicit by intent
      : code_(kParse + static_cast<int>(r)) {}
  constexpr DropCode(EngineDrop r)  // NOLINT
      : code_(kEngine + static_cast<int>(r)) {}
  constexpr DropCode(DropReason r)  // NOLINT
      : code_(kTcp + static_cast<int>(r)) {}

  int index() const { return code_; }
  // "ip_fragment", "kNoChecksumFlag", "kPaws".
  static const char* Name(int index);
  const char* name() const { return Name(code_); }

 private:
  int code_;
};

enum class EngineEvent : uint8_t {
  kResetsSent,
  kArpRequestsSent,
  kArpRepliesSent,
  kSolicitationsSent,  // IPv6's ARP: RFC 4861.
  kAdvertisementsSent,
  kEchoRepliesSent,
  kIcmpErrorsReceived,
  kPathMtusLowered,
  kRulesInstalled,
  kRulesRefused,
  kQueuesRefused,  // A stream went without: Steering::kNoQueue.
  kRulesRemoved,
  kHandshakesWithoutRule,  // The rule came too late, or never.
  kMovedToControlQueue,    // Streams whose headers do not fit the split.
  kOptionTailsRead,
  kTextDroppedAtReserve,  // Pool at its reserve: text not acknowledged.
  kLinearPoolDry,         // The same for want of a linear slot,
  kShareUsedUp,           // or because the stream had its share of host memory.
  kCookiesSent,           // SYNs answered without keeping anything of them.
  kCookiesAccepted,       // Streams that such an answer led to.
  kRulesDeferred,         // Under SYN pressure: until the handshake is done.
  kTxRingFull,            // A poll ended with segments owed.
  kLendRefused,           // All pieces of a pool were lent.
  kRegionsRevoked,
  kDeviceFailed,
  kTimeWaitsReopened,  // RFC 6191.
  kTimeWaitsEvicted,   // For a new stream, at max_connections.
  kOrphansReset,       // Beyond max_orphans.
  kCount,
};
const char* EngineEventName(EngineEvent event);

struct alignas(kCacheLine) EngineCounters {
  Counter frames_in;
  Counter frames_out;
  Counter segments_in;   // Accepted by a connection, or part of it.
  Counter segments_out;  // With TSO: as many as the NIC cuts.
  Counter device_bytes;  // Payload lent to the application, by place.
  Counter linear_bytes;  // Host memory, of a stream with device memory.
  Counter host_bytes;    // Host streams.
  Counter bytes_out;     // Payload posted, retransmissions included.
  Counter retransmitted_segments;
  Counter connections_opened;
  Counter connections_closed;
  std::array<Counter, DropCode::kCodes> drops;
  std::array<Counter, static_cast<size_t>(EngineEvent::kCount)> events;

  void Count(EngineEvent event, uint64_t n = 1) {
    events[static_cast<size_t>(event)].Add(n);
  }
  uint64_t value(EngineEvent event) const {
    return events[static_cast<size_t>(event)].value();
  }
  uint64_t value(DropCode code) const {
    return drops[static_cast<size_t>(code.index())].value();
  }
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_COUNTERS_H_
