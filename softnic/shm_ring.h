// What lies in the memory that the two ends of a cable share: one ring of
// frames for each direction.
//
//   descriptors   head                tail      32-bit indices that only grow
//                  |                   |
//      [ consumed ) [ frames in flight ) [ free )
//   staging       bytes that no region holds: headers, host payload; each
//                 frame's lie together, given back with its descriptor
//
// Writers: the sender writes descriptors, staging and Producer; the receiver
// writes Consumer. The receiver believes nothing: every number it reads is
// checked against the sizes it knows.
#ifndef SOFTNIC_SHM_RING_H_
#define SOFTNIC_SHM_RING_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/counter.h"
#include "softnic/port.h"

namespace softnic {

// A run of bytes: in a region of the sender, or (kNoRegion) in staging.
struct ShmPiece {
  uint32_t region;
  uint32_t length;
  uint64_t offset;
};

struct alignas(64) ShmDescriptor {
  static constexpr uint32_t kMaxPieces = 6;
  uint32_t length;   // of the whole frame
  uint8_t checksum;  // RxChecksum
  uint8_t reserved[1];
  uint16_t piece_count;
  uint64_t reserved2;
  ShmPiece pieces[kMaxPieces];
  uint64_t reserved3[2];
};
static_assert(sizeof(ShmDescriptor) == 128);

struct ShmDirection {
  static constexpr uint32_t kDepth = 1024;
  static constexpr uint32_t kStagingBytes = 1u << 20;

  struct alignas(64) Producer {
    std::atomic<uint32_t> tail{0};
    // Control messages sent on the socket so far; a receiver that has read
    // fewer reads the socket before it goes on.
    std::atomic<uint32_t> messages{0};
  };
  struct alignas(64) Consumer {
    std::atomic<uint32_t> head{0};
  };
  // The consumer sleeps until a kBell comes; the producer, who takes it back,
  // rings. Its line is the producer's as long as nobody sleeps.
  struct alignas(64) Sleep {
    std::atomic<bool> is_asleep{false};
  };
  Producer producer;
  Consumer consumer;
  Sleep sleep;
  ShmDescriptor descriptors[kDepth];
  alignas(64) std::byte staging[kStagingBytes];
};

struct ShmCable {
  // [0] is filled by the end that listens, [1] by the end that connects.
  ShmDirection direction[2];
};

}  // namespace softnic

#endif  // SOFTNIC_SHM_RING_H_
