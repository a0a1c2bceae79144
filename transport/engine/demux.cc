#include "transport/engine/demux.h"

#include <bit>
#include <cstring>

#include "base/check.h"

namespace devwire {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t Word(const IpAddress& ip, size_t at) {
  uint64_t word;
  std::memcpy(&word, ip.bytes.data() + at, sizeof(word));
  return word;
}

}  // namespace

Demux::Demux(uint32_t max_entries, uint64_t hash_key)
    : entries_(std::bit_ceil(size_t{2} * (max_entries == 0 ? 1 : max_entries))),
      mask_(entries_.size() - 1),
      hash_key_(hash_key | 1),
      max_entries_(max_entries) {}

uint64_t Demux::Hash(const FourTuple& t) const {
  const uint64_t ports = static_cast<uint64_t>(t.local.port) << 16 |
                         static_cast<uint64_t>(t.remote.port);
  uint64_t h = Mix(Word(t.remote.ip, 0) ^ hash_key_, 0x9e3779b97f4a7c15);
  if (!t.remote.ip.is_v4()) {
    h = Mix(h ^ Word(t.remote.ip, 8), 0xbf58476d1ce4e5b9);
    h = Mix(h ^ Word(t.local.ip, 8), 0x94d049bb133111eb);
  }
  h = Mix(h ^ Word(t.local.ip, 0), 0xd6e8feb86659fd93);
  return Mix(h ^ ports, hash_key_ | 0x8000000000000001);
}

size_t Demux::Probe(const FourTuple& tuple) const {
  size_t i = Hash(tuple) & mask_;
  while (entries_[i].value != kEmpty && entries_[i].tuple != tuple) {
    i = (i + 1) & mask_;
  }
  return i;
}

std::optional<uint32_t> Demux::Find(const FourTuple& tuple) const {
  const Entry& entry = entries_[Probe(tuple)];
  if (entry.value == kEmpty) return std::nullopt;
  return entry.value;
}

bool Demux::Insert(const FourTuple& tuple, uint32_t value) {
  DCHECK_NE(value, kEmpty);
  if (size_ == max_entries_) return false;
  Entry& entry = entries_[Probe(tuple)];
  if (entry.value != kEmpty) return false;
  entry = {tuple, value};
  ++size_;
  return true;
}

void Demux::Erase(const FourTuple& tuple) {
  size_t hole = Probe(tuple);
  if (entries_[hole].value == kEmpty) return;
  --size_;
  // Moves back what probing past the hole would otherwise no longer reach.
  for (size_t i = (hole + 1) & mask_; entries_[i].value != kEmpty;
       i = (i + 1) & mask_) {
    const size_t home = Hash(entries_[i].tuple) & mask_;
    if (((i - home) & mask_) >= ((i - hole) & mask_)) {
      entries_[hole] = entries_[i];
      hole = i;
    }
  }
  entries_[hole] = Entry{};
}

}  // namespace devwire
