// How other threads have something done on the engine's thread: a bounded ring
// of commands, many producers, one consumer. A command lives on its caller's
// stack, and its caller waits for it. Close() ends it: every command was run
// before, or is refused; nobody waits for ever.
//
// Source:   the ring is D. Vyukov's bounded queue: each cell carries a sequence
//           number that says whose turn it is.
// Cost:     no allocation. An uncontended command costs four locked
//           instructions and one round trip to the engine's thread.
// Limits:   kCells commands wait; a further caller yields until there is room.
#ifndef SOCKETS_COMMAND_RING_H_
#define SOCKETS_COMMAND_RING_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/bell.h"
#include "base/counter.h"

namespace devwire {

struct Command {
  void (*run)(Command*) = nullptr;
  void* argument = nullptr;
  std::atomic<uint32_t> is_done{0};
};

class CommandRing {
 public:
  static constexpr size_t kCells = 256;
  static_assert((kCells & (kCells - 1)) == 0);

  // The bell of a consumer that sleeps; null: it does not.
  explicit CommandRing(Bell* bell = nullptr);

  // Any thread but the consumer: queues the command and waits until it ran.
  // False, and it did not and will not run: the ring is closed.
  [[nodiscard]] bool Execute(Command* command);
  // The consumer: runs up to `max`. Returns how many.
  size_t RunSome(size_t max);
  // The consumer, once: refuses what comes from now on and runs what came
  // before.
  void Close();

 private:
  struct Cell {
    std::atomic<size_t> turn;
    Command* command;
  };
  bool TryPush(Command* command);

  Bell* const bell_;
  std::array<Cell, kCells> cells_;
  alignas(kCacheLine) std::atomic<size_t> tail_{0};
  // Callers between their look at is_closed_ and the end of their push.
  std::atomic<uint32_t> pushing_{0};
  std::atomic<bool> is_closed_{false};
  alignas(kCacheLine) size_t head_ = 0;
};

}  // namespace devwire

#endif  // SOCKETS_COMMAND_RING_H_
