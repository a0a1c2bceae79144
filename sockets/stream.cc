#include "sockets/stream.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "sockets/errno_map.h"
#include "sockets/stack_core.h"

namespace devwire {
namespace {

// What to do about it, or who to ask.
std::string NextStep(const EngineStream& s) {
  switch (s.error) {
    case TcpError::kNone:
      break;
    case TcpError::kRefused:
      return "does anything listen there?";
    case TcpError::kReset:
      return "the peer's log says why; connect again";
    case TcpError::kTimedOut:
      return "is the peer up, and the link? TcpKnobs::user_timeout says how "
             "long to wait";
    case TcpError::kAborted:
      return s.abort_reason.empty()
                 ? "Abort() was called here, without a reason"
                 : absl::StrFormat("Abort() was called here: %s",
                                   s.abort_reason);
    case TcpError::kUnreachable:
      return "a router on the way says so; check the routes there";
    case TcpError::kRegionRevoked:
      return absl::StrFormat(
          "memory %u was revoked by its owner: bind it again (BindMemory), or "
          "other memory, and open new streams with it",
          static_cast<unsigned>(s.revoked.value_or(kHostPool)));
    case TcpError::kDeviceFailed:
      return "close the stack and open another";
    case TcpError::kStackClosed:
      return "open another stack";
  }
  return "";
}

absl::Status FailureOf(const EngineStream& s, const StackCore& core) {
  const std::string remote = s.tuple.remote.ToString();
  if (s.error == TcpError::kUnreachable &&
      s.cause == UnreachableCause::kNoNeighbor) {
    return ErrnoStatus(
        EHOSTUNREACH,
        absl::StrFormat(
            "%s: no ARP answer from %s; is it up, and on this link?", remote,
            core.engine->neighbors().entry(s.neighbor).ip.ToString()));
  }
  if (s.error == TcpError::kDeviceFailed) return core.DeviceFailedStatus();
  return ErrnoStatus(ErrnoOf(s.error),
                     absl::StrFormat("%s: %s; %s", remote,
                                     TcpErrorName(s.error), NextStep(s)));
}

absl::Status Closed() { return ErrnoStatus(EBADF, "the stream is closed"); }

}  // namespace

Stream::Stream(std::shared_ptr<StackCore> core, StreamId id,
               const FourTuple& tuple, bool is_host)
    : core_(std::move(core)), id_(id), tuple_(tuple), is_host_(is_host) {}

Stream::~Stream() {
  if (core_->is_in_child()) {
    AbandonInChild(std::move(core_));
  } else {
    Close();
  }
}

absl::Status Stream::Usable() const {
  return is_closed_ ? Closed() : core_->Usable();
}

absl::StatusOr<Received> Stream::ReceiveFrags(std::span<StreamFrag> out,
                                              uint64_t max_bytes) {
  if (absl::Status status = Usable(); !status.ok()) return status;
  Received received;
  absl::Status failure;
  const absl::Status called = core_->Call([&] {
    EngineStream& s = *core_->engine->Find(id_);
    received = core_->engine->ReceiveFrags(s, out, max_bytes);
    if (received.frags == 0 && !received.end_of_stream &&
        s.error != TcpError::kNone) {
      failure = FailureOf(s, *core_);
    }
  });
  if (!called.ok()) return called;
  if (!failure.ok()) return failure;
  return received;
}

ReturnResult Stream::ReturnTokens(std::span<const FragToken> tokens,
                                  size_t* bad) {
  ReturnResult first = ReturnResult::kReturned;
  if (core_->is_in_child()) return ReturnResult::kUnknown;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const ReturnResult result = core_->ReturnToken(id_, tokens[i]);
    if (result != ReturnResult::kReturned && first == ReturnResult::kReturned) {
      first = result;
      if (bad != nullptr) *bad = i;
    }
  }
  return first;
}

absl::StatusOr<Received> Stream::Read(std::span<std::byte> out) {
  if (absl::Status status = Usable(); !status.ok()) return status;
  if (!is_host_) {
    return ErrnoStatus(EINVAL,
                       "Read() copies, which a stream into device memory "
                       "cannot: use ReceiveFrags()");
  }
  Received received;
  absl::Status failure;
  const absl::Status called = core_->Call([&] {
    EngineStream& s = *core_->engine->Find(id_);
    received = core_->engine->Read(s, out);
    if (received.bytes == 0 && !received.end_of_stream &&
        s.error != TcpError::kNone) {
      failure = FailureOf(s, *core_);
    }
  });
  if (!called.ok()) return called;
  if (!failure.ok()) return failure;
  return received;
}

