// A descriptor whose readiness we decide: what stands for a taken socket in the
// application's hands. poll, select, epoll and whatever else asks the kernel
// see what we say; nothing of them has to be intercepted.
//
//   application's end  o======================o  ours
//   readable           bytes of ours lie in it
//   not writable       its send buffer is full of bytes that it never sent
//   POLLRDHUP, POLLHUP we have shut down one direction, or both
//   POLLERR            we have closed ours with bytes left unread: ECONNRESET
//
// Source:   unix(7); net/unix/af_unix.c unix_poll() of Linux. The bytes
//           themselves mean nothing.
// Threads:  one at a time.
// Cost:     a system call per change of state, none while it stays.
#ifndef SOCKETS_PRELOAD_READY_FD_H_
#define SOCKETS_PRELOAD_READY_FD_H_

#include <cstdint>

namespace devwire::preload {

class ReadyFd {
 public:
  ReadyFd() = default;
  ~ReadyFd();
  ReadyFd(const ReadyFd&) = delete;
  ReadyFd& operator=(const ReadyFd&) = delete;

  // Makes both ends: neither readable nor writable. 0 or an errno. The
  // application's end is the caller's; we keep a second descriptor of it.
  [[nodiscard]] int Open(int* application_fd);

  // More arrived: readable, and an edge for who waits for edges.
  void OnMore();
  void ClearReadable();
  void SetWritable(bool is_writable);
  // Nothing more will come: readable for good.
  void OnEndOfStream();
  // Nor can be sent: POLLHUP.
  void OnHangUp();
  // The connection ended with an error: everything at once, and for good.
  void OnError();

  bool is_readable() const { return is_readable_; }

 private:
  int application_ = -1;
  int ours_ = -1;
  bool is_readable_ = false;
  bool is_writable_ = true;
  bool is_at_end_ = false;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_READY_FD_H_
