#include "softnic/shm_link.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_format.h"

namespace softnic {
namespace {

bool LockByte(int fd, off_t at) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool FillAddress(const std::string& path, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  if (path.size() >= sizeof(address->sun_path)) return false;
  memcpy(address->sun_path, path.c_str(), path.size() + 1);
  return true;
}

int NewSocket() {
  return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

void CloseAndForget(int* fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

}  // namespace

ShmLink::~ShmLink() {
  Disconnect();
  if (listen_ >= 0) unlink(path_.c_str());
  CloseAndForget(&listen_);
  CloseAndForget(&lock_);
}

absl::Status ShmLink::Plug(const std::string& path) {
  path_ = path;
  const std::string lock_path = path + ".lock";
  lock_ = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) {
    return absl::UnavailableError(absl::StrFormat(
        "port=shm:%s: cannot open %s: %s", path, lock_path, strerror(errno)));
  }
  if (LockByte(lock_, 0)) {
    is_listener_ = true;
    return Listen();
  }
  if (LockByte(lock_, 1)) return absl::OkStatus();
  CloseAndForget(&lock_);
  return absl::AlreadyExistsError(absl::StrFormat(
      "port=shm:%s: port taken, both ends of this cable are in use", path));
}

absl::Status ShmLink::Listen() {
  sockaddr_un address;
  bool ok = FillAddress(path_, &address);
  if (ok) {
    unlink(path_.c_str());  // Of an end that died: the lock says so.
    listen_ = NewSocket();
    ok = listen_ >= 0 &&
         bind(listen_, reinterpret_cast<sockaddr*>(&address),
              sizeof(address)) == 0 &&
         listen(listen_, 4) == 0;
  }
  if (ok) return absl::OkStatus();
  const int error = errno;
  CloseAndForget(&listen_);
  CloseAndForget(&lock_);
  return absl::UnavailableError(absl::StrFormat(
      "port=shm:%s: cannot listen there: %s", path_, strerror(error)));
}

bool ShmLink::TryConnect() {
  if (is_connected()) return true;
  if (is_listener_) {
    socket_ = accept4(listen_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return is_connected();
  }
  sockaddr_un address;
  if (!FillAddress(path_, &address)) return false;
  const int fd = NewSocket();
  if (fd < 0) return false;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
      0) {
    close(fd);
    return false;
  }
  socket_ = fd;
  return true;
}

void ShmLink::Disconnect() { CloseAndForget(&socket_); }

bool ShmLink::Send(const ShmMessage& message, int fd) {
  iovec part = {const_cast<ShmMessage*>(&message), sizeof(message)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
  }
  if (sendmsg(socket_, &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
  return errno != EAGAIN && errno != ENOBUFS && errno != ETOOMANYREFS;
}

ShmLink::Poll ShmLink::Receive(ShmMessage* message, int* fd) {
  *fd = -1;
  iovec part = {message, sizeof(*message)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t n = recvmsg(socket_, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0) {
    const bool is_empty = errno == EAGAIN || errno == EINTR;
    return is_empty ? Poll::kNothing : Poll::kLost;
  }
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr;
       c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
      memcpy(fd, CMSG_DATA(c), sizeof(int));
    }
  }
  if (n == sizeof(*message) && message->magic == ShmMessage::kMagic) {
    return Poll::kMessage;
  }
  CloseAndForget(fd);
  return Poll::kLost;
}

}  // namespace softnic
