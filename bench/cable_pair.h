// Two stacks on one cable, polled by one thread: what the benches and the
// steady-state test run. One stream, device memory to device memory.
#ifndef BENCH_CABLE_PAIR_H_
#define BENCH_CABLE_PAIR_H_

#include <cstdint>
#include <memory>

#include "memreg/host_memory.h"
#include "sockets/stack.h"

namespace devwire {

// Device memory of each end, and the bytes of one SendDevice().
inline constexpr uint64_t kCablePoolBytes = 16u << 20;
inline constexpr uint32_t kCableSendBytes = 1u << 20;

struct End {
  std::unique_ptr<MemfdMemory> memory;
  std::unique_ptr<Stack> stack;
  PoolId id{};
  std::unique_ptr<Stream> stream;  // Dies first.
};

struct CablePair {
  End sender;
  End receiver;
};

// Opens softnic's sn0 and sn1 on a cable of their own and connects a stream.
// Any failure stops the process with its status.
CablePair OpenCablePair(uint32_t mtu);

// One turn of the receiving application: frags in, tokens back. Returns the
// bytes received. Never inlined: callgrind collects by function.
uint64_t PollReceiver(End& end);

struct SendProgress {
  uint64_t to_send = 0;    // Not yet handed over.
  uint64_t in_flight = 0;  // Handed over, not completed.
  uint64_t offset = 0;     // Of the next send, in the memory.
};
// One turn of the sending application: completions in, as many sends out as
// its memory has room for. Never inlined.
void PollSender(End& end, SendProgress* progress);

// Moves `bytes`, a multiple of kCableSendBytes, until all are acknowledged.
void Transfer(CablePair& pair, uint64_t bytes);

}  // namespace devwire

#endif  // BENCH_CABLE_PAIR_H_
