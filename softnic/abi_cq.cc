// Completion queues: ibv_create_cq(3), ibv_poll_cq(3).
#include <bit>
#include <cerrno>
#include <cstring>

#include "softnic/caps.h"
#include "softnic/front.h"

namespace softnic {
namespace {

uint64_t SlotBytes(const CqLayout& layout) {
  return static_cast<uint64_t>(layout.depth) * sizeof(Cqe);
}

// The queue pair's slots up to this one are free again.
void Retire(FrontDevice* device, const Cqe& e) {
  FrontQp* qp = device->qps[e.qp_num - DeviceCore::kFirstQpNumber].load(
      std::memory_order_relaxed);
  if (qp == nullptr) return;
  FrontQueue& queue = e.is_send ? qp->send : qp->recv;
  queue.retired.store(e.wqe_index + 1, std::memory_order_release);
}

void FreeCq(FrontCq* cq) {
  Arena* arena = cq->backend->arena();
  if (cq->layout.head_at != 0) {
    arena->Free(cq->layout.head_at, sizeof(CqHead));
  }
  if (cq->layout.slots_at != 0) {
    arena->Free(cq->layout.slots_at, SlotBytes(cq->layout));
  }
  delete cq;
}

}  // namespace

int PollCq(ibv_cq* handle, int count, ibv_wc* wc) {
  if (count <= 0) return 0;
  FrontCq* cq = CqOf(handle);
  const std::lock_guard<std::mutex> lock(*cq->mutex);
  uint32_t ready =
      cq->head->produced.load(std::memory_order_acquire) - cq->consumed;
  if (ready < static_cast<uint32_t>(count)) {
    cq->backend->OnPoll(static_cast<uint32_t>(count) - ready);
    ready = cq->head->produced.load(std::memory_order_acquire) - cq->consumed;
  }
  int filled = 0;
  for (; ready > 0 && filled < count; --ready) {
    const Cqe& e = cq->slots[cq->consumed++ & cq->mask];
    if (e.qp_num == 0) continue;
    ibv_wc& out = wc[filled++];
    out.wr_id = e.wr_id;
    out.status = static_cast<ibv_wc_status>(e.status);
    out.opcode = static_cast<ibv_wc_opcode>(e.opcode);
    out.vendor_err = e.vendor_err;
    out.byte_len = e.byte_len;
    out.imm_data = 0;
    out.qp_num = e.qp_num;
    out.src_qp = 0;
    out.wc_flags = e.wc_flags;
    out.pkey_index = 0;
    out.slid = 0;
    out.sl = 0;
    out.dlid_path_bits = 0;
    Retire(cq->device, e);
  }
  cq->head->consumed.store(cq->consumed, std::memory_order_release);
  return filled;
}

int ReqNotifyCq(ibv_cq* handle, int solicited_only) {
  CqHead* const head = CqOf(handle)->head;
  // The wider of two requests holds. ibv_req_notify_cq(3)
  if (solicited_only != 0) {
    CqArm expected = CqArm::kNo;
    head->arm.compare_exchange_strong(expected, CqArm::kError);
  } else {
    head->arm.exchange(CqArm::kNext);
  }
  CqOf(handle)->backend->OnArm();
  return 0;
}

void CleanCq(FrontCq* cq, uint32_t qp_num) {
  const std::lock_guard<std::mutex> lock(*cq->mutex);
  const uint32_t end = cq->head->produced.load(std::memory_order_acquire);
  for (uint32_t i = cq->consumed; i != end; ++i) {
    Cqe& e = cq->slots[i & cq->mask];
    if (e.qp_num == qp_num) e.qp_num = 0;
  }
}

}  // namespace softnic

using namespace softnic;  // NOLINT: this file is the C ABI

extern "C" {

ibv_cq* ibv_create_cq(ibv_context* context, int cqe, void* cq_context,
                      ibv_comp_channel* channel, int comp_vector) {
  FrontDevice* device = ContextOf(context)->device;
  if (cqe < 1 || static_cast<uint32_t>(cqe) > kMaxCqe) return Fail(EINVAL);
  if (comp_vector < 0 || comp_vector >= context->num_comp_vectors) {
    return Fail(EINVAL);
  }
  if (channel != nullptr && channel->context != context) return Fail(EINVAL);
  const std::lock_guard<std::mutex> lock(device->mutex);
  Arena* arena = device->backend->arena();
  auto* cq = new FrontCq;
  cq->device = device;
  cq->backend = device->backend.get();
  // mlx5 keeps one entry free: a power of two less one.
  cq->layout.depth = std::bit_ceil(static_cast<uint32_t>(cqe) + 1);
  cq->layout.head_at = arena->Allocate(sizeof(CqHead));
  cq->layout.slots_at = arena->Allocate(SlotBytes(cq->layout));
  if (cq->layout.head_at == 0 || cq->layout.slots_at == 0) {
    FreeCq(cq);
    return Fail(ENOMEM);
  }
  Command command;
  command.op = Op::kCreateCq;
  command.cq.context = ContextOf(context)->object;
  if (channel != nullptr) command.cq.channel = ChannelOf(channel)->object;
  command.cq.layout = cq->layout;
  const Reply reply = device->backend->Execute(command, -1);
  if (reply.error != 0) {
    FreeCq(cq);
    return Fail(reply.error);
  }
  cq->number = reply.object;
  cq->head = arena->At<CqHead>(cq->layout.head_at);
  cq->slots = arena->At<Cqe>(cq->layout.slots_at);
  cq->mask = cq->layout.depth - 1;
  cq->mutex = device->backend->data_mutex();
  if (cq->mutex == nullptr) cq->mutex = &cq->own_mutex;
  ibv_cq* base = cq->cq();
  base->context = context;
  base->channel = channel;
  if (channel != nullptr) ++channel->refcnt;
  base->cq_context = cq_context;
  base->handle = cq->number;
  base->cqe = static_cast<int>(cq->layout.depth - 1);
  pthread_mutex_init(&base->mutex, nullptr);
  pthread_cond_init(&base->cond, nullptr);
  device->cqs[cq->number] = cq;
  return base;
}

int ibv_destroy_cq(ibv_cq* handle) {
  FrontCq* cq = CqOf(handle);
  int error = 0;
  {
    const std::lock_guard<std::mutex> lock(cq->device->mutex);
    Command command;
    command.op = Op::kDestroyCq;
    command.object = cq->number;
    error = cq->backend->Execute(command, -1).error;
    if (!IsDestroyed(error)) return error;
    cq->device->cqs.erase(cq->number);
    if (handle->channel != nullptr) --handle->channel->refcnt;
  }
  WaitForAcks(&cq->events_acked, &handle->async_events_completed);
  WaitForAcks(&handle->comp_events_completed, &cq->comp_events_given);
  pthread_mutex_destroy(&handle->mutex);
  pthread_cond_destroy(&handle->cond);
  const std::lock_guard<std::mutex> lock(cq->device->mutex);
  FreeCq(cq);
  return error;
}

// mlx5 can; we do not claim to.
int ibv_resize_cq(ibv_cq*, int) { return EOPNOTSUPP; }

}  // extern "C"
