#include "softnic/send_stage.h"

#include <algorithm>

namespace softnic {

std::byte* SendStage::Find(QueuePair& qp, MrTable& mrs, uint32_t sge,
                           uint32_t ahead) {
  if (qp.number() != qp_num_ || qp.sent() - first_ >= count_) {
    Fill(qp, mrs, std::min({qp.to_send(), kMaxWqes, ahead}));
  }
  if (qp.sent() - first_ >= count_) return nullptr;
  return at_[qp.sent() - first_][sge];
}

bool SendStage::Add(QueuePair& qp, MrTable& mrs, uint32_t ahead) {
  SendWqe* wqe = qp.next_to_send(ahead);
  const size_t used = used_;
  const int pieces = pieces_;
  for (uint32_t i = 0; i < wqe->num_sge; ++i) {
    at_[ahead][i] = nullptr;
    const ibv_sge& sge = wqe->sge()[i];
    ResolvedSge resolved;
    if (sge.length == 0) continue;
    if (!mrs.Resolve(sge, qp.spec().pd, false, &resolved)) continue;
    if (resolved.local != nullptr) continue;
    if (pieces_ == HostMemory::kMaxPieces || used_ + sge.length > kBytes) {
      used_ = used;
      pieces_ = pieces;
      return false;
    }
    at_[ahead][i] = bytes_.get() + used_;
    local_[pieces_] = {at_[ahead][i], sge.length};
    remote_[pieces_++] = {reinterpret_cast<void*>(resolved.remote), sge.length};
    used_ += sge.length;
  }
  return true;
}

void SendStage::Fill(QueuePair& qp, MrTable& mrs, uint32_t limit) {
  qp_num_ = qp.number();
  first_ = qp.sent();
  count_ = 0;
  used_ = 0;
  pieces_ = 0;
  while (count_ < limit && Add(qp, mrs, count_)) ++count_;
  if (host_->Read(local_.data(), remote_.data(), pieces_)) return;
  // Some memory is gone: one send at a time finds whose.
  count_ = 0;
  used_ = 0;
  pieces_ = 0;
  if (!Add(qp, mrs, 0)) return;
  if (host_->Read(local_.data(), remote_.data(), pieces_)) count_ = 1;
}

}  // namespace softnic
