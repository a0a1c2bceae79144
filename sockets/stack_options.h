// How a Stack is opened. Every field has a default that suits a first run.
#ifndef SOCKETS_STACK_OPTIONS_H_
#define SOCKETS_STACK_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "sockets/tcp_knobs.h"
#include "transport/address.h"
#include "transport/engine/stream_types.h"

namespace devwire {

struct StaticNeighbor {
  IpAddress ip;
  MacAddress mac;
};

struct StackOptions {
  // Who runs the engine.
  enum class Mode : uint8_t {
    kCallerPolls,  // Stack::Poll() and the calls that wait; one thread
    kBusyThread,   // a thread of the library polls without sleeping
    // A thread of the library polls, and sleeps when there is nothing to do.
    // For programs that share their cores; costs a wake-up of latency.
    kSleepingThread,
  };

  // A libibverbs-ABI shared object, one per process; empty: the environment's
  // DEVWIRE_VERBS_LIBRARY, else libibverbs.so.1.
  std::string verbs_library;
  std::string device;  // by name; empty: the only one there is
  uint8_t port = 1;

  // Owned addressing: this stack alone answers for `address`.
  IpAddress address;
  uint8_t prefix_bits = 24;
  std::optional<IpAddress> gateway;
  std::optional<MacAddress> mac;  // none: the port's
  uint32_t mtu = 1500;            // longest IP packet, at most the port's
  // The NIC verifies TCP checksums of IPv6: no mlx5 does. Without it, IPv6
  // into device memory is refused.
  bool nic_verifies_ipv6 = false;
  std::vector<StaticNeighbor> neighbors;

  Mode mode = Mode::kCallerPolls;
  // An engine that sleeps (also a caller's, on Poller::EventFd) looks again
  // after this at the latest: completion events may be lost.
  Duration wake_backstop = Duration::Nanoseconds(50'000'000);
  // Streams at a time, 1 to 65535. Closed ones in TIME-WAIT count, but make
  // room for new ones.
  uint32_t max_connections = 1024;
  // Regions that may be bound to receive into, 1 to 62: each may come to need
  // two data queues (streams with and without timestamps), whose header memory
  // and completions are set aside when the stack opens, 192 bytes a frame.
  uint32_t max_receive_pools = 16;
  // Half-open connections of all listeners together, at most half of
  // max_connections; SYNs beyond them, or beyond a listener's backlog, are
  // answered by SYN cookies (RFC 4987), or dropped.
  uint32_t max_half_open = 128;
  bool syn_cookies = true;
  // Receives posted per queue, and frames queued for sending.
  uint32_t rx_ring_frames = 512;
  uint32_t tx_ring_frames = 512;
  // Host memory: whole frames of streams that are not steered, and of host
  // streams; send buffers.
  uint64_t host_receive_bytes = 16u << 20;
  uint64_t host_send_bytes = 8u << 20;
  // Active opens take ports from aligned blocks of 2^port_block_bits.
  uint16_t first_local_port = 49152;
  uint8_t port_block_bits = 8;
  // How long a handshake waits for its flow rule before it goes on without.
  Duration rule_wait = Duration::Nanoseconds(1'000'000'000);

  TcpKnobs tcp;

  // Told of every connection; borrowed, until the stack is closed. It may not
  // call the stack. Null: nobody.
  ConnectionObserver* connection_observer = nullptr;
};

// How a region of device memory is used.
struct PoolOptions {
  // Bytes of one receive slot; at least the payload of one frame. 0: the
  // smallest of 2048, 4096, 8192, 9216 that holds the MTU's. A region has at
  // most 2^24 slots (32 GiB of 2048 bytes): more memory wants longer ones.
  uint32_t slot_bytes = 0;
  // The part of the region that becomes receive slots, from its start. All of
  // it when empty; 0: the region is for sending only.
  std::optional<uint64_t> receive_bytes;
  // Ask the NIC for relaxed ordering of payload writes.
  bool relaxed_ordering = false;
};

}  // namespace devwire

#endif  // SOCKETS_STACK_OPTIONS_H_
