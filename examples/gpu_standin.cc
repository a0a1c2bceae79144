#include "examples/gpu_standin.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "examples/gpu_standin_message.h"

namespace devwire::examples {
namespace {

absl::Status Failed(const char* what) {
  return absl::InternalError(
      absl::StrCat("GPU stand-in: ", what, ": ", std::strerror(errno)));
}

// The child's descriptors are 3 and 4. dup2 onto itself would keep
// close-on-exec, so the sources are moved out of the way first.
int MoveAbove(int fd, int floor) { return fcntl(fd, F_DUPFD_CLOEXEC, floor); }

std::vector<std::byte> Datagram(const Work& work) {
  const auto* p = reinterpret_cast<const std::byte*>(&work);
  return {p, p + sizeof(work)};
}

}  // namespace

absl::StatusOr<GpuStandin> GpuStandin::Start(const Options& options) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    return Failed("socketpair");
  }
  const int socket = MoveAbove(pair[1], 16);
  const int dmabuf = MoveAbove(options.dmabuf_fd, 16);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, socket, kStandinSocketFd);
  posix_spawn_file_actions_adddup2(&actions, dmabuf, kStandinDmabufFd);

  const std::string bytes = absl::StrCat(options.bytes);
  const std::string corrupt =
      options.corrupt_at ? absl::StrCat(*options.corrupt_at) : "none";
  const char* role = options.role == Role::kProduce ? "produce" : "consume";
  const char* argv[] = {"gpu_standin", kStandinArgument,     role,
                        bytes.c_str(), options.path.c_str(), corrupt.c_str(),
                        nullptr};
  // A clean environment: nothing preloaded, no verbs library.
  char* const no_environment[] = {nullptr};
  pid_t pid = -1;
  const int rc = posix_spawn(&pid, "/proc/self/exe", &actions, nullptr,
                             const_cast<char* const*>(argv), no_environment);
  posix_spawn_file_actions_destroy(&actions);
  close(socket);
  close(dmabuf);
  close(pair[1]);
  if (rc != 0) {
    close(pair[0]);
    errno = rc;
    return Failed("cannot start");
  }
  return GpuStandin(pid, pair[0]);
}

GpuStandin::GpuStandin(GpuStandin&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      socket_(std::exchange(other.socket_, -1)),
      unsent_(std::move(other.unsent_)) {}

GpuStandin::~GpuStandin() {
  if (pid_ < 0) return;
  close(socket_);  // The stand-in ends at the end of its socket.
  waitpid(pid_, nullptr, 0);
}

void GpuStandin::Fill(uint64_t offset, uint32_t length, uint64_t tag) {
  unsent_.push_back(Datagram({WorkKind::kFill, length, offset, tag}));
}

void GpuStandin::Consume(uint64_t offset, uint32_t length, uint64_t tag) {
  std::vector<std::byte> work =
      Datagram({WorkKind::kConsume, length, offset, tag});
  // Joins the last datagram when that is a batch of works with room.
  const bool joins =
      !unsent_.empty() && unsent_.back().size() < kBatch * sizeof(Work) &&
      reinterpret_cast<const Work*>(unsent_.back().data())->kind ==
          WorkKind::kConsume;
  if (joins) {
    unsent_.back().insert(unsent_.back().end(), work.begin(), work.end());
  } else {
    unsent_.push_back(std::move(work));
  }
}

void GpuStandin::ConsumeHost(std::span<const std::byte> bytes, uint64_t tag) {
  unsent_.push_back(Datagram(
      {WorkKind::kConsumeHost, static_cast<uint32_t>(bytes.size()), 0, tag}));
  unsent_.back().insert(unsent_.back().end(), bytes.begin(), bytes.end());
}

absl::Status GpuStandin::Flush() {
  while (!unsent_.empty()) {
    const auto& datagram = unsent_.front();
    if (send(socket_, datagram.data(), datagram.size(),
             MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
      if (errno == EAGAIN || errno == EINTR) break;
      return Failed("it ended");
    }
    unsent_.pop_front();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<GpuStandin::Done>> GpuStandin::Poll() {
  if (absl::Status s = Flush(); !s.ok()) return s;
  std::vector<Done> done;
  Done batch[kBatch];
  for (;;) {
    const ssize_t n = recv(socket_, batch, sizeof(batch), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return done;
    if (n < 0) return Failed("recv");
    if (n == 0) {
      errno = EPIPE;
      return Failed("it ended before its work was done");
    }
    done.insert(done.end(), batch, batch + n / sizeof(Done));
  }
}

absl::Status GpuStandin::Wait(short events) {
  pollfd p{socket_, events, 0};
  while (poll(&p, 1, -1) < 0) {
    if (errno != EINTR) return Failed("poll");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> GpuStandin::Finish() {
  unsent_.push_back(Datagram({WorkKind::kFinish, 0, 0, 0}));
  while (!unsent_.empty()) {
    if (absl::Status s = Wait(POLLOUT); !s.ok()) return s;
    if (absl::Status s = Flush(); !s.ok()) return s;
  }
  Digest digest;
  if (recv(socket_, &digest, sizeof(digest), 0) !=
      static_cast<ssize_t>(sizeof(digest))) {
    return Failed("no digest");
  }
  return std::string(digest.sha256_hex.data(), digest.sha256_hex.size());
}

}  // namespace devwire::examples
