// Frames of streams that move from one queue to another: which of them the
// other queue has brought before. While a rule is put in or taken out, a NIC
// may deliver a frame to both queues; TCP must see it once, or it would take
// the second for a duplicate acknowledgment, or for text that was sent again.
//
// A frame is known by its stream and its headers. The n-th copy on one queue is
// paired with the n-th on the other, so what the peer repeats itself counts as
// often as it did.
//
// Threads:  the engine's. Cost: memory once; a few instructions per frame.
// Limits:   kEntries frames, each in its own place; a newer one takes it, and a
//           copy that comes after that counts as a frame of its own.
#ifndef TRANSPORT_ENGINE_MOVE_FILTER_H_
#define TRANSPORT_ENGINE_MOVE_FILTER_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "transport/wire/tcp_header.h"

namespace devwire {

class MoveFilter {
 public:
  static constexpr size_t kEntries = 1024;

  struct Frame {
    uint32_t stream = 0;
    uint16_t identification = 0;  // IPv4's; 0 over IPv6.
    uint32_t payload_bytes = 0;
    bool is_on_control_queue = false;
  };
  // Notes the frame. True: it came on the other queue before.
  bool IsCopy(const Frame& frame, const TcpHeader& tcp) {
    const uint64_t key = KeyOf(frame, tcp);
    Entry& entry = entries_[key % kEntries];
    const int8_t step = frame.is_on_control_queue ? 1 : -1;
    if (entry.key != key) entry = {key, 0};
    const bool is_copy = entry.balance * step < 0;
    if (entry.balance * step < INT8_MAX) {
      entry.balance = static_cast<int8_t>(entry.balance + step);
    }
    return is_copy;
  }

 private:
  struct Entry {
    uint64_t key = 0;
    int8_t balance = 0;  // Times on the control queue, less on the other.
  };
  static uint64_t Mix(uint64_t key, uint64_t value) {
    key = (key ^ value) * 0x9e3779b97f4a7c15;
    return key ^ (key >> 29);
  }
  // Without SACK blocks: one of the queues may not see them.
  static uint64_t KeyOf(const Frame& frame, const TcpHeader& tcp) {
    const auto pair = [](uint32_t high, uint32_t low) {
      return uint64_t{high} << 32 | low;
    };
    uint64_t key = Mix(1, pair(frame.stream, frame.payload_bytes));
    key = Mix(key, pair(tcp.seq.raw(), tcp.ack.raw()));
    key = Mix(key,
              pair(uint32_t{tcp.wnd} << 16 | frame.identification, tcp.flags));
    const auto& stamps = tcp.options.timestamps;
    if (stamps) key = Mix(key, pair(stamps->val, stamps->ecr));
    return key;
  }

  std::array<Entry, kEntries> entries_;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_MOVE_FILTER_H_
