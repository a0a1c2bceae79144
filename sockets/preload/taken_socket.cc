#include "sockets/preload/taken_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sockets/errno_map.h"
#include "sockets/preload/real_libc.h"

namespace devwire::preload {

int64_t TakenSocket::Make(std::unique_ptr<Stream> stream,
                          std::shared_ptr<KernelSocket> kernel,
                          std::shared_ptr<TakenSocket>* out, int* fd) {
  out->reset(new TakenSocket);
  TakenSocket& made = **out;
  made.local_ = stream->local();
  made.remote_ = stream->remote();
  made.stream_ = std::move(stream);
  made.inbox_.emplace(made.stream_.get());
  made.kernel_ = std::move(kernel);
  const int error = made.ready_.Open(fd);
  if (error == 0) made.OnOptions();
  return -error;
}

int64_t TakenSocket::Make(std::unique_ptr<Listener> listener,
                          std::shared_ptr<KernelSocket> kernel,
                          std::shared_ptr<TakenSocket>* out, int* fd) {
  out->reset(new TakenSocket);
  TakenSocket& made = **out;
  made.local_ = listener->local();
  made.is_listener_ = true;
  made.listener_ = std::move(listener);
  made.kernel_ = std::move(kernel);
  return -made.ready_.Open(fd);
}

TakenSocket::~TakenSocket() = default;

void TakenSocket::OnOptions() {
  const SocketOptions options = kernel_->options();
  low_water_ = static_cast<uint64_t>(
      std::max(options.Int(SOL_SOCKET, SO_RCVLOWAT, 1), 1));
  urgent_inline_ = options.Int(SOL_SOCKET, SO_OOBINLINE, 0) != 0;
  is_corked_ = options.Int(IPPROTO_TCP, TCP_CORK, 0) != 0;
  zerocopy_.set_is_on(options.Int(SOL_SOCKET, SO_ZEROCOPY, 0) != 0);
  if (!is_listener_ && stream_ != nullptr) ShowReadable();
}

// -- readiness ----------------------------------------------------------------

void TakenSocket::OnReady(Readiness what) {
  if ((what & (kConnected | kWritable)) != 0) ready_.SetWritable(true);
  if ((what & kAcceptable) != 0) ready_.OnMore();
  if ((what & kReadable) != 0 && stream_ != nullptr) {
    if (PeerHasEnded()) {
      saw_end_ = true;
      ready_.OnEndOfStream();
      if (is_shut_for_writing_) ready_.OnHangUp();
    }
    if (BytesReadable() >= low_water_) ready_.OnMore();
  }
  if ((what & kReported) != 0 && stream_ != nullptr) {
    const auto reports = stream_->TakeReports();
    if (reports.ok() && (*reports & kReportUrgent) != 0) ready_.SignalUrgent();
  }
  if ((what & (kSendCompleted | kFailed)) != 0) OnSendsDone();
  if ((what & kFailed) != 0 && stream_ != nullptr) LookForFailure();
  waiting_.Wake();
}

uint8_t TakenSocket::tcp_state() {
  const auto info = stream_->tcp_info();
  return info.ok() ? info->tcpi_state : static_cast<uint8_t>(TCP_CLOSE);
}

// The peer's FIN has arrived, whether it was read or not: POLLRDHUP.
bool TakenSocket::PeerHasEnded() {
  const uint8_t state = tcp_state();
  return state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK ||
         state == TCP_CLOSING || state == TCP_TIME_WAIT;
}

// After somebody looked: tcp_stream_is_readable() of Linux. The poller may not
// have been here yet.
void TakenSocket::ShowReadable() {
  if (is_failed_ || has_end_) return;
  if (BytesReadable() < low_water_) {
    ready_.ClearReadable();
  } else if (!ready_.is_readable()) {
    ready_.OnMore();
  }
}

// Both ends have said that nothing more comes: POLLHUP.
void TakenSocket::LookAtEnd() {
  if (has_end_) ready_.OnEndOfStream();
  if (has_end_ && is_shut_for_writing_) ready_.OnHangUp();
}

// -- errors -------------------------------------------------------------------

void TakenSocket::OnFailure(const absl::Status& status) {
  if (is_failed_) return;
  is_failed_ = true;
  error_ = ErrnoOf(status);
  // A reset after the peer's end: nobody is left to write to. tcp_reset().
  if (error_ == ECONNRESET && (saw_end_ || has_end_)) error_ = EPIPE;
  ready_.OnError();
  waiting_.Wake();
}

void TakenSocket::LookForFailure() {
  if (is_failed_ || stream_ == nullptr) return;
  const absl::Status connecting = stream_->ConnectStatus();
  if (!connecting.ok()) {
    if (ErrnoOf(connecting) != EINPROGRESS) OnFailure(connecting);
    return;
  }
  const absl::StatusOr<Received> nothing =
      is_devmem_ ? stream_->ReceiveFrags({}, 0) : stream_->Read({});
  if (!nothing.ok()) OnFailure(nothing.status());
}

int TakenSocket::TakeError() {
  LookForFailure();
  if (error_ == 0) return 0;
  ready_.ForgetError();
  return std::exchange(error_, 0);
}

// What a call that meets a failed stream answers: the error once, then 0.
int64_t TakenSocket::TellError() { return -TakeError(); }

// -- data ---------------------------------------------------------------------

int64_t TakenSocket::Receive(std::span<const iovec> out, Inbox::How how) {
  if (stream_ == nullptr) return -EBADF;  // Closed by another thread.
  how.urgent_inline = urgent_inline_;
  const absl::StatusOr<Received> got = inbox_->Read(out, how);
  if (!got.ok()) {
    OnFailure(got.status());
    return TellError();
  }
  has_end_ |= got->end_of_stream;
  LookAtEnd();
  ShowReadable();
  if (got->bytes > 0) return static_cast<int64_t>(got->bytes);
  if (has_end_ || is_shut_for_reading_) return 0;
  // Room for nothing: whether there is something is what it tells.
  return BytesReadable() > 0 ? 0 : -EAGAIN;
}

int64_t TakenSocket::ReceiveUrgent(std::byte* out, bool peeks) {
  if (stream_ == nullptr) return -EBADF;
  const int64_t got = inbox_->ReadUrgent(out, peeks, urgent_inline_);
  if (got != -EAGAIN) return got;
  LookForFailure();
  return is_failed_ || is_shut_for_reading_ ? 0 : got;
}

int64_t TakenSocket::WhyNotSend() {
  if (stream_ == nullptr) return -EBADF;
  if (!is_connected_) LookForFailure();
  if (is_failed_ || is_shut_for_writing_) {
    const int error = TakeError();
    return error != 0 ? -error : -EPIPE;
  }
  return ConnectResult() == -EINPROGRESS ? -EAGAIN : 0;
}

int64_t TakenSocket::Send(std::span<const iovec> bytes, SendHow how) {
  if (int64_t e = WhyNotSend(); e != 0) return e;
  if (how.has_more != is_corked_by_more_) {
    is_corked_by_more_ = how.has_more;
    (void)stream_->SetCork(is_corked_ || how.has_more);
  }
  int64_t total = 0;
  for (const iovec& v : bytes) {
    const absl::StatusOr<size_t> taken = stream_->SendHost(
        {static_cast<const std::byte*>(v.iov_base), v.iov_len});
    if (!taken.ok()) {
      if (total > 0) return total;
      OnFailure(taken.status());
      return TellError();
    }
    total += static_cast<int64_t>(*taken);
    if (*taken == v.iov_len) continue;
    ready_.SetWritable(false);
    return total > 0 ? total : -EAGAIN;
  }
  if (how.is_urgent && total > 0) (void)stream_->MarkUrgent();
  return total;
}

uint64_t TakenSocket::BytesReadable() {
  if (stream_ == nullptr) return 0;
  return inbox_->ReadableBytes(urgent_inline_) +
         (is_devmem_ ? devmem_->held_bytes() : 0);
}

uint64_t TakenSocket::TellBytesReadable() {
  if (stream_ != nullptr) ShowReadable();
  return BytesReadable();
}

bool TakenSocket::IsAtMark() {
  return stream_ != nullptr && inbox_->IsAtMark();
}

uint64_t TakenSocket::BytesUnsent() {
  if (stream_ == nullptr) return 0;
  const auto info = stream_->Info();
  return info.ok() ? info->bytes_unacked + info->bytes_unsent : 0;
}

uint64_t TakenSocket::BytesNeverSent() {
  if (stream_ == nullptr) return 0;
  const auto info = stream_->Info();
  return info.ok() ? info->bytes_unsent : 0;
}

// -- connections --------------------------------------------------------------

int64_t TakenSocket::ConnectResult() {
  if (stream_ == nullptr) return -EBADF;
  if (is_connected_) return 0;
  const absl::Status status = stream_->ConnectStatus();
  const int error = ErrnoOf(status);
  if (error == EINPROGRESS) return -EINPROGRESS;
  if (error == 0) {
    is_connected_ = true;
    // Now, not at the poller's next turn: who has accepted it may ask at once.
    const bool is_readable = BytesReadable() > 0 || PeerHasEnded();
    OnReady(is_readable ? kWritable | kReadable : kWritable);
    return 0;
  }
  OnFailure(status);
  is_refused_ = true;
  const int told = TakeError();
  // SO_ERROR has told it before: inet_stream_connect() of Linux.
  return told != 0 ? -told : -ECONNABORTED;
}

int64_t TakenSocket::ConnectAgain() {
  const int64_t result = ConnectResult();
  if (result == -EINPROGRESS) return -EALREADY;
  if (result != 0) return result;
  LookForFailure();
  if (is_failed_ && !connect_is_told_) {  // It came, and went.
    is_refused_ = true;
    const int told = TakeError();
    return told != 0 ? -told : -ECONNABORTED;
  }
  return std::exchange(connect_is_told_, true) ? -EISCONN : 0;
}

bool TakenSocket::HasPeer() {
  LookForFailure();
  if (stream_ == nullptr || is_failed_ || ConnectResult() != 0) return false;
  const uint8_t state = tcp_state();
  return state != TCP_CLOSE && state != TCP_TIME_WAIT;
}

int64_t TakenSocket::Accept(std::unique_ptr<Stream>* out) {
  if (listener_ == nullptr) return -EINVAL;  // shutdown(2) meanwhile.
  for (auto* place : {out, &next_}) {
    if (place == out && next_ != nullptr) {
      *out = std::move(next_);
      continue;
    }
    absl::StatusOr<std::unique_ptr<Stream>> accepted = listener_->TryAccept();
    if (!accepted.ok()) {
      if (place == out) return -ErrnoOf(accepted.status());
      break;  // The next call says it.
    }
    *place = *std::move(accepted);
    if (*place == nullptr) break;
  }
  if (next_ == nullptr) ready_.ClearReadable();
  return *out == nullptr ? -EAGAIN : 0;
}

int64_t TakenSocket::Shutdown(int how) {
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return -EINVAL;
  const bool has_peer = HasPeer();
  if (how != SHUT_WR) {
    is_shut_for_reading_ = true;
    ready_.OnEndOfStream();
  }
  if (how != SHUT_RD && !is_shut_for_writing_) {
    is_shut_for_writing_ = true;
    if (has_peer) (void)stream_->CloseSend();
  }
  if ((is_shut_for_reading_ || has_end_ || saw_end_) && is_shut_for_writing_) {
    ready_.OnHangUp();
  }
  waiting_.Wake();
  return has_peer ? 0 : -ENOTCONN;
}

void TakenSocket::CloseSend() {
  if (stream_ != nullptr) (void)stream_->CloseSend();
}

bool TakenSocket::IsThrough() {
  if (stream_ == nullptr) return true;
  const uint8_t state = tcp_state();
  return state == TCP_FIN_WAIT2 || state == TCP_TIME_WAIT || state == TCP_CLOSE;
}

void TakenSocket::Close(std::optional<Duration> linger) {
  if (stream_ != nullptr) {
    // What was read ahead is as unread as the rest: RFC 2525 2.17.
    const uint64_t held = is_devmem_ ? devmem_->held_bytes() : 0;
    if (inbox_->ahead_bytes() + held > 0) linger = Duration();
    stream_->Close({.linger = linger});
  }
  inbox_.reset();
  devmem_.reset();
  stream_.reset();
  next_.reset();
  listener_.reset();
  ready_.OnHangUp();
  waiting_.Wake();
}

void TakenSocket::EndWithProcess() {
  if (stream_ == nullptr) return;
  const bool resets = kernel_->options().Linger() == Duration();
  if (resets || BytesReadable() > 0) {  // RFC 2525 2.17.
    stream_->Abort("the process ends");
  } else {
    Shutdown(SHUT_RDWR);
  }
}

}  // namespace devwire::preload
