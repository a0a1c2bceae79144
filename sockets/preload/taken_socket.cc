#include "sockets/preload/taken_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sockets/errno_map.h"
#include "sockets/preload/real_libc.h"
#include "sockets/preload/shim.h"

namespace devwire::preload {

int64_t TakenSocket::Make(std::unique_ptr<Stream> stream,
                          std::shared_ptr<TakenSocket>* out, int* fd) {
  out->reset(new TakenSocket);
  (*out)->local_ = stream->local();
  (*out)->remote_ = stream->remote();
  (*out)->stream_ = std::move(stream);
  return -(*out)->ready_.Open(fd);
}

int64_t TakenSocket::Make(std::unique_ptr<Listener> listener,
                          std::shared_ptr<TakenSocket>* out, int* fd) {
  out->reset(new TakenSocket);
  (*out)->local_ = listener->local();
  (*out)->is_listener_ = true;
  (*out)->listener_ = std::move(listener);
  return -(*out)->ready_.Open(fd);
}

TakenSocket::~TakenSocket() = default;

void TakenSocket::OnReady(Readiness what) {
  if ((what & (kConnected | kWritable)) != 0) ready_.SetWritable(true);
  if ((what & (kReadable | kAcceptable)) != 0) ready_.OnMore();
  if ((what & kReadable) != 0 && PeerHasEnded()) ready_.OnEndOfStream();
  if ((what & kFailed) == 0) return;
  const absl::Status status = stream_->ConnectStatus();
  if (!status.ok() && !error_is_told_) error_ = ErrnoOf(status);
  // What arrived before the error is read first, as in Linux.
  if (BytesReadable() == 0) ready_.OnError();
}

// The peer's FIN has arrived, whether it was read or not: POLLRDHUP.
bool TakenSocket::PeerHasEnded() {
  const auto info = stream_->tcp_info();
  if (!info.ok()) return false;
  const int state = info->tcpi_state;
  return state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK ||
         state == TCP_CLOSING || state == TCP_TIME_WAIT;
}

int64_t TakenSocket::Fail(const absl::Status& status) {
  const int error = error_ != 0 ? std::exchange(error_, 0) : ErrnoOf(status);
  ready_.OnError();
  error_is_told_ = true;
  return -error;
}

int64_t TakenSocket::Receive(std::span<const iovec> out) {
  if (stream_ == nullptr) return -EBADF;  // Closed by another thread.
  if (is_shut_for_reading_ || has_end_) return 0;
  int64_t total = 0;
  for (const iovec& v : out) {
    const absl::StatusOr<Received> got =
        stream_->Read({static_cast<std::byte*>(v.iov_base), v.iov_len});
    if (!got.ok()) {
      if (total > 0) return total;
      // The error is told once, then there is nothing more. tcp(7)
      return error_is_told_ ? 0 : Fail(got.status());
    }
    total += static_cast<int64_t>(got->bytes);
    has_end_ |= got->end_of_stream;
    if (got->bytes < v.iov_len) break;
  }
  LookAtEnd();
  const bool is_empty = !has_end_ && BytesReadable() == 0;
  if (is_empty) ready_.ClearReadable();
  return total > 0 || has_end_ || out.empty() ? total : -EAGAIN;
}

int64_t TakenSocket::Accept(std::unique_ptr<Stream>* out) {
  if (listener_ == nullptr) return -EBADF;
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

// Both ends have said that nothing more comes: POLLHUP.
void TakenSocket::LookAtEnd() {
  if (has_end_) ready_.OnEndOfStream();
  if (has_end_ && is_shut_for_writing_) ready_.OnHangUp();
}

int64_t TakenSocket::Send(std::span<const iovec> bytes) {
  if (stream_ == nullptr) return -EBADF;
  if (is_shut_for_writing_) return -EPIPE;
  if (error_ != 0) return Fail(absl::OkStatus());
  int64_t total = 0;
  for (const iovec& v : bytes) {
    const absl::StatusOr<size_t> taken = stream_->SendHost(
        {static_cast<const std::byte*>(v.iov_base), v.iov_len});
    if (!taken.ok()) {
      if (total > 0) return total;
      const int64_t error = Fail(taken.status());
      return error == -ECONNRESET ? -EPIPE : error;
    }
    total += static_cast<int64_t>(*taken);
    if (*taken == v.iov_len) continue;
    ready_.SetWritable(false);
    return total > 0 ? total : -EAGAIN;
  }
  return total;
}

int64_t TakenSocket::Shutdown(int how) {
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return -EINVAL;
  if (is_listener() || ConnectResult() != 0) return -ENOTCONN;
  if (how != SHUT_WR) {
    is_shut_for_reading_ = true;
    ready_.OnEndOfStream();
  }
  if (how != SHUT_RD && !is_shut_for_writing_) {
    is_shut_for_writing_ = true;
    (void)stream_->CloseSend();
  }
  if ((is_shut_for_reading_ || has_end_) && is_shut_for_writing_) {
    ready_.OnHangUp();
  }
  return 0;
}

int64_t TakenSocket::Close(std::optional<Duration> linger) {
  if (stream_ != nullptr) stream_->Close({.linger = linger});
  stream_.reset();
  next_.reset();
  listener_.reset();
  return 0;
}

int64_t TakenSocket::ConnectResult() {
  if (stream_ == nullptr) return -EBADF;
  if (is_connected_) return 0;
  const absl::Status status = stream_->ConnectStatus();
  const int error = ErrnoOf(status);
  if (error == EINPROGRESS) return -EINPROGRESS;
  if (error != 0) return Fail(status);
  is_connected_ = true;
  return 0;
}

int64_t TakenSocket::ConnectAgain() {
  const int64_t result = ConnectResult();
  if (result == -EINPROGRESS) return -EALREADY;
  if (result != 0) return result;
  return std::exchange(connect_is_told_, true) ? -EISCONN : 0;
}

int TakenSocket::TakeError() {
  if (!is_listener() && !is_connected_ && error_ == 0 && !error_is_told_) {
    const int64_t result = ConnectResult();
    return result == -EINPROGRESS ? 0 : static_cast<int>(-result);
  }
  error_is_told_ |= error_ != 0;
  return std::exchange(error_, 0);
}

void TakenSocket::CopyOptions(int kernel_fd) {
  if (is_listener()) return;
  int on = 0;
  socklen_t size = sizeof(on);
  if (real().getsockopt(kernel_fd, IPPROTO_TCP, TCP_NODELAY, &on, &size) == 0) {
    (void)stream_->SetNoDelay(on != 0);
  }
  SetKeepAlive(kernel_fd);
}

void TakenSocket::SetKeepAlive(int fd) {
  if (stream_ == nullptr) return;
  int on = 0;
  socklen_t size = sizeof(on);
  real().getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &size);
  (void)stream_->SetKeepAlive(
      on != 0 ? std::optional(Shim::Get()->config().keepalive) : std::nullopt);
}

uint64_t TakenSocket::BytesUnsent() {
  if (stream_ == nullptr) return 0;
  const auto info = stream_->Info();
  return info.ok() ? info->bytes_unacked + info->bytes_unsent : 0;
}

uint64_t TakenSocket::BytesReadable() {
  if (stream_ == nullptr) return 0;
  return stream_->ReadableBytes().value_or(0);
}

}  // namespace devwire::preload
