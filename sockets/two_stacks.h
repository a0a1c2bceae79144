// Two stacks of one process on two softnic devices with a cable in between,
// polled by the test's one thread: what the end-to-end tests share.
//
// Every byte of a stream is a function of its position, so that a receiver
// knows what to expect. The bytes go in and out of device memory through its
// provider, never through a mapping.
#ifndef SOCKETS_TWO_STACKS_H_
#define SOCKETS_TWO_STACKS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memreg/host_memory.h"
#include "sockets/stack.h"
#include "softnic/softnic.h"

namespace devwire {

// Byte `offset` of the stream numbered `stream`.
std::byte PatternByte(uint64_t stream, uint64_t offset);

class TwoStacks {
 public:
  struct Options {
    uint32_t mtu = 1500;
    uint32_t slot_bytes = 2048;
    uint64_t memory_bytes = 4 << 20;
    // Of the memory, for receiving; the rest is sent from.
    uint64_t receive_bytes = 2 << 20;
    // Further keys of both devices: ",loss=0.01". `$` is the device's name.
    std::string nic;
    uint32_t client_mtu = 0;  // 0: mtu. Of its stack, slots and port.
    bool ipv6 = false;        // fd00::1 and fd00::2.
    StackOptions stack;       // What is not set here.
  };
  struct Side {
    std::string device;
    IpAddress address;
    MacAddress mac{};
    std::unique_ptr<MemfdMemory> memory;
    std::unique_ptr<Stack> stack;
    PoolId pool{};
    softnic_counters Nic() const;
  };

  explicit TwoStacks(const Options& options);
  ~TwoStacks();

  Side& client() { return sides_[0]; }
  Side& server() { return sides_[1]; }
  const Options& options() const { return options_; }

  // Polls both stacks once.
  void Poll();
  // Until `step`, called after each poll, answers true; false after `patience`.
  bool Until(const std::function<bool()>& step, Duration patience = 20_s);

  struct Pair {
    std::unique_ptr<Stream> client;
    std::unique_ptr<Stream> server;
  };
  // A connection from the client to a listener on the server. Host streams
  // where no pool is given.
  Pair Connect(std::optional<PoolId> client_pool,
               std::optional<PoolId> server_pool);
  Pair Connect() { return Connect(client().pool, server().pool); }

  // Slots held by streams: reassembly and application, both sides.
  uint32_t SlotsHeld();

 private:
  uint32_t MtuOf(int side) const {
    return side == 0 && options_.client_mtu != 0 ? options_.client_mtu
                                                 : options_.mtu;
  }

  const Options options_;
  Side sides_[2];
  std::unique_ptr<Listener> device_listener_;
  std::unique_ptr<Listener> host_listener_;
};

// Sends `bytes` of the pattern from device memory in chunks, each from a
// buffer that is filled again as soon as its completion is polled.
class PatternSender {
 public:
  struct Options {
    uint64_t stream_number = 0;
    uint64_t bytes = 0;
    uint32_t chunk_bytes = 16 << 10;
    uint32_t chunks = 8;
    uint32_t spans = 1;   // Per chunk.
    uint64_t offset = 0;  // Of the buffers in the memory.
    bool closes = true;   // CloseSend() at the end.
  };
  PatternSender(Stream& stream, TwoStacks::Side& side, const Options& options);

  // Sends what it can; true when all was sent, acknowledged and handed back.
  bool Step();
  uint64_t completed() const { return completed_; }
  uint64_t undelivered() const { return undelivered_; }

 private:
  Stream& stream_;
  TwoStacks::Side& side_;
  const Options options_;
  std::vector<uint32_t> free_;
  uint64_t sent_ = 0;
  uint64_t completed_ = 0;
  uint64_t undelivered_ = 0;
  uint64_t next_cookie_ = 1;
  std::vector<std::pair<uint64_t, uint32_t>> posted_;  // cookie, chunk
  bool is_closed_ = false;
};

// Receives, compares with the pattern, and returns the tokens.
class PatternReceiver {
 public:
  PatternReceiver(Stream& stream, TwoStacks::Side& side, uint64_t stream_number)
      : stream_(stream), side_(side), stream_number_(stream_number) {}

  // Takes what is there; true at the end of the stream.
  bool Step();
  uint64_t bytes() const { return bytes_; }
  uint64_t device_bytes() const { return device_bytes_; }
  uint64_t host_bytes() const { return host_bytes_; }
  // Of bytes that differ, the first; empty: all were right.
  std::optional<uint64_t> first_wrong() const { return first_wrong_; }

  size_t max_frags = 64;
  uint64_t max_bytes = UINT64_MAX;
  bool keeps_tokens = false;  // Into `tokens`, to be returned by the test.
  std::vector<FragToken> tokens;

 private:
  void Compare(const StreamFrag& frag);

  Stream& stream_;
  TwoStacks::Side& side_;
  const uint64_t stream_number_;
  uint64_t bytes_ = 0;
  uint64_t device_bytes_ = 0;
  uint64_t host_bytes_ = 0;
  std::optional<uint64_t> first_wrong_;
};

}  // namespace devwire

#endif  // SOCKETS_TWO_STACKS_H_
