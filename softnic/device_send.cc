// Sending: from a send queue to the port and to the completion.
#include <algorithm>
#include <cstring>

#include "softnic/device_core.h"

namespace softnic {
namespace {

// What mlx5 reports in vendor_err of a flushed work request.
constexpr uint32_t kVendorFlushed = 0xf9;
// IP's length field.
constexpr uint32_t kMaxIpBytes = 65535;

}  // namespace

bool DeviceCore::Send(QueuePair& qp) {
  bool moved = false;
  while (qp.state() == IBV_QPS_RTS && qp.has_to_send() && !qp.error_pending) {
    SendWqe& wqe = *qp.next_to_send();
    if (IsTooEarly(wqe)) break;
    if (has_work_faults_ && !qp.is_fault_decided) {
      qp.is_fault_decided = true;
      FaultConfig& faults = config_.faults;
      if (HitsQpError(qp)) break;
      if (HitsFault(faults.cqe_error, &faults.cqe_error_at)) {
        FailSend(qp, IBV_WC_LOC_QP_OP_ERR);
        break;
      }
    }
    if (!SendOne(qp, wqe)) break;
    moved = true;
  }
  port_->Flush();
  moved |= Reap(qp);
  if (qp.state() == IBV_QPS_ERR) Flush(qp);
  return moved;
}

bool DeviceCore::SendOne(QueuePair& qp, const SendWqe& wqe) {
  if (!Gather(qp, *qp.next_to_send())) {
    FailSend(qp, IBV_WC_LOC_PROT_ERR);
    return true;
  }
  if (has_work_faults_ && HitsSendRevocation()) {
    FailSend(qp, IBV_WC_LOC_PROT_ERR);
    return true;
  }
  return wqe.mss > 0 ? SendTso(qp, *qp.next_to_send()) : SendPlain(qp, wqe);
}

// Resolves the memory of the send at hand into gathered_.
bool DeviceCore::Gather(QueuePair& qp, SendWqe& wqe) {
  gathered_.count = 0;
  gathered_.length = 0;
  if (wqe.mss == 0 && wqe.inline_bytes > 0) {
    ResolvedSge& data = gathered_.sges[gathered_.count++];
    data = {nullptr, reinterpret_cast<std::byte*>(&wqe) + qp.send_inline_at(),
            0, wqe.inline_bytes};
    gathered_.length = wqe.inline_bytes;
    return true;
  }
  for (uint32_t i = 0; i < wqe.num_sge; ++i) {
    const ibv_sge& sge = wqe.sge()[i];
    if (sge.length == 0) continue;  // mlx5 skips them.
    ResolvedSge& out = gathered_.sges[gathered_.count];
    if (!mrs_.Resolve(sge, qp.spec().pd, /*writes=*/false, &out)) return false;
    if (out.local == nullptr) {
      const bool is_late = config_.faults.late_gather > devwire::Duration();
      out.local = stage_.Find(qp, mrs_, i, is_late ? 1 : SendStage::kMaxWqes);
      if (out.local == nullptr) return false;
    }
    gathered_.length += sge.length;
    ++gathered_.count;
  }
  return true;
}

// Copies the start of the gathered bytes into header_ until all headers are
// there, or `limit` bytes are. Returns how many it copied.
uint32_t DeviceCore::FillHeader(uint32_t limit) {
  uint32_t filled = 0;
  for (size_t i = 0; i < gathered_.count && filled < limit; ++i) {
    const ResolvedSge& sge = gathered_.sges[i];
    const uint32_t n = std::min(sge.length, limit - filled);
    memcpy(header_.data() + filled, sge.local, n);
    filled += n;
  }
  return filled;
}

// The bytes [from, to) of what was gathered.
std::span<const Piece> DeviceCore::MakePieces(uint32_t from, uint32_t to) {
  size_t count = 0;
  uint32_t start = 0;
  for (size_t i = 0; i < gathered_.count && start < to; ++i) {
    const ResolvedSge& sge = gathered_.sges[i];
    const uint32_t low = std::max(from, start);
    const uint32_t high = std::min(to, start + sge.length);
    if (low < high) {
      Piece& piece = pieces_[count++];
      piece.data = sge.local + (low - start);
      piece.length = high - low;
      piece.region = sge.mr == nullptr ? kNoRegion : sge.mr->region;
      piece.region_offset =
          piece.region == kNoRegion
              ? 0
              : static_cast<uint64_t>(piece.data - sge.mr->base);
    }
    start += sge.length;
  }
  return {pieces_.data(), count};
}

void DeviceCore::CountGathered(uint32_t payload_from, uint32_t payload_to) {
  uint32_t start = 0;
  for (size_t i = 0; i < gathered_.count; ++i) {
    const ResolvedSge& sge = gathered_.sges[i];
    const uint32_t low = std::max(payload_from, start);
    const uint32_t high = std::min(payload_to, start + sge.length);
    const uint32_t payload = low < high ? high - low : 0;
    if (sge.mr != nullptr && sge.mr->spec.is_dmabuf) {
      shared_->gathered_dmabuf_bytes.Add(sge.length);
      shared_->payload_gathered_dmabuf_bytes.Add(payload);
    } else {
      shared_->gathered_host_bytes.Add(sge.length);
      shared_->payload_gathered_host_bytes.Add(payload);
    }
    start += sge.length;
  }
}

bool DeviceCore::IsLooped(const TxFrame& frame) const {
  return config_.loopback &&
         memcmp(frame.header.data(), config_.mac.data(), 6) == 0;
}

bool DeviceCore::MayOweChecksum(const TxFrame& frame) const {
  if (config_.verify) return false;
  return IsLooped(frame) || port_->offloads().checksum;
}

// The frame's header lies in header_.
void DeviceCore::InsertChecksums(const ParsedFrame& parsed, TxFrame* frame) {
  std::byte* head = header_.data();
  WriteIpChecksum(parsed, head);
  if (parsed.layout.l4_offset == 0) return;
  WriteOwedL4Checksum(parsed, head);
  if (MayOweChecksum(*frame)) {
    frame->l4_checksum_owed = true;
  } else {
    FinishOwedChecksum(parsed, head, {frame->header, frame->pieces});
  }
}

bool DeviceCore::SendPlain(QueuePair& qp, const SendWqe& wqe) {
  const uint32_t length = gathered_.length;
  constexpr auto kLimit = static_cast<uint32_t>(Segmenter::kMaxHeaderBytes);
  const uint32_t filled = FillHeader(std::min(length, kLimit));
  const std::span<const std::byte> head(header_.data(), filled);
  const ParsedFrame parsed = ParseFrame(head, length);
  const uint32_t tag = parsed.has_vlan ? kVlanTagBytes : 0;
  const bool is_malformed = length < kEthernetBytes;
  if (is_malformed || length > config_.mtu + kEthernetBytes + tag) {
    (is_malformed ? shared_->tx_malformed : shared_->tx_too_long).Add();
    qp.OnSent(port_->sent(), IBV_WC_SUCCESS);
    return true;
  }

  TxFrame frame;
  frame.layout = parsed.layout;
  frame.length = length;
  // Host bytes that follow the headers closely go along with them; payload in
  // a region is left to the port.
  uint32_t header_bytes = filled;
  if (parsed.layout.payload_offset > 0) {
    uint32_t host = 0;
    for (size_t i = 0; i < gathered_.count; ++i) {
      const Mr* mr = gathered_.sges[i].mr;
      if (mr != nullptr && mr->spec.is_dmabuf) break;
      host += gathered_.sges[i].length;
    }
    header_bytes =
        std::clamp<uint32_t>(host, parsed.layout.payload_offset, filled);
  }
  frame.pieces = MakePieces(header_bytes, length);
  frame.header = head.first(header_bytes);
  if (wqe.wants_checksum) InsertChecksums(parsed, &frame);
  if (!SendFrame(frame)) return false;
  if (parsed.layout.payload_offset > 0) {
    CountGathered(parsed.layout.payload_offset,
                  parsed.layout.l3_offset + parsed.ip_total_length);
  } else {
    CountGathered(0, 0);
  }
  qp.OnSent(port_->sent(), IBV_WC_SUCCESS);
  return true;
}

bool DeviceCore::SendTso(QueuePair& qp, SendWqe& wqe) {
  const std::span<const std::byte> header(
      reinterpret_cast<std::byte*>(&wqe) + qp.send_inline_at(),
      wqe.inline_bytes);
  if (!segmenter_.Start(header, gathered_.length, wqe.mss)) {
    FailSend(qp, IBV_WC_LOC_QP_OP_ERR);
    return true;
  }
  memcpy(header_.data(), header.data(), header.size());
  TxFrame frame;
  frame.layout = segmenter_.layout();
  frame.header = {header_.data(), header.size()};
  const uint32_t ip_bytes = static_cast<uint32_t>(header.size()) -
                            frame.layout.l3_offset + gathered_.length;
  if (port_->offloads().segmentation && !IsLooped(frame) &&
      MayOweChecksum(frame) && ip_bytes <= kMaxIpBytes &&
      segmenter_.count() > 1) {
    return SendSuperFrame(qp, wqe);
  }

  const uint32_t limit = config_.mtu + frame.layout.l3_offset;
  for (uint32_t i = qp.tso_done; i < segmenter_.count(); ++i) {
    const uint32_t from = segmenter_.PayloadFrom(i);
    const uint32_t bytes = segmenter_.PayloadBytes(i);
    frame.length = segmenter_.header_bytes() + bytes;
    if (frame.length > limit) {
      shared_->tx_too_long.Add();
      continue;
    }
    segmenter_.WriteHeader(i, header_.data());
    frame.pieces = MakePieces(from, from + bytes);
    frame.l4_checksum_owed = MayOweChecksum(frame);
    if (!frame.l4_checksum_owed) {
      const ParsedFrame parsed = ParseFrame(frame.header, frame.length);
      FinishOwedChecksum(parsed, header_.data(), {frame.header, frame.pieces});
    }
    if (!SendFrame(frame)) {
      qp.tso_done = i;
      return false;
    }
  }
  CountGathered(0, gathered_.length);
  qp.OnSent(port_->sent(), IBV_WC_SUCCESS);
  return true;
}

// One frame for all segments: the port, or the kernel behind it, cuts it.
bool DeviceCore::SendSuperFrame(QueuePair& qp, const SendWqe& wqe) {
  TxFrame frame;
  frame.layout = segmenter_.layout();
  frame.header = {header_.data(), segmenter_.header_bytes()};
  frame.length = segmenter_.header_bytes() + gathered_.length;
  frame.mss = wqe.mss;
  frame.pieces = MakePieces(0, gathered_.length);
  std::byte* ip = header_.data() + frame.layout.l3_offset;
  const uint32_t ip_bytes = frame.length - frame.layout.l3_offset;
  if (frame.layout.ip_version == 4) {
    Store16(ip + 2, static_cast<uint16_t>(ip_bytes));
  } else {
    Store16(ip + 4, static_cast<uint16_t>(ip_bytes - 40));
  }
  InsertChecksums(ParseFrame(frame.header, frame.length), &frame);
  if (!SendFrame(frame)) return false;
  CountGathered(0, gathered_.length);
  qp.OnSent(port_->sent(), IBV_WC_SUCCESS);
  return true;
}

// IEEE 802.3 4A.2.3.2.4: short frames are padded. The header lies in header_,
// which has room.
void DeviceCore::Pad(TxFrame* frame) {
  size_t at = frame->header.size();
  for (const Piece& piece : frame->pieces) {
    memcpy(header_.data() + at, piece.data, piece.length);
    at += piece.length;
  }
  memset(header_.data() + at, 0, kMinFrameBytes - at);
  frame->header = {header_.data(), kMinFrameBytes};
  frame->pieces = {};
  frame->length = kMinFrameBytes;
}

bool DeviceCore::SendFrame(TxFrame frame) {
  if (frame.length < kMinFrameBytes) Pad(&frame);
  if (!config_.faults.link_up) {
    shared_->tx_link_down.Add();
    return true;
  }
  if (IsLooped(frame)) {
    std::array<Piece, kMaxSge + 2> pieces;
    pieces[0] = {frame.header.data(),
                 static_cast<uint32_t>(frame.header.size()), kNoRegion, 0};
    std::copy(frame.pieces.begin(), frame.pieces.end(), pieces.begin() + 1);
    RxFrame in;
    in.pieces = {pieces.data(), frame.pieces.size() + 1};
    in.length = frame.length;
    in.checksum =
        frame.l4_checksum_owed ? RxChecksum::kOwed : RxChecksum::kUnknown;
    shared_->tx_looped.Add();
    OnFrame(in);
  } else if (port_->Send(frame)) {
    if (pcap_ != nullptr) pcap_->OnSend(frame, clock_->Now());
  } else {
    return false;
  }
  shared_->tx_frames.Add();
  shared_->tx_bytes.Add(frame.length);
  return true;
}

void DeviceCore::FailSend(QueuePair& qp, ibv_wc_status status) {
  qp.OnSent(port_->sent(), status);
  qp.error_pending = true;
}

// Completes, in order, what the port has finished with.
bool DeviceCore::Reap(QueuePair& qp) {
  if (!qp.has_on_port()) return false;
  bool moved = false;
  const uint64_t completed = port_->completed();
  while (qp.has_on_port() && qp.oldest_on_port().ticket <= completed) {
    const ibv_wc_status status = qp.oldest_on_port().status;
    const SendWqe& wqe = *qp.oldest_send();
    const uint64_t wr_id = wqe.wr_id;
    const bool reports = wqe.is_signaled || status != IBV_WC_SUCCESS;
    const auto opcode =
        static_cast<uint16_t>(wqe.mss > 0 ? IBV_WC_TSO : IBV_WC_SEND);
    const uint32_t index = qp.PopSend();
    moved = true;
    if (reports) {
      Cqe entry = {};
      entry.wr_id = wr_id;
      entry.qp_num = qp.number();
      entry.wqe_index = index;
      entry.opcode = opcode;
      entry.status = static_cast<uint8_t>(status);
      entry.is_send = true;
      PushCqe(qp.send_cq(), entry);
    }
    if (status != IBV_WC_SUCCESS) {
      shared_->tx_errors.Add();
      MoveToError(qp);
    }
  }
  return moved;
}

void DeviceCore::MoveToError(QueuePair& qp) {
  qp.set_state(IBV_QPS_ERR);
  qp.error_pending = false;
  Flush(qp);
}

// ERR: all that is posted completes as flushed; sends only behind those that
// the port still reads.
void DeviceCore::Flush(QueuePair& qp) {
  Cqe entry = {};
  entry.qp_num = qp.number();
  entry.status = IBV_WC_WR_FLUSH_ERR;
  entry.vendor_err = kVendorFlushed;
  while (qp.has_recv()) {
    entry.wr_id = qp.next_recv()->wr_id;
    entry.opcode = IBV_WC_RECV;
    entry.is_send = false;
    entry.wqe_index = qp.PopRecv();
    shared_->flushed.Add();
    PushCqe(qp.recv_cq(), entry);
  }
  while (!qp.has_on_port() && qp.has_sends()) {
    entry.wr_id = qp.oldest_send()->wr_id;
    entry.opcode = IBV_WC_SEND;
    entry.is_send = true;
    entry.wqe_index = qp.PopSend();
    shared_->flushed.Add();
    PushCqe(qp.send_cq(), entry);
  }
}

void DeviceCore::PushCqe(CompletionQueue* cq, const Cqe& entry) {
  ++pushed_;
  const bool had_overrun = cq->has_overrun();
  if (cq->Push(entry) || had_overrun) return;
  // InfiniBand specification 11.6.3.1: the queue is unusable from here on, and
  // whatever completes there too.
  shared_->cq_overruns.Add();
  Raise(cq->context(), IBV_EVENT_CQ_ERR, cq->number());
  for (QueuePair* qp : qp_list_) {
    if (qp->send_cq() != cq && qp->recv_cq() != cq) continue;
    qp->set_state(IBV_QPS_ERR);
    Raise(qp->spec().context, IBV_EVENT_QP_FATAL, qp->number());
  }
}

}  // namespace softnic
