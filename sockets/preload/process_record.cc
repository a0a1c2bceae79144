#include "sockets/preload/process_record.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "sockets/errno_map.h"
#include "sockets/preload/real_libc.h"

namespace devwire::preload {
namespace {

size_t BytesFor(uint32_t connections) {
  return sizeof(ProcessRecord) +
         connections * sizeof(ProcessRecord::Connection);
}

}  // namespace

absl::StatusOr<MappedRecord> MappedRecord::Make(const std::string& program,
                                                uint32_t connections) {
  const size_t bytes = BytesFor(connections);
  int fd = memfd_create("devwire-record", MFD_CLOEXEC);
  // Out of the way of programs that count on low numbers.
  if (const int high = fcntl(fd, F_DUPFD_CLOEXEC, 512); high >= 0) {
    real().close(std::exchange(fd, high));
  }
  void* const at =
      fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0
          ? MAP_FAILED
          : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    const int error = errno;
    if (fd >= 0) real().close(fd);
    return ErrnoStatus(error, "no memory for the record of the process");
  }
  auto* const record = static_cast<ProcessRecord*>(at);
  record->pid = getpid();
  program.copy(record->program, sizeof(record->program) - 1);
  record->connection_count = connections;
  return MappedRecord(fd, record, bytes);
}

absl::StatusOr<MappedRecord> MappedRecord::Map(int fd) {
  struct stat file = {};
  if (fstat(fd, &file) != 0) return ErrnoStatus(errno, "no record");
  const auto bytes = static_cast<size_t>(file.st_size);
  void* const at =
      bytes < sizeof(ProcessRecord)
          ? MAP_FAILED
          : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  auto* const record = static_cast<ProcessRecord*>(at);
  if (at == MAP_FAILED || bytes != BytesFor(record->connection_count)) {
    if (at != MAP_FAILED) munmap(at, bytes);
    return ErrnoStatus(EINVAL, "this is no record of a process");
  }
  return MappedRecord(fd, record, bytes);
}

MappedRecord::MappedRecord(MappedRecord&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      record_(std::exchange(other.record_, nullptr)),
      bytes_(other.bytes_) {}

MappedRecord::~MappedRecord() {
  if (record_ != nullptr) munmap(record_, bytes_);
  CloseFd();
}

void MappedRecord::CloseFd() {
  if (fd_ >= 0) real().close(std::exchange(fd_, -1));
}

std::string ReportLine(const ProcessRecord& record, const char* end) {
  const std::string program = absl::StrReplaceAll(
      record.program, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", " "}});
  return absl::StrFormat(
      "{\"program\": \"%s\", \"pid\": %d, \"end\": \"%s\", \"taken\": %u, "
      "\"passed\": %u, \"engine_bytes_in\": %u, \"engine_bytes_out\": %u}",
      program, record.pid, end, record.taken.load(), record.passed.load(),
      record.engine_bytes_in.load(), record.engine_bytes_out.load());
}

}  // namespace devwire::preload
