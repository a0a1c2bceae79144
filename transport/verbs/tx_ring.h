// The send queue: header slots, batches, and how far the NIC has got.
//
// A frame is one work request: the header slot, then the pieces of payload, or
// with TSO the header in the request and the pieces alone. Only every
// kSignalEvery-th request asks for a completion, and the last of each flush;
// sends complete in order, so one completion speaks for all before it.
//
// Tickets count frames from 1. completed() is the last of which nothing in the
// NIC refers to any memory any more.
//
//   completed_            posted_          queued_
//       | given to the NIC   | TxFlush() due   |  at most depth in all
//
// Threads:  the engine's.
// Cost:     no allocation; one doorbell per Flush().
#ifndef TRANSPORT_VERBS_TX_RING_H_
#define TRANSPORT_VERBS_TX_RING_H_

#include <infiniband/verbs.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "transport/packet_io.h"

namespace devwire {

class TxRing {
 public:
  struct Options {
    uint32_t depth = 0;            // A power of two.
    std::byte* headers = nullptr;  // depth * kHeaderStride bytes.
    uint32_t headers_lkey = 0;
  };
  static constexpr uint32_t kHeaderStride = 192;
  static_assert(kHeaderStride >= kMaxTxHeaderBytes);
  static constexpr size_t kMaxSges = kMaxTxPieces + 1;
  static constexpr size_t kBatch = 32;  // Requests per doorbell at most.
  static constexpr uint64_t kSignalEvery = 32;

  explicit TxRing(const Options& options);

  uint32_t depth() const { return options_.depth; }

  // The new queue pair. Whatever the old one had not sent is lost.
  void Attach(ibv_qp* qp);
  // The pair is in error: nothing is posted until the next Attach().
  void Detach() { qp_ = nullptr; }
  // The pair is destroyed: all that was queued refers to nothing now. Returns
  // the frames lost.
  uint64_t Recover();

  // Null: full, or no pair.
  std::byte* Header();
  uint64_t Post(const TxFrame& frame);
  void Flush();
  // The pair has refused a request (an errno), also in a flush that a full
  // batch made: nothing more is posted, and it must be rebuilt. 0: no.
  int refusal() const { return refusal_; }

  bool Owns(uint64_t wr_id) const;
  // In success, or flushed: everything up to it is done.
  void OnCompleted(uint64_t wr_id);
  // The keys of the memory that this request sends from.
  std::span<const uint32_t> LkeysOf(uint64_t wr_id) const;

  uint64_t completed() const { return completed_; }
  uint64_t queued() const { return queued_; }
  bool is_idle() const { return posted_ == completed_; }

 private:
  struct Lkeys {
    std::array<uint32_t, kMaxTxPieces> key;
    uint8_t count = 0;
  };
  static constexpr int kTicketBits = 40;

  std::byte* HeaderAt(uint64_t ticket) const {
    return options_.headers + (ticket & mask_) * kHeaderStride;
  }
  uint64_t TicketOf(uint64_t wr_id) const;

  const Options options_;
  const uint64_t mask_;
  ibv_qp* qp_ = nullptr;
  uint64_t epoch_ = 0;
  uint64_t completed_ = 0;
  uint64_t posted_ = 0;
  uint64_t queued_ = 0;
  size_t batch_ = 0;
  int refusal_ = 0;
  std::array<ibv_send_wr, kBatch> wrs_{};
  std::array<std::array<ibv_sge, kMaxSges>, kBatch> sges_;
  std::vector<Lkeys> lkeys_;  // By ticket.
};

}  // namespace devwire

#endif  // TRANSPORT_VERBS_TX_RING_H_
