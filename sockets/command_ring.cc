#include "sockets/command_ring.h"

#include <thread>

namespace devwire {
namespace {

// Polls of `is_done` before the caller sleeps: about the time of one engine
// poll.
constexpr int kSpins = 2000;

}  // namespace

CommandRing::CommandRing(Bell* bell) : bell_(bell) {
  for (size_t i = 0; i < kCells; ++i) {
    cells_[i].turn.store(i, std::memory_order_relaxed);
    cells_[i].command = nullptr;
  }
}

bool CommandRing::TryPush(Command* command) {
  size_t at = tail_.load(std::memory_order_relaxed);
  while (true) {
    Cell& cell = cells_[at & (kCells - 1)];
    const size_t turn = cell.turn.load(std::memory_order_acquire);
    if (turn == at) {
      if (tail_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
        cell.command = command;
        cell.turn.store(at + 1, std::memory_order_release);
        return true;
      }
    } else if (turn < at) {
      return false;  // A lap behind: full.
    } else {
      at = tail_.load(std::memory_order_relaxed);
    }
  }
}

bool CommandRing::Execute(Command* command) {
  // Sequentially consistent, with Close(): who finds the ring open is found in
  // pushing_ by the consumer, which then waits for the push.
  pushing_.fetch_add(1, std::memory_order_seq_cst);
  if (is_closed_.load(std::memory_order_seq_cst)) {
    pushing_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  while (!TryPush(command)) std::this_thread::yield();
  pushing_.fetch_sub(1, std::memory_order_release);
  if (bell_ != nullptr) bell_->Ring();
  for (int i = 0; i < kSpins; ++i) {
    if (command->is_done.load(std::memory_order_acquire) != 0) return true;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  command->is_done.wait(0, std::memory_order_acquire);
  return true;
}

void CommandRing::Close() {
  is_closed_.store(true, std::memory_order_seq_cst);
  // Those who wait for room need some to be made.
  while (pushing_.load(std::memory_order_seq_cst) != 0) {
    if (RunSome(kCells) == 0) std::this_thread::yield();
  }
  while (RunSome(kCells) > 0) {
  }
}

size_t CommandRing::RunSome(size_t max) {
  size_t ran = 0;
  while (ran < max) {
    Cell& cell = cells_[head_ & (kCells - 1)];
    if (cell.turn.load(std::memory_order_acquire) != head_ + 1) break;
    Command* command = cell.command;
    cell.turn.store(head_ + kCells, std::memory_order_release);
    ++head_;
    ++ran;
    command->run(command);
    // The command may be gone as soon as its caller sees this; notify_one uses
    // its address alone.
    command->is_done.store(1, std::memory_order_release);
    command->is_done.notify_one();
  }
  return ran;
}

}  // namespace devwire
