#include "memreg/host_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_format.h"
#include "memreg/verbs_library.h"

namespace devwire {
namespace {

absl::Status CopyFailed(const char* call, ssize_t result) {
  return absl::InternalError(absl::StrFormat(
      "%s on memfd memory: %s", call,
      result < 0 ? strerrordesc_np(errno) : "unexpected end of file"));
}

}  // namespace

absl::Status DeviceMemory::CheckRange(uint64_t offset, size_t size) const {
  if (offset <= bytes() && size <= bytes() - offset) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrFormat("copy of %u bytes at offset %u: the %s memory has %u",
                      size, offset, name(), bytes()));
}

absl::StatusOr<std::unique_ptr<MemfdMemory>> MemfdMemory::Allocate(
    size_t bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (bytes == 0 || bytes > SIZE_MAX / 2) {
    return absl::InvalidArgumentError(
        absl::StrFormat("device memory of %u bytes", bytes));
  }
  const size_t rounded = (bytes + page - 1) / page * page;
  const int fd = memfd_create("devwire-device-memory", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(rounded)) != 0) {
    const int error = errno;
    if (fd >= 0) close(fd);
    return absl::ResourceExhaustedError(
        absl::StrFormat("cannot allocate %u bytes of memfd memory: %s", rounded,
                        strerrordesc_np(error)));
  }
  return std::unique_ptr<MemfdMemory>(
      new MemfdMemory(DmaBuf(fd, rounded, "memfd")));
}

absl::StatusOr<std::unique_ptr<MemfdMemory>> MemfdMemory::Adopt(int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0 || info.st_size <= 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("descriptor %d is no memfd with bytes in it", fd));
  }
  return std::unique_ptr<MemfdMemory>(
      new MemfdMemory(DmaBuf(fd, static_cast<size_t>(info.st_size), "memfd")));
}

absl::StatusOr<std::unique_ptr<MemfdMemory>> MemfdMemory::Adopt(
    DmaBuf exported) {
  struct stat info;
  if (fstat(exported.fd(), &info) != 0 ||
      static_cast<uint64_t>(info.st_size) < exported.bytes()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "descriptor %d is no memfd of %u bytes: give what Export() made",
        exported.fd(), exported.bytes()));
  }
  return std::unique_ptr<MemfdMemory>(new MemfdMemory(std::move(exported)));
}

absl::Status MemfdMemory::CopyIn(uint64_t offset,
                                 std::span<const std::byte> from) {
  if (absl::Status s = CheckRange(offset, from.size()); !s.ok()) {
    return s;
  }
  while (!from.empty()) {
    const ssize_t n = pwrite(buffer_.fd(), from.data(), from.size(),
                             static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return CopyFailed("pwrite", n);
    offset += static_cast<size_t>(n);
    from = from.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status MemfdMemory::CopyOut(uint64_t offset,
                                  std::span<std::byte> to) const {
  if (absl::Status s = CheckRange(offset, to.size()); !s.ok()) {
    return s;
  }
  while (!to.empty()) {
    const ssize_t n =
        pread(buffer_.fd(), to.data(), to.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return CopyFailed("pread", n);
    offset += static_cast<size_t>(n);
    to = to.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

bool HostDeviceMemory::needs_make_visible() const {
  const VerbsTable* const table = verbs_if_loaded();
  return table != nullptr && table->softnic_make_visible != nullptr;
}

void HostDeviceMemory::MakeVisible() {
  if (needs_make_visible()) verbs().softnic_make_visible();
}

bool HostDeviceMemory::ReadOptionTails(std::span<const OptionTail> tails) {
  for (const OptionTail& tail : tails) {
    if (tail.length == 0 || tail.length > kMaxOptionTailBytes) return false;
    if (!CheckRange(tail.offset, tail.length).ok()) return false;
  }
  MakeVisible();
  for (const OptionTail& tail : tails) {
    if (!CopyOut(tail.offset, {tail.out, tail.length}).ok()) return false;
  }
  return true;
}

}  // namespace devwire
