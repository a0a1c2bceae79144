// The posted receives of one queue.
//
// A data queue scatters each frame over two entries: `split` bytes into a
// header slot of ours, the rest into a payload slot of the pool, whose address
// here is the iova of a registered region. That address is for the NIC alone:
// nothing is mapped there. The control queue has one entry: a whole frame in a
// slot of a host pool.
//
//   wr_id:  | queue 8 | epoch 24 | entry 32 |
//
// The epoch changes with the queue pair, so that a completion of a pair that
// is gone is never taken for one of its successor.
//
// Threads:  the engine's.
// Cost:     one pass over the free entries and one doorbell per Replenish().
#ifndef TRANSPORT_VERBS_RX_RING_H_
#define TRANSPORT_VERBS_RX_RING_H_

#include <infiniband/verbs.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "memreg/frag_pool.h"
#include "transport/packet_io.h"

namespace devwire {

// Payload slots as the NIC addresses them.
struct SlotMemory {
  FragPool* pool = nullptr;
  uint64_t addr = 0;  // Of slot 0.
  uint32_t lkey = 0;
  const std::byte* host = nullptr;  // Of slot 0; null: device memory.
};

// Header slots of one ring, in host memory.
struct HeaderMemory {
  std::byte* host = nullptr;
  uint32_t lkey = 0;
};

class RxRing {
 public:
  struct Options {
    QueueId id{};
    uint32_t depth = 0;
    uint32_t split_bytes = 0;  // 0: whole frames in the slot.
    SlotMemory slots;
    HeaderMemory headers;  // depth * kHeaderStride bytes, when split.
  };
  // The longest split, with a VLAN tag that the device cannot strip, in whole
  // cache lines.
  static constexpr uint32_t kHeaderStride = 128;

  explicit RxRing(const Options& options);

  QueueId id() const { return options_.id; }
  FragPool& pool() const { return *options_.slots.pool; }
  uint32_t depth() const { return options_.depth; }
  uint32_t sges() const { return options_.split_bytes == 0 ? 1 : 2; }
  uint32_t slot_lkey() const { return options_.slots.lkey; }
  uint32_t outstanding() const { return outstanding_; }

  // A new queue pair, with nothing posted on it.
  void Attach(ibv_qp* qp);
  // The pair is gone for good: every slot that was posted on it is free again.
  // Returns how many.
  uint32_t Recover();

  // Posts every free entry for which the pool has a slot. 0, or the errno of a
  // pair that refuses (then nothing of the rest is posted).
  int Replenish();

  // A completion with this wr_id. False: of an older epoch, or no entry of
  // ours: ignored.
  [[nodiscard]] bool Owns(uint64_t wr_id) const;
  const std::byte* HeaderOf(uint64_t wr_id) const;
  // In success: fills `frame`; its slot stays posted and is the caller's now.
  void OnReceived(const ibv_wc& wc, RxFrame* frame);
  // In error: the slot goes back to the pool.
  void OnFailed(const ibv_wc& wc);

  static size_t QueueOf(uint64_t wr_id) { return wr_id >> 56; }

 private:
  static constexpr uint32_t kEpochMask = 0xffffff;
  static constexpr size_t kMaxSges = 2;
  struct Entry {
    SlotIndex slot{};
    bool is_posted = false;
  };

  static uint32_t EntryOf(uint64_t wr_id) {
    return static_cast<uint32_t>(wr_id);
  }
  void Release(uint32_t entry);

  const Options options_;
  const PoolId pool_id_;
  const uint32_t slot_bytes_;
  ibv_qp* qp_ = nullptr;
  uint32_t epoch_ = 0;
  uint32_t outstanding_ = 0;
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;  // A stack of depth places.
  uint32_t free_count_ = 0;
  std::vector<ibv_recv_wr> wrs_;  // By entry; only the slot's address varies.
  std::vector<ibv_sge> sges_;     // kMaxSges per entry.
};

// The per-frame ones, in line.

inline void RxRing::Release(uint32_t entry) {
  DCHECK(entries_[entry].is_posted);
  entries_[entry].is_posted = false;
  free_[free_count_++] = entry;
  --outstanding_;
}

inline bool RxRing::Owns(uint64_t wr_id) const {
  const uint32_t entry = EntryOf(wr_id);
  return ((wr_id >> 32) & kEpochMask) == epoch_ && entry < options_.depth &&
         entries_[entry].is_posted;
}

inline const std::byte* RxRing::HeaderOf(uint64_t wr_id) const {
  const uint32_t i = EntryOf(wr_id);
  if (options_.split_bytes != 0) {
    return options_.headers.host + uint64_t{i} * kHeaderStride;
  }
  return options_.slots.host +
         uint64_t{static_cast<uint32_t>(entries_[i].slot)} * slot_bytes_;
}

inline void RxRing::OnReceived(const ibv_wc& wc, RxFrame* frame) {
  const uint32_t i = EntryOf(wc.wr_id);
  const bool is_whole = options_.split_bytes == 0;
  frame->header = HeaderOf(wc.wr_id);
  frame->frame_bytes = wc.byte_len;
  frame->header_bytes =
      is_whole ? wc.byte_len : std::min(wc.byte_len, options_.split_bytes);
  frame->slot = entries_[i].slot;
  frame->pool = pool_id_;
  frame->queue = options_.id;
  frame->checksum_ok = (wc.wc_flags & IBV_WC_IP_CSUM_OK) != 0;
  frame->whole_in_slot = is_whole;
  Release(i);
}

}  // namespace devwire

#endif  // TRANSPORT_VERBS_RX_RING_H_
