// Registered host memory for bytes that the application sends from ordinary
// memory: equal buffers, a free list.
//
// Threads: the engine's. Cost: O(1), no allocation after construction.
#ifndef TRANSPORT_ENGINE_SEND_BUFFERS_H_
#define TRANSPORT_ENGINE_SEND_BUFFERS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/check.h"

namespace devwire {

// Registered host memory, as the NIC and the CPU see it.
struct HostBuffer {
  std::byte* base = nullptr;
  uint64_t iova = 0;
  uint64_t bytes = 0;
  uint32_t lkey = 0;
};

class SendBuffers {
 public:
  static constexpr uint32_t kBufferBytes = 16 << 10;

  explicit SendBuffers(const HostBuffer& memory) : memory_(memory) {
    const uint32_t count = static_cast<uint32_t>(memory.bytes / kBufferBytes);
    free_.reserve(count);
    for (uint32_t i = count; i-- > 0;) free_.push_back(i);
    count_ = count;
  }

  std::optional<uint32_t> Take() {
    if (free_.empty()) return std::nullopt;
    const uint32_t index = free_.back();
    free_.pop_back();
    return index;
  }
  bool has_free() const { return !free_.empty(); }
  void Give(uint32_t index) {
    DCHECK_LT(free_.size(), count_);
    free_.push_back(index);
  }
  std::byte* at(uint32_t index) const {
    return memory_.base + uint64_t{index} * kBufferBytes;
  }
  uint64_t iova(uint32_t index) const {
    return memory_.iova + uint64_t{index} * kBufferBytes;
  }
  uint32_t lkey() const { return memory_.lkey; }
  uint32_t count() const { return count_; }

 private:
  const HostBuffer memory_;
  std::vector<uint32_t> free_;
  uint32_t count_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_SEND_BUFFERS_H_
