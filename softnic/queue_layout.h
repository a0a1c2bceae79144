// What lies in the arena: the rings through which the front end and the device
// core talk on the data path. One writer per field.
//
//   front end --SendWqe--> [send queue]    --> core
//   front end --RecvWqe--> [receive queue] --> core
//   core      --Cqe------> [completion queue] --> front end
//
// Indices are 32 bits, only grow and wrap; slot of index i is i % depth, and
// depths are powers of two. A work queue's slot is the front end's again when a
// completion of its own or of a later index has been polled, as on hardware.
#ifndef SOFTNIC_QUEUE_LAYOUT_H_
#define SOFTNIC_QUEUE_LAYOUT_H_

#include <infiniband/verbs.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/counter.h"

namespace softnic {

using devwire::kCacheLine;

struct alignas(kCacheLine) QueueHead {
  std::atomic<uint32_t> produced{0};
};

// Followed by `num_sge` ibv_sge, and behind the queue's whole SGE array by
// `inline_bytes` bytes: inline data, or the header of a TSO send.
struct SendWqe {
  uint64_t wr_id;
  int64_t posted_ns;  // for late_gather; 0 when that is off
  uint16_t num_sge;
  uint16_t inline_bytes;
  uint16_t mss;  // > 0: TSO
  bool is_signaled;
  bool wants_checksum;
  uint32_t reserved[2];

  ibv_sge* sge() { return reinterpret_cast<ibv_sge*>(this + 1); }
};
static_assert(sizeof(SendWqe) == 32);

struct RecvWqe {
  uint64_t wr_id;
  uint32_t num_sge;
  uint32_t reserved;

  ibv_sge* sge() { return reinterpret_cast<ibv_sge*>(this + 1); }
};
static_assert(sizeof(RecvWqe) == 16);

// Where a queue of work requests lies. Sizes of its slots follow from it.
struct WorkQueueLayout {
  uint64_t head_at = 0;  // QueueHead
  uint64_t slots_at = 0;
  uint32_t depth = 0;  // 0: the queue does not exist
  uint32_t slot_bytes = 0;
  uint32_t max_sge = 0;
  uint32_t inline_at = 0;  // in a SendWqe's slot
};

struct Cqe {
  uint64_t wr_id;
  uint32_t qp_num;  // 0: the queue pair is gone, skip
  uint32_t wqe_index;
  uint32_t byte_len;
  uint32_t wc_flags;
  uint32_t vendor_err;
  uint16_t opcode;  // ibv_wc_opcode
  uint8_t status;   // ibv_wc_status
  bool is_send;
  uint64_t reserved[4];
};
static_assert(sizeof(Cqe) == kCacheLine);

// Whether a completion queue raises an event. ibv_req_notify_cq(3)
enum class CqArm : uint32_t {
  kNo,
  kNext,   // at the next completion
  kError,  // at the next in error: nothing is solicited on Ethernet
};

struct CqHead {
  alignas(kCacheLine) std::atomic<uint32_t> produced{0};  // the core's
  alignas(kCacheLine) std::atomic<uint32_t> consumed{0};  // the front end's
  // Set by the front end, back to kNo by the core when it raises the event.
  std::atomic<CqArm> arm{CqArm::kNo};
};

struct CqLayout {
  uint64_t head_at = 0;  // CqHead
  uint64_t slots_at = 0;
  uint32_t depth = 0;
};

// Asynchronous events of one context, or completion events of one channel; the
// core also signals its eventfd.
struct EventRecord {
  uint32_t type;    // ibv_event_type; 0 in a channel
  uint32_t object;  // QP number, CQ number, or port
};

struct EventRing {
  static constexpr uint32_t kDepth = 256;
  alignas(kCacheLine) std::atomic<uint32_t> produced{0};
  alignas(kCacheLine) std::atomic<uint32_t> consumed{0};
  EventRecord records[kDepth];

  // False: full.
  bool Push(uint32_t type, uint32_t object) {
    const uint32_t at = produced.load(std::memory_order_relaxed);
    if (at - consumed.load(std::memory_order_acquire) == kDepth) return false;
    records[at % kDepth] = {type, object};
    produced.store(at + 1, std::memory_order_release);
    return true;
  }
  // False: empty. Several threads may take.
  bool Take(EventRecord* record) {
    uint32_t at = consumed.load(std::memory_order_relaxed);
    while (at != produced.load(std::memory_order_acquire)) {
      *record = records[at % kDepth];
      if (consumed.compare_exchange_weak(at, at + 1)) return true;
    }
    return false;
  }
};

// One per device. Counters are named and explained in softnic.h.
struct DeviceShared {
  std::atomic<uint32_t> link_up{0};
  // Entries written to all completion queues: a poller that finds none of its
  // own sees whether the device works at all.
  alignas(kCacheLine) std::atomic<uint32_t> completions{0};
  alignas(kCacheLine) devwire::Counter rx_delivered;
  devwire::Counter rx_delivered_bytes, rx_no_rule, rx_no_receive, rx_not_ready,
      rx_too_long, rx_foreign_mac, rx_malformed, rx_link_down, rx_bad_checksum,
      rx_errors;
  devwire::Counter tx_frames, tx_bytes, tx_looped, tx_too_long, tx_malformed,
      tx_link_down, tx_errors;
  devwire::Counter landed_host_bytes, landed_dmabuf_bytes, gathered_host_bytes,
      gathered_dmabuf_bytes;
  devwire::Counter payload_landed_host_bytes, payload_landed_dmabuf_bytes,
      payload_gathered_host_bytes, payload_gathered_dmabuf_bytes;
  devwire::Counter flushed, cq_overruns, events_lost;
  devwire::Counter cq_events, cq_events_dropped;
  std::atomic<uint64_t> rules{0};
  devwire::Counter late_scatters;
  devwire::Counter wire_tx_lost, wire_tx_doubled, wire_tx_corrupted,
      wire_tx_overtaken;
  devwire::Counter wire_rx_lost, wire_rx_doubled, wire_rx_corrupted,
      wire_rx_overtaken;
};

}  // namespace softnic

#endif  // SOFTNIC_QUEUE_LAYOUT_H_
