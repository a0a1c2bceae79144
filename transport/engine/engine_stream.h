// One stream of an engine: its Connection, and what the engine keeps beside
// it. Only the engine's files include this.
#ifndef TRANSPORT_ENGINE_ENGINE_STREAM_H_
#define TRANSPORT_ENGINE_ENGINE_STREAM_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/list.h"
#include "base/ring.h"
#include "memreg/frag_pool.h"
#include "transport/address.h"
#include "transport/engine/engine_options.h"
#include "transport/engine/send_queue.h"
#include "transport/engine/stream_types.h"
#include "transport/packet_io.h"
#include "transport/tcp/connection.h"
#include "transport/wire/frame.h"

namespace devwire {

// Where the NIC sends a stream's segments, and why.
enum class Steering : uint8_t {
  kHostStream,     // No device memory: the control queue is its place.
  kNotYet,         // The handshake has not shown the header shape.
  kRulePending,    // Asked for.
  kSteered,        // A rule leads to its data queue.
  kNoQueue,        // Its memory has no data queue: control queue.
  kRuleRefused,    // No room in the NIC, or refused: control queue.
  kHeadersDiffer,  // Three headers did not fit the split: control queue.
  kNoOptionTail,   // Its memory cannot give back option bytes: control queue.
};
const char* SteeringName(Steering steering);

enum class UnreachableCause : uint8_t { kNone, kNoRoute, kNoNeighbor, kIcmp };

struct DirtyTag;
struct AcceptTag;
struct TimeWaitTag;
struct SendBufferTag;

// Lifetime: from Connect or a SYN until the connection is CLOSED, nothing of
// it is posted for sending, and no handle is held.
struct EngineStream : ListNode<EngineStream, DirtyTag>,
                      ListNode<EngineStream, AcceptTag>,
                      ListNode<EngineStream, TimeWaitTag>,
                      ListNode<EngineStream, SendBufferTag> {
  static constexpr size_t kMaxCompletions = 512;

  EngineStream(const Connection::Options& options, FragSink& sink,
               size_t send_spans, size_t max_pieces)
      : connection(options, sink),
        send_queue(send_spans, max_pieces),
        completions(kMaxCompletions) {}

  bool waits_for_send_buffer() const {
    return ListNode<EngineStream, SendBufferTag>::is_linked();
  }

  StreamId id{};  // {generation, index}
  uint32_t index = 0;
  FourTuple tuple;
  Connection connection;
  SendQueue send_queue;
  HeaderTemplate headers;
  IpFields ip;
  uint16_t identification = 0;

  // Next hop.
  uint32_t neighbor = 0;
  bool has_mac = false;

  // Receiving.
  std::optional<PoolId> pool;
  uint64_t receive_budget_bytes = 0;  // The window's share of it is no larger.
  Steering steering = Steering::kHostStream;
  HeaderShape shape = HeaderShape::kIpv4Timestamps;
  QueueId queue = kControlQueue;
  std::optional<RuleId> rule;
  Instant rule_deadline = Instant::Never();
  Instant moves_until;  // Frames may come on two queues.
  uint8_t cut_headers = 0;
  bool starts_on_control_queue = false;  // The handshake showed odd headers.
  uint32_t lent_pieces = 0;
  // Of a device stream: slots held of the host pool and of the linear pool.
  std::array<uint32_t, 2> guest_slots{};
  uint64_t device_bytes = 0;
  uint64_t linear_bytes = 0;

  // Sending.
  Ring<SendCompletion> completions;
  uint64_t send_limit = 0;         // Bytes queued and unacknowledged, at most.
  uint64_t send_budget_bytes = 0;  // As far as that grows.
  // With so many queued that were never sent, no more are taken.
  uint64_t notsent_low_water = UINT64_MAX;
  uint64_t send_bytes = 0;  // Of the SendDevice() whose spans are finishing.
  bool completions_abandoned = false;  // The handle is gone.

  // The user.
  std::optional<uint32_t> listener;  // Not accepted yet.
  // Until then it is not offered to accept() without text. Never: not held
  // back.
  Instant accept_deadline = Instant::Never();
  bool is_half_open = false;  // Passive, and its handshake goes on.
  bool has_share = false;     // Counts among the streams of its pool.
  bool is_open = true;        // A handle is held, or will be.
  bool was_connected = false;
  bool is_observed = false;  // The observer knows of it.
  bool send_is_closed = false;
  bool is_in_demux = true;   // The 4-tuple is still this stream's.
  bool is_orphan = false;    // Counts in Engine::orphans_.
  Reports reports = 0;       // Not taken yet.
  std::string abort_reason;  // The application's words.
  bool is_finished = false;  // CLOSED, and nothing more to transmit.
  TcpError error = TcpError::kNone;
  UnreachableCause cause = UnreachableCause::kNone;
  std::optional<PoolId> revoked;  // kRegionRevoked: which.
  Readiness readiness = 0;
  uint64_t readable_edge = 0;   // Times that more became readable.
  uint64_t published_edge = 0;  // Of those, what the ready sink knows.
  bool wants_turn = false;      // It has more to send than one turn's worth.
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_ENGINE_STREAM_H_
