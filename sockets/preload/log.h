// Lines of the shim's own: log.level, log.file.
//
// Threads:  any; a line is one write(2).
#ifndef SOCKETS_PRELOAD_LOG_H_
#define SOCKETS_PRELOAD_LOG_H_

#include <sys/types.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "sockets/preload/config.h"

namespace devwire::preload {

class Log {
 public:
  // `file` empty: standard error, while descriptor 2 is what it is now: a
  // program may close it and have a socket there.
  explicit Log(LogLevel level = LogLevel::kWarning, std::string file = {});

  // Writes "devwire: TEXT\n".
  void Say(LogLevel level, std::string_view text) const;
  void Say(LogLevel level, const absl::Status& what) const;
  // Whatever the level is, and exactly this and a newline. `file` empty: where
  // Say writes; "-": standard error.
  void Line(std::string_view text, const std::string& file = {}) const;

 private:
  LogLevel level_;
  std::string file_;
  bool has_stderr_ = false;
  dev_t stderr_device_ = 0;
  ino_t stderr_inode_ = 0;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_LOG_H_
