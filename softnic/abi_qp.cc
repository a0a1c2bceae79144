// Queue pairs: ibv_create_qp(3), ibv_create_qp_ex(3), ibv_modify_qp(3),
// ibv_query_qp(3), ibv_destroy_qp(3). Only RAW_PACKET exists here.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "softnic/caps.h"
#include "softnic/front.h"

namespace softnic {
namespace {

constexpr uint32_t kCacheLineMask = 63;

uint32_t RoundUpToLine(size_t bytes) {
  return (static_cast<uint32_t>(bytes) + kCacheLineMask) & ~kCacheLineMask;
}

// Lays a queue out in the arena. False: no room.
bool MakeQueue(Arena* arena, uint32_t max_wr, uint32_t max_sge,
               size_t wqe_bytes, uint32_t inline_bytes, FrontQueue* queue) {
  if (max_wr == 0) return true;
  WorkQueueLayout& layout = queue->layout;
  layout.max_sge = std::max(max_sge, 1u);
  layout.inline_at =
      static_cast<uint32_t>(wqe_bytes + layout.max_sge * sizeof(ibv_sge));
  layout.slot_bytes = RoundUpToLine(layout.inline_at + inline_bytes);
  layout.head_at = arena->Allocate(sizeof(QueueHead));
  const uint32_t depth = std::bit_ceil(max_wr);
  queue->bytes = static_cast<uint64_t>(depth) * layout.slot_bytes;
  layout.slots_at = arena->Allocate(queue->bytes);
  if (layout.head_at == 0 || layout.slots_at == 0) return false;
  layout.depth = depth;
  queue->head = arena->At<QueueHead>(layout.head_at);
  queue->slots = arena->At<std::byte>(layout.slots_at);
  return true;
}

void FreeQueue(Arena* arena, const FrontQueue& queue) {
  if (queue.layout.head_at != 0) {
    arena->Free(queue.layout.head_at, sizeof(QueueHead));
  }
  if (queue.layout.slots_at != 0) {
    arena->Free(queue.layout.slots_at, queue.bytes);
  }
}

void FreeQp(FrontQp* qp) {
  Arena* arena = qp->backend->arena();
  FreeQueue(arena, qp->send);
  FreeQueue(arena, qp->recv);
  delete qp;
}

// The errno for what the device does not do, or 0.
int CheckInit(const DeviceConfig& config, const ibv_qp_init_attr_ex& attr) {
  constexpr uint32_t kMask = IBV_QP_INIT_ATTR_PD |
                             IBV_QP_INIT_ATTR_CREATE_FLAGS |
                             IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
  if ((attr.comp_mask & ~kMask) != 0) return EOPNOTSUPP;
  if ((attr.comp_mask & IBV_QP_INIT_ATTR_PD) == 0 || attr.pd == nullptr) {
    return EINVAL;
  }
  if (attr.qp_type != IBV_QPT_RAW_PACKET || !config.raw) return EOPNOTSUPP;
  if (config.require_cap_net_raw && !HasCapNetRaw()) return EPERM;
  if (attr.srq != nullptr || attr.send_cq == nullptr ||
      attr.recv_cq == nullptr) {
    return EINVAL;
  }
  const ibv_qp_cap& cap = attr.cap;
  if (cap.max_send_wr > config.max_qp_wr ||
      cap.max_recv_wr > config.max_qp_wr || cap.max_send_sge > config.max_sge ||
      cap.max_recv_sge > config.max_sge ||
      cap.max_inline_data > kMaxInlineBytes) {
    return EINVAL;
  }
  if ((attr.comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS) != 0) {
    const uint32_t known =
        config.vlan_strip ? uint32_t{IBV_QP_CREATE_CVLAN_STRIPPING} : 0;
    if ((attr.create_flags & ~known) != 0) return EOPNOTSUPP;
  }
  if ((attr.comp_mask & IBV_QP_INIT_ATTR_MAX_TSO_HEADER) != 0) {
    if (!config.tso || !config.tx_csum) return EOPNOTSUPP;
    if (attr.max_tso_header > kMaxTsoHeaderBytes) return EINVAL;
  }
  return 0;
}

// With device->mutex held. Null with errno set.
FrontQp* CreateLocked(FrontContext* context, FrontDevice* device,
                      ibv_qp_init_attr_ex* attr) {
  auto* qp = new FrontQp;
  qp->device = device;
  qp->context = context;
  qp->backend = device->backend.get();
  qp->send_cq = CqOf(attr->send_cq);
  qp->recv_cq = CqOf(attr->recv_cq);
  qp->pd = PdOf(attr->pd);
  const bool has_tso_header =
      (attr->comp_mask & IBV_QP_INIT_ATTR_MAX_TSO_HEADER) != 0;
  qp->max_tso_header = has_tso_header ? attr->max_tso_header : 0;
  qp->signals_all = attr->sq_sig_all != 0;
  ibv_qp_cap& cap = attr->cap;
  Arena* arena = qp->backend->arena();
  const uint32_t inline_bytes =
      std::max<uint32_t>(cap.max_inline_data, qp->max_tso_header);
  if (!MakeQueue(arena, cap.max_send_wr, cap.max_send_sge, sizeof(SendWqe),
                 inline_bytes, &qp->send) ||
      !MakeQueue(arena, cap.max_recv_wr, cap.max_recv_sge, sizeof(RecvWqe), 0,
                 &qp->recv)) {
    FreeQp(qp);
    return Fail(ENOMEM);
  }
  // As a provider does: the caller learns what it really got.
  cap.max_send_wr = qp->send.layout.depth;
  cap.max_recv_wr = qp->recv.layout.depth;
  cap.max_send_sge = qp->send.layout.max_sge;
  cap.max_recv_sge = qp->recv.layout.max_sge;
  qp->cap = cap;

  Command command;
  command.op = Op::kCreateQp;
  command.qp.pd = qp->pd->number;
  command.qp.context = context->object;
  command.qp.send_cq = qp->send_cq->number;
  command.qp.recv_cq = qp->recv_cq->number;
  command.qp.send = qp->send.layout;
  command.qp.recv = qp->recv.layout;
  command.qp.strips_vlan =
      (attr->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS) != 0 &&
      (attr->create_flags & IBV_QP_CREATE_CVLAN_STRIPPING) != 0;
  const Reply reply = qp->backend->Execute(command, -1);
  if (reply.error != 0) {
    FreeQp(qp);
    return Fail(reply.error);
  }
  qp->number = reply.object;
  std::mutex* shared = qp->backend->data_mutex();
  qp->send_mutex = shared == nullptr ? &qp->own_send_mutex : shared;
  qp->recv_mutex = shared == nullptr ? &qp->own_recv_mutex : shared;
  return qp;
}

// Back to RESET: nothing is posted, nothing of it will be polled.
void ForgetWork(FrontQp* qp) {
  CleanCq(qp->send_cq, qp->number);
  CleanCq(qp->recv_cq, qp->number);
  qp->send.retired = qp->send.produced;
  qp->recv.retired = qp->recv.produced;
}

// The transitions of a RAW_PACKET queue pair and what each needs: the table
// qp_state_table of the kernel's drivers/infiniband/core/verbs.c.
int CheckTransition(ibv_qp_state from, ibv_qp_state to, int mask) {
  constexpr int kAlways = IBV_QP_STATE | IBV_QP_CUR_STATE;
  switch (to) {
    case IBV_QPS_RESET:
    case IBV_QPS_ERR:
      return (mask & ~kAlways) == 0 ? 0 : EINVAL;
    case IBV_QPS_INIT:
      if (from != IBV_QPS_RESET && from != IBV_QPS_INIT) return EINVAL;
      if (from == IBV_QPS_RESET && (mask & IBV_QP_PORT) == 0) return EINVAL;
      return (mask & ~(kAlways | IBV_QP_PORT)) == 0 ? 0 : EINVAL;
    case IBV_QPS_RTR:
      if (from != IBV_QPS_INIT) return EINVAL;
      return (mask & ~kAlways) == 0 ? 0 : EINVAL;
    case IBV_QPS_RTS:
      if (from != IBV_QPS_RTR && from != IBV_QPS_RTS) return EINVAL;
      if ((mask & IBV_QP_RATE_LIMIT) != 0) return EOPNOTSUPP;
      return (mask & ~kAlways) == 0 ? 0 : EINVAL;
    case IBV_QPS_SQD:
    case IBV_QPS_SQE:
    case IBV_QPS_UNKNOWN:
      break;
  }
  return EINVAL;
}

// The device may have moved it to ERR.
ibv_qp_state StateOf(FrontQp* qp) {
  Command command;
  command.op = Op::kQueryQp;
  command.object = qp->number;
  const Reply reply = qp->backend->Execute(command, -1);
  if (reply.error == 0) {
    qp->qp()->state = static_cast<ibv_qp_state>(reply.value);
  }
  return qp->qp()->state;
}

}  // namespace

ibv_qp* CreateQpEx(ibv_context* handle, ibv_qp_init_attr_ex* attr) {
  FrontContext* context = ContextOf(handle);
  FrontDevice* device = context->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  const int error = CheckInit(device->config, *attr);
  if (error != 0) return Fail(error);
  FrontQp* qp = CreateLocked(context, device, attr);
  if (qp == nullptr) return nullptr;
  ibv_qp* base = qp->qp();
  base->context = handle;
  base->qp_context = attr->qp_context;
  base->pd = attr->pd;
  base->send_cq = attr->send_cq;
  base->recv_cq = attr->recv_cq;
  base->handle = base->qp_num = qp->number;
  base->state = IBV_QPS_RESET;
  base->qp_type = IBV_QPT_RAW_PACKET;
  pthread_mutex_init(&base->mutex, nullptr);
  pthread_cond_init(&base->cond, nullptr);
  ++qp->pd->users;
  device->qps[qp->number - DeviceCore::kFirstQpNumber] = qp;
  return base;
}

}  // namespace softnic

