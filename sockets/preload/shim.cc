#include "sockets/preload/shim.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/thread.h"
#include "sockets/preload/guardian.h"
#include "sockets/preload/open_stack.h"
#include "sockets/preload/real_libc.h"
#include "sockets/preload/sockaddr.h"

namespace devwire::preload {
namespace {

// How it became ours, for log.explain.
std::string Describe(const TakenSocket& socket, bool is_accepted) {
  const std::string local = socket.local().ToString();
  if (socket.is_listener()) return absl::StrCat("listens on ", local);
  return absl::StrCat(is_accepted ? "accepted on " : "connects from ", local,
                      is_accepted ? " from " : " to ",
                      socket.remote().ToString());
}

// The port may be another's for as long: of a process that has just died, or
// of its guardian.
constexpr Duration kOpenPatience = 2_s;
// The process ends: peers that take nothing for so long are given up.
constexpr Duration kEndPatience = 3_s;

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
      absl::StatusOr<ShimConfig> config = ReadShimConfig(path, environ);
      if (config.ok()) {
        shim = new Shim(*std::move(config));
      } else {
        Log().Say(LogLevel::kError, config.status());
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

Shim* Shim::Existing() { return g_shim; }

Shim::Shim(ShimConfig config)
    : ports(static_cast<uint64_t>(getpid())),
      config_(std::move(config)),
      log_(config_.log_level, config_.log_file),
      program_(ThisProgram()),
      account_(config_, &log_, program_.invoked),
      owner_pid_(getpid()),
      netlink_({.bind =
                    [this](const BindRequest& request, bool is_receive) {
                      return BindDmabuf(request, is_receive);
                    },
                .unbind =
                    [this](uint32_t id) {
                      const std::lock_guard lock(mutex);
                      devmem_.Unbind(id);
                    }}) {
  g_shim = this;
  // The child's copy of what it guards must be whole.
  pthread_atfork([] { g_shim->table.LockForFork(); },
                 [] { g_shim->table.UnlockAfterFork(); },
                 [] {
                   g_shim->table.UnlockAfterFork();
                   g_shim->AfterForkInChild();
                 });
}

// A child of a process that has taken nothing is free to begin: daemon(3).
void Shim::AfterForkInChild() {
  owner_pid_ = getpid();
  if (stack_ != nullptr) {
    is_in_child_ = true;
  } else if (!is_in_child_) {
    account_.ForkedChild();
  }
}

bool Shim::IsAnothersCall() const { return getpid() != owner_pid_; }

bool Shim::IsParents(int fd) {
  if (!is_in_child_.load(std::memory_order_relaxed) ||
      table.state(fd) != FdTable::State::kTaken) {
    return false;
  }
  if (!has_said_so_.exchange(true)) {
    log_.Say(
        LogLevel::kWarning,
        absl::StrFormat(
            "process %d uses socket %d of the process that it was forked from: "
            "that one keeps it. Fork before the first listen or connect",
            getpid(), fd));
  }
  return true;
}

void Shim::ForgetInChild(int fd) {
  if (is_in_child_.load(std::memory_order_relaxed)) table.ForgetTaken(fd);
}

std::shared_ptr<TakenSocket> Shim::Find(int fd) {
  if (is_in_child_.load(std::memory_order_relaxed)) return nullptr;
  return table.FindTaken(fd);
}

std::shared_ptr<KernelSocket> Shim::FindCandidate(int fd) {
  if (is_in_child_.load(std::memory_order_relaxed) ||
      table.state(fd) == FdTable::State::kTaken) {
    return nullptr;
  }
  if (auto kernel = table.FindKernel(fd); kernel != nullptr) return kernel;
  // Not from socket(2): inherited, or sent by another process.
  const auto ask = [&](int option) {
    int answer = -1;
    socklen_t size = sizeof(answer);
    return real().getsockopt(fd, SOL_SOCKET, option, &answer, &size) == 0
               ? answer
               : -1;
  };
  const int saved = errno;
  std::shared_ptr<KernelSocket> kernel;
  if (ask(SO_PROTOCOL) == IPPROTO_TCP && ask(SO_TYPE) == SOCK_STREAM) {
    kernel = std::make_shared<KernelSocket>(ask(SO_DOMAIN));
    if (table.Insert(fd, kernel, nullptr, false) != 0) kernel = nullptr;
  }
  errno = saved;
  return kernel;
}

std::string Shim::WhyNotReachable(Direction direction,
                                  const IpAddress& ip) const {
  const StackOptions& s = config_.stack;
  const std::string text = ip.ToString();
  if (direction == Direction::kListen) {
    if (IsAny(ip) || ip == s.address) return {};
    return absl::StrCat(text, " is not the device's address");
  }
  if (ip.is_v4() && (ip.bytes[0] == 127 || IsAny(ip))) {
    return absl::StrCat(text, " is a loopback address");
  }
  if (ip.family != s.address.family) {
    return absl::StrCat(text, " is not of the family of the device's address");
  }
  if (AddressPrefix{s.address, s.prefix_bits}.Contains(ip) || s.gateway) {
    return {};
  }
  return absl::StrCat(text, " is not in ", s.address.ToString(), "/",
                      s.prefix_bits, ", and there is no gateway");
}

bool Shim::Takes(int fd, Direction direction, const Endpoint& endpoint) {
  std::string why = WhyNotReachable(direction, endpoint.ip);
  if (why.empty()) {
    const TakeDecision decision =
        Decide(config_.take, program_, direction, endpoint);
    if (decision.take) return true;
    why = absl::StrCat(endpoint.ToString(), ": ", decision.why, " says no");
  }
  account_.Passed(fd, why);
  return false;
}

std::optional<int64_t> Shim::BindDmabuf(const BindRequest& request,
                                        bool is_receive) {
  char name[IF_NAMESIZE];
  if (if_indextoname(request.ifindex, name) == nullptr) return -ENODEV;
  if (!config_.interface.empty() && config_.interface != name) {
    return std::nullopt;
  }
  const std::lock_guard lock(mutex);
  Stack* const stack = OpenStack();
  if (stack == nullptr) return -ENETDOWN;
  bound_interfaces_.insert(name);
  return is_receive ? devmem_.BindReceive(*stack, request.fd, request.queues,
                                          config_.pool)
                    : devmem_.BindSend(*stack, request.fd);
}

std::shared_ptr<const DevmemBinding> Shim::BindingFor(
    Direction direction, const Endpoint& endpoint) const {
  auto binding = devmem_.receive();
  if (binding == nullptr) return nullptr;
  return Decide(config_.take, program_, direction, endpoint).device_memory
             ? binding
             : nullptr;
}

bool Shim::IsOurInterface(const std::string& name) {
  const std::lock_guard lock(mutex);
  return name == config_.interface || bound_interfaces_.contains(name);
}

Stack* Shim::OpenStack() {
  if (stack_ != nullptr || has_failed_) return stack_.get();
  has_failed_ = true;  // Unless all of it works.
  const auto say = [&](const absl::Status& status) {
    log_.Say(LogLevel::kError, status);
    return nullptr;
  };
  ShimConfig config = config_;
  config.stack.connection_observer = &account_;
  auto stack = preload::OpenStack(config, kOpenPatience);
  if (!stack.ok()) return say(stack.status());
  auto poller = (*stack)->NewPoller();
  if (!poller.ok()) return say(poller.status());
  const auto event_fd = (*poller)->EventFd();
  if (!event_fd.ok()) return say(event_fd.status());
  event_fd_ = *event_fd;
  stack_ = *std::move(stack);
  poller_ = *std::move(poller);
  has_failed_ = false;
  StartRecord();
  log_.Say(
      LogLevel::kInfo,
      absl::StrFormat("%s[%d] has opened %s, MAC %s, MTU %u", program_.invoked,
                      getpid(), stack_->address().ToString(),
                      MacToString(stack_->mac()), stack_->mtu()));
  // The last to be registered is the first that fork(2) calls: `mutex` comes
  // before the locks of the verbs library, as in every other call.
  pthread_atfork([] { g_shim->mutex.lock(); }, [] { g_shim->mutex.unlock(); },
                 [] { g_shim->mutex.unlock(); });
  end_fd_ = eventfd(0, EFD_CLOEXEC);
  progress_ = StartThread([this] { Run(); });
  progress_.detach();
  return stack_.get();
}

// What is taken lies from now on where the guardian finds it.
void Shim::StartRecord() {
  auto record =
      MappedRecord::Make(program_.invoked, config_.stack.max_connections);
  absl::Status status = record.status();
  if (record.ok()) {
    if (config_.guardian) status = StartGuardian(record->fd());
    record->CloseFd();
    account_.MoveTo(*std::move(record));
  }
  if (!status.ok()) log_.Say(LogLevel::kWarning, status);
}

void Shim::NotePayload() {
  const PayloadBytes bytes = stack_->Payload();
  ProcessRecord& record = account_.record();
  record.engine_bytes_in.store(bytes.in, std::memory_order_relaxed);
  record.engine_bytes_out.store(bytes.out, std::memory_order_relaxed);
}

void Shim::Run() {
  while (!is_ending_) {
    size_t count = 0;
    {
      const std::lock_guard lock(mutex);
      Poller::Ready ready[64];
      const absl::StatusOr<size_t> waited = poller_->Wait(ready, Duration());
      if (!waited.ok()) return;
      count = *waited;
      NotePayload();
      for (size_t i = 0; i < count; ++i) {
        auto* const socket = reinterpret_cast<TakenSocket*>(ready[i].user_data);
        socket->OnReady(ready[i].what);
      }
    }
    if (count > 0) continue;
    pollfd wait[] = {{event_fd_, POLLIN, 0}, {end_fd_, POLLIN, 0}};
    real().poll(wait, 2, -1);
  }
  SendWhatIsLeft();
  is_sent_ = true;
  sending_.Wake();
}

// exit(3) and the return from main; not a signal.
[[gnu::destructor]] void EndOfProcess() {
  if (g_shim == nullptr || g_shim->is_in_child_) return;
  g_shim->FinishSending();
  g_shim->CloseStack();
  g_shim->account_.Report();
}

void Shim::FinishSending() {
  if (end_fd_ < 0 || is_in_child() || IsAnothersCall()) return;
  is_ending_ = true;
  eventfd_write(end_fd_, 1);
  while (true) {
    const uint32_t seen = sending_.value();
    if (is_sent_ || sending_.Wait(seen, 2 * kEndPatience) == ETIMEDOUT) return;
  }
}

void Shim::SendWhatIsLeft() {
  constexpr Duration kLook = 1_ms;  // No event says that it is through.
  const std::lock_guard lock(mutex);
  for (const auto& socket : table.AllTaken()) socket->EndWithProcess();
  const MonotonicClock clock;
  Instant until = clock.Now() + kEndPatience;
  uint64_t least = UINT64_MAX;
  while (true) {
    const uint64_t left = stack_->Undelivered().value_or(0);
    if (left == 0) break;
    if (clock.Now() > until) {
      log_.Say(LogLevel::kWarning,
               absl::StrFormat("process %d ends, and its peers have not taken "
                               "%u bytes, none for %d s: they are lost",
                               getpid(), left,
                               kEndPatience.nanoseconds() / 1'000'000'000));
      break;
    }
    if (left < least) {
      least = left;
      until = clock.Now() + kEndPatience;
      sending_.Wake();
    }
    Poller::Ready ready[64];
    if (!poller_->Wait(ready, kLook).ok()) break;
  }
  NotePayload();
}

void Shim::CloseStack() {
  const std::lock_guard lock(mutex);
  // What is left is reset: a peer must not wait for a process that is gone.
  stack_.reset();
}

int64_t Shim::Follow(TakenSocket& socket, int fd, bool is_accepted) {
  const auto user_data = reinterpret_cast<uint64_t>(&socket);
  const absl::Status added =
      socket.is_listener()
          ? poller_->Add(*socket.listener(), Trigger::kEdge, user_data)
          : poller_->Add(
                *socket.stream(),
                kReadable | kWritable | kConnected | kSendCompleted | kReported,
                Trigger::kEdge, user_data);
  if (!added.ok()) return -ENOBUFS;
  account_.Taken(fd, Describe(socket, is_accepted));
  return 0;
}

}  // namespace devwire::preload
