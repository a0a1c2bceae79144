// The slow half of VerbsPacketIo: opening, pools, data queues.
#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <bit>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "memreg/verbs_library.h"
#include "transport/verbs/verbs_packet_io.h"

namespace devwire {
namespace {

constexpr uint32_t kMinMtu = 576;  // RFC 9293 3.7.1: what any host takes.
constexpr uint32_t kMaxMtu = 65535;

// ibv_port_attr.active_mtu is a power of two, at most 4096, and the largest
// that fits into the interface's own MTU.
uint32_t BytesOf(ibv_mtu mtu) {
  return mtu < IBV_MTU_256 || mtu > IBV_MTU_4096 ? 0 : 128u << mtu;
}

}  // namespace

absl::StatusOr<std::unique_ptr<VerbsPacketIo>> VerbsPacketIo::Open(
    VerbsDevice& device, FragPool& control, const HostArena& memory,
    const Options& options) {
  std::unique_ptr<VerbsPacketIo> io(new VerbsPacketIo(device, options));
  if (absl::Status s = io->SetUp(control, memory); !s.ok()) return s;
  return io;
}

VerbsPacketIo::~VerbsPacketIo() {
  control_.reset();  // No pair writes or reads any more.
  for (const auto& queue : queues_) queue->ring.Recover();
}

absl::Status VerbsPacketIo::SetUp(FragPool& control, const HostArena& memory) {
  if (absl::Status s = CheckMtu(); !s.ok()) return s;
  const uint32_t needed = ControlSlotBytes(device_, options_.mtu);
  if (control.slot_bytes() < needed) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "control slots of %u bytes cannot hold a frame of MTU %u: %u are "
        "needed",
        control.slot_bytes(), options_.mtu, needed));
  }
  const SlotMemory slots = {.pool = &control,
                            .addr = memory.addr(),
                            .lkey = memory.lkey(),
                            .host = memory.data()};
  const uint64_t pool_bytes =
      uint64_t{control.slot_count()} * control.slot_bytes();
  if (pool_bytes > memory.bytes() ||
      control.slot_count() < kPoolShare * kMinRingWrs) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "control pool of %u slots of %u bytes in %u bytes of memory: at least "
        "%u slots are needed",
        control.slot_count(), control.slot_bytes(), memory.bytes(),
        kPoolShare * kMinRingWrs));
  }
  limits_.mac = options_.mac.value_or(device_.mac());
  limits_.mtu = options_.mtu;
  limits_.rx_checksum_ipv6 = options_.rx_checksum_ipv6;
  // An IP packet, also one to be cut, has at most 65,535 bytes.
  limits_.max_tso_payload =
      std::min(device_.max_tso_bytes(), 65535u - uint32_t{kMaxTxHeaderBytes});
  if (device_.max_tso_bytes() == 0) limits_.max_tso_payload = 0;
  limits_.max_tx_pieces = static_cast<uint8_t>(
      std::min<uint32_t>(kMaxTxPieces, device_.max_sge() - 1));
  pools_.reserve(kMaxQueues);
  pools_[control.id()] = slots;
  if (absl::Status s = SetUpMemory(); !s.ok()) return s;
  return SetUpQueues(slots);
}

// Header slot and payload slot must hold the largest frame that the port can
// deliver, not only the largest we ask for.
absl::Status VerbsPacketIo::CheckMtu() const {
  if (options_.mtu < kMinMtu || options_.mtu > kMaxMtu) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "MTU %u: it must be from %u to %u", options_.mtu, kMinMtu, kMaxMtu));
  }
  ibv_port_attr port;
  if (int e = VerbsTable::QueryPort(device_.context(), device_.port(), &port)) {
    return absl::InternalError(absl::StrFormat(
        "%s: ibv_query_port: %s", device_.name(), VerbsErrorText(e)));
  }
  const uint32_t port_mtu = BytesOf(port.active_mtu);
  if (port_mtu <= options_.mtu) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "MTU %u, but port %u of %s has one of %u or more: a longer frame would "
      "find no room. Use the port's MTU",
      options_.mtu, device_.port(), device_.name(), port_mtu));
}

// All header slots, in one registration.
absl::Status VerbsPacketIo::SetUpMemory() {
  const uint32_t send_wrs =
      std::bit_floor(std::min(options_.send_ring_wrs, device_.max_qp_wr()));
  data_ring_wrs_ =
      std::bit_floor(std::min(options_.data_ring_wrs, device_.max_qp_wr()));
  if (send_wrs < kMinRingWrs || data_ring_wrs_ < kMinRingWrs ||
      options_.max_data_queues >= kMaxQueues - 1) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "rings of %u sends and %u receives, %u data queues: at least %u each "
        "and at most %u queues (the device has room for %u)",
        options_.send_ring_wrs, options_.data_ring_wrs,
        options_.max_data_queues, kMinRingWrs, kMaxQueues - 2,
        device_.max_qp_wr()));
  }
  absl::StatusOr<HostArena> headers = HostArena::Create(
      device_.pd(), size_t{send_wrs} * TxRing::kHeaderStride +
                        size_t{options_.max_data_queues} * data_ring_wrs_ *
                            RxRing::kHeaderStride);
  if (!headers.ok()) return headers.status();
  headers_.emplace(*std::move(headers));
  tx_ = std::make_unique<TxRing>(
      TxRing::Options{.depth = send_wrs,
                      .headers = headers_->data(),
                      .headers_lkey = headers_->lkey()});
  return absl::OkStatus();
}

