// The device: what silicon and firmware are on a card. It executes commands
// (queue pairs, regions, rules), sends what stands in send queues, scatters
// what arrives, writes completions and events, and misbehaves when asked to.
//
//   Execute(command) ----> tables: queue pairs, completion queues, regions,
//   rules Progress() -> port -> OnFrame: rules -> receive queue -> memory ->
//   completion
//            \-> send queues -> gather -> checksum, segments -> port ->
//            completion
//
// Files: device_core.cc (commands), device_send.cc, device_receive.cc,
// device_fault.cc.
//
// Threads:  one at a time: the front end's lock inline, else a process of its
//           own.
// Lifetime: the arena outlives it.
// Cost:     Progress and its children allocate nothing in steady state and make
//           no system call of their own while the application's memory is
//           local.
#ifndef SOFTNIC_DEVICE_CORE_H_
#define SOFTNIC_DEVICE_CORE_H_

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "base/clock.h"
#include "base/prng.h"
#include "softnic/arena.h"
#include "softnic/command.h"
#include "softnic/completion_queue.h"
#include "softnic/config.h"
#include "softnic/counter_file.h"
#include "softnic/flow_table.h"
#include "softnic/frame_checksum.h"
#include "softnic/host_memory.h"
#include "softnic/make_port.h"
#include "softnic/mr_table.h"
#include "softnic/packet.h"
#include "softnic/pcap_writer.h"
#include "softnic/port.h"
#include "softnic/queue_layout.h"
#include "softnic/queue_pair.h"
#include "softnic/segment.h"
#include "softnic/send_stage.h"

namespace softnic {

class DeviceCore final : public Receiver {
 public:
  // Frames that one call of Progress takes from the port when nobody says less.
  static constexpr uint32_t kBurst = 64;
  static constexpr uint32_t kMaxSge = 30;
  static constexpr uint32_t kMaxQps = 4096;
  static constexpr uint32_t kFirstQpNumber = 0x40;

  // `application`: whose memory host regions are in; 0 is this process.
  DeviceCore(const DeviceConfig& config, Arena* arena, uint64_t shared_at,
             pid_t application, const devwire::Clock* clock);
  ~DeviceCore() override;

  // `fd` (-1: none) is borrowed. `text` belongs to Op::kConfigure.
  Reply Execute(const Command& command, int fd, std::string_view text = {});

  // Moves everything on; true when anything moved. Takes at most
  // `receive_budget` frames from the port.
  bool Progress(uint32_t receive_budget);
  // Sends what `qp` has posted. No such queue pair: does nothing.
  void Send(uint32_t qp_num);

  void OnFrame(const RxFrame& frame) override;

  // A descriptor to sleep on; -1: none.
  int wait_fd() const { return port_ == nullptr ? -1 : port_->wait_fd(); }
  // Nothing is under way that only Progress would move on.
  bool IsIdle() const;
  // True: until wait_fd() is readable, or somebody calls, there is nothing to
  // do. False: look again soon.
  [[nodiscard]] bool PrepareToSleep();
  // Some completion queue is to raise an event: the application may sleep.
  bool IsAnyArmed() const;

 private:
  // Who is told of events: a context, or a completion channel.
  struct Listener {
    EventRing* events = nullptr;  // null: closed
    int event_fd = -1;
  };
  // Bytes of a frame on their way into memory.
  struct Run {
    const std::byte* data;
    uint32_t length;
  };
  // A receive that is being executed.
  struct Arrival {
    static constexpr size_t kMaxRuns = 40;
    ParsedFrame parsed;
    std::array<Run, kMaxRuns> runs;
    size_t run_count = 0;
    uint32_t length = 0;  // as delivered: padded
    uint32_t wc_flags = 0;
    // The payload within the frame, empty without TCP or UDP.
    uint32_t payload_from = 0;
    uint32_t payload_to = 0;
  };
  // Payload that lands after its completion.
  struct LateWrite {
    devwire::Instant due;
    uint32_t lkey;
    uint64_t offset;  // in the region
    std::vector<std::byte> bytes;
  };
  // The memory of one work request.
  struct Gathered {
    std::array<ResolvedSge, kMaxSge> sges;
    size_t count = 0;
    uint32_t length = 0;
  };

  // Commands.
  int OpenContext(const Command& command, int fd, Reply* reply);
  int CloseContext(uint32_t object);
  int OpenListener(std::vector<Listener>* list, uint64_t events_at, int fd,
                   uint32_t* object);
  static int CloseListener(std::vector<Listener>* list, uint32_t object);
  int CreateCq(const CqSpec& spec, uint32_t* number);
  int DestroyCq(uint32_t number);
  int CreateQp(const QpSpec& spec, uint32_t* number);
  int ModifyQp(uint32_t number, ibv_qp_state state);
  int DestroyQp(uint32_t number);
  int RegisterMr(const MrSpec& spec, int fd, uint32_t* lkey);
  int DeregisterMr(uint32_t lkey);
  int CreateFlow(const FlowRule& rule, uint32_t* handle);
  int DestroyFlow(uint32_t handle);
  int Configure(std::string_view text, Reply* reply);
  absl::Status PlugPort();

