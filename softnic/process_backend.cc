// mode=process: the device in a process of its own, so that no device memory is
// mapped in the application.
#include <dlfcn.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "softnic/backend.h"
#include "softnic/device_channel.h"

extern char** environ;

namespace softnic {
namespace {

constexpr int kChildSocket = 3;
// A device that does not answer for so long is given up.
constexpr time_t kReplySeconds = 20;

// Polls without any completion on the device before the poller gives way.
constexpr uint32_t kVainPollsPerYield = 32;
// And before it looks whether the device is still there.
constexpr uint32_t kVainPollsPerLook = 1024;

const uint64_t g_probe = kDeviceProbe;

// softnic_device stands beside libsoftnic.so; SOFTNIC_DEVICE names another.
std::string ProgramPath() {
  if (const char* path = getenv("SOFTNIC_DEVICE"); path != nullptr) return path;
  Dl_info info = {};
  if (dladdr(&g_probe, &info) == 0 || info.dli_fname == nullptr) return {};
  const std::string library = info.dli_fname;
  const size_t slash = library.rfind('/');
  const std::string folder =
      slash == std::string::npos ? "." : library.substr(0, slash);
  return folder + "/softnic_device";
}

// The application's environment without the preload that made it ours.
std::vector<char*> ChildEnvironment() {
  std::vector<char*> out;
  for (char** e = environ; *e != nullptr; ++e) {
    if (strncmp(*e, "LD_PRELOAD=", 11) != 0) out.push_back(*e);
  }
  out.push_back(nullptr);
  return out;
}

// 0, or an errno. posix_spawn(3) neither copies page tables nor runs atfork
// handlers: safe in a program with threads.
int Spawn(const std::string& program, int socket, pid_t* pid) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, socket, kChildSocket);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // Ctrl-C at the terminal is for the application; the device sees it die.
  // Signals that the calling thread blocks are not the device's.
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  std::string name = "softnic_device";
  char* argv[] = {name.data(), nullptr};
  const int error = posix_spawn(pid, program.c_str(), &actions, &attributes,
                                argv, ChildEnvironment().data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

// Lets the device read and write our memory where the Yama module restricts
// that (Documentation/admin-guide/LSM/Yama.rst). There is one such permission
// per process: the second device needs it for everybody.
void AllowAccess(pid_t device) {
  static std::atomic<int> devices{0};
  const bool is_first = devices.fetch_add(1) == 0;
  prctl(PR_SET_PTRACER,
        is_first ? static_cast<unsigned long>(device) : PR_SET_PTRACER_ANY, 0,
        0, 0);
}

class ProcessBackend final : public Backend {
 public:
  ProcessBackend(std::unique_ptr<Arena> arena, int socket, pid_t pid)
      : arena_(std::move(arena)),
        shared_at_(arena_->Allocate(sizeof(DeviceShared))),
        socket_(socket),
        pid_(pid) {}

  ~ProcessBackend() override {
    close(socket_);  // It ends when it sees that.
    for (const Context& context : contexts_) close(context.event_fd);
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
  }

  // Empty, or what went wrong.
  std::string Start(const DeviceConfig& config,
                    const std::vector<std::string>& texts) {
    DeviceStart start;
    memcpy(start.device, config.name.data(),
           std::min(config.name.size(), sizeof(start.device) - 1));
    start.shared_at = shared_at_;
    start.texts = static_cast<uint32_t>(texts.size());
    start.application = getpid();
    start.probe_at = reinterpret_cast<uint64_t>(&g_probe);
    bool ok = SendMessage(socket_, &start, sizeof(start), {}, arena_->fd());
    for (const std::string& text : texts) {
      Command command;
      command.op = Op::kConfigure;
      ok = ok && SendMessage(socket_, &command, sizeof(command), text, -1);
    }
    const Reply reply = ok ? AwaitReply() : Gone();
    if (reply.error == 0) return {};
    return reply.message[0] != 0 ? reply.message : strerror(reply.error);
  }

  Reply Execute(const Command& command, int fd,
                std::string_view text) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_gone_) return Gone();
    if (!SendMessage(socket_, &command, sizeof(command), text, fd)) {
      return Gone();
    }
    const Reply reply = AwaitReply();
    if (reply.error == 0) Remember(command, fd, reply.object);
    return reply;
  }
  void OnPost(uint32_t) override {}
  // The device works elsewhere; but perhaps on this core, once we let it. The
  // caller polls in vain now and then in steady state too, so it takes many.
  void OnPoll(uint32_t) override {
    const uint32_t produced =
        shared()->completions.load(std::memory_order_relaxed);
    if (produced != seen_completions_.load(std::memory_order_relaxed)) {
      seen_completions_.store(produced, std::memory_order_relaxed);
      vain_polls_.store(0, std::memory_order_relaxed);
      return;
    }
    const uint32_t polls = vain_polls_.load(std::memory_order_relaxed) + 1;
    vain_polls_.store(polls, std::memory_order_relaxed);
    if (polls % kVainPollsPerYield == 0) sched_yield();
    if (polls % kVainPollsPerLook == 0) LookForEnd();
  }
  std::mutex* data_mutex() override { return nullptr; }
  Arena* arena() override { return arena_.get(); }
  DeviceShared* shared() override {
    return arena_->At<DeviceShared>(shared_at_);
  }

