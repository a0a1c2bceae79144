#include "sockets/preload/kernel_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <utility>

#include "sockets/preload/real_libc.h"
#include "sockets/preload/sockaddr.h"

namespace devwire::preload {
namespace {

// Switches that are off in a new socket, and that any int turns. Servers set
// them on every connection: no socket of the kernel's is made for them.
bool IsPlainSwitch(int level, int name) {
  if (level == IPPROTO_TCP) return name == TCP_NODELAY || name == TCP_CORK;
  return level == SOL_SOCKET && (name == SO_KEEPALIVE || name == SO_REUSEADDR);
}

}  // namespace

KernelSocket::~KernelSocket() {
  if (reserve_fd_ >= 0) real().close(reserve_fd_);
}

std::shared_ptr<KernelSocket> KernelSocket::Accepted(PortTable& ports) {
  auto accepted = std::make_shared<KernelSocket>(family_);
  const std::lock_guard lock(mutex_);
  accepted->options_ = options_;
  // Not inherited.
  accepted->options_.Erase(SOL_SOCKET, SO_PRIORITY);
  accepted->options_.Erase(IPPROTO_TCP, TCP_DEFER_ACCEPT);
  if (claim_ == nullptr) return accepted;
  accepted->claim_ = claim_of_accepted_.lock();
  if (accepted->claim_ == nullptr) {
    accepted->claim_ = ports.ClaimBeside(*claim_);
    claim_of_accepted_ = accepted->claim_;
  }
  return accepted;
}

void KernelSocket::Bind(const Endpoint& name,
                        std::shared_ptr<PortClaim> claim) {
  const std::lock_guard lock(mutex_);
  bound_ = name;
  claim_ = std::move(claim);
}

void KernelSocket::BindElsewhere() {
  const std::lock_guard lock(mutex_);
  is_bound_elsewhere_ = true;
}

std::optional<Endpoint> KernelSocket::bound() const {
  const std::lock_guard lock(mutex_);
  return bound_;
}

bool KernelSocket::is_bound_elsewhere() const {
  const std::lock_guard lock(mutex_);
  return is_bound_elsewhere_;
}

std::shared_ptr<PortClaim> KernelSocket::claim() const {
  const std::lock_guard lock(mutex_);
  return claim_;
}

SocketOptions KernelSocket::options() const {
  const std::lock_guard lock(mutex_);
  return options_;
}

void KernelSocket::Remember(int level, int name, const void* value,
                            socklen_t size) {
  options_.Set(level, name, value, size);
  if (claim_ == nullptr || level != SOL_SOCKET) return;
  const bool is_on = options_.Int(level, name, 0) != 0;
  if (name == SO_REUSEADDR) claim_->reuses_address = is_on;
  if (name == SO_REUSEPORT) claim_->reuses_port = is_on;
}

void KernelSocket::OnSet(int level, int name, const void* value,
                         socklen_t size) {
  const std::lock_guard lock(mutex_);
  Remember(level, name, value, size);
}

int64_t KernelSocket::NeedReserve() {
  if (reserve_fd_ >= 0) return 0;
  const int fd = real().socket(family_, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  // Out of the way of programs that count on low numbers.
  reserve_fd_ = real().fcntl(fd, F_DUPFD_CLOEXEC, 512);
  const int error = errno;
  real().close(fd);
  if (reserve_fd_ < 0) return -error;
  options_.ApplyTo(reserve_fd_);
  return 0;
}

int64_t KernelSocket::Set(int level, int name, const void* value,
                          socklen_t size) {
  const std::lock_guard lock(mutex_);
  const bool is_plain = IsPlainSwitch(level, name) && size >= sizeof(int);
  if (!is_plain || reserve_fd_ >= 0) {
    if (int64_t e = NeedReserve(); e != 0) return e;
    if (real().setsockopt(reserve_fd_, level, name, value, size) != 0) {
      return -errno;
    }
  }
  Remember(level, name, value, size);
  return 0;
}

int64_t KernelSocket::Get(int level, int name, void* value, socklen_t* size) {
  const std::lock_guard lock(mutex_);
  if (int64_t e = NeedReserve(); e != 0) return e;
  return real().getsockopt(reserve_fd_, level, name, value, size) == 0 ? 0
                                                                       : -errno;
}

int64_t KernelSocket::MakeAgain() const {
  const std::lock_guard lock(mutex_);
  const int fd = real().socket(family_, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  options_.ApplyTo(fd);
  if (bound_ && IsAny(bound_->ip)) {
    sockaddr_storage name = {};
    socklen_t size = sizeof(name);
    auto* const address = reinterpret_cast<sockaddr*>(&name);
    FromEndpoint(*bound_, family_, address, &size);
    // Another may have the port meanwhile: listen(2) says so.
    (void)real().bind(fd, address, size);
  }
  return fd;
}

}  // namespace devwire::preload
