// Which local ports are in use, and for what.
//
//   listeners       one port each
//   active opens    ports of aligned blocks of 2^k, opened when needed; one
//                   flow rule covers a block, so SYNs and TIME-WAIT need none
//                   of their own, and one port serves many destinations
//
// Ports are tried in a keyed order (RFC 6056 3.3.1), so that they cannot be
// guessed from the last one.
//
// Threads: none of its own. Cost: set-up of streams only.
#ifndef TRANSPORT_ENGINE_PORT_TABLE_H_
#define TRANSPORT_ENGINE_PORT_TABLE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/prng.h"
#include "transport/address.h"

namespace devwire {

class PortTable {
 public:
  // Blocks are cut from [first, 65535], first rounded up to a whole block.
  PortTable(uint16_t first, uint8_t block_bits, uint64_t seed);

  // Listening.
  bool AddListener(Port port, uint32_t listener);
  void RemoveListener(Port port);
  std::optional<uint32_t> FindListener(Port port) const;
  // A port from 1024 on that nobody listens on: from the top of those below
  // the blocks, then of all.
  std::optional<Port> FreeListenPort() const;

  // Active opens. A port of an open block for which is_taken says no (it asks
  // for the 4-tuple); opens another block when all are taken. Empty when every
  // port to this destination is in use.
  struct Choice {
    Port port{};
    bool opened_block = false;
    Port block_start{};
  };
  std::optional<Choice> Choose(const std::function<bool(Port)>& is_taken);
  uint8_t block_bits() const { return block_bits_; }

 private:
  static constexpr uint16_t kNobody = UINT16_MAX;
  bool IsListening(uint32_t port) const { return listeners_[port] != kNobody; }
  std::optional<Port> ChooseIn(uint32_t start,
                               const std::function<bool(Port)>& is_taken);

  const uint8_t block_bits_;
  uint32_t next_block_;  // The next one to open; 65536: no more.
  Prng prng_;
  std::vector<uint32_t> blocks_;     // First ports of the open ones.
  std::vector<uint16_t> listeners_;  // By port: the listener, or kNobody.
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_PORT_TABLE_H_
