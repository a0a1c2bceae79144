// How an engine is set up, and what it is given to work with.
#ifndef TRANSPORT_ENGINE_ENGINE_OPTIONS_H_
#define TRANSPORT_ENGINE_ENGINE_OPTIONS_H_

#include <cstddef>
#include <cstdint>

#include "base/time.h"
#include "memreg/device_memory.h"
#include "memreg/frag_pool.h"
#include "transport/engine/iss.h"
#include "transport/engine/neighbor.h"
#include "transport/engine/route.h"
#include "transport/engine/send_buffers.h"
#include "transport/engine/stream_types.h"
#include "transport/tcp/connection.h"

namespace devwire {

// What every IP header of a stream says.
struct IpFields {
  uint8_t ttl = 64;  // Or hop limit. RFC 9293 MUST-49; Linux's ip_default_ttl.
  uint8_t dscp = 0;  // RFC 2474.
};

// What a stream begins with.
struct StreamSettings {
  // The template of its connection: mss, iss, ts_offset, the limits and the
  // slots are filled in.
  Connection::Options tcp;
  // What its window begins with, and its send queue; both grow with use.
  uint64_t receive_initial_bytes = 64u << 10;
  uint64_t receive_budget_bytes = 4u << 20;
  uint64_t send_initial_bytes = 64u << 10;
  uint64_t send_budget_bytes = 8u << 20;
  uint16_t max_mss = 0;  // To announce and to send; 0: the MTU's.
  IpFields ip;
};

// The settings are those of every stream that is opened without its own.
struct EngineOptions : StreamSettings {
  Route route;
  uint32_t mtu = 1500;  // Longest IP packet: the NIC's or less.
  uint32_t max_connections = 1024;
  uint32_t max_listeners = 256;
  uint16_t first_local_port = 49152;
  uint8_t port_block_bits = 8;
  // How long a handshake waits for its flow rule.
  Duration rule_wait = 1_s;
  // Half-open streams, all listeners together (and at most a listener's
  // backlog for each). A SYN beyond them is answered by a cookie, or dropped.
  // Never more than half of max_connections, or of the neighbour table.
  uint32_t max_half_open = 128;
  bool syn_cookies = true;
  // SYN pressure: more half-open streams than this (at most half of the limit),
  // or the latest cookie not older.
  uint32_t syn_pressure_half_open = 64;
  Duration syn_pressure_hold = 1_s;
  // Of all streams together, RFC 5961 7; 0: no limit but the streams' own.
  uint32_t challenge_acks_per_second = 1000;
  NeighborTable::Options neighbors;
  HashKey secret;  // Random; a test fixes it.
  uint32_t send_spans_per_stream = 512;
  uint32_t resets_per_second = 1000;
  uint32_t max_orphans = 256;  // Closed streams that still have a peer.
  // Frames that one stream may send in one poll, before others get a turn.
  uint32_t tx_frames_per_turn = 64;
};

// A pool and where its bytes are. The engine looks at host pools only.
struct EnginePool {
  FragPool* pool = nullptr;
  // Host pools: slot 0. Null for device memory.
  std::byte* host_base = nullptr;
  // Device pools: where slot 0 lies in the bound memory, and who can fetch
  // option bytes from it (null: nobody).
  uint64_t offset = 0;
  DeviceMemory* memory = nullptr;
  uint32_t lkey = 0;  // Device pools: of the bound memory.
  // Slots that may be posted in rings at a time: not for reassembly.
  uint32_t posted_slots = 0;
};
inline constexpr size_t kMaxPools = 64;

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_ENGINE_OPTIONS_H_
