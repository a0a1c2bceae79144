// Listener: a local port that accepts connections.
//
// Threads, errors: as Stream. Lifetime: destroying it resets what was not
// accepted yet; it may outlive its Stack, every call then says so.
#ifndef SOCKETS_LISTENER_H_
#define SOCKETS_LISTENER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "base/time.h"
#include "memreg/frag.h"
#include "sockets/cancel.h"
#include "sockets/stream.h"
#include "transport/address.h"

namespace devwire {

struct ListenOptions {
  // Device memory that accepted streams receive into; none: host streams.
  std::optional<PoolId> memory;
  // Connections not accepted yet, half-open ones included; further SYNs are
  // dropped and counted. 1 to 4096.
  uint32_t backlog = 128;
  // Other listeners that say so too may have the same port; each connection
  // goes to one of them, as its 4-tuple tells (SO_REUSEPORT). Otherwise the
  // second one is refused: EADDRINUSE.
  bool reuse_port = false;
  // Accepted streams inherit them, from their SYN-ACK on; none: the stack's.
  std::optional<StreamKnobs> knobs;
  std::string congestion;  // of accepted streams; empty: that of the knobs
};

class Listener {
 public:
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // The next connection that is established, or null when there is none now.
  absl::StatusOr<std::unique_ptr<Stream>> TryAccept();
  // Waits for one. DeadlineExceeded (ETIMEDOUT), Cancelled (ECANCELED).
  absl::StatusOr<std::unique_ptr<Stream>> Accept(
      Duration timeout, const CancelFlag* cancel = nullptr);

  // Connections that carry no data yet are accepted only after `most`, counted
  // from their handshake (TCP_DEFER_ACCEPT); 0: at once. Of those whose
  // handshake comes later. EINVAL: negative.
  absl::Status SetDeferAccept(Duration most);

  Endpoint local() const { return local_; }

 private:
  friend class Poller;
  friend class Stack;
  Listener(std::shared_ptr<StackCore> core, uint32_t id, Endpoint local);

  std::shared_ptr<StackCore> core_;
  uint32_t id_;
  Endpoint local_;
};

}  // namespace devwire

#endif  // SOCKETS_LISTENER_H_
