// The program's sockets of generic netlink, on which it may bind dmabufs.
//
// They are the kernel's, and so is all that they carry, but for bind-rx and
// bind-tx of the family "netdev". Of these the kernel is sent a message in its
// place that does nothing, with the same sequence number: its acknowledgement
// makes the socket readable, and carries our answer. Where the kernel has no
// such family, the question for it is answered in the same way.
//
//   program              here                         kernel
//   send bind-rx ------> bind; keep the answer
//                        NLMSG_NOOP, same seq ------> acknowledges
//   poll: readable <-------------------------------- |
//   recv <-------------- the answer (or the error)    |
//   recv <-------------- the acknowledgement <-------- , if it was asked for
//
// Threads:  any. A socket's lock comes before Shim::mutex, the table's after.
// Cost:     of other sockets: one look at a counter.
#ifndef SOCKETS_PRELOAD_NETLINK_SOCKETS_H_
#define SOCKETS_PRELOAD_NETLINK_SOCKETS_H_

#include <sys/socket.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "sockets/preload/devmem_netlink.h"

namespace devwire::preload {

class NetlinkSockets {
 public:
  // What does the work, under Shim::mutex.
  struct Binder {
    // The dmabuf's id, or a negative errno. Empty: not ours, the kernel's.
    std::function<std::optional<int64_t>(const BindRequest&, bool is_receive)>
        bind;
    std::function<void(uint32_t id)> unbind;
    // The kernel's id of the family; empty: it has none, being old.
    std::function<std::optional<uint16_t>()> find_family = FamilyOfKernel;
  };
  explicit NetlinkSockets(Binder binder) : binder_(std::move(binder)) {}
  static std::optional<uint16_t> FamilyOfKernel();

  // `fd` is a new socket of generic netlink.
  void Add(int fd);
  // `copy` is another descriptor of `fd`, if that is one.
  void Alias(int copy, int fd);
  // `fd` is closed; with its last descriptor a socket's bindings end.
  void Close(int fd);
  void CloseBetween(unsigned first, unsigned last);
  bool Has(int fd);
  bool has_some() const { return count_.load(std::memory_order_relaxed) > 0; }

  // sendmsg(2) and recvmsg(2) on such a socket: the result, or -1 and errno.
  ssize_t Send(int fd, const msghdr& message, int flags);
  ssize_t Receive(int fd, msghdr* message, int flags);

 private:
  // A request that we answer.
  struct Answer {
    uint32_t seq = 0;
    uint16_t type = 0;
    int error = 0;
    std::vector<std::byte> reply;  // empty: it was delivered, or an error
    bool wants_ack = false;
  };
  struct Socket {
    std::mutex mutex;
    std::deque<Answer> answers;
    std::vector<uint32_t> bindings;
  };

  std::shared_ptr<Socket> Find(int fd);
  // Our answer to this datagram, if we have one.
  std::optional<Answer> Handle(int fd, Socket& socket,
                               std::span<const std::byte> datagram);
  // What recvmsg(2) answers from ours; empty: the kernel's turn. Does not wait.
  std::optional<ssize_t> Deliver(int fd, Socket& socket, msghdr* message,
                                 int flags);
  // The kernel's id of the family, asked once; our own where it has none.
  uint16_t Family();
  bool IsInKernel();

  const Binder binder_;
  std::mutex mutex_;
  std::unordered_map<int, std::shared_ptr<Socket>> sockets_;
  std::atomic<size_t> count_{0};
  std::once_flag asked_;
  std::optional<uint16_t> kernel_family_;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_NETLINK_SOCKETS_H_
