// A socket that Devwire has taken over: the stream or listener behind one (or
// several, dup(2)) descriptors of the application's.
//
// Calls answer as system calls do: >= 0, or a negative errno; -EAGAIN stands
// for "would block", whatever O_NONBLOCK says.
//
// Threads:  every call with Shim::mutex held, but kernel() and waiting().
// Lifetime: the last descriptor's close() ends it.
#ifndef SOCKETS_PRELOAD_TAKEN_SOCKET_H_
#define SOCKETS_PRELOAD_TAKEN_SOCKET_H_

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "sockets/listener.h"
#include "sockets/preload/devmem_bindings.h"
#include "sockets/preload/devmem_receive.h"
#include "sockets/preload/devmem_uapi.h"
#include "sockets/preload/inbox.h"
#include "sockets/preload/kernel_socket.h"
#include "sockets/preload/ready_fd.h"
#include "sockets/preload/wait_word.h"
#include "sockets/preload/zerocopy.h"
#include "sockets/stream.h"

namespace devwire::preload {

class TakenSocket {
 public:
  // Takes the stream, or the listener; *fd is the application's.
  static int64_t Make(std::unique_ptr<Stream> stream,
                      std::shared_ptr<KernelSocket> kernel,
                      std::shared_ptr<TakenSocket>* out, int* fd);
  static int64_t Make(std::unique_ptr<Listener> listener,
                      std::shared_ptr<KernelSocket> kernel,
                      std::shared_ptr<TakenSocket>* out, int* fd);
  ~TakenSocket();

  bool is_listener() const { return is_listener_; }
  // Null once it is closed, or a listener's.
  Stream* stream() const { return stream_.get(); }
  Listener* listener() const { return listener_.get(); }
  Endpoint local() const { return local_; }
  Endpoint remote() const { return remote_; }
  // Its names and options.
  const std::shared_ptr<KernelSocket>& kernel() const { return kernel_; }
  // What its blocking calls sleep on.
  WaitWord& waiting() { return waiting_; }

  // What the poller said.
  void OnReady(Readiness what);

  // -- data ------------------------------------------------------------------
  // At most as much as `out` holds; fewer bytes when fewer have arrived.
  int64_t Receive(std::span<const iovec> out, Inbox::How how);
  // Nothing more will come than what has arrived.
  bool IsAtEnd() const {
    return has_end_ || is_failed_ || is_shut_for_reading_;
  }
  // MSG_OOB: one byte.
  int64_t ReceiveUrgent(std::byte* out, bool peeks);
  struct SendHow {
    bool has_more = false;   // MSG_MORE
    bool is_urgent = false;  // MSG_OOB: the last byte
  };
  int64_t Send(std::span<const iovec> bytes, SendHow how);
  // SO_RCVLOWAT.
  uint64_t low_water() const { return low_water_; }
  uint64_t BytesReadable();      // That have arrived
  uint64_t TellBytesReadable();  // FIONREAD: poll(2) says the same from now on
  bool IsAtMark();               // SIOCATMARK
  // SIOCOUTQ: bytes that the peer has not acknowledged, queued ones included.
  uint64_t BytesUnsent();
  uint64_t BytesNeverSent();  // SIOCOUTQNSD

  // -- devmem TCP: taken_devmem.cc -------------------------------------------
  // What it, or what it accepts, receives into; null: host memory.
  void SetBinding(std::shared_ptr<const DevmemBinding> binding);
  const std::shared_ptr<const DevmemBinding>& binding() const {
    return binding_;
  }
  // A stream into device memory: ReceiveDevmem() instead of Receive(). Any
  // thread: it is so from the start, or never.
  bool is_devmem() const { return is_devmem_; }
  // Until the call has `target` bytes, or cannot have more.
  int64_t ReceiveDevmem(DevmemReceiver::Call& call, size_t target);
  int64_t DontNeed(std::span<const DmabufToken> tokens);
  // SO_ZEROCOPY, and sends that it completes: their numbers.
  bool is_zerocopy() const { return zerocopy_.is_on(); }
  uint32_t BeginZeroCopy() { return zerocopy_.Begin(); }
  int64_t SendDevmem(const DevmemBinding& binding,
                     std::span<const DeviceSpan> spans, uint32_t number);
  void EndZeroCopy(uint32_t number);
  void AddCopiedZeroCopy();
  std::optional<ZeroCopySends::Notification> TakeNotification();

  // -- connections -----------------------------------------------------------
  // 0 connected, -EINPROGRESS, or the error, once.
  int64_t ConnectResult();
  // connect(2) again: 0 the first time after it has succeeded.
  int64_t ConnectAgain();
  // connect(2) has failed and the application knows it: what follows is as if
  // it had not been called.
  bool is_refused() const { return is_refused_; }
  // Has a peer, as getpeername(2) has it.
  bool HasPeer();
  bool is_connecting() const {
    return stream_ != nullptr && !is_connected_ && !is_failed_;
  }
  // The next connection; -EAGAIN: there is none.
  int64_t Accept(std::unique_ptr<Stream>* out);
  int64_t Shutdown(int how);
  // Everything is acknowledged, the end included.
  bool IsThrough();
  // No more to send, and no lingering yet.
  void CloseSend();
  void Close(std::optional<Duration> linger);
  // The process ends: what close(2) would tell the peer, but the stream stays.
  void EndWithProcess();
  // SO_ERROR: the pending error, which is then gone.
  int TakeError();

  // Options that decide what calls do were set: what they say now.
  void OnOptions();

 private:
  TakenSocket() = default;
  // 0: it may send now; else what the call answers.
  int64_t WhyNotSend();
  void OnSendsDone();
  void ShowErrorQueue();
  // Looks whether the stream has failed meanwhile.
  void LookForFailure();
  void OnFailure(const absl::Status& status);
  int64_t TellError();
  void ShowReadable();
  void LookAtEnd();
  bool PeerHasEnded();
  uint8_t tcp_state();

  // One of them, until Close().
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Listener> listener_;
  std::optional<Inbox> inbox_;
  std::shared_ptr<const DevmemBinding> binding_;
  std::unique_ptr<DevmemReceiver> devmem_;  // Borrows stream_.
  bool is_devmem_ = false;
  ZeroCopySends zerocopy_;
  std::shared_ptr<KernelSocket> kernel_;
  Endpoint local_;
  Endpoint remote_;
  bool is_listener_ = false;
  // Accepted ahead of the application, to know whether there is one: a
  // listener must not look readable when accept(2) would wait.
  std::unique_ptr<Stream> next_;
  ReadyFd ready_;
  WaitWord waiting_;
  int error_ = 0;           // pending, as sk_err of Linux
  bool is_failed_ = false;  // the stream has ended with an error
  bool is_refused_ = false;
  bool is_connected_ = false;
  bool connect_is_told_ = false;  // connect(2) or accept(2) answered 0
  bool has_end_ = false;          // the peer's FIN was read
  bool saw_end_ = false;          // it has arrived
  bool is_shut_for_reading_ = false;
  bool is_shut_for_writing_ = false;
  bool is_corked_by_more_ = false;
  // Options: SO_RCVLOWAT, SO_OOBINLINE, TCP_CORK.
  uint64_t low_water_ = 1;
  bool urgent_inline_ = false;
  bool is_corked_ = false;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_TAKEN_SOCKET_H_
