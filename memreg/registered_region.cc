#include "memreg/registered_region.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "memreg/verbs_library.h"

namespace devwire {
namespace {

// Bit 56 set and bits 63..57 clear: on x86-64 no canonical address, with four
// as with five levels of page tables (Intel SDM volume 1, 3.3.7.1), so nothing
// can ever be mapped there. A memory key's iova may be any 64-bit number.
constexpr uint64_t kIovaBase = uint64_t{1} << 56;
// Regions lie this far apart: an overrun of one is never inside another.
constexpr uint64_t kIovaStride = uint64_t{1} << 44;
constexpr uint64_t kMaxRegions = uint64_t{1} << 12;

uint64_t PageBytes() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

uint64_t NextIova() {
  static std::atomic<uint64_t> next{0};
  // Reused after 4096 registrations: only distinctness in messages suffers,
  // since each memory key has an address space of its own.
  return kIovaBase + next.fetch_add(1) % kMaxRegions * kIovaStride;
}

absl::Status Refused(const DmaBuf& dmabuf, size_t bytes, int error) {
  const std::string what =
      absl::StrFormat("ibv_reg_dmabuf_mr of %u bytes (%s): %s", bytes,
                      dmabuf.origin(), VerbsErrorText(error));
  switch (error) {
    case EOPNOTSUPP:
    case ENOTTY:
    case EPROTONOSUPPORT:
    case ENOSYS:
      return absl::UnimplementedError(
          what +
          ". The device or kernel cannot register dmabufs: it takes Linux 5.12 "
          "with CONFIG_INFINIBAND_ON_DEMAND_PAGING, and a provider that has "
          "it, such as mlx5");
    case EBADF:
    case EINVAL:
      return absl::FailedPreconditionError(
          what +
          ". Only a real dmabuf can be registered with a real NIC; a memfd "
          "works with softnic alone");
    case ENOMEM:
      return absl::ResourceExhaustedError(
          what + ". Raise ulimit -l, or register less");
    default:
      return absl::FailedPreconditionError(
          what + ". See the kernel log for the NIC driver's reason");
  }
}

}  // namespace

void MrDelete::operator()(ibv_mr* mr) const {
  CHECK(IsDestroyed(verbs().dereg_mr(mr))) << "ibv_dereg_mr";
}

absl::StatusOr<RegisteredRegion> RegisteredRegion::Register(
    ibv_pd* pd, const DmaBuf& dmabuf, const Options& options) {
  const size_t bytes =
      options.bytes != 0 || options.offset > dmabuf.bytes()
          ? options.bytes
          : dmabuf.bytes() - static_cast<size_t>(options.offset);
  if (bytes == 0 || options.offset > dmabuf.bytes() ||
      bytes > dmabuf.bytes() - options.offset || bytes > kIovaStride / 2) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "region of %u bytes at offset %u: the dmabuf (%s) has %u bytes", bytes,
        options.offset, dmabuf.origin(), dmabuf.bytes()));
  }
  // The iova's offset in its page must be that of the memory:
  // ibv_reg_dmabuf_mr(3).
  const uint64_t iova = NextIova() + options.offset % PageBytes();
  int access = IBV_ACCESS_LOCAL_WRITE;
  if (options.relaxed_ordering) access |= IBV_ACCESS_RELAXED_ORDERING;
  errno = 0;
  UniqueMr mr(verbs().reg_dmabuf_mr(pd, options.offset, bytes, iova,
                                    dmabuf.fd(), access));
  if (mr == nullptr) return Refused(dmabuf, bytes, errno);
  return RegisteredRegion(std::move(mr), iova, bytes, options.offset);
}

void HostArena::Unmap::operator()(std::byte* p) const {
  CHECK_EQ(munmap(p, bytes), 0);
}

absl::StatusOr<HostArena> HostArena::Create(ibv_pd* pd, size_t bytes) {
  const size_t page = PageBytes();
  if (bytes == 0 || bytes > SIZE_MAX / 2) {
    return absl::InvalidArgumentError(
        absl::StrFormat("host memory of %u bytes", bytes));
  }
  const size_t rounded = (bytes + page - 1) / page * page;
  void* const p = mmap(nullptr, rounded, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("cannot map %u bytes of host memory: %s", rounded,
                        VerbsErrorText(errno)));
  }
  Memory memory(static_cast<std::byte*>(p), Unmap{rounded});
  if (madvise(p, rounded, MADV_DONTFORK) != 0) {
    return absl::InternalError(
        absl::StrFormat("madvise(MADV_DONTFORK): %s", VerbsErrorText(errno)));
  }
  // Advice: a kernel without huge pages refuses it, and small ones work.
  (void)madvise(p, rounded, MADV_HUGEPAGE);
  for (size_t i = 0; i < rounded; i += page) memory.get()[i] = std::byte{0};

  errno = 0;
  UniqueMr mr(verbs().reg_mr(pd, p, rounded, IBV_ACCESS_LOCAL_WRITE));
  if (mr == nullptr) {
    const int error = errno;
    return absl::ResourceExhaustedError(absl::StrFormat(
        "ibv_reg_mr of %u bytes of host memory: %s. Raise ulimit -l, or ask "
        "for smaller rings and buffers",
        rounded, VerbsErrorText(error)));
  }
  return HostArena(std::move(memory), std::move(mr));
}

}  // namespace devwire
