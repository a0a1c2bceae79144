// Posting work: ibv_post_send(3), ibv_post_recv(3). What a provider finds wrong
// at once is an errno with *bad_wr; what only the hardware sees (keys, bounds,
// access) is a completion in error.
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "softnic/caps.h"
#include "softnic/front.h"
#include "softnic/packet.h"

namespace softnic {
namespace {

// Destination, source, type: what mlx5 wants of a TSO header at least.
constexpr uint32_t kMinTsoHeaderBytes = kEthernetBytes;

uint64_t TotalBytes(const ibv_send_wr& wr) {
  uint64_t bytes = 0;
  for (int i = 0; i < wr.num_sge; ++i) bytes += wr.sg_list[i].length;
  return bytes;
}

// 0, or the errno.
int CheckSend(const FrontQp& qp, const ibv_send_wr& wr) {
  if (wr.opcode != IBV_WR_SEND && wr.opcode != IBV_WR_TSO) return EINVAL;
  if (wr.num_sge < 0 ||
      static_cast<uint32_t>(wr.num_sge) > qp.send.layout.max_sge) {
    return EINVAL;
  }
  if ((wr.send_flags & IBV_SEND_IP_CSUM) != 0 && !qp.has_checksum) {
    return EINVAL;
  }
  const bool is_inline = (wr.send_flags & IBV_SEND_INLINE) != 0;
  if (wr.opcode == IBV_WR_TSO) {
    if (!qp.has_tso || is_inline || wr.tso.mss == 0) return EINVAL;
    if (wr.tso.hdr_sz < kMinTsoHeaderBytes ||
        wr.tso.hdr_sz > qp.max_tso_header) {
      return EINVAL;
    }
    return TotalBytes(wr) > kMaxTsoBytes ? EINVAL : 0;
  }
  if (is_inline && TotalBytes(wr) > qp.cap.max_inline_data) return ENOMEM;
  return 0;
}

void FillSend(const FrontQp& qp, const ibv_send_wr& wr, SendWqe* wqe) {
  wqe->wr_id = wr.wr_id;
  wqe->num_sge = 0;
  wqe->inline_bytes = 0;
  wqe->mss = 0;
  wqe->is_signaled = qp.signals_all || (wr.send_flags & IBV_SEND_SIGNALED) != 0;
  wqe->wants_checksum = (wr.send_flags & IBV_SEND_IP_CSUM) != 0;
  wqe->posted_ns = 0;
  auto* bytes = reinterpret_cast<std::byte*>(wqe) + qp.send.layout.inline_at;
  if ((wr.send_flags & IBV_SEND_INLINE) != 0) {
    for (int i = 0; i < wr.num_sge; ++i) {
      const ibv_sge& sge = wr.sg_list[i];
      memcpy(bytes + wqe->inline_bytes, reinterpret_cast<const void*>(sge.addr),
             sge.length);
      wqe->inline_bytes = static_cast<uint16_t>(wqe->inline_bytes + sge.length);
    }
    return;
  }
  if (wr.opcode == IBV_WR_TSO) {
    wqe->mss = wr.tso.mss;
    wqe->inline_bytes = wr.tso.hdr_sz;
    memcpy(bytes, wr.tso.hdr, wr.tso.hdr_sz);
  }
  wqe->num_sge = static_cast<uint16_t>(wr.num_sge);
  ibv_sge* sge = wqe->sge();
  for (int i = 0; i < wr.num_sge; ++i) sge[i] = wr.sg_list[i];
}

}  // namespace

int PostSend(ibv_qp* handle, ibv_send_wr* wr, ibv_send_wr** bad) {
  FrontQp& qp = *QpOf(handle);
  const std::lock_guard<std::mutex> lock(*qp.send_mutex);
  int error = 0;
  if (handle->state != IBV_QPS_RTS && handle->state != IBV_QPS_ERR) {
    error = EINVAL;
  }
  const bool is_dated =
      qp.device->late_gather_ns.load(std::memory_order_relaxed) > 0;
  const int64_t now =
      is_dated ? devwire::MonotonicClock().Now().nanoseconds() : 0;
  for (; error == 0 && wr != nullptr; wr = wr->next) {
    error = qp.send.layout.depth == 0 || qp.send.is_full() ? ENOMEM
                                                           : CheckSend(qp, *wr);
    if (error != 0) break;
    auto* wqe = qp.send.Next<SendWqe>();
    FillSend(qp, *wr, wqe);
    wqe->posted_ns = now;
    ++qp.send.produced;
  }
  if (error != 0) *bad = wr;
  if (qp.send.layout.depth > 0) {
    qp.send.Publish();
    qp.backend->OnPost(qp.number);
  }
  return error;
}

int PostRecv(ibv_qp* handle, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  FrontQp& qp = *QpOf(handle);
  const std::lock_guard<std::mutex> lock(*qp.recv_mutex);
  // ibv_post_recv(3): from INIT on; hardware takes up work from RTR on.
  int error = handle->state == IBV_QPS_RESET ? EINVAL : 0;
  for (; error == 0 && wr != nullptr; wr = wr->next) {
    if (qp.recv.layout.depth == 0 || qp.recv.is_full()) {
      error = ENOMEM;
      break;
    }
    if (wr->num_sge < 0 ||
        static_cast<uint32_t>(wr->num_sge) > qp.recv.layout.max_sge) {
      error = EINVAL;
      break;
    }
    auto* wqe = qp.recv.Next<RecvWqe>();
    wqe->wr_id = wr->wr_id;
    wqe->num_sge = static_cast<uint32_t>(wr->num_sge);
    ibv_sge* sge = wqe->sge();
    for (int i = 0; i < wr->num_sge; ++i) sge[i] = wr->sg_list[i];
    ++qp.recv.produced;
  }
  if (error != 0) *bad = wr;
  if (qp.recv.layout.depth > 0) qp.recv.Publish();
  return error;
}

}  // namespace softnic
