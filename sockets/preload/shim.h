// What all intercepted calls share: the stack, who runs it, and which
// descriptors are Devwire's.
//
//   application threads   one call = lock, do it, poll the stack once, unlock
//   progress thread       sleeps on the poller's descriptor; then polls, and
//                         tells each socket's ReadyFd what changed
//   kernel                wakes who sleeps in poll, select, epoll or a call
//
// Threads:  any. The stack is kCallerPolls under one lock: a call that does
//           not wait costs no system call and no other thread.
// Lifetime: made at the first call, never destroyed. The stack opens at the
//           first socket that is taken, so that a program may fork and become
//           a daemon before.
#ifndef SOCKETS_PRELOAD_SHIM_H_
#define SOCKETS_PRELOAD_SHIM_H_

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>

#include "sockets/poller.h"
#include "sockets/preload/account.h"
#include "sockets/preload/config.h"
#include "sockets/preload/log.h"
#include "sockets/preload/taken_socket.h"
#include "sockets/stack.h"

namespace devwire::preload {

class Shim {
 public:
  // Null: nothing is taken (no configuration, or a bad one, which is said on
  // standard error once).
  static Shim* Get();

  // The socket of this descriptor; null: it is the kernel's, or this is a
  // forked child (IsParents()).
  std::shared_ptr<TakenSocket> Find(int fd);
  // In a forked child: the descriptor is that of a socket which the parent
  // has, and keeps. Says so on standard error, once.
  bool IsParents(int fd);
  // In a forked child: the descriptor is closed, its number may be another's.
  void ForgetInChild(int fd);

  // -- with mutex held -------------------------------------------------------
  // Opens it if it is not open. Says on standard error why it cannot.
  Stack* OpenStack();
  // `fd` becomes the socket's: that of the kernel behind it is closed.
  // `made_fd` is what TakenSocket::Make gave. A negative errno, or 0.
  int64_t Adopt(std::shared_ptr<TakenSocket> socket, int made_fd,
                std::optional<int> fd);
  void Insert(int fd, std::shared_ptr<TakenSocket> socket);
  // Another descriptor of the same socket. Without it `fd` is the kernel's.
  void Alias(int fd, int of);
  // What was at `fd`, if anything of ours; null unless it was the last one.
  std::shared_ptr<TakenSocket> Remove(int fd);
  // Sends what the call has queued.
  void Push() {
    if (stack_ == nullptr) return;  // While the process exits.
    stack_->Poll();
    NotePayload();
  }
  // --------------------------------------------------------------------------

  // A socket that the kernel could not bind, because our address is not its:
  // bind(2) is remembered until it is closed.
  void Bind(int fd, const Endpoint& local);
  void Unbind(int fd);
  std::optional<Endpoint> BoundTo(int fd);

  const ShimConfig& config() const { return config_; }
  Account& account() { return account_; }
  // Whether a socket that is to be connected to `endpoint`, or to listen on it,
  // is ours to take; what is not is accounted for.
  bool Takes(int fd, Direction direction, const Endpoint& endpoint);

  std::mutex mutex;

 private:
  explicit Shim(ShimConfig config);
  void ForkedChild();
  void Run();
  // Why the device does not reach it; empty: it does.
  std::string WhyNotReachable(Direction direction, const IpAddress& ip) const;
  void StartRecord();
  void EndConnection(const TakenSocket* socket);
  void NotePayload();
  // The process ends: what was queued is sent, for kExitPatience at most.
  void AtExit();
  friend void EndOfProcess();

  // Descriptors above are never taken.
  static constexpr size_t kMaxFds = 1 << 20;

  const ShimConfig config_;
  const Log log_;
  const ProgramNames program_;
  Account account_;
  std::unique_ptr<Stack> stack_;
  std::unique_ptr<Poller> poller_;
  int event_fd_ = -1;
  bool has_failed_ = false;
  std::thread progress_;
  // What the guardian would reset.
  std::unordered_map<const TakenSocket*, uint32_t> connections_;

  // A look without a lock: most descriptors are the kernel's.
  std::unique_ptr<std::atomic<bool>[]> is_taken_ {
    new std::atomic<bool>[ kMaxFds ]()
  };
  std::atomic<bool> is_in_child_{false};
  std::atomic<bool> has_said_so_{false};
  std::mutex table_mutex_;
  std::unordered_map<int, std::shared_ptr<TakenSocket>> table_;
  std::unordered_map<int, Endpoint> bound_;  // table_mutex_.
  std::atomic<size_t> bound_count_{0};       // A look without the lock.
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_SHIM_H_
