#include "softnic/arena.h"

#include <sys/mman.h>
#include <unistd.h>

namespace softnic {
namespace {

constexpr uint64_t kPage = 4096;

uint64_t RoundUp(uint64_t bytes) { return (bytes + kPage - 1) & ~(kPage - 1); }

}  // namespace

std::unique_ptr<Arena> Arena::Map(int fd, bool owns_fd) {
  const int flags =
      fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
  void* base = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (base == MAP_FAILED) return nullptr;
  auto arena =
      std::unique_ptr<Arena>(new Arena(static_cast<std::byte*>(base), fd));
  arena->owns_fd_ = owns_fd;
  arena->next_ = kPage;  // Offset 0 means "none".
  return arena;
}

std::unique_ptr<Arena> Arena::CreatePrivate() { return Map(-1, false); }

std::unique_ptr<Arena> Arena::CreateShared() {
  const int fd = memfd_create("softnic-arena", MFD_CLOEXEC);
  if (fd < 0) return nullptr;
  std::unique_ptr<Arena> arena;
  if (ftruncate(fd, kBytes) == 0) arena = Map(fd, true);
  if (arena == nullptr) close(fd);
  return arena;
}

std::unique_ptr<Arena> Arena::Attach(int fd) { return Map(fd, false); }

Arena::~Arena() {
  munmap(base_, kBytes);
  if (owns_fd_) close(fd_);
}

uint64_t Arena::Allocate(uint64_t bytes) {
  if (bytes == 0 || bytes > kBytes) return 0;
  bytes = RoundUp(bytes);
  if (auto it = free_.find(bytes); it != free_.end() && !it->second.empty()) {
    const uint64_t at = it->second.back();
    it->second.pop_back();
    return at;
  }
  if (next_ + bytes > kBytes) return 0;
  const uint64_t at = next_;
  next_ += bytes;
  return at;
}

void Arena::Free(uint64_t at, uint64_t bytes) {
  bytes = RoundUp(bytes);
  // Gives the pages back; the next owner finds zeros. madvise(2).
  const int advice = fd_ < 0 ? MADV_DONTNEED : MADV_REMOVE;
  CHECK_EQ(madvise(base_ + at, bytes, advice), 0);
  free_[bytes].push_back(at);
}

}  // namespace softnic
