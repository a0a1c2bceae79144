#include "transport/verbs/tx_ring.h"

#include <bit>
#include <span>

#include "base/check.h"
#include "memreg/verbs_library.h"

namespace devwire {
namespace {

// wr_id: | kTransmitQueue 8 | epoch 16 | ticket, low 40 bits |.
constexpr uint64_t kQueueTag = uint64_t{255} << 56;

}  // namespace

TxRing::TxRing(const Options& options)
    : options_(options), mask_(options.depth - 1), lkeys_(options.depth) {
  CHECK(std::has_single_bit(options.depth));
}

void TxRing::Attach(ibv_qp* qp) {
  CHECK(batch_ == 0 && completed_ == queued_);
  qp_ = qp;
  refusal_ = 0;
  epoch_ = (epoch_ + 1) & 0xffff;
}

uint64_t TxRing::Recover() {
  const uint64_t lost = queued_ - completed_;
  qp_ = nullptr;
  batch_ = 0;
  completed_ = posted_ = queued_;
  return lost;
}

std::byte* TxRing::Header() {
  if (qp_ == nullptr || queued_ - completed_ >= options_.depth) return nullptr;
  return HeaderAt(queued_ + 1);
}

uint64_t TxRing::Post(const TxFrame& frame) {
  DCHECK_LE(frame.header_bytes, kMaxTxHeaderBytes);
  DCHECK_LE(frame.piece_count, kMaxTxPieces);
  const uint64_t ticket = ++queued_;
  // The pair went into error since Header(): the frame is lost with the rest.
  if (qp_ == nullptr) return ticket;

  ibv_send_wr& wr = wrs_[batch_];
  ibv_sge* sge = sges_[batch_].data();
  wr.wr_id = kQueueTag | (epoch_ << kTicketBits) |
             (ticket & ((uint64_t{1} << kTicketBits) - 1));
  wr.sg_list = sge;
  wr.next = nullptr;
  wr.send_flags = 0;
  if (frame.insert_checksums) wr.send_flags |= IBV_SEND_IP_CSUM;
  if (ticket % kSignalEvery == 0) wr.send_flags |= IBV_SEND_SIGNALED;
  if (frame.tso_mss != 0) {
    wr.opcode = IBV_WR_TSO;
    wr.tso.hdr = HeaderAt(ticket);
    wr.tso.hdr_sz = static_cast<uint16_t>(frame.header_bytes);
    wr.tso.mss = frame.tso_mss;
  } else {
    wr.opcode = IBV_WR_SEND;
    sge->addr = reinterpret_cast<uint64_t>(HeaderAt(ticket));
    sge->length = frame.header_bytes;
    sge->lkey = options_.headers_lkey;
    ++sge;
  }
  Lkeys& lkeys = lkeys_[ticket & mask_];
  lkeys.count = frame.piece_count;
  for (size_t i = 0; i < frame.piece_count; ++i, ++sge) {
    const TxPiece& piece = frame.pieces[i];
    *sge = {.addr = piece.addr, .length = piece.length, .lkey = piece.lkey};
    lkeys.key[i] = piece.lkey;
  }
  wr.num_sge = static_cast<int>(sge - sges_[batch_].data());
  if (batch_ > 0) wrs_[batch_ - 1].next = &wr;
  if (++batch_ == kBatch) Flush();
  return ticket;
}

void TxRing::Flush() {
  if (batch_ == 0) return;
  if (qp_ != nullptr) {
    wrs_[batch_ - 1].send_flags |= IBV_SEND_SIGNALED;
    ibv_send_wr* bad = nullptr;
    refusal_ = VerbsTable::PostSend(qp_, wrs_.data(), &bad);
    posted_ = queued_;  // Some of them, when it refused.
    if (refusal_ != 0) Detach();
  }
  batch_ = 0;
}

uint64_t TxRing::TicketOf(uint64_t wr_id) const {
  constexpr uint64_t kMask = (uint64_t{1} << kTicketBits) - 1;
  // The one ticket above completed_ with these low bits.
  return completed_ + ((wr_id - completed_) & kMask);
}

bool TxRing::Owns(uint64_t wr_id) const {
  return ((wr_id >> kTicketBits) & 0xffff) == epoch_ &&
         TicketOf(wr_id) <= queued_;
}

void TxRing::OnCompleted(uint64_t wr_id) { completed_ = TicketOf(wr_id); }

std::span<const uint32_t> TxRing::LkeysOf(uint64_t wr_id) const {
  const Lkeys& lkeys = lkeys_[TicketOf(wr_id) & mask_];
  return {lkeys.key.data(), lkeys.count};
}

}  // namespace devwire