  QueuePair* FindQp(uint32_t number);
  void Raise(uint32_t context, ibv_event_type type, uint32_t object);
  // False: it has no room, or is gone.
  static bool Tell(const std::vector<Listener>& list, uint32_t which,
                   uint32_t type, uint32_t object);
  void RaiseCompletion(const CompletionQueue& cq);
  void RaisePortEvents();

  // Sending.
  bool Send(QueuePair& qp);
  bool SendOne(QueuePair& qp, const SendWqe& wqe);
  bool SendPlain(QueuePair& qp, const SendWqe& wqe);
  bool SendTso(QueuePair& qp, SendWqe& wqe);
  bool SendSuperFrame(QueuePair& qp, const SendWqe& wqe);
  // False: the port has no room now.
  bool SendFrame(TxFrame frame);
  void Pad(TxFrame* frame);
  bool Gather(QueuePair& qp, SendWqe& wqe);
  uint32_t FillHeader(uint32_t limit);
  void InsertChecksums(const ParsedFrame& parsed, TxFrame* frame);
  bool MayOweChecksum(const TxFrame& frame) const;
  bool IsLooped(const TxFrame& frame) const;
  std::span<const Piece> MakePieces(uint32_t from, uint32_t to);
  void CountGathered(uint32_t payload_from, uint32_t payload_to);
  void FailSend(QueuePair& qp, ibv_wc_status status);
  bool Reap(QueuePair& qp);
  void Flush(QueuePair& qp);
  void MoveToError(QueuePair& qp);
  void PushCqe(CompletionQueue* cq, const Cqe& entry);
  void PublishCompletions();

  // Receiving.
  bool Prepare(const RxFrame& frame, Arrival* arrival);
  bool IsForUs(const std::byte* dst_mac) const;
  void CheckChecksum(const RxFrame& frame, Arrival* arrival);
  void Deliver(QueuePair& qp, const Arrival& whole);
  ibv_wc_status ResolveReceive(const QueuePair& qp, RecvWqe& wqe,
                               uint32_t length);
  void StripVlan(const Arrival& from, Arrival* to) const;
  void Scatter(const Arrival& arrival);
  void Land(const std::byte* from, const ResolvedSge& sge, uint32_t at,
            uint32_t bytes);
  void CountLanded(const Arrival& arrival, const Mr& mr, uint32_t from,
                   uint32_t to);

  // Faults.
  bool HitsFault(double probability, uint64_t* countdown);
  // True: the work request at hand is not executed; the queue pair may be in
  // ERR, else it completes in error.
  bool HitsQpError(QueuePair& qp);
  bool HitsSendRevocation();
  ibv_wc_status FaultOnReceive(ibv_wc_status status);
  bool IsTooEarly(const SendWqe& wqe) const;
  void RevokeOne(std::span<const ResolvedSge> sges);
  void RunLateWrites(bool all);
  void CopyWireCounters();
  void ApplyFaults();

  DeviceConfig config_;
  Arena* const arena_;
  DeviceShared* const shared_;
  const devwire::Clock* const clock_;
  HostMemory host_;
  Wire wire_;
  FaultyPort* port_ = nullptr;  // wire_'s; null: no context is open
  std::unique_ptr<PcapWriter> pcap_;
  std::vector<Listener> contexts_;
  std::vector<Listener> channels_;
  uint32_t open_contexts_ = 0;
  MrTable mrs_;
  FlowTable flows_;
  absl::flat_hash_map<uint32_t, std::unique_ptr<CompletionQueue>> cqs_;
  std::vector<CompletionQueue*> cq_list_;
  std::vector<std::unique_ptr<QueuePair>> qps_;  // by number
  std::vector<QueuePair*> qp_list_;
  uint32_t next_cq_ = 1;
  uint32_t next_qp_ = 0;
  bool link_was_up_ = true;
  bool has_wire_faults_ = false;  // now, or at any time before
  bool has_work_faults_ = false;  // any fault of single work requests
  uint32_t pushed_ = 0;           // completions, of all queues
  uint64_t received_ = 0;         // frames that the port has handed over
  devwire::Prng prng_;
  std::deque<LateWrite> late_writes_;

  // Scratch of one frame or work request.
  Gathered gathered_;
  Gathered landing_;
  Arrival arrival_;
  Arrival stripped_;
  std::array<std::byte, Segmenter::kMaxHeaderBytes + kMinFrameBytes> header_;
  std::array<std::byte, Segmenter::kMaxHeaderBytes + kMinFrameBytes> patched_;
  std::array<Piece, kMaxSge + 1> pieces_;
  Segmenter segmenter_;
  SendStage stage_;
  CounterFile counter_file_;
};

}  // namespace softnic

#endif  // SOFTNIC_DEVICE_CORE_H_
