// Protection domains and memory regions: ibv_alloc_pd(3), ibv_reg_mr(3),
// ibv_reg_dmabuf_mr, ibv_dereg_mr.
#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>

#include "softnic/front.h"

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

namespace softnic {
namespace {

constexpr unsigned kRemote =
    IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
constexpr unsigned kAccess = IBV_ACCESS_LOCAL_WRITE | kRemote |
                             IBV_ACCESS_MW_BIND | IBV_ACCESS_HUGETLB |
                             IBV_ACCESS_RELAXED_ORDERING;
// ibv_reg_dmabuf_mr allows fewer.
constexpr unsigned kDmabufAccess =
    IBV_ACCESS_LOCAL_WRITE | kRemote | IBV_ACCESS_RELAXED_ORDERING;
constexpr uint64_t kPage = 4096;

std::atomic<uint32_t> g_next_pd{1};

// Remote writes need local write permission, ibv_reg_mr(3).
bool IsSound(unsigned access) {
  constexpr unsigned kNeedsLocalWrite =
      IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
  return (access & kNeedsLocalWrite) == 0 ||
         (access & IBV_ACCESS_LOCAL_WRITE) != 0;
}

// The kernel pins the pages of a region, and fails where there are none: the
// whole range must be mapped, and writable if the device may write.
bool IsMapped(uint64_t from, uint64_t bytes, bool writable) {
  FILE* maps = fopen("/proc/self/maps", "re");
  if (maps == nullptr) return true;
  uint64_t at = from;
  const uint64_t end = from + bytes;
  char line[512];
  while (at < end && fgets(line, sizeof(line), maps) != nullptr) {
    uint64_t low = 0;
    uint64_t high = 0;
    char flags[5] = {};
    const int n =
        sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &low, &high, flags);
    if (n != 3 || at < low || at >= high) continue;
    if (flags[0] != 'r' || (writable && flags[1] != 'w')) break;
    at = high;
  }
  fclose(maps);
  return at >= end;
}

ibv_mr* Register(ibv_pd* pd, const MrSpec& spec, int fd, void* addr) {
  FrontPd* front_pd = PdOf(pd);
  FrontDevice* device = front_pd->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  if (spec.is_dmabuf) {
    if (!device->config.dmabuf) return Fail(EOPNOTSUPP);
    if (device->config.dmabuf_refuse) return Fail(EINVAL);
  }
  Command command;
  command.op = Op::kRegisterMr;
  command.mr = spec;
  command.mr.pd = front_pd->number;
  const Reply reply = device->backend->Execute(command, fd);
  if (reply.error != 0) return Fail(reply.error);
  auto* mr = new FrontMr;
  mr->device = device;
  mr->base.context = pd->context;
  mr->base.pd = pd;
  mr->base.addr = addr;
  mr->base.length = spec.length;
  mr->base.handle = reply.object;
  mr->base.lkey = mr->base.rkey = reply.object;
  ++front_pd->users;
  return &mr->base;
}

ibv_mr* RegisterHost(ibv_pd* pd, void* addr, size_t length, uint64_t iova,
                     unsigned access) {
  // IBV_ACCESS_OPTIONAL_RANGE: a provider may ignore what it does not know.
  access &= ~(IBV_ACCESS_OPTIONAL_RANGE & ~kAccess);
  if ((access & IBV_ACCESS_ON_DEMAND) != 0) return Fail(EOPNOTSUPP);
  if ((access & ~kAccess) != 0 || !IsSound(access)) return Fail(EINVAL);
  const auto at = reinterpret_cast<uint64_t>(addr);
  if (length == 0 || at + length < at) return Fail(EINVAL);
  const bool writes = (access & IBV_ACCESS_LOCAL_WRITE) != 0;
  if (!IsMapped(at, length, writes)) return Fail(EFAULT);
  MrSpec spec;
  spec.iova = iova;
  spec.length = length;
  spec.access = access;
  spec.host_addr = at;
  return Register(pd, spec, -1, addr);
}

}  // namespace
}  // namespace softnic

using namespace softnic;  // NOLINT: this file is the C ABI

extern "C" {

ibv_pd* ibv_alloc_pd(ibv_context* context) {
  auto* pd = new FrontPd;
  pd->base.context = context;
  pd->device = ContextOf(context)->device;
  pd->number = g_next_pd.fetch_add(1);
  pd->base.handle = pd->number;
  return &pd->base;
}

int ibv_dealloc_pd(ibv_pd* handle) {
  FrontPd* pd = PdOf(handle);
  {
    const std::lock_guard<std::mutex> lock(pd->device->mutex);
    if (pd->users > 0) return EBUSY;
  }
  delete pd;
  return 0;
}

ibv_mr* ibv_reg_mr_iova2(ibv_pd* pd, void* addr, size_t length, uint64_t iova,
                         unsigned int access) {
  return RegisterHost(pd, addr, length, iova, access);
}

ibv_mr* ibv_reg_mr(ibv_pd* pd, void* addr, size_t length, int access) {
  return RegisterHost(pd, addr, length, reinterpret_cast<uint64_t>(addr),
                      static_cast<unsigned>(access));
}

ibv_mr* ibv_reg_mr_iova(ibv_pd* pd, void* addr, size_t length, uint64_t iova,
                        int access) {
  return RegisterHost(pd, addr, length, iova, static_cast<unsigned>(access));
}

ibv_mr* ibv_reg_dmabuf_mr(ibv_pd* pd, uint64_t offset, size_t length,
                          uint64_t iova, int fd, int access) {
  const auto flags = static_cast<unsigned>(access);
  if ((flags & ~kDmabufAccess) != 0 || !IsSound(flags)) {
    return Fail((flags & ~kDmabufAccess) != 0 ? EOPNOTSUPP : EINVAL);
  }
  // ibv_reg_mr(3): iova and offset lie at the same place in a page.
  if (iova % kPage != offset % kPage) return Fail(EINVAL);
  MrSpec spec;
  spec.iova = iova;
  spec.length = length;
  spec.access = flags;
  spec.fd_offset = offset;
  spec.is_dmabuf = true;
  // As libibverbs has it: addr is the offset, not a pointer.
  return Register(pd, spec, fd, reinterpret_cast<void*>(offset));
}

int ibv_dereg_mr(ibv_mr* handle) {
  FrontMr* mr = MrOf(handle);
  int error = 0;
  {
    const std::lock_guard<std::mutex> lock(mr->device->mutex);
    Command command;
    command.op = Op::kDeregisterMr;
    command.object = handle->lkey;
    error = mr->device->backend->Execute(command, -1).error;
    if (!IsDestroyed(error)) return error;
    --PdOf(handle->pd)->users;
  }
  delete mr;
  return error;
}

// mlx5 can move a region; we do not claim to.
int ibv_rereg_mr(ibv_mr*, int, ibv_pd*, void*, size_t, int) {
  errno = EOPNOTSUPP;
  return IBV_REREG_MR_ERR_INPUT;
}

}  // extern "C"
