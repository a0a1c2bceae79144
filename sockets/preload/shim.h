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

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "sockets/poller.h"
#include "sockets/preload/account.h"
#include "sockets/preload/config.h"
#include "sockets/preload/devmem_bindings.h"
#include "sockets/preload/fd_table.h"
#include "sockets/preload/kernel_socket.h"
#include "sockets/preload/log.h"
#include "sockets/preload/netlink_sockets.h"
#include "sockets/preload/option_effects.h"
#include "sockets/preload/port_table.h"
#include "sockets/preload/taken_socket.h"
#include "sockets/preload/wait_word.h"
#include "sockets/stack.h"

namespace devwire::preload {

class Shim {
 public:
  // Null: nothing is taken (no configuration, or a bad one, which is said on
  // standard error once).
  static Shim* Get();
  // The same, but makes none. Safe in a signal handler.
  static Shim* Existing();

  // The socket of this descriptor; null: it is the kernel's, or this is a
  // forked child (IsParents()).
  std::shared_ptr<TakenSocket> Find(int fd);
  // In a forked child: the descriptor is that of a socket which the parent
  // has, and keeps. Says so on standard error, once.
  bool IsParents(int fd);
  // This is a forked child, and the stack its parent's.
  bool is_in_child() const {
    return is_in_child_.load(std::memory_order_relaxed);
  }
  // In a forked child: the descriptor is closed, its number may be another's.
  void ForgetInChild(int fd);

  // The TCP socket of the kernel's at `fd` that may yet be taken; null: it is
  // taken, no TCP socket, or a forked child's, whose stack is its parent's.
  std::shared_ptr<KernelSocket> FindCandidate(int fd);
  // The process is about to end: every socket is closed, and the progress
  // thread goes on until the peers have everything, or for kEndPatience nothing
  // moved. As safe in a signal handler as _exit(2): what waits here neither
  // allocates nor takes a lock, and does not wait for ever.
  void FinishSending();
  // This call came from a child that shares our memory, but has descriptors of
  // its own (vfork(2)): it must change nothing here.
  bool IsAnothersCall() const;

  // -- with mutex held -------------------------------------------------------
  // Opens it if it is not open. Says on standard error why it cannot.
  Stack* OpenStack();
  // From now on OnReady() is called, and `fd` is accounted for as taken. A
  // negative errno, or 0. Its close() undoes it.
  int64_t Follow(TakenSocket& socket, int fd, bool is_accepted);
  // Sends what the call has queued.
  void Push() {
    if (stack_ == nullptr) return;  // While the process exits.
    stack_->Poll();
    NotePayload();
  }
  // --------------------------------------------------------------------------

  // -- devmem TCP ------------------------------------------------------------
  // With mutex held.
  DevmemBindings& devmem() { return devmem_; }
  // What a socket receives into that is now connected to `endpoint`, or listens
  // on it. Null: host memory. With mutex held.
  std::shared_ptr<const DevmemBinding> BindingFor(
      Direction direction, const Endpoint& endpoint) const;
  NetlinkSockets& netlink() { return netlink_; }
  // `fd` is a socket of generic netlink; in a forked child all are the
  // kernel's.
  bool IsNetlink(int fd) {
    return netlink_.has_some() && !is_in_child() && netlink_.Has(fd);
  }
  // The kernel's interface that stands for the device: stack.interface, or one
  // that a dmabuf was bound to.
  bool IsOurInterface(const std::string& name);

  const ShimConfig& config() const { return config_; }
  OptionDefaults option_defaults() const {
    return {config_.stack.tcp, config_.keepalive};
  }
  Account& account() { return account_; }
  // Whether a socket that is to be connected to `endpoint`, or to listen on it,
  // is ours to take; what is not is accounted for.
  bool Takes(int fd, Direction direction, const Endpoint& endpoint);

  std::mutex mutex;
  FdTable table;
  PortTable ports;

 private:
  explicit Shim(ShimConfig config);
  void AfterForkInChild();
  void Run();
  // Why the device does not reach it; empty: it does.
  std::string WhyNotReachable(Direction direction, const IpAddress& ip) const;
  void StartRecord();
  void NotePayload();
  void SendWhatIsLeft();
  void CloseStack();
  friend void EndOfProcess();
  // What a program's bind-rx or bind-tx asks for.
  std::optional<int64_t> BindDmabuf(const BindRequest& request,
                                    bool is_receive);

  const ShimConfig config_;
  const Log log_;
  const ProgramNames program_;
  Account account_;
  DevmemBindings devmem_;                   // The stack borrows its memory.
  std::set<std::string> bound_interfaces_;  // mutex
  std::unique_ptr<Stack> stack_;
  std::unique_ptr<Poller> poller_;
  int event_fd_ = -1;
  bool has_failed_ = false;
  std::thread progress_;
  // The end of the process: an eventfd that wakes the progress thread, once
  // that runs; its signs of life, and whether it is through.
  std::atomic<int> end_fd_{-1};
  std::atomic<bool> is_ending_{false};
  WaitWord sending_;
  std::atomic<bool> is_sent_{false};

  std::atomic<int> owner_pid_;  // whose the descriptors in `table` are
  // The stack, and what was taken, are the parent's.
  std::atomic<bool> is_in_child_{false};
  std::atomic<bool> has_said_so_{false};
  NetlinkSockets netlink_;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_SHIM_H_
