// A descriptor whose readiness we decide: what stands for a taken socket in the
// application's hands. poll, select, epoll and whatever else asks the kernel
// see what we say; nothing of them has to be intercepted.
//
//   application's end  o======================o  ours
//   readable           datagrams of ours lie in it
//   not writable       its send buffer is full with one that it never sent
//   POLLRDHUP, POLLHUP it is shut down in one direction, or both
//   POLLERR            we have disconnected ours with something left unread:
//                      ECONNRESET, until SO_ERROR is read; we connect again
//
// Source:   unix(7); net/unix/af_unix.c of Linux, unix_dgram_poll() and
//           unix_dgram_disconnected(). The bytes themselves mean nothing.
// Threads:  one at a time.
// Cost:     a system call per change of state, none while it stays; a handful
//           for an error that comes and goes, and a third descriptor, of
//           sockets that have such errors.
#ifndef SOCKETS_PRELOAD_READY_FD_H_
#define SOCKETS_PRELOAD_READY_FD_H_

#include <sys/socket.h>
#include <sys/un.h>

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
  // OnError() was told to the application: POLLERR ends, the rest stays.
  void ForgetError();
  // Urgent data has come: SIGURG for the descriptor's owner (F_SETOWN of
  // fcntl(2)), if it has one. POLLPRI cannot be shown.
  void SignalUrgent();
  // POLLERR, as with something in a socket's error queue: it comes and goes.
  // 0 or an errno: no descriptor is left for it, and nothing changed.
  int SetErrorQueue(bool has_some);

  bool is_readable() const { return is_readable_; }

 private:
  struct Address {
    sockaddr_un name = {};
    socklen_t size = 0;
  };

  int OpenErrors();
  void RaiseError();
  void LeaveUnread();
  void Disconnect();
  void Connect(Address to);
  static Address Nobody();
  void LowerError();
  void SendFiller();
  // Takes in one datagram of `fd`; false: there is none.
  static bool TakeOne(int fd);

  int application_ = -1;
  int ours_ = -1;
  // Holds the filler once there are errors: raising one empties `ours_`.
  int shelf_ = -1;
  Address application_address_;
  Address our_address_;
  Address shelf_address_;
  int unread_ = 0;  // datagrams in the application's end
  bool is_readable_ = false;
  bool is_writable_ = true;
  bool is_at_end_ = false;
  bool is_hung_up_ = false;
  bool is_over_ = false;  // OnError()
  bool has_errors_ = false;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_READY_FD_H_
