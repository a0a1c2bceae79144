#include "sockets/preload/ready_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/check.h"
#include "sockets/preload/real_libc.h"

namespace devwire::preload {
namespace {

// The least send buffer there is is about twice this: full with one.
constexpr char kFiller[2048] = {};

// What lies in it is thrown away.
void Drain(int fd) {
  char bytes[4096];
  while (real().recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
  }
}

}  // namespace

ReadyFd::~ReadyFd() {
  if (application_ >= 0) real().close(application_);
  if (ours_ >= 0) real().close(ours_);
}

int ReadyFd::Open(int* application_fd) {
  int ends[2];
  if (real().socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
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

void ReadyFd::OnMore() {
  if (is_at_end_) return;
  is_readable_ = true;
  const char byte = 0;
  // A full buffer is readable as it is.
  real().send(ours_, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void ReadyFd::ClearReadable() {
  if (!is_readable_ || is_at_end_) return;
  is_readable_ = false;
  Drain(application_);
}

void ReadyFd::SetWritable(bool is_writable) {
  if (is_writable == is_writable_ || ours_ < 0) return;
  is_writable_ = is_writable;
  if (is_writable) {
    Drain(ours_);
  } else {
    real().send(application_, kFiller, sizeof(kFiller),
                MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

void ReadyFd::OnEndOfStream() {
  if (is_at_end_) return;
  is_at_end_ = is_readable_ = true;
  real().shutdown(ours_, SHUT_WR);
}

void ReadyFd::OnHangUp() {
  SetWritable(true);
  OnEndOfStream();
  real().shutdown(ours_, SHUT_RDWR);
}

void ReadyFd::OnError() {
  if (ours_ < 0) return;
  // Bytes that nobody read are what makes a close an error.
  SetWritable(true);
  SetWritable(false);
  real().close(ours_);
  ours_ = -1;
  is_at_end_ = is_readable_ = is_writable_ = true;
}

}  // namespace devwire::preload
