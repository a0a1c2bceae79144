#include "transport/verbs/rx_ring.h"

#include "base/check.h"
#include "memreg/verbs_library.h"

namespace devwire {

RxRing::RxRing(const Options& options)
    : options_(options),
      pool_id_(options.slots.pool->id()),
      slot_bytes_(options.slots.pool->slot_bytes()),
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
    sge->length = slot_bytes_;
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
    const uint64_t payload_addr =
        options_.slots.addr +
        uint64_t{static_cast<uint32_t>(*slot)} * slot_bytes_;
    // Payload address is known here.
    sges_[i * kMaxSges + sges() - 1].addr = payload_addr;
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

void RxRing::OnFailed(const ibv_wc& wc) {
  const uint32_t i = EntryOf(wc.wr_id);
  pool().Free(entries_[i].slot);
  Release(i);
}

}  // namespace devwire
