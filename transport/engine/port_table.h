// Which local ports are in use, and for what.
//
//   listeners       one port each; those that say so share one, and of them the
//                   4-tuple tells which has a connection (socket(7),
//                   SO_REUSEPORT)
//   active opens    ports of aligned blocks of 2^k, opened when needed; one
//                   flow rule covers a block, so SYNs and TIME-WAIT need none
//                   of their own, and one port serves many destinations
//
// A stranger must not guess a port, nor read from one how many were taken for
// others: RFC 6056 3.3.4, algorithm 4 (double-hash). Within a block the port is
//
//   start + (F(local IP, remote IP, remote port) + table[G(the same)]++) mod
//   2^k
//
// and so on through the open blocks, so that ports to one destination follow
// each other, and are reused as late as can be, while a counter is shared by
// few destinations. Blocks are opened in an order that the secret tells: when
// all ports are taken, and when those to one destination come round again while
// the peer may still have their last connections in TIME-WAIT.
//
// Threads: none of its own. Cost: set-up of streams only.
#ifndef TRANSPORT_ENGINE_PORT_TABLE_H_
#define TRANSPORT_ENGINE_PORT_TABLE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/time.h"
#include "transport/address.h"
#include "transport/engine/iss.h"

namespace devwire {

class PortTable {
 public:
  // Blocks are cut from [first, 65535], first rounded up to a whole block.
  PortTable(uint16_t first, uint8_t block_bits, const HashKey& secret);

  // Listening. False: another one does, and not both `shares`.
  bool AddListener(Port port, uint32_t listener, bool shares);
  void RemoveListener(Port port, uint32_t listener);
  // Of those that share the port, one and the same for a 4-tuple as long as
  // they stay; who knows no secret cannot choose which.
  std::optional<uint32_t> FindListener(const FourTuple& tuple) const;
  // Any of those that listen there.
  std::optional<uint32_t> FirstListener(Port port) const;
  // A port from 1024 on that nobody listens on: from the top of those below
  // the blocks, then of all.
  std::optional<Port> FreeListenPort() const;

  // Active opens to `tuple`, whose local port is not looked at. A port of an
  // open block for which is_taken says no (it asks for the 4-tuple); may open
  // one more. Empty when every port to this destination is in use.
  struct Choice {
    Port port{};
    bool opened_block = false;
    Port block_start{};
  };
  std::optional<Choice> Choose(const FourTuple& tuple, Instant now,
                               const std::function<bool(Port)>& is_taken);
  uint8_t block_bits() const { return block_bits_; }

 private:
  struct Listeners {
    bool shares = false;
    std::vector<uint32_t> members;  // In the order in which they came.
  };
  // A walk over all ports of the open blocks, one destination's.
  struct Round {
    uint32_t next = 0;   // RFC 6056's counter.
    uint32_t tries = 0;  // Since this round began.
    Instant began;
  };
  uint32_t open_ports() const {
    return static_cast<uint32_t>(open_blocks_) << block_bits_;
  }
  bool OpenBlock(uint32_t offset, Round* round);
  std::optional<Port> Walk(uint32_t offset, Round* round,
                           const std::function<bool(Port)>& is_taken);

  // How long a peer keeps a connection in TIME-WAIT that it closed first: Linux
  // (TCP_TIMEWAIT_LEN). It may refuse the next one from the same port before,
  // RFC 9293 3.10.7.4, RFC 6191.
  static constexpr Duration kReuseAfter = 60_s;
  // RFC 6056 3.3.4: the table's length is what divides destinations that share
  // a counter; it proposes 10 and above.
  static constexpr size_t kCounters = 256;

  const uint8_t block_bits_;
  const HashKey secret_;
  uint32_t first_block_;
  std::vector<uint32_t> blocks_;  // First ports, in the order of opening.
  size_t open_blocks_ = 0;        // So many of them are open.
  std::array<Round, kCounters> rounds_{};
  absl::flat_hash_map<Port, Listeners> listeners_;  // None without members.
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_PORT_TABLE_H_