absl::StatusOr<SendOutcome> Stream::SendDevice(
    PoolId memory, std::span<const DeviceSpan> spans, uint64_t cookie) {
  if (absl::Status status = Usable(); !status.ok()) return status;
  const absl::StatusOr<const BoundMemory*> bound = core_->Bound(memory);
  if (!bound.ok()) return bound.status();
  const BoundMemory::Span& region = (*bound)->span;
  if (spans.empty() || spans.size() > kMaxSpansPerSend) {
    return ErrnoStatus(EINVAL, absl::StrFormat("1 to %u spans a send, not %u",
                                               kMaxSpansPerSend, spans.size()));
  }
  for (const DeviceSpan& span : spans) {
    if (span.length > 0 && span.offset <= region.bytes &&
        span.length <= region.bytes - span.offset) {
      continue;
    }
    return ErrnoStatus(
        EFAULT, absl::StrFormat("span of %u bytes at %u is empty or outside "
                                "the %u bytes bound: send registered memory",
                                span.length, span.offset, region.bytes));
  }
  SendOutcome outcome = SendOutcome::kWouldBlock;
  absl::Status failure;
  const absl::Status called = core_->Call([&] {
    EngineStream& s = *core_->engine->Find(id_);
    failure = core_->SendFailure(s);
    if (failure.ok() && core_->engine->IsRevoked(memory)) {
      failure = StackCore::RevokedStatus(memory);
    }
    if (failure.ok()) {
      outcome =
          core_->engine->SendDevice(s, region.iova, region.lkey, spans, cookie);
    }
  });
  if (!called.ok()) return called;
  if (!failure.ok()) return failure;
  return outcome;
}

absl::StatusOr<size_t> Stream::SendHost(std::span<const std::byte> bytes) {
  if (absl::Status status = Usable(); !status.ok()) return status;
  size_t taken = 0;
  absl::Status failure;
  const absl::Status called = core_->Call([&] {
    EngineStream& s = *core_->engine->Find(id_);
    failure = core_->SendFailure(s);
    if (failure.ok()) taken = core_->engine->SendHost(s, bytes);
  });
  if (!called.ok()) return called;
  if (!failure.ok()) return failure;
  return taken;
}

absl::StatusOr<size_t> Stream::PollSendCompletions(
    std::span<SendCompletion> out) {
  if (absl::Status status = Usable(); !status.ok()) return status;
  size_t count = 0;
  absl::Status failure;
  const absl::Status called = core_->Call([&] {
    count = core_->engine->PollSendCompletions(*core_->engine->Find(id_), out);
    if (count == 0) failure = core_->DeviceFailure();
  });
  if (!called.ok()) return called;
  if (!failure.ok()) return failure;
  return count;
}

absl::Status Stream::CloseSend() {
  if (absl::Status status = Usable(); !status.ok()) return status;
  absl::Status failure;
  const absl::Status called = core_->Call([&] {
    EngineStream& s = *core_->engine->Find(id_);
    if (s.error != TcpError::kNone) {
      failure = FailureOf(s, *core_);
    } else {
      core_->engine->CloseSend(s);
    }
  });
  if (!called.ok()) return called;
  return failure;
}

void Stream::Abort(std::string_view reason) {
  if (!Usable().ok()) return;
  // Closed meanwhile: the stream ended with the stack.
  (void)core_->Call([&] {
    EngineStream& s = *core_->engine->Find(id_);
    // Whatever ended it before stays the reason.
    if (s.error == TcpError::kNone) s.abort_reason.assign(reason);
    if (!s.is_finished) core_->engine->Abort(s, TcpError::kAborted);
  });
}

void Stream::Close(CloseOptions options) {
  if (!Usable().ok()) return;
  if (options.linger == Duration()) {
    Abort("linger is 0");
  } else if (options.linger) {
    Linger(*options.linger);
  }
  // Closed meanwhile: the stream ended with the stack.
  (void)core_->Call([&] {
    core_->poll_set.RemoveStream(id_, std::nullopt);
    core_->engine->Close(*core_->engine->Find(id_), options.keep_frags);
  });
  is_closed_ = true;
}

absl::Status Stream::ConnectStatus() {
  if (absl::Status status = Usable(); !status.ok()) return status;
  absl::Status answer;
  const absl::Status called = core_->Call([&] {
    const EngineStream& s = *core_->engine->Find(id_);
    if (s.was_connected) return;
    answer = s.error != TcpError::kNone
                 ? FailureOf(s, *core_)
                 : ErrnoStatus(EINPROGRESS, "still connecting");
  });
  if (!called.ok()) return called;
  return answer;
}

absl::Status Stream::WaitConnected(Duration timeout, const CancelFlag* cancel) {
  if (absl::Status status = Usable(); !status.ok()) return status;
  const auto is_done = [&] {
    const EngineStream& s = *core_->engine->Find(id_);
    return s.was_connected || s.error != TcpError::kNone;
  };
  switch (core_->WaitUntil(is_done, timeout, cancel)) {
    case StackCore::WaitResult::kReady:
      return ConnectStatus();
    case StackCore::WaitResult::kTimedOut:
      return ErrnoStatus(
          ETIMEDOUT,
          absl::StrFormat("%s: no connection within %.3f s; is it "
                          "up, and is the address right?",
                          tuple_.remote.ToString(), timeout.seconds()));
    case StackCore::WaitResult::kCancelled:
      return ErrnoStatus(ECANCELED, "connect was cancelled");
    case StackCore::WaitResult::kClosed:
      return StackCore::ClosedStatus();
  }
  return absl::OkStatus();
}

Endpoint Stream::local() const { return tuple_.local; }
Endpoint Stream::remote() const { return tuple_.remote; }

absl::Status StackCore::SendFailure(const EngineStream& s) {
  if (s.error != TcpError::kNone) return FailureOf(s, *this);
  if (s.send_is_closed) {
    return ErrnoStatus(EPIPE, "CloseSend() was called: nothing can follow it");
  }
  return absl::OkStatus();
}

}  // namespace devwire
