#include "sockets/preload/shim.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/thread.h"
#include "memreg/verbs_library.h"
#include "sockets/preload/real_libc.h"

namespace devwire::preload {
namespace {

void Say(const absl::Status& status) {
  const std::string text(status.message());
  fprintf(stderr, "devwire: %s\n", text.c_str());
}

bool IsInPrefix(const IpAddress& ip, const IpAddress& net, uint8_t bits) {
  if (ip.family != net.family) return false;
  for (unsigned i = 0; i < bits; ++i) {
    const unsigned mask = 0x80u >> (i % 8);
    if (((ip.bytes[i / 8] ^ net.bytes[i / 8]) & mask) != 0) return false;
  }
  return true;
}

}  // namespace

Shim* Shim::Get() {
  static std::atomic<bool> is_made{false};
  static Shim* shim = nullptr;
  if (is_made.load(std::memory_order_acquire)) return shim;
  // What reading the configuration calls itself is the kernel's.
  static thread_local bool is_making = false;
  if (is_making) return nullptr;
  is_making = true;
  static std::once_flag once;
  std::call_once(once, [] {
    if (const char* path = getenv("DEVWIRE_CONFIG"); path != nullptr) {
      absl::StatusOr<ShimConfig> config = ReadShimConfig(path);
      if (config.ok()) {
        shim = new Shim(*std::move(config));
      } else {
        Say(config.status());
      }
    }
    is_made.store(true, std::memory_order_release);
  });
  is_making = false;
  return shim;
}

namespace {

Shim* g_shim = nullptr;  // Set before any fork of a process that has one.

}  // namespace

Shim::Shim(ShimConfig config) : config_(std::move(config)) {
  g_shim = this;
  pthread_atfork(nullptr, nullptr, [] { g_shim->is_in_child_ = true; });
}

bool Shim::IsParents(int fd) {
  if (!is_in_child_.load(std::memory_order_relaxed) || fd < 0 ||
      static_cast<size_t>(fd) >= kMaxFds ||
      !is_taken_[static_cast<size_t>(fd)].load(std::memory_order_acquire)) {
    return false;
  }
  if (!has_said_so_.exchange(true)) {
    fprintf(stderr,
            "devwire: process %d uses socket %d of the process that it was "
            "forked from: that one keeps it. Fork before the first listen or "
            "connect\n",
            getpid(), fd);
  }
  return true;
}

void Shim::ForgetInChild(int fd) {
  if (is_in_child_.load(std::memory_order_relaxed) && fd >= 0 &&
      static_cast<size_t>(fd) < kMaxFds) {
    is_taken_[static_cast<size_t>(fd)].store(false, std::memory_order_release);
  }
}

std::shared_ptr<TakenSocket> Shim::Find(int fd) {
  if (fd < 0 || static_cast<size_t>(fd) >= kMaxFds ||
      !is_taken_[static_cast<size_t>(fd)].load(std::memory_order_acquire) ||
      is_in_child_.load(std::memory_order_relaxed)) {
    return nullptr;
  }
  const std::lock_guard lock(table_mutex_);
  const auto found = table_.find(fd);
  return found == table_.end() ? nullptr : found->second;
}

bool Shim::IsReachable(const IpAddress& ip) const {
  const StackOptions& s = config_.stack;
  if (ip == s.address || ip == IpAddress() || ip.family != s.address.family) {
    return false;
  }
  if (IsInPrefix(ip, s.address, s.prefix_bits)) return true;
  if (ip.is_v4() && ip.bytes[0] == 127) return false;
  return s.gateway.has_value();
}

Stack* Shim::OpenStack() {
  if (stack_ != nullptr || has_failed_) return stack_.get();
  has_failed_ = true;  // Unless all of it works.
  if (auto status = LoadVerbsLibrary(config_.stack.verbs_library);
      !status.ok()) {
    return Say(status), nullptr;
  }
  if (!config_.softnic.empty()) {
    if (verbs().softnic_configure == nullptr ||
        verbs().softnic_configure(config_.softnic.c_str()) != 0) {
      fprintf(stderr, "devwire: stack.softnic: %s\n",
              verbs().softnic_last_error == nullptr
                  ? "this verbs library is no softnic"
                  : verbs().softnic_last_error());
      return nullptr;
    }
  }
  auto stack = Stack::Open(config_.stack);
  if (!stack.ok()) return Say(stack.status()), nullptr;
  auto poller = (*stack)->NewPoller();
  if (!poller.ok()) return Say(poller.status()), nullptr;
  const auto event_fd = (*poller)->EventFd();
  if (!event_fd.ok()) return Say(event_fd.status()), nullptr;
  event_fd_ = *event_fd;
  stack_ = *std::move(stack);
  poller_ = *std::move(poller);
  has_failed_ = false;
  progress_ = StartThread([this] { Run(); });
  progress_.detach();
  return stack_.get();
}

void Shim::Run() {
  while (true) {
    size_t count = 0;
    {
      const std::lock_guard lock(mutex);
      Poller::Ready ready[64];
      const absl::StatusOr<size_t> waited = poller_->Wait(ready, Duration());
      if (!waited.ok()) return;
      count = *waited;
      for (size_t i = 0; i < count; ++i) {
        reinterpret_cast<TakenSocket*>(ready[i].user_data)
            ->OnReady(ready[i].what);
      }
    }
    if (count > 0) continue;
    pollfd wait = {event_fd_, POLLIN, 0};
    real().poll(&wait, 1, -1);
  }
}

void Shim::Bind(int fd, const Endpoint& local) {
  const std::lock_guard lock(table_mutex_);
  bound_[fd] = local;
  bound_count_ = bound_.size();
}

void Shim::Unbind(int fd) {
  if (bound_count_ == 0 || is_in_child_) return;
  const std::lock_guard lock(table_mutex_);
  bound_.erase(fd);
  bound_count_ = bound_.size();
}

std::optional<Endpoint> Shim::BoundTo(int fd) {
  if (bound_count_ == 0 || is_in_child_) return std::nullopt;
  const std::lock_guard lock(table_mutex_);
  const auto found = bound_.find(fd);
  if (found == bound_.end()) return std::nullopt;
  return found->second;
}

// exit(3) and the return from main; not _exit(2), nor a signal.
[[gnu::destructor]] void EndOfProcess() {
  if (g_shim != nullptr && !g_shim->is_in_child_) g_shim->AtExit();
}

void Shim::AtExit() {
  constexpr Duration kExitPatience = 3_s;
  const std::lock_guard lock(mutex);
  if (stack_ == nullptr) return;
  std::unordered_map<int, std::shared_ptr<TakenSocket>> all;
  {
    const std::lock_guard table_lock(table_mutex_);
    all = table_;
  }
  const MonotonicClock clock;
  const Instant until = clock.Now() + kExitPatience;
  bool is_under_way = true;
  for (auto& [fd, socket] : all) socket->Shutdown(SHUT_RDWR);
  while (is_under_way && clock.Now() < until) {
    stack_->Poll();
    is_under_way = false;
    for (auto& [fd, socket] : all) is_under_way |= socket->HasUnsent();
  }
  // What is left is reset: a peer must not wait for a process that is gone.
  stack_.reset();
}

int64_t Shim::Adopt(std::shared_ptr<TakenSocket> socket, int made_fd,
                    std::optional<int> fd) {
  const auto user_data = reinterpret_cast<uint64_t>(socket.get());
  const absl::Status added =
      socket->is_listener()
          ? poller_->Add(*socket->listener(), Trigger::kEdge, user_data)
          : poller_->Add(*socket->stream(), kReadable | kWritable | kConnected,
                         Trigger::kEdge, user_data);
  if (!added.ok()) {
    real().close(made_fd);
    return -ENOBUFS;
  }
  if (!fd.has_value()) {
    Insert(made_fd, std::move(socket));
    return 0;
  }
  socket->CopyOptions(*fd);
  // O_NONBLOCK and FD_CLOEXEC are of the descriptor.
  const int status_flags = real().fcntl(*fd, F_GETFL);
  const int fd_flags = real().fcntl(*fd, F_GETFD);
  real().fcntl(made_fd, F_SETFL, status_flags & O_NONBLOCK);
  const int done =
      real().dup3(made_fd, *fd, (fd_flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
  const int error = errno;
  real().close(made_fd);
  if (done < 0) return -error;
  Insert(*fd, std::move(socket));
  return 0;
}

void Shim::Insert(int fd, std::shared_ptr<TakenSocket> socket) {
  const std::lock_guard lock(table_mutex_);
  table_[fd] = std::move(socket);
  is_taken_[static_cast<size_t>(fd)].store(true, std::memory_order_release);
}

void Shim::Alias(int fd, int of) {
  std::shared_ptr<TakenSocket> socket = Find(of);
  if (socket != nullptr) Insert(fd, std::move(socket));
}

std::shared_ptr<TakenSocket> Shim::Remove(int fd) {
  const std::lock_guard lock(table_mutex_);
  const auto found = table_.find(fd);
  if (found == table_.end()) return nullptr;
  std::shared_ptr<TakenSocket> socket = std::move(found->second);
  table_.erase(found);
  is_taken_[static_cast<size_t>(fd)].store(false, std::memory_order_release);
  for (const auto& [other, of] : table_) {
    if (of == socket) return nullptr;
  }
  return socket;
}

}  // namespace devwire::preload
