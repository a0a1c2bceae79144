// A host of the simulator: a whole Engine over SimPacketIo, its pools and send
// memory, and an application with device streams that both send and receive.
//
// The application checks every byte it reads by its position, returns tokens
// late, fills send memory just before a send and poisons it as soon as the send
// completes. Nothing may be gathered from such memory, whether its bytes were
// delivered or their stream aborted.
//
// Threads:  one. Tests only: it allocates.
#ifndef TRANSPORT_SIM_ENGINE_HOST_H_
#define TRANSPORT_SIM_ENGINE_HOST_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/prng.h"
#include "memreg/device_memory.h"
#include "memreg/frag_pool.h"
#include "transport/engine/engine.h"
#include "transport/sim/sim_packet_io.h"

namespace devwire {

class EngineHost {
 public:
  struct Options {
    IpAddress ip;
    std::optional<IpAddress> gateway;
    SimPacketIo::Options nic;  // With its MAC.
    uint32_t host_slots = 256;
    uint32_t device_slots = 256;
    uint32_t device_slot_bytes = 2048;
    bool can_read_option_tails = true;
    Connection::Options tcp;
    uint64_t bytes_per_stream = 100'000;  // That this side writes.
    uint32_t max_send = 20'000;
    Duration token_delay;  // At most.
    // The first so many streams keep their tokens until Relent().
    size_t hoarders = 0;
    bool checks_every_turn = true;  // The pools' invariants: most of the time.
    // The first stream is aborted so long after its opening.
    std::optional<Duration> abort_after;
    // Streams may end with an error: one end or the other aborts.
    bool expects_aborts = false;
    bool sums_tcp = false;  // For tcp_sums().
    uint64_t seed = 1;
  };

  // Over all streams, gone ones included.
  struct TcpSums {
    uint64_t sack_blocks_in = 0;
    uint64_t sack_blocks_out = 0;
    uint64_t bytes_retransmitted = 0;
    uint64_t duplicate_acks_in = 0;
    uint64_t duplicate_bytes = 0;
    friend bool operator==(const TcpSums&, const TcpSums&) = default;
  };

  EngineHost(const Options& options, const Clock& clock, SimLink& out,
             SimLink& in);
  ~EngineHost();

  void Listen(Port port);
  // `bytes`: that this side writes, if not bytes_per_stream.
  void Connect(const Endpoint& remote, std::optional<uint64_t> bytes = {});

  // One turn of the engine and the application. True: something happened, call
  // it again at the same time.
  bool Turn();
  Instant NextEvent() const;
  void CheckPools() const;

  // Hoarders give back what they have, and are like others from now on.
  void Relent();
  // The most slots of the device pool that applications had at a time.
  uint32_t max_application_slots() const { return max_application_slots_; }

  // The handles of so many streams (of all there are, where some are aborted)
  // are closed, nothing of any stream is left, slots are free.
  bool is_done(size_t streams) const;
  size_t open_streams() const { return streams_.size(); }
  // The application waits no longer: it aborts what is left. Once.
  void GiveUp();
  const std::string& failure() const { return failure_; }
  std::string ToString() const;
  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t linear_bytes() const { return linear_bytes_; }
  size_t finished_streams() const { return finished_; }
  const SimPacketIo::Stats& nic_stats() const { return io_->stats(); }
  size_t nic_rules() const { return io_->rules(); }
  TcpSums tcp_sums() const;
  Engine& engine() { return *engine_; }

 private:
  static constexpr uint32_t kSendSlotBytes = 20'000;
  static constexpr uint32_t kSendSlots = 64;
  static constexpr uint64_t kSendIova = 0x7000'0000'0000;
  static constexpr uint32_t kSendKey = 77;
  static constexpr uint64_t kHostIova = 0x1000'0000;
  static constexpr uint32_t kHostKey = 78;
  class TailReader;

  struct AppStream {
    uint64_t write_stream = 0;
    uint64_t read_stream = 0;
    uint64_t to_write = 0;
    uint64_t written = 0;
    uint64_t read = 0;
    uint32_t sends_out = 0;
    Instant abort_at = Instant::Never();
    bool is_hoarder = false;
    bool is_write_closed = false;
    bool at_end = false;
  };
  struct Token {
    Instant due;
    FragToken token;
    StreamId stream{};
    bool operator<(const Token& b) const { return due > b.due; }
  };

  void Adopt(StreamId id);
  bool RunStream(StreamId id, AppStream* app);
  bool ReadStream(EngineStream& s, AppStream* app);
  bool WriteStream(EngineStream& s, AppStream* app);
  bool CompleteSends(EngineStream& s, AppStream* app);
  ReturnResult Return(const Token& token);
  bool ReturnTokens();
  void CheckGather(uint64_t addr);
  static void CheckPool(const FragPool& pool, FragPool::Owners* last);
  void Fail(const std::string& what);

  const Options options_;
  const Clock& clock_;
  Prng prng_;
  std::vector<std::byte> host_memory_;
  std::vector<std::byte> linear_memory_;
  std::vector<std::byte> device_memory_;
  std::vector<std::byte> send_memory_;   // The application's, "device".
  std::vector<std::byte> host_buffers_;  // The engine's own.
  std::vector<uint32_t> free_sends_;
  std::vector<bool> is_sending_;  // By slot of send_memory_.
  FragPool host_pool_;
  FragPool linear_pool_;
  FragPool device_pool_;
  FragPool::Owners host_owners_;  // When last recounted.
  FragPool::Owners linear_owners_;
  FragPool::Owners device_owners_;
  std::unique_ptr<TailReader> tails_;
  std::unique_ptr<SimPacketIo> io_;
  std::unique_ptr<Engine> engine_;
  std::optional<ListenerId> listener_;
  std::map<StreamId, AppStream> streams_;
  std::priority_queue<Token> tokens_;
  std::vector<Token> hoard_;
  size_t adopted_ = 0;
  std::map<StreamId, Connection::Stats> tcp_stats_;  // When last seen.
  bool has_relented_ = false;
  uint32_t max_application_slots_ = 0;
  uint64_t bytes_read_ = 0;
  uint64_t linear_bytes_ = 0;
  size_t finished_ = 0;
  bool has_given_up_ = false;
  std::string failure_;
};

}  // namespace devwire

#endif  // TRANSPORT_SIM_ENGINE_HOST_H_
