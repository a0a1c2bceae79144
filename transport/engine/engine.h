// Engine: a TCP/IP host on one PacketIo. One thread, one poll loop, many
// connections.
//
//   Poll:  RxBurst -> parse -> 4-tuple -> Connection::OnSegment
//          tokens returned, rules answered, deadlines passed
//          streams touched by any of these: PollTransmit, PollEvent
//          Replenish, TxFlush
//
// Threads:  the engine's thread makes every call but counters(), which any
//           thread may. Tokens go back to their pool from any thread
//           (FragPool::Return).
// Lifetime: borrows PacketIo, pools and memory; destroy it before them. The
//           destructor aborts what is open and gives every slot back.
// Cost:     Poll() neither allocates nor makes a system call, but for opening
//           a connection, which takes its memory.
// Limits:   max_connections streams, of which those in TIME-WAIT make room for
//           others, kMaxPools pools; what happens at a limit is counted by
//           name (counters.h).
#ifndef TRANSPORT_ENGINE_ENGINE_H_
#define TRANSPORT_ENGINE_ENGINE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/ring.h"
#include "transport/engine/counters.h"
#include "transport/engine/demux.h"
#include "transport/engine/engine_options.h"
#include "transport/engine/engine_stream.h"
#include "transport/engine/move_filter.h"
#include "transport/engine/neighbor.h"
#include "transport/engine/path_mtu.h"
#include "transport/engine/port_table.h"
#include "transport/engine/send_buffers.h"
#include "transport/engine/slot_shares.h"
#include "transport/engine/stream_types.h"
#include "transport/engine/timer_heap.h"
#include "transport/packet_io.h"
#include "transport/wire/frame.h"
#include "transport/wire/icmp.h"
#include "transport/wire/nd.h"
#include "transport/wire/pcapng.h"

namespace devwire {

enum class ListenerId : uint32_t {};

// Why a stream or listener could not be opened.
enum class OpenError : uint8_t {
  kNone,
  kNoRoute,
  kNeighborsFull,
  kPortInUse,
  kNoPort,           // Every port to this destination is taken.
  kTooMany,          // Streams or listeners.
  kWrongFamily,      // The stack has no address of this family.
  kIpv6Unsupported,  // Into device memory, and the NIC verifies no IPv6.
  kDeviceFailed,     // See device_error().
  kMemoryRevoked,    // The owner of the pool's memory has taken it away.
  kNoPeer,           // An address of many, or of nobody. RFC 9293 MUST-46.
};

class Engine final : private FragSink {
 public:
  // What a listener or stream became ready for; see stream_types.h.
  class ReadySink {
   public:
    virtual void OnStreamReady(StreamId stream, Readiness now_ready,
                               bool is_new) = 0;
    virtual void OnListenerReady(ListenerId listener, bool is_ready,
                                 bool is_new) = 0;

   protected:
    ~ReadySink() = default;
  };

  // `pools` names kHostPool and kLinearPool, in that order.
  Engine(const EngineOptions& options, PacketIo& io, const Clock& clock,
         std::span<const EnginePool> pools, const HostBuffer& send_memory);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // One turn. Returns whether anything happened.
  bool Poll();
  // The earliest time at which Poll() will have something to do of itself.
  Instant NextDeadline() const;

  // -- set-up ----------------------------------------------------------------
  void AddPool(const EnginePool& pool);  // Its id is the next one.
  // Of the rule that brings in what is sent to our MAC address: 0 installed,
  // else errno; empty until the NIC has answered.
  std::optional<int> host_rule_error() const { return host_rule_error_; }
  bool AddStaticNeighbor(const IpAddress& ip, const MacAddress& mac);
  void set_ready_sink(ReadySink* sink) { ready_sink_ = sink; }
  // From now on; null: nobody. Borrowed.
  void set_connection_observer(ConnectionObserver* observer) {
    observer_ = observer;
  }
  // Headers of both directions go there; null: nowhere. Borrowed.
  void set_capture(PcapngWriter* capture) { capture_ = capture; }

