#include "sockets/listener.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_format.h"
#include "sockets/errno_map.h"
#include "sockets/stack_core.h"

namespace devwire {

Listener::Listener(std::shared_ptr<StackCore> core, uint32_t id, Endpoint local)
    : core_(std::move(core)), id_(id), local_(local) {}

Listener::~Listener() {
  if (core_->is_in_child()) {
    AbandonInChild(std::move(core_));
  } else if (core_->Usable().ok()) {
    // Closed meanwhile: it went with the stack.
    (void)core_->Call([&] {
      core_->poll_set.RemoveListener(ListenerId{id_}, std::nullopt);
      core_->engine->Unlisten(ListenerId{id_});
    });
  }
}

absl::StatusOr<std::unique_ptr<Stream>> Listener::TryAccept() {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  std::optional<StreamId> id;
  FourTuple tuple;
  bool is_host = false;
  absl::Status failure;
  const absl::Status called = core_->Call([&] {
    id = core_->engine->Accept(ListenerId{id_});
    if (!id.has_value()) {
      failure = core_->DeviceFailure();
      if (!failure.ok()) return;
      const auto revoked = core_->engine->RevokedPoolOf(ListenerId{id_});
      if (revoked.has_value()) failure = StackCore::RevokedStatus(*revoked);
      return;
    }
    const EngineStream& s = *core_->engine->Find(*id);
    tuple = s.tuple;
    is_host = !s.pool.has_value();
  });
  if (!called.ok()) return called;
  if (!failure.ok()) return failure;
  if (!id.has_value()) return nullptr;
  return std::unique_ptr<Stream>(new Stream(core_, *id, tuple, is_host));
}

absl::StatusOr<std::unique_ptr<Stream>> Listener::Accept(
    Duration timeout, const CancelFlag* cancel) {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  const auto is_done = [&] {
    return core_->engine->HasAcceptable(ListenerId{id_});
  };
  switch (core_->WaitUntil(is_done, timeout, cancel)) {
    case StackCore::WaitResult::kReady:
      return TryAccept();
    case StackCore::WaitResult::kTimedOut:
      return ErrnoStatus(ETIMEDOUT,
                         absl::StrFormat("%s: nobody connected within %.3f s",
                                         local_.ToString(), timeout.seconds()));
    case StackCore::WaitResult::kCancelled:
      return ErrnoStatus(ECANCELED, "accept was cancelled");
    case StackCore::WaitResult::kClosed:
      return StackCore::ClosedStatus();
  }
  return nullptr;
}

absl::Status Listener::SetDeferAccept(Duration most) {
  if (most < Duration()) {
    return ErrnoStatus(EINVAL, absl::StrFormat("a time of %g s to defer accept "
                                               "is negative: use 0 or more",
                                               most.seconds()));
  }
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  return core_->Call(
      [&] { core_->engine->SetDeferAccept(ListenerId{id_}, most); });
}

}  // namespace devwire