using namespace softnic;  // NOLINT: this file is the C ABI

extern "C" {

ibv_qp* ibv_create_qp(ibv_pd* pd, ibv_qp_init_attr* attr) {
  ibv_qp_init_attr_ex ex = {};
  // The two begin alike: verbs.h, ibv_create_qp_ex.
  memcpy(&ex, attr, offsetof(ibv_qp_init_attr, sq_sig_all) + sizeof(int));
  ex.comp_mask = IBV_QP_INIT_ATTR_PD;
  ex.pd = pd;
  ibv_qp* qp = CreateQpEx(pd->context, &ex);
  if (qp != nullptr) attr->cap = ex.cap;
  return qp;
}

// Only of a QP made with send_ops_flags, which we do not offer.
ibv_qp_ex* ibv_qp_to_qp_ex(ibv_qp*) { return nullptr; }

int ibv_modify_qp(ibv_qp* handle, ibv_qp_attr* attr, int mask) {
  FrontQp* qp = QpOf(handle);
  const std::lock_guard<std::mutex> lock(qp->device->mutex);
  if ((mask & IBV_QP_PORT) != 0 && attr->port_num != 1) return EINVAL;
  const ibv_qp_state from = StateOf(qp);
  if ((mask & IBV_QP_CUR_STATE) != 0 && attr->cur_qp_state != from) {
    return EINVAL;
  }
  const ibv_qp_state to = (mask & IBV_QP_STATE) != 0 ? attr->qp_state : from;
  const int error = CheckTransition(from, to, mask);
  if (error != 0) return error;
  Command command;
  command.op = Op::kModifyQp;
  command.object = qp->number;
  command.state = to;
  const Reply reply = qp->backend->Execute(command, -1);
  if (reply.error != 0) return reply.error;
  if ((mask & IBV_QP_PORT) != 0) {
    qp->port = attr->port_num;
    qp->has_checksum = qp->device->config.tx_csum;
    qp->has_tso = qp->max_tso_header > 0;
  }
  if (to == IBV_QPS_RESET) ForgetWork(qp);
  handle->state = to;
  return 0;
}

int ibv_query_qp(ibv_qp* handle, ibv_qp_attr* attr, int,
                 ibv_qp_init_attr* init) {
  FrontQp* qp = QpOf(handle);
  const std::lock_guard<std::mutex> lock(qp->device->mutex);
  *attr = {};
  attr->qp_state = attr->cur_qp_state = StateOf(qp);
  attr->port_num = qp->port;
  attr->cap = qp->cap;
  *init = {};
  init->qp_context = handle->qp_context;
  init->send_cq = handle->send_cq;
  init->recv_cq = handle->recv_cq;
  init->cap = qp->cap;
  init->qp_type = handle->qp_type;
  init->sq_sig_all = qp->signals_all ? 1 : 0;
  return 0;
}

int ibv_destroy_qp(ibv_qp* handle) {
  FrontQp* qp = QpOf(handle);
  int error = 0;
  {
    const std::lock_guard<std::mutex> lock(qp->device->mutex);
    Command command;
    command.op = Op::kDestroyQp;
    command.object = qp->number;
    error = qp->backend->Execute(command, -1).error;
    if (!IsDestroyed(error)) return error;
    CleanCq(qp->send_cq, qp->number);
    CleanCq(qp->recv_cq, qp->number);
    qp->device->qps[qp->number - DeviceCore::kFirstQpNumber] = nullptr;
    --qp->pd->users;
  }
  WaitForAcks(&qp->events_acked, &handle->events_completed);
  pthread_mutex_destroy(&handle->mutex);
  pthread_cond_destroy(&handle->cond);
  const std::lock_guard<std::mutex> lock(qp->device->mutex);
  FreeQp(qp);
  return error;
}

// Payload before the completion, in order: true of every queue pair here, but
// mlx5 promises it for no raw one.
int ibv_query_qp_data_in_order(ibv_qp*, ibv_wr_opcode, uint32_t) { return 0; }

}  // extern "C"
