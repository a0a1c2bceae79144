#include "sockets/preload/log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_format.h"
#include "sockets/preload/real_libc.h"

namespace devwire::preload {

Log::Log(LogLevel level, std::string file)
    : level_(level), file_(std::move(file)) {
  struct stat now = {};
  has_stderr_ = fstat(STDERR_FILENO, &now) == 0;
  stderr_device_ = now.st_dev;
  stderr_inode_ = now.st_ino;
}

void Log::Say(LogLevel level, std::string_view text) const {
  if (level <= level_) Line(absl::StrFormat("devwire: %s", text));
}

void Log::Say(LogLevel level, const absl::Status& what) const {
  Say(level, std::string(what.message()));
}

void Log::Line(std::string_view text, const std::string& file) const {
  const std::string line = absl::StrFormat("%s\n", text);
  const std::string& to = file.empty() ? file_ : file;
  if (to.empty() || to == "-") {
    struct stat now = {};
    if (has_stderr_ && fstat(STDERR_FILENO, &now) == 0 &&
        now.st_dev == stderr_device_ && now.st_ino == stderr_inode_) {
      (void)!real().write(STDERR_FILENO, line.data(), line.size());
    }
    return;
  }
  const int fd =
      open(to.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return;
  (void)!real().write(fd, line.data(), line.size());
  real().close(fd);
}

}  // namespace devwire::preload
