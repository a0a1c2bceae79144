// Which local ports are in use, and for what.
//
//   listeners       one port each
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
// so that ports to one destination follow each other, and are reused as late as
// can be, while a counter is shared by few destinations. Blocks are opened in
// an order that the secret tells.
//
// Threads: none of its own. Cost: set-up of streams only.
#ifndef TRANSPORT_ENGINE_PORT_TABLE_H_
#define TRANSPORT_ENGINE_PORT_TABLE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "transport/address.h"
#include "transport/engine/iss.h"

namespace devwire {

class PortTable {
 public:
  // Blocks are cut from [first, 65535], first rounded up to a whole block.
  PortTable(uint16_t first, uint8_t block_bits, const HashKey& secret);

  // Listening.
  bool AddListener(Port port, uint32_t listener);
  void RemoveListener(Port port);
  std::optional<uint32_t> FindListener(Port port) const;
  // A port from 1024 on that nobody listens on: from the top of those below
  // the blocks, then of all.
  std::optional<Port> FreeListenPort() const;

  // Active opens to `tuple`, whose local port is not looked at. A port of an
  // open block for which is_taken says no (it asks for the 4-tuple); opens
  // another block when all are taken. Empty when every port to this destination
  // is in use.
  struct Choice {
    Port port{};
    bool opened_block = false;
    Port block_start{};
  };
  std::optional<Choice> Choose(const FourTuple& tuple,
                               const std::function<bool(Port)>& is_taken);
  uint8_t block_bits() const { return block_bits_; }

 private:
  static constexpr uint16_t kNobody = UINT16_MAX;
  bool IsListening(uint32_t port) const { return listeners_[port] != kNobody; }
  std::optional<Port> ChooseIn(uint32_t start, uint32_t offset,
                               uint32_t* counter,
                               const std::function<bool(Port)>& is_taken);

  // RFC 6056 3.3.4: the table's length is what divides destinations that share
  // a counter; it proposes 10 and above.
  static constexpr size_t kCounters = 256;

  const uint8_t block_bits_;
  const HashKey secret_;
  uint32_t first_block_;
  std::vector<uint32_t> blocks_;  // First ports, in the order of opening.
  size_t open_blocks_ = 0;        // So many of them are open.
  std::array<uint32_t, kCounters> counters_{};
  std::vector<uint16_t> listeners_;  // By port: the listener, or kNobody.
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_PORT_TABLE_H_
