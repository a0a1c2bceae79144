#include "memreg/host_dmabuf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "base/errno_status.h"

namespace devwire {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

absl::StatusOr<size_t> WholePages(size_t bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (bytes == 0 || bytes > SIZE_MAX / 2) {
    return ErrnoStatus(EINVAL,
                       absl::StrFormat("device memory of %u bytes", bytes));
  }
  return (bytes + page - 1) / page * page;
}

absl::Status CannotOpen(const std::string& device, std::string_view cure) {
  return ErrnoStatus(errno, absl::StrFormat("cannot open %s: %s; %s", device,
                                            strerrordesc_np(errno), cure));
}

absl::Status Refused(const std::string& device, size_t bytes,
                     std::string_view cure) {
  return ErrnoStatus(
      errno, absl::StrFormat("%s refuses a buffer of %u bytes: %s%s", device,
                             bytes, strerrordesc_np(errno), cure));
}

// struct drm_mode_create_dumb and its ioctl; drm_mode.h of Linux.
struct CreateDumb {
  uint32_t height, width, bits_per_pixel, flags;
  uint32_t handle, pitch;
  uint64_t size;
};
constexpr unsigned long kCreateDumb = _IOWR('d', 0xB2, CreateDumb);
// struct drm_prime_handle; drm.h of Linux.
struct PrimeHandle {
  uint32_t handle, flags;
  int32_t fd;
};
constexpr unsigned long kPrimeHandleToFd = _IOWR('d', 0x2d, PrimeHandle);
// struct drm_version.
struct DrmVersion {
  int major, minor, patch;
  size_t name_bytes;
  char* name;
  size_t date_bytes;
  char* date;
  size_t description_bytes;
  char* description;
};
constexpr unsigned long kGetVersion = _IOWR('d', 0x00, DrmVersion);

bool IsVgem(int fd) {
  char name[16] = {};
  DrmVersion version = {};
  version.name = name;
  version.name_bytes = sizeof(name) - 1;
  return ioctl(fd, kGetVersion, &version) == 0 && strcmp(name, "vgem") == 0;
}

// The exporter of a dmabuf: "udmabuf", "system", "amdgpu"; empty when it is
// none. proc(5), /proc/pid/fdinfo; dma_buf_show_fdinfo() of Linux.
std::string ExporterOf(int fd) {
  std::ifstream info("/proc/self/fdinfo/" + std::to_string(fd));
  for (std::string line; std::getline(info, line);) {
    if (absl::StartsWith(line, "exp_name:")) {
      return line.substr(line.find_first_not_of(" \t", 9));
    }
  }
  return {};
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostDmabuf>> HostDmabuf::AllocateUdmabuf(
    size_t bytes, const std::string& device) {
  const absl::StatusOr<size_t> rounded = WholePages(bytes);
  if (!rounded.ok()) return rounded.status();
  const Descriptor maker(open(device.c_str(), O_RDWR | O_CLOEXEC));
  if (maker.fd() < 0) {
    return CannotOpen(device, "load the module udmabuf (modprobe udmabuf)");
  }
  // It has to be sealed against shrinking, and stays writable.
  const Descriptor pages(
      memfd_create("devwire-udmabuf", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (pages.fd() < 0 ||
      ftruncate(pages.fd(), static_cast<off_t>(*rounded)) != 0 ||
      fcntl(pages.fd(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return Refused("memfd_create", *rounded, "");
  }
  udmabuf_create create = {};
  create.memfd = static_cast<uint32_t>(pages.fd());
  create.flags = UDMABUF_FLAGS_CLOEXEC;
  create.size = *rounded;
  const int fd = ioctl(maker.fd(), UDMABUF_CREATE, &create);
  if (fd < 0) {
    return Refused(device, *rounded,
                   errno == EINVAL ? "; raise the module's size_limit_mb "
                                     "(/sys/module/udmabuf/parameters)"
                                   : "");
  }
  return std::unique_ptr<HostDmabuf>(
      new HostDmabuf(DmaBuf(fd, *rounded, "udmabuf")));
}

absl::StatusOr<std::unique_ptr<HostDmabuf>> HostDmabuf::AllocateDmaHeap(
    size_t bytes, const std::string& device) {
  const absl::StatusOr<size_t> rounded = WholePages(bytes);
  if (!rounded.ok()) return rounded.status();
  const Descriptor heap(open(device.c_str(), O_RDONLY | O_CLOEXEC));
  if (heap.fd() < 0) {
    return CannotOpen(device, "the kernel needs CONFIG_DMABUF_HEAPS_SYSTEM");
  }
  dma_heap_allocation_data data = {};
  data.len = *rounded;
  data.fd_flags = O_RDWR | O_CLOEXEC;
  if (ioctl(heap.fd(), DMA_HEAP_IOCTL_ALLOC, &data) != 0) {
    return Refused(device, *rounded, "");
  }
  return std::unique_ptr<HostDmabuf>(
      new HostDmabuf(DmaBuf(static_cast<int>(data.fd), *rounded, "dma-heap")));
}

absl::StatusOr<std::unique_ptr<HostDmabuf>> HostDmabuf::AllocateVgem(
    size_t bytes, const std::string& folder) {
  const absl::StatusOr<size_t> rounded = WholePages(bytes);
  if (!rounded.ok()) return rounded.status();
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string path = entry.path();
    if (!absl::StartsWith(entry.path().filename().string(), "card")) continue;
    const Descriptor card(open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (card.fd() < 0 || !IsVgem(card.fd())) continue;
    CreateDumb create = {};  // Rows of a page, of 32 bits a pixel.
    create.width = static_cast<uint32_t>(sysconf(_SC_PAGESIZE)) / 4;
    create.height = static_cast<uint32_t>(*rounded / (4 * create.width));
    create.bits_per_pixel = 32;
    if (ioctl(card.fd(), kCreateDumb, &create) != 0) {
      return Refused(path, *rounded, "");
    }
    PrimeHandle prime = {create.handle, O_RDWR | O_CLOEXEC, -1};
    if (ioctl(card.fd(), kPrimeHandleToFd, &prime) != 0) {
      return Refused(path, *rounded, "");
    }
    return std::unique_ptr<HostDmabuf>(
        new HostDmabuf(DmaBuf(prime.fd, *rounded, "vgem")));
  }
  return absl::NotFoundError(
      absl::StrFormat("%s has no device of the vgem driver: load the module "
                      "(modprobe vgem)",
                      folder));
}

bool HostDmabuf::CanAdopt(int fd) {
  const std::string exporter = ExporterOf(fd);
  return exporter == "udmabuf" || exporter == "system";
}

absl::StatusOr<std::unique_ptr<HostDmabuf>> HostDmabuf::Adopt(DmaBuf exported) {
  if (!CanAdopt(exported.fd())) {
    const std::string exporter = ExporterOf(exported.fd());
    return absl::InvalidArgumentError(absl::StrFormat(
        "descriptor %d is %s, whose memory may not be the host's: use its "
        "maker's provider",
        exported.fd(),
        exporter.empty() ? "no dmabuf" : "a dmabuf of " + exporter));
  }
  const off_t size = lseek(exported.fd(), 0, SEEK_END);
  if (size < 0 || static_cast<uint64_t>(size) < exported.bytes()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the dmabuf has %d bytes, not %u: give what Export() "
                        "made",
                        size, exported.bytes()));
  }
  return std::unique_ptr<HostDmabuf>(new HostDmabuf(std::move(exported)));
}

template <typename Copy>
absl::Status HostDmabuf::WithMapping(uint64_t offset, size_t size, bool writes,
                                     Copy copy) const {
  if (absl::Status s = CheckRange(offset, size); !s.ok() || size == 0) return s;
  const uint64_t skip = offset % static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  void* const at =
      mmap(nullptr, size + skip, writes ? PROT_READ | PROT_WRITE : PROT_READ,
           MAP_SHARED, buffer_.fd(), static_cast<off_t>(offset - skip));
  const auto failed = [this](const char* call) {
    return ErrnoStatus(errno, absl::StrFormat("%s of %s memory: %s", call,
                                              name(), strerrordesc_np(errno)));
  };
  if (at == MAP_FAILED) return failed("mmap");
  const uint64_t direction = writes ? DMA_BUF_SYNC_WRITE : DMA_BUF_SYNC_READ;
  dma_buf_sync sync = {DMA_BUF_SYNC_START | direction};
  absl::Status status;
  if (ioctl(buffer_.fd(), DMA_BUF_IOCTL_SYNC, &sync) != 0) {
    status = failed("DMA_BUF_IOCTL_SYNC");
  } else {
    copy(static_cast<std::byte*>(at) + skip);
    sync.flags = DMA_BUF_SYNC_END | direction;
    if (ioctl(buffer_.fd(), DMA_BUF_IOCTL_SYNC, &sync) != 0) {
      status = failed("DMA_BUF_IOCTL_SYNC");
    }
  }
  munmap(at, size + skip);
  return status;
}

absl::Status HostDmabuf::CopyIn(uint64_t offset,
                                std::span<const std::byte> from) {
  return WithMapping(offset, from.size(), true, [&](std::byte* at) {
    memcpy(at, from.data(), from.size());
  });
}

absl::Status HostDmabuf::CopyOut(uint64_t offset,
                                 std::span<std::byte> to) const {
  return WithMapping(offset, to.size(), false, [&](const std::byte* at) {
    memcpy(to.data(), at, to.size());
  });
}

}  // namespace devwire
