// Which descriptors are TCP sockets that Devwire has taken, or may yet take.
//
//   other     not a TCP socket, or one that stays the kernel's: never asked
//   again tracked   a TCP socket of the kernel's that connect or listen may
//   take taken     a TakenSocket stands behind it
//
// A socket may have several descriptors (dup(2)), and epoll instances that
// watch them. When it changes hands, Replace() puts the new open file behind
// every one of them, and moves what watches them.
//
// FD_CLOEXEC of a taken descriptor is kept here: the kernel's is always set,
// because the connection cannot pass an execve(2).
//
// Threads:  any. Cost: state() is one load; the rest takes a lock.
#ifndef SOCKETS_PRELOAD_FD_TABLE_H_
#define SOCKETS_PRELOAD_FD_TABLE_H_

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "sockets/preload/kernel_socket.h"
#include "sockets/preload/taken_socket.h"

namespace devwire::preload {

class FdTable {
 public:
  enum class State : uint8_t { kOther, kTracked, kTaken };

  // Without a lock: most descriptors are the kernel's.
  State state(int fd) const {
    if (fd < 0 || static_cast<size_t>(fd) >= kMaxFds) return State::kOther;
    return states_[static_cast<size_t>(fd)].load(std::memory_order_acquire);
  }

  std::shared_ptr<TakenSocket> FindTaken(int fd);
  // Of a tracked or a taken one, else null.
  std::shared_ptr<KernelSocket> FindKernel(int fd);

  // A new socket of the kernel's; or of ours, when `taken` is given. EMFILE:
  // the number is too high.
  int64_t Insert(int fd, std::shared_ptr<KernelSocket> kernel,
                 std::shared_ptr<TakenSocket> taken, bool closes_on_exec);
  // Another descriptor of the same socket. Without it `fd` is the kernel's.
  void Alias(int fd, int of, bool closes_on_exec);
  // The descriptor goes. The socket that was behind it, when it was the last
  // one of a taken socket; else null.
  std::shared_ptr<TakenSocket> Remove(int fd);
  // It stays the kernel's: nothing of it is remembered.
  void Forget(const KernelSocket& kernel);

  // `made` becomes the open file of all descriptors of this socket, which is
  // then `taken`, or the kernel's again (null). Closes `made`. A negative
  // errno, or 0.
  int64_t Replace(const std::shared_ptr<KernelSocket>& kernel,
                  std::shared_ptr<TakenSocket> taken, int made);

  // epoll_ctl(2) has done it.
  void OnEpollControl(int epoll, int operation, int fd,
                      const epoll_event* event);

  bool ClosesOnExec(int fd);
  void SetClosesOnExec(int fd, bool closes);

  std::vector<std::shared_ptr<TakenSocket>> AllTaken();
  // The descriptors from `first` to `last` that are not kOther.
  std::vector<int> Between(unsigned first, unsigned last);

  // fork(2): the child's copy must not be half changed.
  void LockForFork() { mutex_.lock(); }
  void UnlockAfterFork() { mutex_.unlock(); }
  // In a child: only the state is left of what the parent has.
  void ForgetTaken(int fd);

 private:
  struct Entry {
    std::shared_ptr<KernelSocket> kernel;
    std::shared_ptr<TakenSocket> taken;
    bool closes_on_exec = false;
  };
  // Descriptors above are never taken.
  static constexpr size_t kMaxFds = 1 << 20;

  void SetState(int fd, State state) {
    states_[static_cast<size_t>(fd)].store(state, std::memory_order_release);
  }
  void MoveWatches(KernelSocket& kernel, int fd, int made, int flags,
                   int* error);

  std::unique_ptr<std::atomic<State>[]> states_ {
    new std::atomic<State>[ kMaxFds ]()
  };
  std::mutex mutex_;
  std::unordered_map<int, Entry> entries_;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_FD_TABLE_H_
