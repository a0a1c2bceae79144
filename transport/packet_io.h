// PacketIo: the one door to hardware, for one engine. transport/verbs opens it
// on a NIC (or softnic), transport/sim on a simulated wire.
//
// Who owns what:
//   receive   A slot of a FragPool is posted by Replenish(). RxBurst() hands it
//             to the caller still counted as posted; the caller says either
//             pool.Receive(slot, bytes) or pool.Free(slot) before the next
//             Replenish(). The header bytes stay readable until then.
//   transmit  A header slot is the caller's from TxHeader() to TxPost(), then
//             the NIC's. Payload pieces stay the application's memory; they
//             must not change until tx_completed() has passed the ticket that
//             TxPost() returned.
//
// Threads:  the engine's thread only.
// Cost:     no allocation, no system call, in any function of the data path.
#ifndef TRANSPORT_PACKET_IO_H_
#define TRANSPORT_PACKET_IO_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memreg/frag_pool.h"
#include "transport/address.h"

namespace devwire {

enum class QueueId : uint8_t {};
inline constexpr QueueId kControlQueue{0};

// The header a data queue expects, hence where it splits.
enum class HeaderShape : uint8_t {
  kIpv4Timestamps,  // 66 bytes: Ethernet 14, IPv4 20, TCP 20, timestamps 12.
  kIpv4Plain,       // 54
  kIpv6Timestamps,  // 86
  kIpv6Plain,       // 74
};
constexpr uint32_t SplitBytes(HeaderShape shape) {
  constexpr uint32_t kSplit[] = {66, 54, 86, 74};
  return kSplit[static_cast<size_t>(shape)];
}

// One received frame.
struct RxFrame {
  const std::byte* header = nullptr;  // Its first header_bytes bytes.
  uint32_t header_bytes = 0;
  uint32_t frame_bytes = 0;  // On the wire, with Ethernet padding, no FCS.
  SlotIndex slot{};
  PoolId pool{};
  QueueId queue{};
  bool checksum_ok = false;  // The NIC verified IP and TCP checksums.
  // A data queue: frame byte (header_bytes + i) lies at slot byte i. The
  // control queue: frame byte i lies at slot byte i, and header_bytes is
  // frame_bytes.
  bool whole_in_slot = false;
};

// Registered memory to send from.
struct TxPiece {
  uint64_t addr = 0;  // iova
  uint32_t length = 0;
  uint32_t lkey = 0;
};
inline constexpr size_t kMaxTxPieces = 8;
inline constexpr size_t kMaxTxHeaderBytes = 192;  // Ethernet+VLAN+IP+TCP, max.

struct TxFrame {
  uint32_t header_bytes = 0;  // Filled at TxHeader().
  uint16_t tso_mss = 0;       // 0: one frame. Else cut into this many bytes.
  uint8_t piece_count = 0;
  bool insert_checksums = true;  // IPv4 header and TCP; off for ARP, ICMP.
  std::array<TxPiece, kMaxTxPieces> pieces;
};

// Names a rule asked for; never reused within one PacketIo.
enum class RuleId : uint32_t {};

// What the NIC matches, and where it goes. Priorities: docs/wire.md, "Rules".
struct FlowMatch {
  enum class Kind : uint8_t {
    kConnection,  // priority 0: both endpoints
    kPortBlock,   // priority 1: local.ip and 2^k local ports from local.port
    kListener,    // priority 2: local.ip and local.port
    kOwnedHost,   // priority 3: our MAC, broadcast and multicast
  };
  Kind kind = Kind::kConnection;
  FourTuple tuple;
  uint8_t port_block_bits = 0;
};

// A rule that ends in an error is gone. That may also befall one that was
// installed, when its queue had to be remade.
struct RuleEvent {
  RuleId rule{};
  int error = 0;  // 0 installed, else errno: ENOMEM no room, ...
};

// A registered region that the NIC may no longer reach: its owner has revoked
// it. Streams that receive into `pool`, or send from memory with `lkey`, end.
struct RegionEvent {
  bool is_receive = false;
  PoolId pool{};  // When receiving.
  uint32_t lkey = 0;
  friend bool operator==(const RegionEvent&, const RegionEvent&) = default;
};

class PacketIo {
 public:
  struct Limits {
    MacAddress mac{};
    uint32_t mtu = 0;              // Largest IP packet either way.
    uint32_t max_tso_payload = 0;  // 0: no TSO.
    bool rx_checksum_ipv6 = false;
    uint8_t max_tx_pieces = kMaxTxPieces;  // Per frame.
  };

  virtual ~PacketIo() = default;
  virtual const Limits& limits() const = 0;

  // -- receive ---------------------------------------------------------------
  // Fills up to out.size() frames, oldest first per queue. Frames that the
  // hardware reported in error are counted and recovered inside.
  virtual size_t RxBurst(std::span<RxFrame> out) = 0;
  // Posts free slots until every ring is full or its pool is at its end.
  virtual void Replenish() = 0;

  // -- transmit --------------------------------------------------------------
  // Memory of kMaxTxHeaderBytes for the next frame's headers; null when the
  // send queue is full (try again after a later RxBurst).
  virtual std::byte* TxHeader() = 0;
  // Queues the frame whose headers were just written. Returns its ticket.
  virtual uint64_t TxPost(const TxFrame& frame) = 0;
  // Rings the doorbell for all that was queued.
  virtual void TxFlush() = 0;
  // Tickets up to and including this one no longer refer to any memory.
  // Advanced inside RxBurst().
  virtual uint64_t tx_completed() const = 0;

  // -- set-up and steering: may allocate, never blocks for the NIC -----------
  // A data queue for device streams of this pool and shape. Idempotent.
  virtual absl::StatusOr<QueueId> OpenDataQueue(PoolId pool,
                                                HeaderShape shape) = 0;
  // Asks for a rule; the answer comes through PollRules.
  virtual RuleId AddRule(const FlowMatch& match, QueueId to) = 0;
  // Removes it, also while it is still being installed. No answer.
  virtual void RemoveRule(RuleId rule) = 0;
  virtual size_t PollRules(std::span<RuleEvent> out) = 0;
  // Regions that were revoked since the last call; see RegionEvent. A send
  // names all that it gathered from, of which one is to blame.
  virtual size_t PollRegions(std::span<RegionEvent> /*out*/) { return 0; }
  // -- sleeping --------------------------------------------------------------
  // Readable after ArmEvents(), once anything came; -1: cannot be slept on.
  virtual int event_fd() const { return -1; }
  // Asks for an event at the next completion, and forgets those that were
  // raised. What completed before raises none: look once more before sleeping.
  // 0 or an errno. A few system calls.
  virtual int ArmEvents() { return 0; }

  // Not 0: an errno. The device is gone, or its control queue or send queue
  // could not be remade: no stream of this PacketIo will move again.
  virtual int fatal_error() const { return 0; }
};

}  // namespace devwire

#endif  // TRANSPORT_PACKET_IO_H_
