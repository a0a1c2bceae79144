// Finds the stream of a 4-tuple: open addressing, linear probing, one flat
// array that is at most half full.
//
// The hash is keyed, so that a peer who chooses ports cannot choose chains.
//
// Threads: none of its own. Cost: one cache line for a hit in the usual case;
// no allocation after construction.
#ifndef TRANSPORT_ENGINE_DEMUX_H_
#define TRANSPORT_ENGINE_DEMUX_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "transport/address.h"

namespace devwire {

class Demux {
 public:
  Demux(uint32_t max_entries, uint64_t hash_key);

  std::optional<uint32_t> Find(const FourTuple& tuple) const;
  // False when the tuple is there already, or the table is full.
  [[nodiscard]] bool Insert(const FourTuple& tuple, uint32_t value);
  void Erase(const FourTuple& tuple);
  uint32_t size() const { return size_; }

 private:
  static constexpr uint32_t kEmpty = UINT32_MAX;
  struct Entry {
    FourTuple tuple;
    uint32_t value = kEmpty;
  };
  uint64_t Hash(const FourTuple& tuple) const;
  // The entry that holds the tuple, or the empty one where it would go.
  size_t Probe(const FourTuple& tuple) const;

  std::vector<Entry> entries_;
  const size_t mask_;
  const uint64_t hash_key_;
  const uint32_t max_entries_;
  uint32_t size_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_DEMUX_H_
