#include "sockets/poller.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_format.h"
#include "sockets/errno_map.h"
#include "sockets/stack_core.h"

namespace devwire {

Poller::Poller(std::shared_ptr<StackCore> core, uint32_t id)
    : core_(std::move(core)), id_(id) {}

Poller::~Poller() {
  if (core_->is_in_child()) {
    AbandonInChild(std::move(core_));
  } else if (core_->Usable().ok()) {
    (void)core_->Call([&] { core_->poll_set.DropPoller(id_); });
  }
}

absl::Status Poller::Usable(const StackCore& of, const char* what) const {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  if (&of == core_.get()) return absl::OkStatus();
  return ErrnoStatus(EINVAL,
                     absl::StrFormat("the %s belongs to another stack: use a "
                                     "poller of that stack (NewPoller)",
                                     what));
}

absl::Status Poller::Add(Stream& stream, Readiness interest, Trigger trigger,
                         uint64_t user_data) {
  if (absl::Status status = stream.Usable(); !status.ok()) return status;
  if (absl::Status status = Usable(*stream.core_, "stream"); !status.ok()) {
    return status;
  }
  bool added = false;
  const absl::Status called = core_->Call([&] {
    PollSet::Entry entry;
    entry.poller = id_;
    entry.interest = interest;
    entry.is_edge = trigger == Trigger::kEdge;
    entry.user_data = user_data;
    entry.stream = stream.id_;
    entry.ready = core_->engine->ReadinessOf(*core_->engine->Find(stream.id_));
    added = core_->poll_set.AddStream(stream.id_, entry);
  });
  if (!called.ok()) return called;
  return added ? absl::OkStatus()
               : ErrnoStatus(EEXIST, "the stream is in a poller already");
}

absl::Status Poller::Add(Listener& listener, Trigger trigger,
                         uint64_t user_data) {
  if (absl::Status status = Usable(*listener.core_, "listener"); !status.ok()) {
    return status;
  }
  bool added = false;
  const absl::Status called = core_->Call([&] {
    PollSet::Entry entry;
    entry.poller = id_;
    entry.interest = kAcceptable;
    entry.is_edge = trigger == Trigger::kEdge;
    entry.user_data = user_data;
    if (core_->engine->HasAcceptable(ListenerId{listener.id_})) {
      entry.ready = kAcceptable;
    }
    added = core_->poll_set.AddListener(ListenerId{listener.id_}, entry);
  });
  if (!called.ok()) return called;
  return added ? absl::OkStatus()
               : ErrnoStatus(EEXIST, "the listener is in a poller already");
}

absl::Status Poller::Remove(Stream& stream) {
  if (absl::Status status = Usable(*stream.core_, "stream"); !status.ok()) {
    return status;
  }
  bool removed = false;
  const absl::Status called = core_->Call(
      [&] { removed = core_->poll_set.RemoveStream(stream.id_, id_); });
  if (!called.ok()) return called;
  return removed ? absl::OkStatus()
                 : ErrnoStatus(ENOENT, "the stream is not in this poller");
}

absl::Status Poller::Remove(Listener& listener) {
  if (absl::Status status = Usable(*listener.core_, "listener"); !status.ok()) {
    return status;
  }
  bool removed = false;
  const absl::Status called = core_->Call([&] {
    removed = core_->poll_set.RemoveListener(ListenerId{listener.id_}, id_);
  });
  if (!called.ok()) return called;
  return removed ? absl::OkStatus()
                 : ErrnoStatus(ENOENT, "the listener is not in this poller");
}

absl::StatusOr<int> Poller::EventFd() {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  has_event_fd_ = true;
  if (core_->options.mode == StackOptions::Mode::kCallerPolls) {
    core_->RestCaller();
    return core_->event_fd();
  }
  int fd = -1;
  const absl::Status called =
      core_->Call([&] { fd = core_->poll_set.bell(id_)->OpenFd(); });
  if (!called.ok()) return called;
  if (fd >= 0) return fd;
  return ErrnoStatus(EMFILE, "no descriptor for the poller: see ulimit -n");
}

absl::StatusOr<size_t> Poller::Wait(std::span<Ready> ready, Duration timeout) {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  const Instant deadline = core_->clock.Now() + timeout;
  const bool polls = core_->options.mode == StackOptions::Mode::kCallerPolls;
  const auto refresh = [&](const PollSet::Entry& entry) {
    if (!entry.stream.has_value()) return entry.ready;
    const EngineStream* s = core_->engine->Find(*entry.stream);
    return s == nullptr ? Readiness{0} : core_->engine->ReadinessOf(*s);
  };
  while (true) {
    if (polls) core_->Poll();
    size_t count = 0;
    PollSet::Bell* bell = nullptr;
    const absl::Status called = core_->Call([&] {
      count = core_->poll_set.Collect(id_, ready, refresh);
      bell = core_->poll_set.bell(id_);
    });
    if (!called.ok()) return called;
    const Instant now = core_->clock.Now();
    if (count > 0) return count;
    if (now >= deadline) {
      if (polls && has_event_fd_) core_->RestCaller();
      return 0;
    }
    if (!polls) bell->Sleep(std::min(deadline - now, Duration(100_ms)));
  }
}

}  // namespace devwire
