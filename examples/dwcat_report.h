// What dwcat says while it runs and when it is done.
#ifndef EXAMPLES_DWCAT_REPORT_H_
#define EXAMPLES_DWCAT_REPORT_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/time.h"
#include "examples/dwcat_options.h"
#include "memreg/frag.h"
#include "sockets/stack.h"
#include "sockets/stream.h"

namespace devwire::examples {

// Bytes, rate and time left, on stderr, every second of a long transfer. Also
// the judge of a standstill.
class Progress {
 public:
  // `total` 0: unknown.
  Progress(uint64_t total, bool quiet);

  // The first byte is under way; Add() says so too.
  void Start();
  void Add(uint64_t bytes);
  // False when nothing has moved for 10 s.
  bool Tick();

  uint64_t bytes() const { return bytes_; }
  // From Start() to the last byte.
  Duration elapsed() const { return last_moved_ - *started_; }

 private:
  MonotonicClock clock_;
  const uint64_t total_;
  const bool quiet_;
  uint64_t bytes_ = 0;
  uint64_t shown_bytes_ = 0;
  std::optional<Instant> started_;
  Instant last_moved_;
  Instant last_shown_;
};

// How often the file behind `fd` is mapped in this process: 0 when the stack
// has no way to touch device memory. proc(5), /proc/pid/maps.
class MappingWatch {
 public:
  explicit MappingWatch(int fd);
  void Look();
  // Looks at the first byte, and whenever they have doubled since.
  void LookAsBytesGrow(uint64_t bytes);
  int looks() const { return looks_; }
  int mappings() const { return mappings_; }

 private:
  dev_t device_;
  ino_t inode_;
  uint64_t next_look_bytes_ = 1;
  int looks_ = 0;
  int mappings_ = 0;
};

struct Outcome {
  std::string sha256;  // Of what was received; empty when sending.
  uint32_t slots_missing = 0;
};

// Prints the JSON object (--json) or one line.
void Report(const DwcatOptions& options, Stack& stack, Stream& stream,
            PoolId memory, const Progress& progress, const MappingWatch& watch,
            const Outcome& outcome);

}  // namespace devwire::examples

#endif  // EXAMPLES_DWCAT_REPORT_H_
