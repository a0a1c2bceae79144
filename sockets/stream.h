// Stream: one TCP connection, its payload in device memory (or, for a host
// stream, in host memory).
//
// Receiving into device memory: ReceiveFrags() lends pieces of the bound
// memory in stream order; each comes with a token, to be given back with
// ReturnTokens() when the device has consumed the piece. The stack itself
// never reads or writes those bytes. Sending from it: SendDevice() queues spans
// of the bound memory without a copy; they must not change until
// PollSendCompletions() has reported their cookie.
//
// Threads:  when a thread of the library runs the engine, any thread may call
//           anything, one call at a time per stream. With kCallerPolls the
//           polling thread only. ReturnTokens() may be called from any thread,
//           also while another call on the stream is in progress.
// Lifetime: destroying a Stream is Close(). It may outlive its Stack: every
//           call then answers FailedPrecondition (ESHUTDOWN).
// Errors:   absl::Status with an errno (sockets/errno_map.h). After a fatal one
//           (reset, timeout) every call repeats it, but frags that arrived
//           before it can still be received.
// Cost:     no allocation and no system call in ReceiveFrags, ReturnTokens,
//           SendDevice, SendHost, Read and PollSendCompletions when they
//           answer OK; one round trip to the engine's thread, if it has one,
//           except ReturnTokens. An engine that sleeps is woken: a system call.
#ifndef SOCKETS_STREAM_H_
#define SOCKETS_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "memreg/frag.h"
#include "memreg/frag_pool.h"
#include "sockets/cancel.h"
#include "sockets/stream_info.h"
#include "sockets/tcp_info.h"
#include "sockets/tcp_knobs.h"
#include "transport/address.h"
#include "transport/engine/stream_types.h"

namespace devwire {

class StackCore;

struct CloseOptions {
  // Frags lent stay valid and their tokens returnable after the close; for a
  // device that still works on them. Else the close takes them back, and a
  // later return answers kStale.
  bool keep_frags = false;
  // SO_LINGER. Empty: what is queued is sent in the background. 0: the peer
  // gets a reset, and what is queued is lost. Else Close() waits so long, at
  // most, until the peer has acknowledged all of it.
  std::optional<Duration> linger;
};

class Stream {
 public:
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // -- receiving -------------------------------------------------------------
  // Lends up to out.size() frags of at most max_bytes together, without
  // waiting. A frag longer than the rest of max_bytes is split. {0, 0, false}
  // when nothing has arrived.
  absl::StatusOr<Received> ReceiveFrags(std::span<StreamFrag> out,
                                        uint64_t max_bytes);

  // Gives pieces back. Any thread; lock-free. Answers the first result that
  // was not kReturned, after having tried all; `bad` (when given) is its index.
  ReturnResult ReturnTokens(std::span<const FragToken> tokens,
                            size_t* bad = nullptr);

  // Host streams: copies the next bytes out, without waiting. `bytes` may be
  // less than out.size(). InvalidArgument on a stream with device memory.
  absl::StatusOr<Received> Read(std::span<std::byte> out);

  // -- sending ---------------------------------------------------------------
  // Queues bytes of `memory` (a BindMemory() result) without copying.
  // InvalidArgument (EFAULT) when a span is not wholly inside it, or empty, or
  // more than kMaxSpansPerSend. Completions come in the order of the calls.
  absl::StatusOr<SendOutcome> SendDevice(PoolId memory,
                                         std::span<const DeviceSpan> spans,
                                         uint64_t cookie);
  // Copies host bytes into the stack's send buffers. Returns how many it took:
  // fewer when the stream's send queue is full, or the buffers, which all host
  // streams of the stack share, are. Wait for kWritable.
  absl::StatusOr<size_t> SendHost(std::span<const std::byte> bytes);

  // Completions of SendDevice() so far, oldest first. After a failure of the
  // NIC those that it has not reported do not come: their memory is the
  // caller's again when the stack is closed.
  absl::StatusOr<size_t> PollSendCompletions(std::span<SendCompletion> out);

  static constexpr size_t kMaxSpansPerSend = 64;

  // -- ending ----------------------------------------------------------------
  // No more to send: FIN after what is queued. Receiving goes on.
  absl::Status CloseSend();
  // Resets the connection. Sends that are queued complete as not delivered;
  // calls that follow answer Aborted (ECONNABORTED) and `reason`.
  void Abort(std::string_view reason);
  // Lets go of the stream. What is queued is still sent, then FIN; completions
  // are no longer reported, so a caller that reuses device memory polls them
  // first. Unread data at the close resets the peer (RFC 2525 2.17).
  void Close(CloseOptions options = {});

  // -- settings --------------------------------------------------------------
  // At any time; StreamKnobs has the ranges, and what a new stream starts with.
  absl::Status SetNoDelay(bool is_on);  // true: no Nagle
  // Holds back a last partial segment, 200 ms at most (TCP_CORK).
  absl::Status SetCork(bool is_on);
  // Every segment with text is acknowledged at once.
  absl::Status SetQuickAck(bool is_on);
  // Empty: off. From now on, or from the connection on.
  absl::Status SetKeepAlive(const std::optional<KeepAliveOptions>& options);
  // Empty: StreamKnobs::data_retries alone decide (TCP_USER_TIMEOUT). What is
  // under way when it is set has waited since it was sent.
  absl::Status SetUserTimeout(std::optional<Duration> timeout);
  // The DSCP of every packet of this stream, 0 to 63. RFC 2474.
  absl::Status SetDscp(uint8_t dscp);
  // Sending takes no more while `bytes` or more were queued and never sent, and
  // kWritable waits until less than half of that is: what is sent can still be
  // decided late (TCP_NOTSENT_LOWAT). 0: only the send queue's size counts.
  absl::Status SetNotSentLowWater(uint64_t bytes);
  // What was queued so far is urgent. Read in line, as RFC 6093 2.1 has it; new
  // protocols should not use it (RFC 9293 SHLD-13).
  absl::Status MarkUrgent();

  // -- asking ----------------------------------------------------------------
  // OK once established; Unavailable (EINPROGRESS) while connecting.
  absl::Status ConnectStatus();
  // Waits for that. Polls the stack itself in kCallerPolls mode.
  absl::Status WaitConnected(Duration timeout,
                             const CancelFlag* cancel = nullptr);
  absl::StatusOr<StreamInfo> Info();
  // As getsockopt(TCP_INFO) has it. Allocates nothing.
  absl::StatusOr<TcpInfo> tcp_info();
  // What happened since the last call and is not the end of the stream;
  // kReported says that there is something. Who does not want to know does not
  // ask.
  absl::StatusOr<Reports> TakeReports();
  // Bytes that can be received now (FIONREAD). Allocates nothing.
  absl::StatusOr<uint64_t> ReadableBytes();
  // Of the bytes to be received next, those up to the end of urgent data.
  absl::StatusOr<uint64_t> UrgentBytes();
  Endpoint local() const;
  Endpoint remote() const;

 private:
  friend class Listener;
  friend class Poller;
  friend class Stack;
  Stream(std::shared_ptr<StackCore> core, StreamId id, const FourTuple& tuple,
         bool is_host);
  // Runs `f` on the engine's thread, with the engine and its stream.
  template <typename F>
  absl::Status OnEngine(F&& f);
  void Linger(Duration patience);
  // OK while the stream can be used at all.
  absl::Status Usable() const;

  std::shared_ptr<StackCore> core_;
  StreamId id_;
  FourTuple tuple_;
  bool is_host_;
  bool is_closed_ = false;
};

}  // namespace devwire

#endif  // SOCKETS_STREAM_H_
