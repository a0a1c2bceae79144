// The device's side of a RAW_PACKET queue pair: its state and how far its two
// work queues have been executed.
//
//   send queue     done_        sent_         produced
//                   |            |              |
//     [ completed ) [ on the port ) [ to be sent )      indices only grow
//
//   receive queue  taken_                     produced
//                   |                           |
//     [ completed ) [ posted: waits for a frame )
//
// Threads: those of the device core. Cost: no allocation after construction.
#ifndef SOFTNIC_QUEUE_PAIR_H_
#define SOFTNIC_QUEUE_PAIR_H_

#include <infiniband/verbs.h>

#include <cstdint>
#include <vector>

#include "base/check.h"
#include "softnic/arena.h"
#include "softnic/completion_queue.h"
#include "softnic/queue_layout.h"

namespace softnic {

struct QpSpec {
  uint32_t pd = 0;
  uint32_t context = 0;  // who gets its events
  uint32_t send_cq = 0;
  uint32_t recv_cq = 0;
  WorkQueueLayout send;
  WorkQueueLayout recv;
  bool strips_vlan = false;
};

class QueuePair {
 public:
  QueuePair(uint32_t number, const QpSpec& spec, CompletionQueue* send_cq,
            CompletionQueue* recv_cq, const Arena& arena)
      : number_(number),
        spec_(spec),
        send_cq_(send_cq),
        recv_cq_(recv_cq),
        send_(Queue::On(spec.send, arena)),
        recv_(Queue::On(spec.recv, arena)),
        on_port_(spec.send.depth) {}

  uint32_t number() const { return number_; }
  const QpSpec& spec() const { return spec_; }
  CompletionQueue* send_cq() const { return send_cq_; }
  CompletionQueue* recv_cq() const { return recv_cq_; }

  ibv_qp_state state() const { return state_; }
  void set_state(ibv_qp_state state) { state_ = state; }
  bool can_receive() const {
    return state_ == IBV_QPS_RTR || state_ == IBV_QPS_RTS;
  }

  // RESET: whatever was posted is forgotten.
  void Reset() {
    state_ = IBV_QPS_RESET;
    sent_ = done_ = send_.produced();
    taken_ = recv_.produced();
    tso_done = 0;
    is_fault_decided = error_pending = false;
  }

  // Sends that wait to be handed to the port.
  bool has_to_send() const {
    return send_.head != nullptr && sent_ != send_.produced();
  }
  uint32_t to_send() const { return send_.produced() - sent_; }
  SendWqe* next_to_send(uint32_t ahead = 0) {
    return send_.At<SendWqe>(sent_ + ahead);
  }
  uint32_t sent() const { return sent_; }
  // The next send is on the port, done once the port has completed `ticket`
  // frames; it completes with `status`.
  void OnSent(uint64_t ticket, ibv_wc_status status) {
    on_port_[sent_ & send_.mask] = {ticket, status};
    ++sent_;
    tso_done = 0;
    is_fault_decided = false;
  }

  struct OnPort {
    uint64_t ticket = 0;
    ibv_wc_status status = IBV_WC_SUCCESS;
  };
  bool has_on_port() const { return done_ != sent_; }
  const OnPort& oldest_on_port() const { return on_port_[done_ & send_.mask]; }
  SendWqe* oldest_send() { return send_.At<SendWqe>(done_); }
  // Completes the oldest; its index.
  uint32_t PopSend() {
    if (done_ == sent_) ++sent_;  // Flushed without being sent.
    return done_++;
  }
  // Anything posted and not completed.
  bool has_sends() const {
    return send_.head != nullptr && done_ != send_.produced();
  }

  bool has_recv() const {
    return recv_.head != nullptr && taken_ != recv_.produced();
  }
  RecvWqe* next_recv() { return recv_.At<RecvWqe>(taken_); }
  uint32_t PopRecv() { return taken_++; }
  uint32_t send_inline_at() const { return spec_.send.inline_at; }

  // Segments of the TSO send at hand that the port has taken.
  uint32_t tso_done = 0;
  // The dice were thrown for the send at hand.
  bool is_fault_decided = false;
  // A send that failed is in [done, sent): nothing behind it is sent.
  bool error_pending = false;

 private:
  struct Queue {
    QueueHead* head = nullptr;
    std::byte* slots = nullptr;
    uint32_t slot_bytes = 0;
    uint32_t mask = 0;
    uint32_t max_sge = 0;

    static Queue On(const WorkQueueLayout& layout, const Arena& arena) {
      if (layout.depth == 0) return {};
      return {arena.At<QueueHead>(layout.head_at),
              arena.At<std::byte>(layout.slots_at), layout.slot_bytes,
              layout.depth - 1, layout.max_sge};
    }
    uint32_t produced() const {
      return head == nullptr ? 0
                             : head->produced.load(std::memory_order_acquire);
    }
    template <typename T>
    T* At(uint32_t index) const {
      return reinterpret_cast<T*>(slots + static_cast<size_t>(index & mask) *
                                              slot_bytes);
    }
  };

  const uint32_t number_;
  const QpSpec spec_;
  CompletionQueue* const send_cq_;
  CompletionQueue* const recv_cq_;
  const Queue send_;
  const Queue recv_;
  std::vector<OnPort> on_port_;
  ibv_qp_state state_ = IBV_QPS_RESET;
  uint32_t sent_ = 0;
  uint32_t done_ = 0;
  uint32_t taken_ = 0;
};

}  // namespace softnic

#endif  // SOFTNIC_QUEUE_PAIR_H_
