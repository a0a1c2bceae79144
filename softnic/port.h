// Where frames leave a device and come from: the contract between the device
// core and what stands behind its one port (a cable, a TAP, nothing).
//
//   queue pairs -> device core -> [FaultyPort] -> ShmPort | TapPort | NullPort
//   queue pairs <- device core <- [FaultyPort] <- ...
//
// Threads:  one. Every call of one Port is made under its device's lock, and a
//           Port starts no thread.
// Blocking: never. Whatever must wait (a handshake, a full socket) is tried
//           again by Progress(), seldom enough that a port in steady state
//           makes no system call that is not a frame's own read or write.
// Cost:     no allocation in Send and Progress once the link is up.
//
// Who does what:
//  - The device core parses headers, inserts what a port does not insert
//    itself (see Offloads), cuts TSO for a port that does not take
//    super-frames, drops received frames that are longer than the MTU allows,
//    verifies checksums, matches rules, and writes captures.
//  - A port moves frames. It never looks into a dmabuf for its own purposes.
//  - A decorator (FaultyPort) is a Port and a Receiver. It must finish the
//    checksum before it changes a byte: so it offers no checksum offload while
//    it may corrupt. When it keeps a frame (delay, reordering, duplication) it
//    copies header and pieces into memory of its own, taken beforehand, and
//    counts the frame as completed at once. When it holds back for `rate` it
//    refuses (Send returns false), so that the send queue waits.
#ifndef SOFTNIC_PORT_H_
#define SOFTNIC_PORT_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace softnic {

// The piece lies in no dmabuf region: other processes cannot map it.
inline constexpr uint32_t kNoRegion = 0xffffffff;

// A run of bytes of a frame.
struct Piece {
  const std::byte* data = nullptr;  // readable in this process
  uint32_t length = 0;              // > 0
  // The same bytes, for a port whose other end maps the region (AddRegion)
  // and reads them there: at `region_offset` from the region's start.
  uint32_t region = kNoRegion;
  uint64_t region_offset = 0;
};

// Where the headers of a frame lie; offsets from its first byte. Zero means
// that the frame has no such header, or that it is cut or malformed.
struct Layout {
  uint16_t l3_offset = 0;       // IPv4 or IPv6, behind the VLAN tags
  uint16_t l4_offset = 0;       // TCP or UDP; 0 also in fragments
  uint16_t payload_offset = 0;  // 0 when l4_offset is
  uint8_t ip_version = 0;       // 4, 6, or 0
  uint8_t protocol = 0;         // IPPROTO_TCP or IPPROTO_UDP when l4_offset > 0
};

// A frame that the device sends.
struct TxFrame {
  // The first bytes, at least all headers. In memory of the core, which the
  // port may read during Send only. Never empty.
  std::span<const std::byte> header;
  // What follows the header. The array, and the bytes of pieces that lie in no
  // region, may be read during Send only; bytes in a region until the frame
  // counts as completed.
  std::span<const Piece> pieces;
  uint32_t length = 0;  // of all: header and pieces, without FCS and padding
  Layout layout;
  // The TCP or UDP checksum is still owed (only when offloads().checksum): its
  // field holds the sum of the pseudo-header, folded, not complemented, as
  // virtio's NEEDS_CSUM has it. An owed IPv4 header checksum does not exist:
  // the core has always inserted it.
  bool l4_checksum_owed = false;
  // > 0: a TCP super-frame (only when offloads().segmentation), payload bytes
  // of each segment; `header` is then exactly layout.payload_offset long.
  uint16_t mss = 0;
};

// What is known of the TCP or UDP checksum (and the IPv4 header checksum) of a
// received frame.
enum class RxChecksum : uint8_t {
  kUnknown,  // nothing: whoever wants to know must sum
  kGood,     // the fields are filled in and somebody has verified them
  kOwed,  // L4 as in TxFrame::l4_checksum_owed; the bytes are those that were
          // sent, nothing has to be summed. IPv4's own is filled in.
};

// A frame that arrived. Everything may be read during OnFrame only.
struct RxFrame {
  // In order, none empty; the first holds all headers through L4, or the whole
  // frame.
  std::span<const Piece> pieces;
  uint32_t length = 0;
  RxChecksum checksum = RxChecksum::kUnknown;
};

// The device core, as a port sees it.
class Receiver {
 public:
  virtual ~Receiver() = default;
  // Takes or drops the frame (and counts it) before it returns.
  virtual void OnFrame(const RxFrame& frame) = 0;
};

class Port {
 public:
  struct Offloads {
    bool checksum = false;      // takes frames with l4_checksum_owed
    bool segmentation = false;  // takes frames with mss > 0
  };

  virtual ~Port() = default;

  // May change while running (a fault is switched on): asked for every burst.
  virtual Offloads offloads() const { return {}; }

  // Takes one frame. False: no room now, nothing was taken, the same frame is
  // offered again later. A frame that the port loses (link down, no peer) is
  // taken all the same.
  [[nodiscard]] virtual bool Send(const TxFrame& frame) = 0;

  // The last Send of a burst is done: what was only prepared goes out now.
  virtual void Flush() {}

  // Frames taken since the port was made, and how many of them, in order, the
  // port has finished reading: a send work request completes when its last
  // frame is among the latter. completed() <= sent(); both only grow.
  virtual uint64_t sent() const = 0;
  virtual uint64_t completed() const = 0;

  // Moves things on: the handshake, frames held back, completions; and hands
  // up to `budget` received frames to `receiver`. Send may be called from
  // within OnFrame.
  virtual void Progress(uint32_t budget, Receiver& receiver) = 0;

  // True while frames can come and go. The core turns changes into port events.
  virtual bool link_up() const = 0;

  // A dmabuf region that pieces may refer to from now on; `fd` is borrowed for
  // the call. RemoveRegion comes after the last frame that refers to it was
  // sent; frames not yet completed may still be read.
  virtual void AddRegion(uint32_t /*region*/, int /*fd*/, uint64_t /*offset*/,
                         uint64_t /*length*/) {}
  virtual void RemoveRegion(uint32_t /*region*/) {}

  // A descriptor that becomes readable when Progress has something to do, for
  // a device that sleeps when idle; -1: none. It may be another one after any
  // call of Progress.
  virtual int wait_fd() const { return -1; }
  // Holds no frame back.
  virtual bool is_idle() const { return true; }
  // The device wants to sleep on wait_fd(). False: nothing will ring for what
  // is under way (a handshake, frames that have arrived), look again soon.
  [[nodiscard]] virtual bool PrepareToSleep() { return true; }
};

}  // namespace softnic

#endif  // SOFTNIC_PORT_H_