  // -- listeners -------------------------------------------------------------
  struct ListenResult {
    OpenError error = OpenError::kNone;
    ListenerId id{};
    Port port{};
  };
  struct ListenRequest {
    Endpoint local;  // Port 0: a free one.
    std::optional<PoolId> pool;
    uint32_t backlog = 0;
    // Others that say so too may listen on the same port.
    bool shares_port = false;
    // Of the streams that come of it; null: the engine's.
    const StreamSettings* settings = nullptr;
  };
  ListenResult Listen(const ListenRequest& request);
  // Resets what was not accepted.
  void Unlisten(ListenerId listener);
  // As in sockets/listener.h; 0: not at all.
  void SetDeferAccept(ListenerId listener, Duration most);
  std::optional<StreamId> Accept(ListenerId listener);
  // Accept() has a stream, or none will ever come: RevokedPoolOf(),
  // device_error().
  bool HasAcceptable(ListenerId listener) {
    return IsAcceptable(listeners_[static_cast<uint32_t>(listener)]);
  }
  // The memory that the listener's streams were to receive into, if revoked.
  std::optional<PoolId> RevokedPoolOf(ListenerId listener) const {
    const auto pool = listeners_[static_cast<uint32_t>(listener)].pool;
    return IsRevoked(pool) ? pool : std::nullopt;
  }

  // -- streams ---------------------------------------------------------------
  struct ConnectResult {
    OpenError error = OpenError::kNone;
    StreamId id{};
  };
  ConnectResult Connect(const Endpoint& remote, std::optional<Port> local_port,
                        std::optional<PoolId> pool,
                        const StreamSettings* settings = nullptr);
  // Why the last stream with Steering::kNoQueue has none.
  const absl::Status& queue_error() const { return queue_error_; }

  // The stream, or null: closed, and forgotten.
  EngineStream* Find(StreamId id);

  Received ReceiveFrags(EngineStream& s, std::span<StreamFrag> out,
                        uint64_t max_bytes);
  // Host streams.
  Received Read(EngineStream& s, std::span<std::byte> out);
  // The spans were checked: inside the region of `lkey` at `iova`.
  // Nor is it revoked.
  SendOutcome SendDevice(EngineStream& s, uint64_t iova, uint32_t lkey,
                         std::span<const DeviceSpan> spans, uint64_t cookie);
  size_t SendHost(EngineStream& s, std::span<const std::byte> bytes);
  size_t PollSendCompletions(EngineStream& s, std::span<SendCompletion> out);
  void CloseSend(EngineStream& s);
  void Abort(EngineStream& s, TcpError error);
  // The handle is gone.
  void Close(EngineStream& s, bool keep_frags);

  // engine_settings.cc: as in sockets/stream.h.
  void SetNoDelay(EngineStream& s, bool is_on);
  void SetCork(EngineStream& s, bool is_on);
  void SetKeepAlive(EngineStream& s,
                    const std::optional<KeepAlive::Options>& options);
  void SetUserTimeout(EngineStream& s, std::optional<Duration> timeout);
  void SetDscp(EngineStream& s, uint8_t dscp);
  void SetNotSentLowWater(EngineStream& s, uint64_t bytes);
  Reports TakeReports(EngineStream& s);

  Readiness ReadinessOf(const EngineStream& s) const;

  // -- asking ----------------------------------------------------------------
  const EngineCounters& counters() const { return counters_; }
  const EnginePool& pool(PoolId id) const {
    return pools_[static_cast<size_t>(id)];
  }
  // How often slots of a device pool were filled: all, and the least of one,
  // which is O(slots).
  uint64_t slot_fills(PoolId id) const {
    return pool_use_[static_cast<size_t>(id)].fills;
  }
  uint32_t min_slot_fills(PoolId id) const;
  // The NIC may no longer reach it: nothing can be sent from it, nor received.
  bool IsRevoked(std::optional<PoolId> id) const {
    return id.has_value() && pool_use_[static_cast<size_t>(*id)].is_revoked;
  }
  // Not 0: an errno. The NIC is gone: every stream has ended with
  // kDeviceFailed, no other is opened. Sends that were posted do not complete,
  // because nothing says any more when the NIC has stopped reading.
  int device_error() const { return device_error_; }
  uint32_t stream_count() const { return stream_count_; }
  // What was to be sent, of all streams, and no peer has acknowledged: bytes,
  // and one for a FIN. O(streams).
  uint64_t undelivered() const;
  // Half-open streams above the limit, or cookies in use: no rule is asked for
  // before its handshake is complete.
  bool is_under_syn_pressure() const {
    return half_open_ > pressure_half_open_ ||
           (last_cookie_ && now_ - *last_cookie_ < options_.syn_pressure_hold);
  }
  uint32_t half_open_streams() const { return half_open_; }
  const NeighborTable& neighbors() const { return neighbors_; }
  const PathMtuTable& path_mtus() const { return path_mtus_; }
  const EngineOptions& options() const { return options_; }
  const PacketIo::Limits& nic() const { return io_.limits(); }
  // Nothing of any stream is posted or held: every slot is free or posted.
  bool is_idle() const { return stream_count_ == 0; }

