// What one stream has queued for sending, as spans of registered memory in
// stream order, and when each may be reported as the application's again.
//
//   head                    unsent
//    |  sent, not acked       |    not sent      |
//    v                        v                  v
//   [ span | span | span | span | span | span ]  end
//
// A span is done when all its bytes are acknowledged AND no posted work
// request refers to it: `ticket` is the last one that did. Without the second
// condition a retransmission in flight would read memory that the application
// has begun to overwrite. Spans finish in order.
//
// Threads: none of its own. Cost: no allocation after construction; Gather is
// O(pieces) for new data and O(log spans) for a retransmission.
#ifndef TRANSPORT_ENGINE_SEND_QUEUE_H_
#define TRANSPORT_ENGINE_SEND_QUEUE_H_

#include <cstdint>
#include <span>

#include "base/ring.h"
#include "transport/packet_io.h"
#include "transport/tcp/connection.h"

namespace devwire {

class SendQueue final : public SendSource {
 public:
  struct Span {
    uint64_t start = 0;  // Stream offset of its first byte.
    uint64_t addr = 0;   // iova
    uint32_t length = 0;
    uint32_t lkey = 0;
    uint64_t ticket = 0;     // Of the last work request; 0: none.
    uint64_t cookie = 0;     // Device: the caller's. Host: the buffer's index.
    bool is_host = false;    // Bytes of a host send buffer.
    bool ends_send = false;  // Device: the last span of one SendDevice().
  };

  // `max_pieces`: of one frame, at most kMaxTxPieces.
  explicit SendQueue(size_t max_spans, size_t max_pieces = kMaxTxPieces)
      : spans_(max_spans), max_pieces_(max_pieces) {}

  size_t free_spans() const { return spans_.capacity() - spans_.size(); }
  bool empty() const { return spans_.empty(); }
  uint64_t end() const { return end_; }
  // The stream offset after the oldest span; not when empty.
  uint64_t front_end() const {
    return spans_.front().start + spans_.front().length;
  }
  // The last work request that refers to it; 0: none.
  uint64_t front_ticket() const { return spans_.front().ticket; }

  // Whether any of it lies in the memory of this key. O(spans); set-up path.
  bool IsFrom(uint32_t lkey) const;

  // Appends; `start` is set here. There must be a free span.
  void Push(Span span);
  // The newest span, to be grown in place while its buffer has room; null when
  // there is none.
  Span* newest() { return spans_.empty() ? nullptr : &spans_.back(); }
  void GrowNewest(uint32_t bytes);

  // Fills `pieces` for stream bytes [offset, offset + length), at most
  // pieces.size(). Returns the bytes covered: less than length when the pieces
  // run out. The bytes must be queued and not done.
  uint32_t Gather(uint64_t offset, uint32_t length, std::span<TxPiece> pieces,
                  size_t* piece_count);
  // SendSource: what one frame can gather of [offset, offset + want): at most
  // max_pieces, and of one memory of the application's beside our own buffers,
  // so that a frame whose memory was revoked says which.
  uint32_t GatherableBytes(uint64_t offset, uint32_t want) const override;
  // The work request that carries [offset, offset + length) has this ticket.
  void Posted(uint64_t offset, uint32_t length, uint64_t ticket);

  // The oldest span when it is done, else null: acked is the stream offset
  // that the peer acknowledged up to. With `abandoned` acknowledgment is not
  // waited for, posted work requests are.
  const Span* Done(uint64_t acked, uint64_t tx_completed, bool abandoned) const;
  void PopDone();

 private:
  size_t Find(uint64_t offset) const;

  Ring<Span> spans_;
  const size_t max_pieces_;
  uint64_t start_ = 0;
  uint64_t end_ = 0;
  mutable size_t hint_ = 0;  // Where the last Gather() ended: a span's index.
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_SEND_QUEUE_H_
