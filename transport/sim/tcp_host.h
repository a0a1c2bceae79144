// A host of the simulator: its memory, an application, and one Connection at a
// time: a client opens `sessions` of them, one after the other between the same
// two ports; a server accepts whoever comes. It may die at any moment, which
// nobody is told, and come back with nothing in its memory but the clock.
//
// It receives as a data queue does (headers split at 66 bytes whatever they
// are, a few linear bytes copied to a pool of their own, text dropped with the
// pool at its reserve) and sends what PollTransmit says, cut by TSO. The
// application writes and reads at times of its own, holds frags, gives tokens
// back late and out of order, closes one way, aborts.
//
// After every step: the bytes read are exactly the peer's stream, in order;
// the connection's and the pools' invariants hold; what was sent keeps to
// WireRules; no limit is passed; no deadline is due. A stream's bytes follow
// from its writer's ISS, so what is left of an earlier connection shows.
//
// Threads:  one. Tests only: it allocates.
#ifndef TRANSPORT_SIM_TCP_HOST_H_
#define TRANSPORT_SIM_TCP_HOST_H_

#include <cstdint>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "base/prng.h"
#include "memreg/frag_pool.h"
#include "transport/sim/sim_link.h"
#include "transport/sim/wire_rules.h"
#include "transport/tcp/connection.h"
#include "transport/wire/frame.h"

namespace devwire {

class TcpHost final : private FragSink {
 public:
  // When it is done with writing, or with the other side.
  enum class Closing : uint8_t {
    kAfterWriting,    // Half-close: goes on reading.
    kAfterPeer,       // Only when the peer has closed.
    kWithoutReading,  // Closes and reads no more: the peer may be reset.
  };

  struct App {
    uint64_t bytes_to_write = 0;
    uint32_t max_write = 30'000;
    Duration write_gap;  // Between writes, at most.
    uint32_t max_read = 100'000;
    Duration read_gap;     // A slow reader: between reads, at most.
    Duration token_delay;  // Between a read and its tokens' return, at most.
    Closing closing = Closing::kAfterWriting;
    std::optional<Duration> abort_after;  // From the opening.
  };

  // What became of one connection. Compare those of two hosts whose sequence
  // numbers say that they were each other's.
  struct Session {
    SeqNum iss;
    SeqNum irs;
    bool was_connected = false;
    bool was_alone = false;  // It died with its host, or was given up.
    bool saw_end = false;    // All up to the peer's FIN was read.
    uint64_t bytes_written = 0;
    uint64_t bytes_read = 0;
    TcpError error = TcpError::kNone;
  };

  struct Options {
    bool is_client = false;
    bool opens_actively = false;         // Else it listens.
    uint32_t sessions = 1;               // To open.
    Duration session_gap;                // Between the end of one and the next.
    std::optional<Duration> dies_after;  // From the start; back after
    Duration returns_after = 5_s;        // this: RFC 9293 3.4.3, quiet time.
    HeaderTemplate::Options addresses;
    Connection::Options connection;
    App app;
    uint32_t slot_count = 64;
    uint32_t slot_bytes = 2048;
    uint32_t pool_reserve = 0;  // Free slots below which text is dropped.
    uint32_t max_tso_payload = 0;
    uint64_t seed = 1;         // Of this host.
    uint64_t stream_seed = 1;  // Of the bytes: the same at both.
    bool is_traced = false;    // Every frame sent and taken in, to stderr.
  };

  TcpHost(const Options& options, SimLink& out);
  ~TcpHost();

  void Start(Instant now);
  // A frame arrived. Bad checksums are dropped here, as by the NIC.
  void OnFrame(const SimFrame& frame, Instant now) {
    TakeFrame(frame, false, now);
  }
  // A frame that the peer never sent.
  void OnForgedFrame(const SimFrame& frame, Instant now) {
    TakeFrame(frame, true, now);
  }
  // Time passed: deadlines, and the application.
  void OnTime(Instant now);
  // The application loses patience: aborts what is still open.
  void GiveUp(Instant now);
  // Sends all that is due, then checks every invariant.
  void Finish(Instant now);
  // When OnTime() has something to do; Never() when nothing.
  Instant NextEvent() const;