 private:
  static constexpr size_t kBurst = 64;
  static constexpr uint8_t kCutHeadersToMove = 3;  // docs/wire.md.
  // After a rule's answer, or its removal: until then a frame that one queue
  // brings may be one that the other brought. A firmware command takes up to
  // milliseconds, and as many wait in line.
  static constexpr Duration kMoveTime = 100_ms;
  struct Listening {
    bool is_open = false;
    Endpoint local;
    std::optional<PoolId> pool;
    StreamSettings settings;  // Of its streams.
    uint32_t backlog = 0;     // The most of each of the next two.
    uint32_t half_open = 0;   // Their SYN-ACK is not acknowledged.
    uint32_t acceptable = 0;  // Established, not accepted.
    // One of all that share the port.
    std::optional<RuleId> rule;
    Duration defer_accept;  // How long one waits to be of `ready`, for text.
    List<EngineStream, AcceptTag> ready;  // Established, not accepted.
    bool was_ready = false;
  };
  struct PoolUse {
    std::vector<uint32_t> slot_fills;
    uint64_t fills = 0;
    uint32_t streams = 0;     // That receive into it.
    uint32_t slot_quota = 0;  // Of each, as it was last shared out.
    uint32_t reserve = 0;     // Free slots below which text is dropped.
    bool is_revoked = false;
  };
  struct QueueInfo {
    bool is_open = false;
    PoolId pool{};
    HeaderShape shape{};
  };
  // A buffer that an echo reply is sent from.
  struct Echo {
    uint64_t ticket;
    uint32_t buffer;
  };
  struct TailBatch;

  // What device streams hold of the host pool and of the linear pool, by pool.
  struct Guests {
    SlotShares shares;
    std::vector<uint32_t> streams;  // By slot: the index of its stream.
  };

  // FragSink: whichever pool the frag is of.
  void Discard(const Frag& frag) override;

  // engine_receive.cc
  void ProcessFrame(const RxFrame& frame);
  void DropFrame(const RxFrame& frame, DropCode code);
  void RecordFrame(const RxFrame& frame, const char* comment);
  void Record(bool is_outbound, std::span<const std::byte> header,
              uint32_t frame_bytes, const char* comment) {
    using Direction = PcapngWriter::Direction;
    capture_->Add(is_outbound ? Direction::kOut : Direction::kIn, now_, header,
                  frame_bytes, comment == nullptr ? "" : comment);
  }
  void FinishFrame(const RxFrame& frame);
  bool IsForUs(const RxFrame& frame, const ParsedFrame& parsed);
  bool ChecksumHolds(const RxFrame& frame, const ParsedFrame& parsed);
  void OnTcp(const RxFrame& frame, ParsedFrame& parsed);
  void OnHeaderCut(const RxFrame& frame, const ParsedFrame& parsed,
                   ParseResult result);
  bool FetchOptions(const RxFrame& frame, ParsedFrame& parsed, EngineStream& s);
  void FetchTails(PoolId pool, DeviceMemory* memory);
  bool WasSeenInOtherQueue(const RxFrame& frame, const ParsedFrame& parsed,
                           const EngineStream& s);
  void TakeText(const RxFrame& frame, const ParsedFrame& parsed,
                EngineStream& s, Segment* segment);
  bool IsGuest(const EngineStream& s, PoolId pool) const {
    return s.pool.has_value() && pool < kFirstDevicePool;
  }
  std::optional<SlotIndex> TakeLinearSlot(EngineStream& s,
                                          const Segment& segment);
  bool MayTakeText(PoolId pool, EngineStream& s, const Segment& segment);
  bool HasShare(PoolId pool, EngineStream& s, const Segment& segment);
  void TakeAsGuest(PoolId pool, SlotIndex slot, EngineStream& s);
  void ReleaseAsGuest(PoolId pool, EngineStream& s, uint32_t slots);
  bool IsAtReserve(PoolId pool, const EngineStream& s,
                   const Segment& segment) const;
  void OnUnknown(const RxFrame& frame, const ParsedFrame& parsed,
                 const Segment& segment, DropCode code);
  void AfterSegment(EngineStream& s, State before);