absl::Status VerbsPacketIo::SetUpCompletions(uint32_t rx_cqes,
                                             uint32_t send_wrs) {
  ibv_context* const context = device_.context();
  if (options_.bell != nullptr) {
    channel_.reset(verbs().create_comp_channel(context));
    if (channel_ == nullptr || fcntl(channel_->fd, F_SETFL, O_NONBLOCK) != 0) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("%s: ibv_create_comp_channel: %s. Without one the "
                          "engine cannot sleep: use a mode that polls",
                          device_.name(), VerbsErrorText(errno)));
    }
  }
  rx_cq_.reset(verbs().create_cq(context, static_cast<int>(rx_cqes), nullptr,
                                 channel_.get(), 0));
  tx_cq_.reset(verbs().create_cq(context, static_cast<int>(send_wrs), nullptr,
                                 channel_.get(), 0));
  if (rx_cq_ != nullptr && tx_cq_ != nullptr) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrFormat("%s: ibv_create_cq of %u entries: %s", device_.name(),
                      rx_cqes, VerbsErrorText(errno)));
}

absl::Status VerbsPacketIo::SetUpQueues(const SlotMemory& control) {
  const uint32_t control_wrs =
      RingDepth(options_.control_ring_wrs, *control.pool);
  const uint32_t rx_cqes =
      control_wrs + options_.max_data_queues * data_ring_wrs_;
  const uint32_t send_wrs = tx_->depth();
  if (std::max(rx_cqes, send_wrs) > device_.max_cqe()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: a completion queue of %u entries, the sum of its rings; the "
        "device has at most %u. Ask for shorter rings or fewer data queues",
        device_.name(), rx_cqes, device_.max_cqe()));
  }
  if (absl::Status s = SetUpCompletions(rx_cqes, send_wrs); !s.ok()) return s;
  control_ = std::make_unique<ControlThread>(
      device_, ControlThread::Options{.mac = limits_.mac,
                                      .max_rules = options_.max_rules,
                                      .bell = options_.bell});
  auto queue = std::make_unique<ReceiveQueue>(RxRing::Options{
      .id = kControlQueue, .depth = control_wrs, .slots = control});
  queues_.reserve(options_.max_data_queues + 1);
  queues_.push_back(std::move(queue));

  ibv_qp* qp = nullptr;
  if (absl::Status s = control_->MakeQueueNow(kControlQueue,
                                              ReceiveQp(queues_[0]->ring), &qp);
      !s.ok()) {
    return s;
  }
  queues_[0]->ring.Attach(qp);
  queues_[0]->state = QueueState::kReady;
  queues_[0]->is_new = false;
  if (absl::Status s =
          control_->MakeQueueNow(kTransmitQueue, SendQp(send_wrs), &qp);
      !s.ok()) {
    return s;
  }
  tx_->Attach(qp);
  tx_state_ = QueueState::kReady;
  return control_->Start();
}

RawQpOptions VerbsPacketIo::ReceiveQp(const RxRing& ring) const {
  RawQpOptions qp;
  qp.pd = device_.pd();
  qp.cq = rx_cq_.get();
  qp.port = device_.port();
  qp.recv_wrs = ring.depth();
  qp.recv_sges = ring.sges();
  qp.strip_vlan = device_.strips_vlan();
  return qp;
}

RawQpOptions VerbsPacketIo::SendQp(uint32_t depth) const {
  RawQpOptions qp;
  qp.pd = device_.pd();
  qp.cq = tx_cq_.get();
  qp.port = device_.port();
  qp.send_wrs = depth;
  qp.send_sges = limits_.max_tx_pieces + 1u;
  qp.max_tso_header =
      limits_.max_tso_payload > 0 ? uint16_t{kMaxTxHeaderBytes} : uint16_t{0};
  return qp;
}

uint32_t VerbsPacketIo::RingDepth(uint32_t wanted, const FragPool& pool) const {
  return std::bit_floor(
      std::min({wanted, device_.max_qp_wr(), pool.slot_count() / kPoolShare}));
}

uint32_t VerbsPacketIo::SplitOf(HeaderShape shape) const {
  constexpr uint32_t kVlanTagBytes = 4;  // IEEE 802.1Q 9.6
  return SplitBytes(shape) + (device_.strips_vlan() ? 0 : kVlanTagBytes);
}

