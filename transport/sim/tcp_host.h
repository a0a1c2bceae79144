// A host of the simulator: one Connection, its memory, and an application.
//
// It receives as a data queue does (headers split at 66 bytes whatever they
// are, a few linear bytes copied to a pool of their own, text dropped with the
// pool at its reserve) and sends what PollTransmit says, cut by TSO. The
// application writes and reads at times of its own, holds frags, gives tokens
// back late and out of order, closes one way, aborts.
//
// After every step: the bytes read are exactly the peer's stream, in order;
// the connection's and the pools' invariants hold; no deadline is due.
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
    std::optional<Duration> abort_after;  // From the start.
  };

  struct Options {
    bool is_client = false;
    HeaderTemplate::Options addresses;
    Connection::Options connection;
    App app;
    uint32_t slot_count = 64;
    uint32_t slot_bytes = 2048;
    uint32_t pool_reserve = 0;  // Free slots below which text is dropped.
    uint32_t max_tso_payload = 0;
    uint64_t write_stream = 0;  // StreamBytes of what we write,
    uint64_t read_stream = 0;   // and of what the peer does.
    uint64_t seed = 1;
    bool is_traced = false;  // Every frame sent and taken in, to stderr.
  };

  TcpHost(const Options& options, SimLink& out);
  ~TcpHost();

  void Start(Instant now);
  // A frame arrived. Bad checksums are dropped here, as by the NIC.
  void OnFrame(const SimFrame& frame, Instant now);
  // Time passed: deadlines, and the application.
  void OnTime(Instant now);
  // The application loses patience: aborts what is still open.
  void GiveUp(Instant now);
  // Sends all that is due, then checks every invariant.
  void Finish(Instant now);
  // When OnTime() has something to do; Never() when nothing.
  Instant NextEvent() const;

  // The connection ended, nothing is held, no token is out.
  bool is_done() const;
  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t bytes_written() const { return bytes_written_; }
  bool saw_peer_close() const { return saw_peer_close_; }
  bool has_aborted() const { return error_ == TcpError::kAborted; }
  TcpError error() const { return error_; }
  uint64_t frames_in() const { return frames_in_; }
  // Empty while all is well; else what is wrong. The first mistake stays.
  const std::string& failure() const { return failure_; }
  std::string ToString() const;
  Connection::Stats stats() const { return last_stats_; }

 private:
  static constexpr StreamId kStream{7};
  static constexpr uint32_t kSplit = 66;
  struct Token {
    Instant due;
    FragToken token;
    PoolId pool;
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
  void SendSegment(const TxSegment& segment, Instant now);
  void SendFrame(const TcpHeader& header, uint64_t stream_offset,
                 uint32_t payload_bytes, uint8_t ecn, Instant now);
  void Write(Instant now);
  void Read(Instant now);
  void ReturnTokens(Instant now);
  void CloseIfDone(Instant now);
  void Retire();
  void Trace(const char* what, const TcpHeader& header, uint32_t payload_bytes,
             Instant now) const;
  Duration UpTo(Duration max);
  void Fail(const std::string& what);

  const Options options_;
  SimLink& out_;
  Prng prng_;
  FragPool device_pool_;
  FragPool linear_pool_;
  std::vector<std::byte> device_memory_;
  std::vector<std::byte> linear_memory_;
  HeaderTemplate headers_;
  std::optional<Connection> connection_;
  bool has_started_ = false;
  bool was_connected_ = false;
  bool has_closed_ = false;
  bool saw_peer_close_ = false;
  TcpError error_ = TcpError::kNone;
  uint64_t bytes_written_ = 0;
  uint64_t bytes_read_ = 0;
  uint64_t frames_in_ = 0;
  uint16_t identification_ = 0;
  Instant next_write_;
  Instant next_read_;
  Instant abort_at_ = Instant::Never();
  std::priority_queue<Token> tokens_;
  Connection::Stats last_stats_;
  std::string failure_;
};

}  // namespace devwire

#endif  // TRANSPORT_SIM_TCP_HOST_H_
