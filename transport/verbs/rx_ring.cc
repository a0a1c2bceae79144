#include "transport/verbs/rx_ring.h"

#include <algorithm>

#include "base/check.h"
#include "memreg/verbs_library.h"

namespace devwire {

RxRing::RxRing(const Options& options)
    : options_(options),
      entries_(options.depth),
      free_(options.depth),
      free_count_(options.depth),
      wrs_(options.depth),
      sges_(options.depth * kMaxSges) {
  CHECK_LE(options.split_bytes, kHeaderStride);
  for (uint32_t i = 0; i < options.depth; ++i) {
    free_[i] = options.depth - 1 - i;
    ibv_sge* sge = &sges_[i * kMaxSges];
    ibv_recv_wr& wr = wrs_[i];
    wr = {};
    wr.sg_list = sge;
    wr.num_sge = static_cast<int>(sges());
    if (options.split_bytes != 0) {
      sge->addr = reinterpret_cast<uint64_t>(options.headers.host) +
                  uint64_t{i} * kHeaderStride;
      sge->length = options.split_bytes;
      sge->lkey = options.headers.lkey;
      ++sge;
    }
    sge->length = options.slots.pool->slot_bytes();
    sge->lkey = options.slots.lkey;
  }
}

void RxRing::Attach(ibv_qp* qp) {
  CHECK_EQ(outstanding_, 0u);
  qp_ = qp;
  epoch_ = (epoch_ + 1) & kEpochMask;
  for (uint32_t i = 0; i < options_.depth; ++i) {
    wrs_[i].wr_id = (static_cast<uint64_t>(options_.id) << 56) |
                    (uint64_t{epoch_} << 32) | i;
  }
}

uint32_t RxRing::Recover() {
  const uint32_t recovered = outstanding_;
  qp_ = nullptr;
  for (uint32_t i = 0; i < options_.depth; ++i) {
    if (!entries_[i].is_posted) continue;
    pool().Free(entries_[i].slot);
    Release(i);
  }
  CHECK_EQ(outstanding_, 0u);
  return recovered;
}

void RxRing::Release(uint32_t entry) {
  DCHECK(entries_[entry].is_posted);
  entries_[entry].is_posted = false;
  free_[free_count_++] = entry;
  --outstanding_;
}

int RxRing::Replenish() {
  if (qp_ == nullptr || free_count_ == 0) return 0;
  ibv_recv_wr* first = nullptr;
  ibv_recv_wr** link = &first;
  while (free_count_ > 0) {
    const std::optional<SlotIndex> slot = pool().Take();
    if (!slot.has_value()) break;
    const uint32_t i = free_[--free_count_];
    entries_[i] = {.slot = *slot, .is_posted = true};
    ++outstanding_;
    sges_[i * kMaxSges + sges() - 1].addr =
        options_.slots.addr +
        uint64_t{static_cast<uint32_t>(*slot)} * pool().slot_bytes();
    *link = &wrs_[i];
    link = &wrs_[i].next;
  }
  if (first == nullptr) return 0;
  *link = nullptr;
  ibv_recv_wr* bad = nullptr;
  const int error = VerbsTable::PostRecv(qp_, first, &bad);
  for (ibv_recv_wr* wr = error != 0 ? bad : nullptr; wr != nullptr;
       wr = wr->next) {
    const uint32_t i = EntryOf(wr->wr_id);
    pool().Free(entries_[i].slot);
    Release(i);
  }
  return error;
}

bool RxRing::Owns(uint64_t wr_id) const {
  const uint32_t entry = EntryOf(wr_id);
  return ((wr_id >> 32) & kEpochMask) == epoch_ && entry < options_.depth &&
         entries_[entry].is_posted;
}

const std::byte* RxRing::HeaderOf(uint64_t wr_id) const {
  const uint32_t i = EntryOf(wr_id);
  if (options_.split_bytes != 0) {
    return options_.headers.host + uint64_t{i} * kHeaderStride;
  }
  return options_.slots.host +
         uint64_t{static_cast<uint32_t>(entries_[i].slot)} *
             pool().slot_bytes();
}

void RxRing::OnReceived(const ibv_wc& wc, RxFrame* frame) {
  const uint32_t i = EntryOf(wc.wr_id);
  const bool is_whole = options_.split_bytes == 0;
  frame->header = HeaderOf(wc.wr_id);
  frame->frame_bytes = wc.byte_len;
  frame->header_bytes =
      is_whole ? wc.byte_len : std::min(wc.byte_len, options_.split_bytes);
  frame->slot = entries_[i].slot;
  frame->pool = pool().id();
  frame->queue = options_.id;
  frame->checksum_ok = (wc.wc_flags & IBV_WC_IP_CSUM_OK) != 0;
  frame->whole_in_slot = is_whole;
  Release(i);
}

void RxRing::OnFailed(const ibv_wc& wc) {
  const uint32_t i = EntryOf(wc.wr_id);
  pool().Free(entries_[i].slot);
  Release(i);
}

}  // namespace devwire