 private:
  // An open context, for the event that the device itself can no longer raise.
  struct Context {
    uint32_t object = 0;
    uint64_t events_at = 0;
    int event_fd = -1;
  };

  void Remember(const Command& command, int fd, uint32_t object) {
    if (command.op == Op::kOpenContext) {
      contexts_.push_back({object, command.events_at, dup(fd)});
    }
    if (command.op != Op::kCloseContext) return;
    std::erase_if(contexts_, [&](const Context& context) {
      if (context.object != command.object) return false;
      close(context.event_fd);
      return true;
    });
  }
  // A command in progress finds out by itself.
  void LookForEnd() {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock() || is_gone_) return;
    pollfd end = {socket_, 0, 0};  // POLLHUP is always reported, poll(2).
    if (poll(&end, 1, 0) > 0) Gone();
  }
  Reply Gone() {
    if (!is_gone_) RaiseFatal();
    is_gone_ = true;
    Reply reply;
    reply.error = EIO;
    snprintf(reply.message, sizeof(reply.message),
             "the device process %d is gone", pid_);
    return reply;
  }
  void RaiseFatal() {
    for (const Context& context : contexts_) {
      auto* ring = arena_->At<EventRing>(context.events_at);
      const uint64_t one = 1;
      if (ring->Push(IBV_EVENT_DEVICE_FATAL, 0)) {
        (void)!write(context.event_fd, &one, sizeof(one));
      }
    }
  }
  Reply AwaitReply() {
    Reply reply;
    std::string text;
    int fd = -1;
    const Received got = ReceiveMessage(socket_, /*waits=*/true, &reply,
                                        sizeof(reply), &text, &fd);
    return got == Received::kMessage ? reply : Gone();
  }

  std::mutex mutex_;
  const std::unique_ptr<Arena> arena_;
  const uint64_t shared_at_;
  const int socket_;
  const pid_t pid_;
  bool is_gone_ = false;
  std::vector<Context> contexts_;
  std::atomic<uint32_t> seen_completions_{0};
  std::atomic<uint32_t> vain_polls_{0};
};

}  // namespace

std::unique_ptr<Backend> MakeProcessBackend(
    const DeviceConfig& config, const std::vector<std::string>& texts,
    std::string* error) {
  const std::string program = ProgramPath();
  const std::string what = "mode=process: device " + config.name + ": ";
  std::unique_ptr<Arena> arena = Arena::CreateShared();
  int sockets[2];
  if (arena == nullptr ||
      socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    *error = what + strerror(errno);
    return nullptr;
  }
  pid_t pid = 0;
  const int failure = Spawn(program, sockets[1], &pid);
  close(sockets[1]);
  if (failure != 0) {
    close(sockets[0]);
    *error = what + "cannot start " + program + ": " + strerror(failure);
    return nullptr;
  }
  AllowAccess(pid);
  const timeval limit = {kReplySeconds, 0};
  setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  auto backend =
      std::make_unique<ProcessBackend>(std::move(arena), sockets[0], pid);
  const std::string why = backend->Start(config, texts);
  if (why.empty()) return backend;
  *error = what + why;
  return nullptr;
}

}  // namespace softnic
