// Gather: frags, wherever the NIC put them, to where they are wanted, in one
// asynchronous launch for any number of pieces and streams.
//
// Threads:  one at a time.
// Lifetime: what a piece reads and writes stays until its launch is done: then,
//           and not before, its slots may go back to their pool.
// Order:    launches are done in the order they were made. Destinations of one
//           launch do not overlap each other, nor any source.
#ifndef MEMREG_GATHER_H_
#define MEMREG_GATHER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace devwire {

// Addresses of the device (of the process, for HostGather); any alignment.
struct GatherPiece {
  uint64_t from = 0;
  uint64_t to = 0;
  uint32_t bytes = 0;
};

// Which launch: the first is 1.
enum class GatherTicket : uint64_t {};

class Gather {
 public:
  virtual ~Gather() = default;

  // Begins to copy all the pieces. The span is the caller's again at once.
  // ResourceExhausted: as many launches are under way as there may be; Wait
  // for one. InvalidArgument: more pieces than one launch may have, or an end
  // beyond the address space; nothing was begun.
  virtual absl::StatusOr<GatherTicket> Launch(
      std::span<const GatherPiece> pieces) = 0;

  // Whether all bytes of that launch, and of those before it, are where they
  // belong. InvalidArgument: no such launch was made. An error of the device:
  // none of what is under way may be relied on.
  virtual absl::StatusOr<bool> IsDone(GatherTicket ticket) = 0;
  // Blocks until IsDone.
  virtual absl::Status Wait(GatherTicket ticket) = 0;
};

// The same over memory of the process: a launch is done when it returns.
class HostGather final : public Gather {
 public:
  absl::StatusOr<GatherTicket> Launch(
      std::span<const GatherPiece> pieces) override;
  absl::StatusOr<bool> IsDone(GatherTicket ticket) override;
  absl::Status Wait(GatherTicket ticket) override;

 private:
  uint64_t launched_ = 0;
};

// A piece of a piece: what 32 threads of the kernel copy. gather_kernel.cu has
// the same layout.
struct GatherTile {
  uint64_t from;
  uint64_t to;
  uint32_t bytes;
  uint32_t unused;
};
static_assert(sizeof(GatherTile) == 24);

// Cuts pieces into tiles of about equal size, of at most `tile_bytes` and 127
// more. Cuts fall on lines of 128 bytes of the destination, so that only a
// piece's own ends are written byte by byte. Returns how many tiles there are;
// only as many as fit were written to `tiles`. `tile_bytes` > 0.
size_t CutTiles(std::span<const GatherPiece> pieces, uint32_t tile_bytes,
                std::span<GatherTile> tiles);

// InvalidArgument for a piece that reaches beyond the address space.
absl::Status CheckPieces(std::span<const GatherPiece> pieces);
// InvalidArgument for a ticket of none of `launched` launches.
absl::Status CheckTicket(GatherTicket ticket, uint64_t launched);

}  // namespace devwire

#endif  // MEMREG_GATHER_H_
