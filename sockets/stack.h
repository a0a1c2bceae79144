// Stack: a TCP/IP host on one NIC port, whose payload lies in device memory.
//
//   auto stack = Stack::Open({.device = "sn0", .address = *IpAddress::Parse(
//                             "10.0.0.1")});
//   auto memory = (*stack)->BindMemory(*gpu_memory, {});
//   auto stream = (*stack)->Connect(*Endpoint::Parse("10.0.0.2:7000"),
//                                   {.memory = *memory});
//   (*stream)->SendDevice(*memory, {{0, 1 << 20}}, /*cookie=*/1);
//
// Threads:  StackOptions::Mode says who runs the engine. kCallerPolls: one
//           thread makes every call (ReturnTokens excepted) and calls Poll()
//           often, or waits in a Poller. Else any thread, any time;
//           but no call on the Stack itself may be in progress when it is
//           destroyed, while those on its streams, listeners and pollers may.
// Lifetime: closing (destroying) a stack aborts its open streams, recovers
//           their slots and lets go of the device. Streams, listeners and
//           pollers may live on; their calls, also those that wait, then
//           answer FailedPrecondition (ESHUTDOWN).
//           Bound memory must outlive the stack.
// Fork:     belongs to the process that opened it: in a child every call
//           answers FailedPrecondition (EOWNERDEAD) and does nothing else.
// Errors:   each names what was tried and the next step (sockets/errno_map.h).
//           When the NIC has failed, every stream has (EIO), nothing can be
//           opened, and closing is all that is left.
#ifndef SOCKETS_STACK_H_
#define SOCKETS_STACK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "memreg/frag.h"
#include "memreg/frag_pool.h"
#include "sockets/cancel.h"
#include "sockets/listener.h"
#include "sockets/poller.h"
#include "sockets/stack_options.h"
#include "sockets/stream.h"
#include "transport/address.h"

namespace devwire {

class DeviceMemory;
class DmaBuf;
class StackCore;

struct ConnectOptions {
  std::optional<PoolId> memory;      // receive into it; none: a host stream
  std::optional<Port> local_port;    // none: one of the stack's port blocks
  std::optional<StreamKnobs> knobs;  // of this stream; none: the stack's
  std::string congestion;            // empty: that of the knobs
  Duration timeout = Duration::Nanoseconds(30'000'000'000);
  const CancelFlag* cancel = nullptr;
};

// Everything the stack counted since it was opened.
struct StackCounters {
  struct Named {
    std::string name;
    uint64_t value = 0;
  };
  // Half-open ones, and those that nobody holds any more, included: the
  // difference is how many there are now.
  uint64_t streams_opened = 0;
  uint64_t streams_closed = 0;
  uint64_t frames_in = 0;
  uint64_t frames_out = 0;
  uint64_t segments_in = 0;
  uint64_t segments_out = 0;
  uint64_t device_bytes = 0;  // payload delivered where it belongs
  uint64_t linear_bytes = 0;  // payload delivered through host memory
  uint64_t retransmitted_segments = 0;
  std::vector<Named> drops;   // by reason, those that are not zero
  std::vector<Named> events;  // rules, moves, ARP..., those that are not zero
};

// Payload since the stack was opened: handed to the application, and posted to
// the NIC (what was sent again counts again).
struct PayloadBytes {
  uint64_t in = 0;
  uint64_t out = 0;
};

// Slots of one bound region (or of the stack's host pool) by owner.
struct MemoryUse {
  uint32_t slot_bytes = 0;
  uint32_t slots = 0;
  FragPool::Owners owners;
  uint64_t slot_fills = 0;      // times any slot was filled and delivered
  uint32_t min_slot_fills = 0;  // the fewest that one slot was
};

class Stack {
 public:
  static absl::StatusOr<std::unique_ptr<Stack>> Open(
      const StackOptions& options);
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  // Registers device memory with the NIC, for receiving and for sending.
  // Set-up, milliseconds. The answer names it in all other calls.
  absl::StatusOr<PoolId> BindMemory(const DmaBuf& dmabuf,
                                    const PoolOptions& options);
  absl::StatusOr<PoolId> BindMemory(DeviceMemory& memory,
                                    const PoolOptions& options);
  absl::StatusOr<MemoryUse> Use(PoolId memory);

  // Port 0 takes a free one; the address must be the stack's.
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Endpoint& local,
                                                   const ListenOptions& = {});
  // Waits until established, at most options.timeout. To the stack's own
  // address too, through the NIC, where that loops its own frames back; else
  // Unavailable (EHOSTUNREACH).
  absl::StatusOr<std::unique_ptr<Stream>> Connect(const Endpoint& remote,
                                                  const ConnectOptions& = {});
  // Does not wait: see Stream::ConnectStatus and kConnected.
  absl::StatusOr<std::unique_ptr<Stream>> StartConnect(
      const Endpoint& remote, const ConnectOptions& = {});

  absl::StatusOr<std::unique_ptr<Poller>> NewPoller();

  // kCallerPolls: one turn of the engine. Returns whether anything happened.
  // No system call and no allocation for segments; opening streams and asking
  // for their rules may cost both. False and nothing else when a thread of the
  // library does it.
  bool Poll();

  absl::StatusOr<StackCounters> Counters();
  // Zeros once the stack is closed. Neither allocates nor waits; any thread.
  PayloadBytes Payload() const;
  // Bytes that were to be sent and no peer has acknowledged, of all streams,
  // closed ones too; a FIN counts as one. 0: nothing is lost if the stack is
  // closed now, and its peers have seen every end. O(connections).
  absl::StatusOr<uint64_t> Undelivered();
  IpAddress address() const;
  MacAddress mac() const;
  uint32_t mtu() const;

  // Writes the headers of both directions, with drop reasons, to a pcapng
  // file, until `max_bytes` are written or StopCapture(). At any time.
  absl::Status StartCapture(const std::string& path, uint64_t max_bytes);
  absl::Status StopCapture();

 private:
  explicit Stack(std::shared_ptr<StackCore> core);
  std::shared_ptr<StackCore> core_;
};

}  // namespace devwire

#endif  // SOCKETS_STACK_H_