  // Nothing more to open, no connection, nothing is held, no token is out.
  bool is_done() const;
  // Of the connection there is; else zero.
  uint64_t bytes_read() const { return session_.bytes_read; }
  const Connection* connection() const {
    return connection_ ? &*connection_ : nullptr;
  }
  const FourTuple& tuple() const { return options_.addresses.tuple; }
  // Those that ended, in order.
  const std::vector<Session>& sessions() const { return sessions_; }
  // Empty while all is well; else what is wrong. The first mistake stays.
  const std::string& failure() const { return failure_; }
  std::string ToString() const;
  Connection::Stats stats() const { return last_stats_; }

 private:
  static constexpr uint32_t kSplit = 66;
  struct Token {
    Instant due;
    FragToken token;
    PoolId pool;
    StreamId stream;
    bool operator<(const Token& b) const { return due > b.due; }
  };

  void Discard(const Frag& frag) override;
  FragPool& PoolOf(PoolId id) {
    return id == linear_pool_.id() ? linear_pool_ : device_pool_;
  }
  std::vector<std::byte>& MemoryOf(PoolId id) {
    return id == linear_pool_.id() ? linear_memory_ : device_memory_;
  }
  std::optional<Frag> Store(PoolId pool, uint32_t offset,
                            std::span<const std::byte> bytes);
  bool TakeText(const SimFrame& frame, const ParsedFrame& parsed,
                Segment* segment);
  void Open(Instant now);
  void TakeFrame(const SimFrame& frame, bool is_forged, Instant now);
  void SendSegment(const TxSegment& segment, Instant now);
  void SendOne(TxSegment segment, Instant now);
  void Write(Instant now);
  void Read(Instant now);
  void ReturnTokens(Instant now);
  void CloseIfDone(Instant now);
  void Die(Instant now);
  void EndSession(Instant now);
  void CheckLimits();
  void CheckPools();
  SeqNum IssAt(Instant now) const;
  StreamId stream() const {  // Of the connection there is, or the next.
    return StreamId{static_cast<uint32_t>(sessions_.size())};
  }
  uint64_t StreamOf(SeqNum iss) const {
    return options_.stream_seed ^ (uint64_t{iss.raw()} << 20);
  }
  void Trace(const char* what, const TcpHeader& header, uint32_t payload_bytes,
             Instant now) const;
  Duration UpTo(Duration max);
  void Fail(const std::string& what);

  const Options options_;
  SimLink& out_;
  Prng prng_;
  FragPool device_pool_;
  FragPool linear_pool_;
  FragPool::Owners device_owners_;  // When last recounted.
  FragPool::Owners linear_owners_;
  std::vector<std::byte> device_memory_;
  std::vector<std::byte> linear_memory_;
  HeaderTemplate headers_;
  std::optional<Connection> connection_;
  WireRules rules_;
  uint32_t largest_smss_ = 0;  // Of the present connection.
  uint64_t path_probes_ = 0;
  Session session_;
  std::vector<Session> sessions_;
  uint32_t sessions_to_open_;
  uint32_t ts_offset_;
  bool is_dead_ = false;
  bool has_closed_ = false;
  uint16_t identification_ = 0;
  Instant start_;
  Instant next_open_ = Instant::Never();
  Instant dies_at_ = Instant::Never();
  Instant returns_at_ = Instant::Never();
  Instant next_write_;
  Instant next_read_;
  Instant abort_at_ = Instant::Never();
  std::priority_queue<Token> tokens_;
  Connection::Stats last_stats_;
  std::string failure_;
};

}  // namespace devwire

#endif  // TRANSPORT_SIM_TCP_HOST_H_
