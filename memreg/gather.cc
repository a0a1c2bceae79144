#include "memreg/gather.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"

namespace devwire {
namespace {

constexpr uint64_t kLineBytes = 128;  // A line of a GPU's L1 and L2.

}  // namespace

absl::Status CheckPieces(std::span<const GatherPiece> pieces) {
  for (const GatherPiece& p : pieces) {
    if (p.from <= UINT64_MAX - p.bytes && p.to <= UINT64_MAX - p.bytes) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrFormat(
        "a piece of %u bytes from %#x to %#x: beyond the address space",
        p.bytes, p.from, p.to));
  }
  return absl::OkStatus();
}

absl::Status CheckTicket(GatherTicket ticket, uint64_t launched) {
  const uint64_t number = static_cast<uint64_t>(ticket);
  if (number >= 1 && number <= launched) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "gather launch %u was not made: there were %u", number, launched));
}

size_t CutTiles(std::span<const GatherPiece> pieces, uint32_t tile_bytes,
                std::span<GatherTile> tiles) {
  size_t count = 0;
  for (const GatherPiece& piece : pieces) {
    const uint64_t end = piece.to + piece.bytes;
    uint64_t parts = 1;
    if (piece.bytes > tile_bytes) {
      parts = (uint64_t{piece.bytes} + tile_bytes - 1) / tile_bytes;
    }
    for (uint64_t to = piece.to; to < end;) {
      // What is left in equal parts, each up to the next line. A division
      // costs as much as all the rest, and most pieces are one part.
      const uint64_t part = parts == 1 ? 0 : (end - to + parts - 1) / parts;
      uint64_t cut = (to + part + kLineBytes - 1) / kLineBytes * kLineBytes;
      if (parts == 1 || cut > end) cut = end;
      if (count < tiles.size()) {
        tiles[count] = {.from = piece.from + (to - piece.to),
                        .to = to,
                        .bytes = static_cast<uint32_t>(cut - to),
                        .unused = 0};
      }
      ++count;
      parts = std::max<uint64_t>(parts - 1, 1);
      to = cut;
    }
  }
  return count;
}

absl::StatusOr<GatherTicket> HostGather::Launch(
    std::span<const GatherPiece> pieces) {
  if (absl::Status s = CheckPieces(pieces); !s.ok()) return s;
  for (const GatherPiece& p : pieces) {
    if (p.bytes == 0) continue;  // Its addresses may be anything.
    memcpy(reinterpret_cast<void*>(p.to), reinterpret_cast<const void*>(p.from),
           p.bytes);
  }
  return GatherTicket{++launched_};
}

absl::StatusOr<bool> HostGather::IsDone(GatherTicket ticket) {
  if (absl::Status s = CheckTicket(ticket, launched_); !s.ok()) return s;
  return true;
}

absl::Status HostGather::Wait(GatherTicket ticket) {
  return CheckTicket(ticket, launched_);
}

}  // namespace devwire
