// Which ports of the device's address are bound, and by whom: bind(2) must say
// EADDRINUSE at once, long before the stack has to do with it.
//
// Source:   socket(7) SO_REUSEADDR, SO_REUSEPORT; inet_csk_bind_conflict() of
//           Linux. A port whose last connections are in TIME-WAIT is free here.
// Threads:  any. Lifetime: a claim ends with its last owner.
#ifndef SOCKETS_PRELOAD_PORT_TABLE_H_
#define SOCKETS_PRELOAD_PORT_TABLE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/prng.h"
#include "transport/address.h"

namespace devwire::preload {

// What one socket, or the accepted ones of a listener, have of a port.
struct PortClaim {
  Port port{};
  // SO_REUSEADDR, SO_REUSEPORT of now: they may change after bind(2).
  std::atomic<bool> reuses_address{false};
  std::atomic<bool> reuses_port{false};
  std::atomic<bool> is_listening{false};
};

class PortTable {
 public:
  // `seed`: where the search for a free port begins, so that programs that
  // follow each other do not meet their predecessors' connections.
  explicit PortTable(uint64_t seed) : prng_(seed) {}

  // Null: in use. Port 0: one that nobody has, in kFirst to kLast, which no
  // active open of the stack takes.
  std::shared_ptr<PortClaim> Claim(Port port, bool reuses_address,
                                   bool reuses_port);
  // Of the sockets that a listener accepts: they outlive it.
  std::shared_ptr<PortClaim> ClaimBeside(const PortClaim& listener);

  // Linux's ephemeral ports begin at kFirst; StackOptions::first_local_port
  // follows kLast.
  static constexpr uint16_t kFirst = 32768;
  static constexpr uint16_t kLast = 49151;

 private:
  bool IsFree(uint16_t port, bool reuses_address, bool reuses_port);

  std::mutex mutex_;
  std::unordered_map<uint16_t, std::vector<std::weak_ptr<PortClaim>>> claims_;
  Prng prng_;  // mutex_.
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_PORT_TABLE_H_