absl::Status VerbsPacketIo::AddPool(FragPool& pool,
                                    const RegisteredRegion& region) {
  if (absl::Status status = CheckPool({.slot_count = pool.slot_count(),
                                       .slot_bytes = pool.slot_bytes(),
                                       .region_bytes = region.bytes()});
      !status.ok()) {
    return status;
  }
  const SlotMemory slots{
      .pool = &pool, .addr = region.iova(), .lkey = region.lkey()};
  if (!pools_.try_emplace(pool.id(), slots).second) {
    return absl::AlreadyExistsError(absl::StrFormat(
        "pool %u is there already", static_cast<uint16_t>(pool.id())));
  }
  return absl::OkStatus();
}

absl::Status VerbsPacketIo::CheckPool(const PoolShape& shape) const {
  const uint32_t frame_bytes = options_.mtu + device_.link_header_bytes();
  const uint32_t payload_bytes =
      frame_bytes - SplitOf(HeaderShape::kIpv4Timestamps);
  if (shape.slot_bytes < payload_bytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "slots of %u bytes cannot hold the payload of MTU %u: %u bytes are "
        "needed",
        shape.slot_bytes, options_.mtu, payload_bytes));
  }
  if (shape.slot_count > FragPool::kMaxSlots) {
    const uint64_t bytes = shape.slot_count * shape.slot_bytes;
    return absl::InvalidArgumentError(absl::StrFormat(
        "%u slots of %u bytes: a pool has at most %u. Ask for slots of %u "
        "bytes, or receive into %u bytes of the region",
        shape.slot_count, shape.slot_bytes, FragPool::kMaxSlots,
        std::bit_ceil((bytes - 1) / FragPool::kMaxSlots + 1),
        uint64_t{FragPool::kMaxSlots} * shape.slot_bytes));
  }
  const uint64_t pool_bytes = shape.slot_count * shape.slot_bytes;
  if (pool_bytes > shape.region_bytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "region of %u bytes is smaller than its pool: %u slots of %u bytes "
        "are %u",
        shape.region_bytes, shape.slot_count, shape.slot_bytes, pool_bytes));
  }
  if (shape.slot_count < kPoolShare * kMinRingWrs) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "region smaller than its receive ring needs: %u slots of %u bytes; at "
        "least %u slots, %u bytes",
        shape.slot_count, shape.slot_bytes, kPoolShare * kMinRingWrs,
        uint64_t{kPoolShare * kMinRingWrs} * shape.slot_bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<QueueId> VerbsPacketIo::OpenDataQueue(PoolId id,
                                                     HeaderShape shape) {
  const auto found = pools_.find(id);
  if (found == pools_.end() || id == queues_[0]->ring.pool().id()) {
    return absl::NotFoundError(absl::StrFormat("no data pool %u: AddPool first",
                                               static_cast<uint16_t>(id)));
  }
  for (const auto& queue : queues_) {
    if (queue->ring.id() == kControlQueue || queue->shape != shape ||
        queue->ring.pool().id() != id) {
      continue;
    }
    if (queue->state != QueueState::kDropped) return queue->ring.id();
    return absl::FailedPreconditionError(absl::StrFormat(
        "the queue of pool %u is gone: its region was revoked, or the device "
        "refused to make it again",
        static_cast<uint16_t>(id)));
  }
  if (queues_.size() > options_.max_data_queues) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("all %u data queues are in use; open the stack with "
                        "more",
                        options_.max_data_queues));
  }
  const SlotMemory& slots = found->second;
  const uint32_t frame_bytes = options_.mtu + device_.link_header_bytes();
  if (SplitOf(shape) + slots.pool->slot_bytes() < frame_bytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "slots of %u bytes behind %u bytes of header cannot hold a frame of "
        "MTU %u",
        slots.pool->slot_bytes(), SplitOf(shape), options_.mtu));
  }
  const size_t index = queues_.size();
  const size_t headers_at =
      size_t{tx_->depth()} * TxRing::kHeaderStride +
      (index - 1) * data_ring_wrs_ * RxRing::kHeaderStride;
  auto queue = std::make_unique<ReceiveQueue>(
      RxRing::Options{.id = QueueId{static_cast<uint8_t>(index)},
                      .depth = RingDepth(data_ring_wrs_, *slots.pool),
                      .split_bytes = SplitOf(shape),
                      .slots = slots,
                      .headers = {.host = headers_->data() + headers_at,
                                  .lkey = headers_->lkey()}});
  queue->shape = shape;
  const QueueId queue_id = queue->ring.id();
  control_->MakeQueue(queue_id, ReceiveQp(queue->ring));
  queues_.push_back(std::move(queue));
  return queue_id;
}

uint32_t VerbsPacketIo::PostedReceives(QueueId queue) const {
  return queues_[static_cast<size_t>(queue)]->ring.outstanding();
}

}  // namespace devwire
