// A socket that Devwire has taken over: the stream or listener behind one (or
// several, dup(2)) descriptors of the application's.
//
// Calls answer as system calls do: >= 0, or a negative errno; -EAGAIN stands
// for "would block", whatever O_NONBLOCK says.
//
// Threads:  every call with Shim::mutex held.
// Lifetime: the last descriptor's close() ends it.
#ifndef SOCKETS_PRELOAD_TAKEN_SOCKET_H_
#define SOCKETS_PRELOAD_TAKEN_SOCKET_H_

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "sockets/listener.h"
#include "sockets/preload/ready_fd.h"
#include "sockets/stream.h"

namespace devwire::preload {

class TakenSocket {
 public:
  // Takes the stream, or the listener; *fd is the application's.
  static int64_t Make(std::unique_ptr<Stream> stream,
                      std::shared_ptr<TakenSocket>* out, int* fd);
  static int64_t Make(std::unique_ptr<Listener> listener,
                      std::shared_ptr<TakenSocket>* out, int* fd);
  ~TakenSocket();

  bool is_listener() const { return is_listener_; }
  Stream* stream() const { return stream_.get(); }
  Listener* listener() const { return listener_.get(); }
  Endpoint local() const { return local_; }
  Endpoint remote() const { return remote_; }

  // What the poller said.
  void OnReady(Readiness what);

  int64_t Receive(std::span<const iovec> out);
  int64_t Send(std::span<const iovec> bytes);
  // The next connection; -EAGAIN: there is none.
  int64_t Accept(std::unique_ptr<Stream>* out);
  int64_t Shutdown(int how);
  int64_t Close(std::optional<Duration> linger);
  // 0 connected, -EINPROGRESS, or the error, once.
  int64_t ConnectResult();
  // connect(2) again: 0 the first time after it has succeeded.
  int64_t ConnectAgain();
  // What the application set on the kernel's socket before it was taken.
  void CopyOptions(int kernel_fd);
  // As SO_KEEPALIVE of `fd` says, which is of any kind.
  void SetKeepAlive(int fd);
  // SO_ERROR: the pending error, which is then gone.
  int TakeError();
  uint64_t BytesReadable();
  // Bytes that the peer has not acknowledged; queued ones included.
  uint64_t BytesUnsent();
  bool HasUnsent() { return BytesUnsent() > 0; }

 private:
  TakenSocket() = default;
  int64_t Fail(const absl::Status& status);
  void LookAtEnd();
  bool PeerHasEnded();

  // One of them, until Close().
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Listener> listener_;
  Endpoint local_;
  Endpoint remote_;
  bool is_listener_ = false;
  // Accepted ahead of the application, to know whether there is one: a
  // listener must not look readable when accept(2) would wait.
  std::unique_ptr<Stream> next_;
  ReadyFd ready_;
  int error_ = 0;  // pending, as sk_err of Linux
  bool error_is_told_ = false;
  bool is_connected_ = false;
  bool connect_is_told_ = false;  // connect(2) or accept(2) answered 0
  bool has_end_ = false;          // the peer's FIN was read
  bool is_shut_for_reading_ = false;
  bool is_shut_for_writing_ = false;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_TAKEN_SOCKET_H_