  // engine_syn.cc
  void OnSegmentToListener(const RxFrame& frame, const ParsedFrame& parsed,
                           const Segment& segment, uint32_t listener);
  void OpenHalf(const RxFrame& frame, const ParsedFrame& parsed,
                const Segment& segment, uint32_t listener);
  void AnswerByCookie(const RxFrame& frame, const ParsedFrame& parsed,
                      const Segment& syn, const Listening& l);
  void OnAckToListener(const RxFrame& frame, const ParsedFrame& parsed,
                       const Segment& segment, uint32_t listener);
  void OpenByCookie(const RxFrame& frame, const ParsedFrame& parsed,
                    const Segment& segment, uint32_t listener, uint16_t mss);
  void CountOpening(const RxFrame& frame, Verdict verdict);
  bool HasHalfOpenRoom(const Listening& l) const {
    return half_open_ < half_open_limit_ && l.half_open < l.backlog &&
           l.acceptable < l.backlog;
  }
  void OnHandshakeComplete(EngineStream& s);
  void DeferOrOffer(EngineStream& s);
  void Offer(EngineStream& s);
  void LeaveListener(EngineStream& s);
  bool IsAcceptQueueFull(const EngineStream& s) const {
    const Listening& l = listeners_[*s.listener];
    return l.acceptable >= l.backlog;
  }

  // engine_reply.cc
  void OnArp(const RxFrame& frame, const ParsedFrame& parsed);
  void OnIcmp(const RxFrame& frame, const ParsedFrame& parsed);
  void OnIcmpError(const IcmpError& error);
  void OnTooBig(const IcmpError& error);
  void SetPathMtu(const IpAddress& peer, uint32_t mtu);
  void PollPathMtus();
  void SendArp(bool is_reply, const MacAddress& to_mac, const IpAddress& to_ip,
               const MacAddress& ethernet_destination);
  void PollNeighbors();
  void SendEchoReply(const RxFrame& frame, const ParsedFrame& parsed);
  void RetireEchoes();
  // False when the rate or the ring does not allow it; true when none is due.
  bool SendReset(const ParsedFrame& parsed, const Segment& segment);

  // engine_nd.cc
  void OnNd(const RxFrame& frame, const ParsedFrame& parsed);
  void OnSolicitation(const NdMessage& message, const ParsedFrame& parsed);
  void SendSolicitation(const NeighborTable::Request& request);
  void SendNd(const NdMessage& message, const IpAddress& to,
              const MacAddress& to_mac);
  void AdoptNeighbor(const IpAddress& ip);

  // engine_transmit.cc
  void Transmit(EngineStream& s);
  void PostSegment(EngineStream& s, const TxSegment& segment, std::byte* at);
  void FinishSends(EngineStream& s);
  void PollEvents(EngineStream& s);
  void Publish(EngineStream& s);
  void SetTimer(EngineStream& s);
  bool Settle(EngineStream& s);
  void GrowSendLimit(EngineStream& s);
  bool MayQueue(const EngineStream& s) const;
  bool HasSendRoom(const EngineStream& s) const;
  bool IsWritable(const EngineStream& s) const;
  void WakeForSendBuffers();
  bool FrontWaitsForNic(const EngineStream& s) const;
  void MarkDirty(EngineStream& s) {
    if (!s.ListNode<EngineStream, DirtyTag>::is_linked()) dirty_.PushBack(&s);
  }

  // engine_steering.cc
  void StartSteering(EngineStream& s, bool hold_handshake);
  void OnRuleEvent(const RuleEvent& event);
  void OnRegionRevoked(const RegionEvent& event);
  void OnDeviceFailed(int error);
  void MoveToControlQueue(EngineStream& s, Steering why);
  void ReleaseHandshake(EngineStream& s);
  void RemoveRule(EngineStream& s);

  // engine_settings.cc
  void MakeHeaders(EngineStream& s);
  void Report(EngineStream& s, Reports what);

  // engine_time_wait.cc
  void ForgetTuple(EngineStream& s);
  void EndTimeWait(EngineStream& s);
  bool ReopenTimeWait(const RxFrame& frame, ParsedFrame& parsed,
                      EngineStream& s);
  bool IsReopenable(const FourTuple& tuple);
  bool EvictTimeWait();
  void ForgetPeer(EngineStream& s);
  void CountOrphan(EngineStream& s);
  void UncountOrphan(EngineStream& s);

