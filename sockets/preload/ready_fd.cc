#include "sockets/preload/ready_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "sockets/preload/real_libc.h"

namespace devwire::preload {
namespace {

// With its bookkeeping more than a quarter of the least send buffer there is:
// not writable (unix_writable()); and leaves room for one byte more.
constexpr char kFiller[1024] = {};

// Datagrams that may lie in the application's end. The next one takes the
// place of another, for the edge that it makes.
constexpr int kMostUnread = 8;

sockaddr* AsAddress(sockaddr_un* name) {
  return reinterpret_cast<sockaddr*>(name);
}

}  // namespace

ReadyFd::~ReadyFd() {
  for (const int fd : {application_, ours_, shelf_}) {
    if (fd >= 0) real().close(fd);
  }
}

int ReadyFd::Open(int* application_fd) {
  int ends[2];
  if (real().socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return errno;
  }
  *application_fd = ends[0];
  ours_ = ends[1];
  // Out of the way of programs that count on low numbers.
  application_ = real().fcntl(ends[0], F_DUPFD_CLOEXEC, 512);
  if (application_ < 0) {
    const int error = errno;
    real().close(ends[0]);
    return error;
  }
  const int least = 1;  // The kernel makes it its minimum. socket(7)
  real().setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
  SetWritable(false);
  return 0;
}

bool ReadyFd::TakeOne(int fd) {
  char byte;
  return real().recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) > 0;
}

void ReadyFd::OnMore() {
  if (is_at_end_) return;
  is_readable_ = true;
  if (unread_ == kMostUnread) {
    const bool had_errors = has_errors_;
    LowerError();  // Who takes something in is told of it, once.
    TakeOne(application_);
    --unread_;
    if (had_errors) RaiseError();
  }
  const char byte = 0;
  if (real().send(ours_, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1) ++unread_;
}

void ReadyFd::ClearReadable() {
  if (!is_readable_ || is_at_end_) return;
  is_readable_ = false;
  const bool had_errors = has_errors_;
  LowerError();
  for (; unread_ > 0; --unread_) TakeOne(application_);
  if (had_errors) RaiseError();
}

void ReadyFd::SendFiller() {
  real().sendto(application_, kFiller, sizeof(kFiller),
                MSG_DONTWAIT | MSG_NOSIGNAL,
                shelf_ < 0 ? nullptr : AsAddress(&shelf_address_.name),
                shelf_address_.size);
}

void ReadyFd::SetWritable(bool is_writable) {
  if (is_writable == is_writable_ || is_hung_up_) return;
  is_writable_ = is_writable;
  if (is_writable) {
    if (shelf_ < 0) {
      TakeOne(ours_);
    } else {  // It has a name: anybody may have put something there.
      while (TakeOne(shelf_)) {
      }
    }
    return;
  }
  const bool had_errors = has_errors_;
  LowerError();
  SendFiller();
  if (had_errors) RaiseError();
}

void ReadyFd::OnEndOfStream() {
  if (is_at_end_) return;
  is_at_end_ = is_readable_ = true;
  real().shutdown(application_, SHUT_RD);
}

void ReadyFd::OnHangUp() {
  SetWritable(true);
  OnEndOfStream();
  is_hung_up_ = true;
  real().shutdown(application_, SHUT_RDWR);
}

void ReadyFd::OnError() {
  if (is_over_) return;
  is_over_ = true;
  SetWritable(true);
  // Who sees the error sees the rest as well: it comes last.
  const bool is_new = !has_errors_;
  if (is_new) LeaveUnread();
  OnHangUp();
  if (is_new) Disconnect();
}

void ReadyFd::ForgetError() {
  if (!is_over_) return;
  int error = 0;
  socklen_t size = sizeof(error);
  real().getsockopt(application_, SOL_SOCKET, SO_ERROR, &error, &size);
}

// send_sigurg() of Linux.
void ReadyFd::SignalUrgent() {
  f_owner_ex owner = {};
  if (real().fcntl(application_, F_GETOWN_EX, &owner) != 0) return;
  if (owner.pid == 0) return;
  switch (owner.type) {
    case F_OWNER_TID:
      (void)syscall(SYS_tgkill, getpid(), owner.pid, SIGURG);
      break;
    case F_OWNER_PID:
      (void)kill(owner.pid, SIGURG);
      break;
    case F_OWNER_PGRP:
      (void)kill(-owner.pid, SIGURG);
      break;
  }
}

int ReadyFd::SetErrorQueue(bool has_some) {
  if (is_over_ || has_some == has_errors_) return 0;
  if (!has_some) return LowerError(), 0;
  if (const int error = OpenErrors(); error != 0) return error;
  RaiseError();
  return 0;
}

int ReadyFd::OpenErrors() {
  if (shelf_ >= 0) return 0;
  const int shelf =
      real().socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (shelf < 0) return errno;
  shelf_ = real().fcntl(shelf, F_DUPFD_CLOEXEC, 512);
  const int error = errno;
  real().close(shelf);
  if (shelf_ < 0) return error;
  // Names that the kernel chooses, so that ours can be connected again, and
  // the shelf be sent to. unix(7), "Autobind feature".
  const auto bind_to_any = [](int fd, Address* out) {
    sockaddr_un none = {};
    none.sun_family = AF_UNIX;
    CHECK_EQ(real().bind(fd, AsAddress(&none), sizeof(sa_family_t)), 0);
    out->size = sizeof(out->name);
    CHECK_EQ(real().getsockname(fd, AsAddress(&out->name), &out->size), 0);
  };
  bind_to_any(application_, &application_address_);
  bind_to_any(ours_, &our_address_);
  bind_to_any(shelf_, &shelf_address_);
  if (!is_writable_) {
    TakeOne(ours_);
    SendFiller();
  }
  return 0;
}

void ReadyFd::RaiseError() {
  LeaveUnread();
  Disconnect();
}

void ReadyFd::Connect(Address to) {
  real().connect(ours_, AsAddress(&to.name), to.size);
}

ReadyFd::Address ReadyFd::Nobody() {
  Address none = {};
  none.name.sun_family = AF_UNSPEC;
  none.size = sizeof(sa_family_t);
  return none;
}

// Bytes that nobody read are what makes a disconnect an error.
void ReadyFd::LeaveUnread() {
  has_errors_ = true;
  const char byte = 0;
  if (!is_hung_up_) {
    real().send(application_, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  } else if (shelf_ >= 0) {  // The application's end sends no more.
    Connect(Nobody());
    real().sendto(shelf_, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL,
                  AsAddress(&our_address_.name), our_address_.size);
    Connect(application_address_);
  }
}

void ReadyFd::Disconnect() {
  Connect(Nobody());
  if (shelf_ >= 0) Connect(application_address_);
}

void ReadyFd::LowerError() {
  if (!has_errors_ || is_over_) return;
  has_errors_ = false;
  int error = 0;
  socklen_t size = sizeof(error);
  real().getsockopt(application_, SOL_SOCKET, SO_ERROR, &error, &size);
}

}  // namespace devwire::preload
