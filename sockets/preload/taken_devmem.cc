// TakenSocket's part of Linux's devmem TCP: streams into device memory, sends
// from it, and the error queue that tells when they are done.
#include <cerrno>

#include "sockets/errno_map.h"
#include "sockets/preload/taken_socket.h"

namespace devwire::preload {

void TakenSocket::SetBinding(std::shared_ptr<const DevmemBinding> binding) {
  binding_ = std::move(binding);
  if (binding_ == nullptr || stream_ == nullptr) return;
  devmem_ = std::make_unique<DevmemReceiver>(*stream_, binding_);
  is_devmem_ = true;
}

int64_t TakenSocket::ReceiveDevmem(DevmemReceiver::Call& call, size_t target) {
  if (stream_ == nullptr) return -EBADF;  // Closed by another thread.
  bool may_go_on = true;
  const int64_t got = devmem_->Look(call, &may_go_on);
  if (got < 0 && !may_go_on) return got;
  if (got < 0) {  // The stream has ended.
    OnFailure(ErrnoStatus(static_cast<int>(-got), ""));
    return TellError();
  }
  has_end_ |= devmem_->is_at_end();
  LookAtEnd();
  ShowReadable();
  if (call.total() == 0) {
    if (has_end_ || is_shut_for_reading_) return 0;
    // Room for nothing: whether there is something is what it tells.
    return BytesReadable() > 0 ? 0 : -EAGAIN;
  }
  // All that was asked for, all there will be, or all of its kind.
  return call.total() >= target || IsAtEnd() || !may_go_on
             ? static_cast<int64_t>(call.total())
             : -EAGAIN;
}

int64_t TakenSocket::DontNeed(std::span<const DmabufToken> tokens) {
  return devmem_ == nullptr ? 0 : devmem_->DontNeed(tokens);
}

int64_t TakenSocket::SendDevmem(const DevmemBinding& binding,
                                std::span<const DeviceSpan> spans,
                                uint32_t number) {
  if (int64_t e = WhyNotSend(); e != 0) return e;
  const auto outcome = stream_->SendDevice(binding.pool, spans, number);
  if (!outcome.ok()) {
    OnFailure(outcome.status());
    return TellError();
  }
  if (*outcome == SendOutcome::kWouldBlock) {
    ready_.SetWritable(false);
    return -EAGAIN;
  }
  zerocopy_.AddPart(number);
  int64_t bytes = 0;
  for (const DeviceSpan& span : spans) bytes += span.length;
  return bytes;
}

void TakenSocket::EndZeroCopy(uint32_t number) {
  zerocopy_.End(number);
  ShowErrorQueue();
}

void TakenSocket::AddCopiedZeroCopy() {
  if (!is_zerocopy()) return;  // Then MSG_ZEROCOPY means nothing.
  zerocopy_.AddCopied();
  ShowErrorQueue();
}

void TakenSocket::OnSendsDone() {
  if (stream_ == nullptr) return;
  SendCompletion done[32];
  while (true) {
    const auto count = stream_->PollSendCompletions(done);
    if (!count.ok() || *count == 0) break;
    for (const SendCompletion& c : std::span(done).first(*count)) {
      zerocopy_.OnPartDone(static_cast<uint32_t>(c.cookie));
    }
  }
  ShowErrorQueue();
}

void TakenSocket::ShowErrorQueue() {
  // Without a descriptor for it nobody is woken; who asks is answered.
  (void)ready_.SetErrorQueue(zerocopy_.has_notification());
}

std::optional<ZeroCopySends::Notification> TakenSocket::TakeNotification() {
  OnSendsDone();
  auto notification = zerocopy_.Take();
  ShowErrorQueue();
  return notification;
}

}  // namespace devwire::preload