  // engine_setup.cc
  struct NewStreamOptions {
    FourTuple tuple;
    std::optional<PoolId> pool;
    const StreamSettings& settings;
    bool takes_share = true;       // Of the pool; else later: TakeShare().
    std::optional<SeqNum> cookie;  // The ISS, and it is acknowledged.
  };
  EngineStream* NewStream(const NewStreamOptions& open, OpenError* error);
  // What a packet of `mtu` bytes carries beside its fixed headers.
  static uint16_t MssOf(const IpAddress& ip, uint32_t mtu) {
    return static_cast<uint16_t>(mtu - (ip.is_v4() ? 40 : 60));
  }
  Connection::Options ConnectionOptions(const FourTuple& tuple, PoolId home,
                                        const StreamSettings& settings) const;
  void Destroy(EngineStream& s);
  bool AcquireNextHop(EngineStream& s, OpenError* error);
  HeaderTemplate HeadersTo(const MacAddress& mac, const FourTuple& tuple,
                           const IpFields& ip) const;
  OpenError CheckOpen(const IpAddress& ip, std::optional<PoolId> pool) const;
  ReceiveLimits LimitsOf(PoolId pool, uint32_t streams,
                         uint64_t budget_bytes) const;
  void TakeShare(EngineStream& s);
  uint32_t UsableSlots(PoolId pool) const;
  void ShareOut(PoolId pool);
  void SetShare(EngineStream& s);
  bool IsAcceptable(Listening& l) const {
    return !l.ready.empty() || device_error_ != 0 || IsRevoked(l.pool);
  }
  void PublishListener(uint32_t index);

  void DrainTokens();
  void PollRules();
  void PollRegions();
  void PollDeadlines();
  void PollDirty();

  const EngineOptions options_;
  PacketIo& io_;
  const Clock& clock_;
  Instant now_;
  bool worked_ = false;

  std::array<EnginePool, kMaxPools> pools_{};
  std::array<PoolUse, kMaxPools> pool_use_{};
  uint32_t pool_count_ = 0;
  std::array<Guests, 2> guests_;
  std::array<QueueInfo, 256> queues_{};
  SendBuffers send_buffers_;

  Demux demux_;
  TimerHeap timers_;
  NeighborTable neighbors_;
  PathMtuTable path_mtus_;
  PortTable ports_;
  std::vector<std::unique_ptr<EngineStream>> streams_;  // By index.
  std::vector<uint16_t> generations_;                   // By index.
  std::vector<uint32_t> free_streams_;
  uint32_t stream_count_ = 0;
  uint32_t orphans_ = 0;
  // SND.NXT of the incarnation whose TIME-WAIT made room for the next stream.
  std::optional<SeqNum> iss_above_;
  // Closed streams whose frags were kept: the pieces that are still out, once
  // the stream is gone (until then it counts them itself).
  absl::flat_hash_map<StreamId, uint32_t> kept_;
  std::vector<Listening> listeners_;
  const uint32_t half_open_limit_;
  const uint32_t pressure_half_open_;
  uint32_t half_open_ = 0;              // Of all listeners.
  std::optional<Instant> last_cookie_;  // When the latest was sent.
  ChallengeBudget challenge_budget_;
  absl::flat_hash_map<uint32_t, uint32_t> rules_;  // RuleId -> stream index.
  RuleId host_rule_{};
  std::optional<int> host_rule_error_;

  List<EngineStream, DirtyTag> dirty_;
  // In TIME-WAIT without a handle, the oldest first.
  List<EngineStream, TimeWaitTag> time_waits_;
  // SendHost() found no buffer for them: not writable until one comes back.
  List<EngineStream, SendBufferTag> send_buffer_waits_;
  Ring<Echo> echoes_;
  std::array<RxFrame, kBurst> burst_;
  size_t burst_size_ = 0;
  size_t burst_at_ = 0;
  MoveFilter move_filter_;
  std::unique_ptr<TailBatch> tails_;
  bool tails_are_fresh_ = false;  // tails_ speaks of this burst.

  int device_error_ = 0;
  double reset_tokens_ = 0;
  Instant reset_refill_;
  ReadySink* ready_sink_ = nullptr;
  ConnectionObserver* observer_ = nullptr;
  PcapngWriter* capture_ = nullptr;
  absl::Status queue_error_;
  EngineCounters counters_;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_ENGINE_H_
