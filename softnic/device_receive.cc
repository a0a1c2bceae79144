// Receiving: from the port through the rules into memory and to the completion.
#include <algorithm>
#include <cstring>

#include "softnic/device_core.h"

namespace softnic {
namespace {

constexpr std::byte kZeros[kMinFrameBytes] = {};
constexpr uint32_t kMacPairBytes = 12;

}  // namespace

void DeviceCore::OnFrame(const RxFrame& frame) {
  ++received_;
  if (!config_.faults.link_up) {
    shared_->rx_link_down.Add();
    return;
  }
  if (pcap_ != nullptr) pcap_->OnReceive(frame, clock_->Now());
  Arrival& arrival = arrival_;
  if (!Prepare(frame, &arrival)) return;
  const std::span<const std::byte> head(frame.pieces[0].data,
                                        frame.pieces[0].length);
  if (!IsForUs(head.data())) {
    shared_->rx_foreign_mac.Add();
    return;
  }
  const std::span<const uint32_t> targets =
      flows_.Match(KeyOf(arrival.parsed, head));
  if (targets.empty()) {
    shared_->rx_no_rule.Add();
    return;
  }
  CheckChecksum(frame, &arrival);
  for (const uint32_t number : targets) {
    QueuePair* qp = FindQp(number);
    if (qp != nullptr) Deliver(*qp, arrival);
  }
}

// False: dropped, and counted.
bool DeviceCore::Prepare(const RxFrame& frame, Arrival* arrival) {
  if (frame.pieces.empty() || frame.pieces[0].length < kEthernetBytes ||
      frame.pieces.size() + 2 > Arrival::kMaxRuns) {
    shared_->rx_malformed.Add();
    return false;
  }
  const Piece& first = frame.pieces[0];
  ParsedFrame& parsed = arrival->parsed;
  parsed = ParseFrame({first.data, first.length}, frame.length);
  const uint32_t tag = parsed.has_vlan ? kVlanTagBytes : 0;
  if (frame.length > config_.mtu + kEthernetBytes + tag) {
    shared_->rx_too_long.Add();
    return false;
  }
  arrival->run_count = 0;
  for (const Piece& piece : frame.pieces) {
    arrival->runs[arrival->run_count++] = {piece.data, piece.length};
  }
  arrival->length = frame.length;
  if (frame.length < kMinFrameBytes) {
    arrival->runs[arrival->run_count++] = {kZeros,
                                           kMinFrameBytes - frame.length};
    arrival->length = kMinFrameBytes;
  }
  arrival->wc_flags = 0;
  arrival->payload_from = parsed.layout.payload_offset;
  arrival->payload_to = parsed.layout.payload_offset == 0
                            ? 0
                            : parsed.layout.l3_offset + parsed.ip_total_length;
  return true;
}

bool DeviceCore::IsForUs(const std::byte* dst_mac) const {
  const bool is_group = (dst_mac[0] & std::byte{1}) != std::byte{0};
  return is_group || memcmp(dst_mac, config_.mac.data(), 6) == 0 ||
         flows_.is_promiscuous();
}

// Decides on IBV_WC_IP_CSUM_OK, and pays an owed checksum that nobody vouches
// for to the application.
void DeviceCore::CheckChecksum(const RxFrame& frame, Arrival* arrival) {
  const ParsedFrame& parsed = arrival->parsed;
  if (parsed.layout.l4_offset == 0) return;
  // mlx5 reports IPv4 alone (rdma-core providers/mlx5/cq.c, get_csum_ok).
  const bool reports = config_.rx_csum && (parsed.layout.ip_version == 4 ||
                                           config_.profile == Profile::kFull);
  ChecksumState state = ChecksumState::kGood;
  if (frame.checksum == RxChecksum::kUnknown && reports) {
    state = VerifyFrame(parsed, frame.pieces[0].data, {{}, frame.pieces});
  }
  if (state == ChecksumState::kBad) shared_->rx_bad_checksum.Add();
  if (reports && state == ChecksumState::kGood) {
    arrival->wc_flags = IBV_WC_IP_CSUM_OK;
  }
  if (frame.checksum != RxChecksum::kOwed || (reports && !config_.verify)) {
    return;
  }
  // The headers are split off and patched: the port's bytes are not ours.
  const uint32_t head = parsed.layout.payload_offset;
  memcpy(patched_.data(), frame.pieces[0].data, head);
  FinishOwedChecksum(parsed, patched_.data(), {{}, frame.pieces});
  Run& first = arrival->runs[0];
  if (first.length > head) {
    std::copy_backward(arrival->runs.begin() + 1,
                       arrival->runs.begin() + arrival->run_count,
                       arrival->runs.begin() + arrival->run_count + 1);
    arrival->runs[1] = {first.data + head, first.length - head};
    ++arrival->run_count;
  }
  first = {patched_.data(), head};
}

// The frame without its outer 802.1Q tag.
void DeviceCore::StripVlan(const Arrival& from, Arrival* to) const {
  *to = from;
  to->run_count = 0;
  const Run& first = from.runs[0];
  to->runs[to->run_count++] = {first.data, kMacPairBytes};
  const uint32_t skip = kMacPairBytes + kVlanTagBytes;
  to->runs[to->run_count++] = {first.data + skip, first.length - skip};
  for (size_t i = 1; i < from.run_count; ++i) {
    to->runs[to->run_count++] = from.runs[i];
  }
  to->length -= kVlanTagBytes;
  if (to->payload_to > 0) {
    to->payload_from -= kVlanTagBytes;
    to->payload_to -= kVlanTagBytes;
  }
}

// Fills landing_. Anything but success is the receive's status.
ibv_wc_status DeviceCore::ResolveReceive(const QueuePair& qp, RecvWqe& wqe,
                                         uint32_t length) {
  landing_.count = 0;
  landing_.length = 0;
  for (uint32_t i = 0; i < wqe.num_sge; ++i) {
    const ibv_sge& sge = wqe.sge()[i];
    if (sge.length == 0) continue;  // mlx5 skips them.
    ResolvedSge& out = landing_.sges[landing_.count];
    if (!mrs_.Resolve(sge, qp.spec().pd, /*writes=*/true, &out)) {
      return IBV_WC_LOC_PROT_ERR;
    }
    landing_.length += sge.length;
    ++landing_.count;
  }
  return length > landing_.length ? IBV_WC_LOC_LEN_ERR : IBV_WC_SUCCESS;
}

void DeviceCore::Deliver(QueuePair& qp, const Arrival& whole) {
  if (!qp.can_receive()) {
    shared_->rx_not_ready.Add();
    return;
  }
  if (!qp.has_recv()) {
    shared_->rx_no_receive.Add();
    return;
  }
  if (has_work_faults_ && HitsQpError(qp)) return;
  const bool strips = qp.spec().strips_vlan && whole.parsed.has_vlan;
  if (strips) StripVlan(whole, &stripped_);
  const Arrival& arrival = strips ? stripped_ : whole;

  RecvWqe& wqe = *qp.next_recv();
  ibv_wc_status status = ResolveReceive(qp, wqe, arrival.length);
  if (has_work_faults_) status = FaultOnReceive(status);
  Cqe entry = {};
  entry.wr_id = wqe.wr_id;
  entry.qp_num = qp.number();
  entry.wqe_index = qp.PopRecv();
  entry.opcode = IBV_WC_RECV;
  entry.status = static_cast<uint8_t>(status);
  if (status == IBV_WC_SUCCESS) {
    Scatter(arrival);
    entry.byte_len = arrival.length;
    entry.wc_flags = arrival.wc_flags;
    shared_->rx_delivered.Add();
    shared_->rx_delivered_bytes.Add(arrival.length);
  } else {
    shared_->rx_errors.Add();
  }
  PushCqe(qp.recv_cq(), entry);
  if (status != IBV_WC_SUCCESS) MoveToError(qp);
}

// Fills the SGEs strictly in order; they have room.
void DeviceCore::Scatter(const Arrival& arrival) {
  size_t s = 0;
  uint32_t in_sge = 0;
  uint32_t at = 0;  // in the frame
  for (size_t r = 0; r < arrival.run_count; ++r) {
    Run run = arrival.runs[r];
    while (run.length > 0) {
      const ResolvedSge& sge = landing_.sges[s];
      const uint32_t n = std::min(run.length, sge.length - in_sge);
      Land(run.data, sge, in_sge, n);
      CountLanded(arrival, *sge.mr, at, at + n);
      run.data += n;
      run.length -= n;
      at += n;
      in_sge += n;
      if (in_sge == sge.length) {
        ++s;
        in_sge = 0;
      }
    }
  }
}

void DeviceCore::Land(const std::byte* from, const ResolvedSge& sge,
                      uint32_t at, uint32_t bytes) {
  if (sge.local == nullptr) {
    memcpy(host_.StageWrite(sge.remote + at, bytes), from, bytes);
    return;
  }
  const devwire::Duration late = config_.faults.late_scatter;
  if (late > devwire::Duration() && sge.mr->spec.is_dmabuf) {
    late_writes_.push_back(
        {clock_->Now() + late, sge.mr->lkey,
         static_cast<uint64_t>(sge.local - sge.mr->base) + at,
         std::vector<std::byte>(from, from + bytes)});
    shared_->late_scatters.Add();
    return;
  }
  memcpy(sge.local + at, from, bytes);
}

void DeviceCore::CountLanded(const Arrival& arrival, const Mr& mr,
                             uint32_t from, uint32_t to) {
  const uint32_t low = std::max(from, arrival.payload_from);
  const uint32_t high = std::min(to, arrival.payload_to);
  const uint32_t payload = low < high ? high - low : 0;
  if (mr.spec.is_dmabuf) {
    shared_->landed_dmabuf_bytes.Add(to - from);
    shared_->payload_landed_dmabuf_bytes.Add(payload);
  } else {
    shared_->landed_host_bytes.Add(to - from);
    shared_->payload_landed_host_bytes.Add(payload);
  }
}

}  // namespace softnic
