#include "sockets/preload/guardian.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sockets/errno_map.h"
#include "sockets/preload/real_libc.h"

namespace devwire::preload {
namespace {

constexpr size_t kStackBytes = 64 << 10;

// What the two children that share our memory are handed, and hand back.
struct Birth {
  const char* program;
  char* const* arguments;
  char* const* environment;
  int fds[3];  // In the order of the numbers in guardian.h.
  std::byte* second_stack;
  int error = 0;
};

// Nothing but system calls: the memory is the parent's, who waits
// (CLONE_VFORK).
int Grandchild(void* argument) {
  auto& birth = *static_cast<Birth*>(argument);
  setsid();  // Ctrl-C is not for the guardian.
  // First out of the way of the numbers they are to have.
  int high[3];
  for (int i = 0; i < 3; ++i) {
    high[i] = static_cast<int>(
        syscall(SYS_fcntl, birth.fds[i], F_DUPFD, kGuardianPipeFd + 1));
  }
  for (int i = 0; i < 3; ++i) {
    if (high[i] >= 0) syscall(SYS_dup3, high[i], kGuardianRecordFd + i, 0);
  }
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) syscall(SYS_dup3, null, fd, 0);
  syscall(SYS_close_range, kGuardianPipeFd + 1, ~0u, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve(birth.program, birth.arguments, birth.environment);
  birth.error = errno;
  _exit(127);
}

int Child(void* argument) {
  auto& birth = *static_cast<Birth*>(argument);
  if (clone(Grandchild, birth.second_stack + kStackBytes,
            CLONE_VM | CLONE_VFORK | SIGCHLD, argument) < 0) {
    birth.error = errno;
  }
  _exit(0);
}

// Ours without LD_PRELOAD: the guardian's sockets are nobody's.
std::vector<char*> Environment() {
  std::vector<char*> out;
  for (char** line = environ; line != nullptr && *line != nullptr; ++line) {
    if (strncmp(*line, "LD_PRELOAD=", 11) != 0) out.push_back(*line);
  }
  out.push_back(nullptr);
  return out;
}

std::string GuardianPath() {
  if (const char* told = getenv("DEVWIRE_GUARDIAN"); told != nullptr) {
    return told;
  }
  Dl_info self = {};
  if (dladdr(reinterpret_cast<void*>(&GuardianPath), &self) == 0) return {};
  const std::string library(self.dli_fname);
  return absl::StrCat(library.substr(0, library.rfind('/') + 1),
                      "devwire-guardian");
}

absl::Status Bear(Birth* birth) {
  const auto stacks = std::make_unique<std::byte[]>(2 * kStackBytes);
  birth->second_stack = stacks.get() + kStackBytes;
  // No handler of the application's runs in a child that has our memory.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  // No signal at its end, and only wait(2) with __WCLONE finds it.
  const int child =
      clone(Child, stacks.get() + kStackBytes, CLONE_VM | CLONE_VFORK, birth);
  const int error = child < 0 ? errno : birth->error;
  if (child > 0) waitpid(child, nullptr, __WCLONE);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) return absl::OkStatus();
  return ErrnoStatus(
      error, absl::StrCat("no guardian, so that peers are not told when this "
                          "process is killed: cannot start ",
                          birth->program, ": ", strerror(error)));
}

}  // namespace

absl::Status StartGuardian(int record_fd) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "no pipe");
  // It stays open as long as this program runs; out of the way of programs
  // that count on low numbers.
  const int kept = real().fcntl(ends[1], F_DUPFD_CLOEXEC, 512);
  real().close(ends[1]);
  const int pid_fd = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));

  const std::string path = GuardianPath();
  std::string name = "devwire-guardian";
  char* const arguments[] = {name.data(), nullptr};
  const std::vector<char*> environment = Environment();
  Birth birth{.program = path.c_str(),
              .arguments = arguments,
              .environment = environment.data(),
              .fds = {record_fd, pid_fd, ends[0]},
              .second_stack = nullptr};
  const absl::Status status = Bear(&birth);
  real().close(ends[0]);
  if (pid_fd >= 0) real().close(pid_fd);
  if (!status.ok() && kept >= 0) real().close(kept);
  return status;
}

}  // namespace devwire::preload
