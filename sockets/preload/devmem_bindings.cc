#include "sockets/preload/devmem_bindings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "memreg/dmabuf.h"
#include "memreg/providers.h"
#include "sockets/errno_map.h"
#include "sockets/preload/real_libc.h"

namespace devwire::preload {
namespace {

// A negative errno; and the reason, which netlink has no room for.
int64_t Refuse(const absl::Status& status) {
  const std::string text(status.message());
  fprintf(stderr, "devwire: dmabuf not bound: %s\n", text.c_str());
  // The NIC does not take it: the kernel says the same of no dmabuf.
  return absl::IsFailedPrecondition(status) ? -EINVAL : -ErrnoOf(status);
}

}  // namespace

int64_t DevmemBindings::BindReceive(Stack& stack, int fd,
                                    std::vector<uint32_t> queues,
                                    const PoolOptions& options) {
  for (const auto& [id, binding] : bindings_) {
    for (const uint32_t queue : binding->queues) {
      if (std::find(queues.begin(), queues.end(), queue) != queues.end()) {
        return -EEXIST;
      }
    }
  }
  return Bind(stack, fd, std::move(queues), options);
}

int64_t DevmemBindings::BindSend(Stack& stack, int fd) {
  return Bind(stack, fd, {}, {.receive_bytes = 0});
}

int64_t DevmemBindings::Bind(Stack& stack, int fd, std::vector<uint32_t> queues,
                             const PoolOptions& options) {
  Registered* memory = nullptr;
  if (int64_t e = Register(stack, fd, options, &memory); e != 0) return e;
  auto binding = std::make_shared<DevmemBinding>();
  binding->id = ++last_id_;
  binding->pool = memory->pool;
  binding->bytes = memory->bytes;
  binding->is_receive = memory->is_receive;
  binding->queues = std::move(queues);
  if (memory->memory != nullptr && memory->memory->needs_make_visible()) {
    binding->memory = memory->memory.get();
  }
  return (bindings_[binding->id] = std::move(binding))->id;
}

int64_t DevmemBindings::Register(Stack& stack, int fd,
                                 const PoolOptions& options, Registered** out) {
  const bool is_receive = options.receive_bytes != uint64_t{0};
  struct stat file = {};
  if (fstat(fd, &file) != 0) return -EBADF;
  // A dmabuf tells its size by its end alone. dma-buf.rst
  const off_t end = lseek(fd, 0, SEEK_END);
  if (end <= 0) return -EINVAL;
  const auto bytes = static_cast<uint64_t>(end);
  for (Registered& r : registered_) {
    if (r.device == file.st_dev && r.inode == file.st_ino && r.bytes == bytes &&
        r.is_receive == is_receive) {
      *out = &r;
      return 0;
    }
  }
  // A memfd stands in for a dmabuf. What was bound must not go away: udmabuf
  // asks for the same seal.
  const int seals = real().fcntl(fd, F_GET_SEALS);
  const bool is_memfd = seals >= 0;
  if (is_memfd && (seals & F_SEAL_SHRINK) == 0) return -EINVAL;
  const int copy = real().fcntl(fd, F_DUPFD_CLOEXEC, 512);
  if (copy < 0) return -errno;
  DmaBuf dmabuf(copy, bytes, is_memfd ? "memfd" : "dmabuf");
  Registered made = {.device = file.st_dev,
                     .inode = file.st_ino,
                     .bytes = bytes,
                     .is_receive = is_receive};
  absl::StatusOr<std::unique_ptr<DeviceMemory>> memory =
      AdoptDeviceMemory(dmabuf);
  if (!memory.ok()) return Refuse(memory.status());
  made.memory = *std::move(memory);
  const absl::StatusOr<PoolId> pool =
      made.memory != nullptr ? stack.BindMemory(*made.memory, options)
                             : stack.BindMemory(dmabuf, options);
  if (!pool.ok()) return Refuse(pool.status());
  made.pool = *pool;
  registered_.push_back(std::move(made));
  *out = &registered_.back();
  return 0;
}

void DevmemBindings::Unbind(uint32_t id) { bindings_.erase(id); }

std::shared_ptr<const DevmemBinding> DevmemBindings::receive() const {
  for (auto it = bindings_.rbegin(); it != bindings_.rend(); ++it) {
    if (it->second->is_receive) return it->second;
  }
  return nullptr;
}

std::shared_ptr<const DevmemBinding> DevmemBindings::FindSend(
    uint32_t id) const {
  const auto found = bindings_.find(id);
  return found == bindings_.end() || found->second->is_receive ? nullptr
                                                               : found->second;
}

}  // namespace devwire::preload
