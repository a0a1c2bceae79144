// What the kernel knows, or would know, of an application's TCP socket: its
// family, names and options. Before the socket is taken the kernel's is behind
// the descriptor; afterwards there is none, until an option asks for one that
// checks values and keeps them.
//
// Threads:  any; its own lock.
// Lifetime: from socket(2) or accept(2) to the last close(2), whoever has the
//           socket meanwhile.
#ifndef SOCKETS_PRELOAD_KERNEL_SOCKET_H_
#define SOCKETS_PRELOAD_KERNEL_SOCKET_H_

#include <sys/epoll.h>
#include <sys/socket.h>

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "sockets/preload/port_table.h"
#include "sockets/preload/socket_options.h"
#include "transport/address.h"

namespace devwire::preload {

class KernelSocket {
 public:
  // AF_INET or AF_INET6.
  explicit KernelSocket(int family) : family_(family) {}
  ~KernelSocket();
  KernelSocket(const KernelSocket&) = delete;
  KernelSocket& operator=(const KernelSocket&) = delete;

  // That of a connection which this listener accepts: it inherits.
  std::shared_ptr<KernelSocket> Accepted(PortTable& ports);

  int family() const { return family_; }

  // -- names -----------------------------------------------------------------
  // bind(2) to the device's address, or to any: the port is ours then.
  void Bind(const Endpoint& name, std::shared_ptr<PortClaim> claim);
  // bind(2) to another address of the kernel's: never to be taken.
  void BindElsewhere();
  std::optional<Endpoint> bound() const;
  bool is_bound_elsewhere() const;
  // Null: no port was claimed.
  std::shared_ptr<PortClaim> claim() const;

  // -- options ---------------------------------------------------------------
  // The application has set it on the kernel's socket: to be remembered.
  void OnSet(int level, int name, const void* value, socklen_t size);
  SocketOptions options() const;
  // As setsockopt(2) and getsockopt(2), when there is no kernel's socket: one
  // is made. A negative errno, or 0.
  int64_t Set(int level, int name, const void* value, socklen_t size);
  int64_t Get(int level, int name, void* value, socklen_t* size);
  // A socket of the kernel's that is like this one, for the caller; a negative
  // errno.
  int64_t MakeAgain() const;

  // -- FdTable's, under its lock ---------------------------------------------
  struct Watch {
    int epoll = -1;
    int fd = -1;
    epoll_event event = {};
  };
  std::vector<int> descriptors;  // that name this socket
  std::vector<Watch> watches;    // epoll_ctl(2)

 private:
  int64_t NeedReserve();
  void Remember(int level, int name, const void* value, socklen_t size);

  const int family_;
  mutable std::mutex mutex_;
  std::optional<Endpoint> bound_;
  std::shared_ptr<PortClaim> claim_;
  bool is_bound_elsewhere_ = false;
  SocketOptions options_;
  // Of all accepted connections that are left.
  std::weak_ptr<PortClaim> claim_of_accepted_;
  int reserve_fd_ = -1;  // For options alone: neither bound nor connected.
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_KERNEL_SOCKET_H_
