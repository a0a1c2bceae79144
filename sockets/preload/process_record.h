// What a process has taken, in memory that its guardian reads when the process
// is gone: counts for the report, and the connections whose peers must be told.
//
// Threads:  counts and slots may be written by any; the guardian only reads.
// Lifetime: the mapping of one process; never handed to a forked child.
#ifndef SOCKETS_PRELOAD_PROCESS_RECORD_H_
#define SOCKETS_PRELOAD_PROCESS_RECORD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "transport/address.h"

namespace devwire::preload {

struct ProcessRecord {
  struct Connection {
    std::atomic<bool> is_open;
    Endpoint local;
    Endpoint remote;
  };

  std::atomic<uint64_t> taken;   // sockets, by Devwire
  std::atomic<uint64_t> passed;  // sockets, to the kernel
  std::atomic<uint64_t> engine_bytes_in;
  std::atomic<uint64_t> engine_bytes_out;
  std::atomic<bool> is_reported;
  int32_t pid;
  char program[32];
  uint32_t connection_count;
  Connection connections[];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// A mapping of a record.
class MappedRecord {
 public:
  // Empty, with room for so many connections; `program` is cut to what fits.
  static absl::StatusOr<MappedRecord> Make(const std::string& program,
                                           uint32_t connections);
  // The one that another process made. InvalidArgument: it is none.
  static absl::StatusOr<MappedRecord> Map(int fd);
  MappedRecord(MappedRecord&& other) noexcept;
  MappedRecord& operator=(MappedRecord&&) = delete;
  ~MappedRecord();

  ProcessRecord* operator->() const { return record_; }
  ProcessRecord& operator*() const { return *record_; }
  // For the guardian; -1 after CloseFd().
  int fd() const { return fd_; }
  void CloseFd();

 private:
  MappedRecord(int fd, ProcessRecord* record, size_t bytes)
      : fd_(fd), record_(record), bytes_(bytes) {}

  int fd_;
  ProcessRecord* record_;
  size_t bytes_;
};

// log.report: one line of JSON. `end`: "exit", or "death".
std::string ReportLine(const ProcessRecord& record, const char* end);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_PROCESS_RECORD_H_
