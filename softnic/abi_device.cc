// Devices: list, open, close, query. ibv_get_device_list(3),
// ibv_open_device(3), ibv_query_device(3), ibv_query_port(3), ibv_query_gid(3),
// ibv_query_pkey(3).
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "softnic/caps.h"
#include "softnic/counter_table.h"
#include "softnic/front.h"
#include "softnic/registry.h"
#include "softnic/softnic.h"

#undef ibv_query_port
#undef ibv_get_device_list

namespace softnic {
namespace {

int ClearMutex(pthread_mutex_t* mutex) {
  return pthread_mutex_init(mutex, nullptr);
}

// ibv_query_gid_type's values, of sysfs: /sys/class/infiniband/*/gid_attrs.
constexpr int kGidTypeRoceV2 = 1;

std::unique_ptr<Backend> MakeBackend(const FrontDevice& device) {
  if (device.config.mode != Mode::kProcess) {
    auto backend = device.config.mode == Mode::kThread
                       ? MakeThreadBackend(device.config)
                       : MakeInlineBackend(device.config);
    if (backend == nullptr) errno = ENOMEM;
    return backend;
  }
  std::string error;
  auto backend = MakeProcessBackend(device.config, device.texts, &error);
  if (backend == nullptr) {
    SetLastError(error);
    errno = EIO;
  }
  return backend;
}

void FillOps(verbs_context* v) {
  v->sz = sizeof(*v);
  v->query_port = QueryPort;
  v->query_device_ex = QueryDeviceEx;
  v->ibv_create_flow = CreateFlow;
  v->ibv_destroy_flow = DestroyFlow;
  v->create_qp_ex = CreateQpEx;
  ibv_context_ops& ops = v->context.ops;
  ops.poll_cq = PollCq;
  ops.req_notify_cq = ReqNotifyCq;
  ops.post_send = PostSend;
  ops.post_recv = PostRecv;
}

// With device->mutex held. Null with errno set.
FrontContext* OpenLocked(FrontDevice* device) {
  if (device->backend == nullptr) device->backend = MakeBackend(*device);
  if (device->backend == nullptr) return nullptr;
  Arena* arena = device->backend->arena();
  auto context = std::make_unique<FrontContext>();
  context->device = device;
  context->events_at = arena->Allocate(sizeof(EventRing));
  // EFD_SEMAPHORE: one read, one event.
  const int async_fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
  if (async_fd < 0 || context->events_at == 0) {
    if (async_fd >= 0) close(async_fd);
    return Fail(ENOMEM);
  }
  Command command;
  command.op = Op::kOpenContext;
  command.events_at = context->events_at;
  const Reply reply = device->backend->Execute(command, async_fd);
  if (reply.error != 0) {
    SetLastError(reply.message);
    fprintf(stderr, "softnic: %s: %s\n", device->base.name,
            reply.message[0] != 0 ? reply.message : strerror(reply.error));
    arena->Free(context->events_at, sizeof(EventRing));
    close(async_fd);
    return Fail(reply.error);
  }
  context->object = reply.object;
  verbs_context& v = context->base;
  FillOps(&v);
  v.context.device = &device->base;
  v.context.async_fd = async_fd;
  v.context.cmd_fd = -1;
  v.context.num_comp_vectors = 1;
  v.context.abi_compat = __VERBS_ABI_IS_EXTENDED;
  ClearMutex(&v.context.mutex);
  ++device->open_contexts;
  return context.release();
}

// With device->mutex held.
void DropBackendIfUnused(FrontDevice* device) {
  if (device->open_contexts > 0) return;
  // Handles that the application forgot are nobody's from here on.
  for (auto& qp : device->qps) qp = nullptr;
  device->cqs.clear();
  device->backend = nullptr;
}

}  // namespace

int QueryDeviceEx(ibv_context* context, const ibv_query_device_ex_input* input,
                  ibv_device_attr_ex* attr, size_t attr_size) {
  if (input != nullptr && input->comp_mask != 0) return EINVAL;
  if (attr_size < sizeof(attr->orig_attr)) return EOPNOTSUPP;
  FrontDevice* device = ContextOf(context)->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  ibv_device_attr_ex full;
  FillDeviceAttrEx(device->config, &full);
  // The caller's struct may be older or newer than ours.
  memset(attr, 0, attr_size);
  memcpy(attr, &full, std::min(attr_size, sizeof(full)));
  return 0;
}

int QueryPort(ibv_context* context, uint8_t port, ibv_port_attr* attr,
              size_t attr_bytes) {
  if (port != 1) return EINVAL;
  FrontDevice* device = ContextOf(context)->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  Command command;
  command.op = Op::kQueryPort;
  const Reply reply = device->backend->Execute(command, -1);
  if (reply.error != 0) return reply.error;
  ibv_port_attr full;
  FillPortAttr(device->config, reply.value != 0, &full);
  memset(attr, 0, attr_bytes);
  memcpy(attr, &full, std::min(attr_bytes, sizeof(full)));
  return 0;
}

}  // namespace softnic

using namespace softnic;  // NOLINT: this file is the C ABI

extern "C" {

ibv_device** ibv_get_device_list(int* count) {
  std::vector<FrontDevice*> devices;
  if (count != nullptr) *count = 0;
  SetLastError("");
  if (const int error = ListDevices(&devices); error != 0) {
    fprintf(stderr, "softnic: %s\n", LastError());
    return Fail(error);
  }
  auto* list = static_cast<ibv_device**>(
      calloc(devices.size() + 1, sizeof(ibv_device*)));
  if (list == nullptr) return Fail(ENOMEM);
  for (size_t i = 0; i < devices.size(); ++i) list[i] = &devices[i]->base;
  if (count != nullptr) *count = static_cast<int>(devices.size());
  return list;
}

// The devices live on: only the array goes.
void ibv_free_device_list(ibv_device** list) { free(list); }

const char* ibv_get_device_name(ibv_device* device) { return device->name; }

// There is no kernel device.
int ibv_get_device_index(ibv_device*) { return -1; }

__be64 ibv_get_device_guid(ibv_device* device) {
  FrontDevice* d = DeviceOf(device);
  const std::lock_guard<std::mutex> lock(d->mutex);
  __be64 guid;
  memcpy(&guid, Eui64(d->config.mac).data(), sizeof(guid));
  return guid;
}

ibv_context* ibv_open_device(ibv_device* device) {
  SetLastError("");
  FrontDevice* d = DeviceOf(device);
  const std::lock_guard<std::mutex> lock(d->mutex);
  FrontContext* context = OpenLocked(d);
  if (context == nullptr) {
    const int error = errno;
    DropBackendIfUnused(d);
    return Fail(error);
  }
  return &context->base.context;
}

int ibv_close_device(ibv_context* handle) {
  FrontContext* context = ContextOf(handle);
  FrontDevice* device = context->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  // What is left of it dies with the device's last context, as it would in the
  // kernel; its handles are not to be used any more.
  Command command;
  command.op = Op::kCloseContext;
  command.object = context->object;
  device->backend->Execute(command, -1);
  device->backend->arena()->Free(context->events_at, sizeof(EventRing));
  --device->open_contexts;
  DropBackendIfUnused(device);
  close(handle->async_fd);
  pthread_mutex_destroy(&handle->mutex);
  delete context;
  return 0;
}

int ibv_query_device(ibv_context* context, ibv_device_attr* attr) {
  FrontDevice* device = ContextOf(context)->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  FillDeviceAttr(device->config, attr);
  return 0;
}

// The exported function is for programs older than the inline one: their
// struct ends before `link_layer`... which verbs.h calls _compat.
int ibv_query_port(ibv_context* context, uint8_t port,
                   _compat_ibv_port_attr* attr) {
  return QueryPort(context, port, reinterpret_cast<ibv_port_attr*>(attr),
                   offsetof(ibv_port_attr, port_cap_flags2));
}

int ibv_query_gid(ibv_context* context, uint8_t port, int index, ibv_gid* gid) {
  FrontDevice* device = ContextOf(context)->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  if (port != 1 || index < 0 ||
      static_cast<size_t>(index) >= GidCount(device->config)) {
    errno = EINVAL;
    return -1;
  }
  *gid = GidAt(device->config, static_cast<size_t>(index));
  return 0;
}

int _ibv_query_gid_ex(ibv_context* context, uint32_t port, uint32_t index,
                      ibv_gid_entry* entry, uint32_t flags, size_t size) {
  FrontDevice* device = ContextOf(context)->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  if (port != 1 || flags != 0) return EINVAL;
  if (index >= GidCount(device->config)) return EINVAL;
  ibv_gid_entry full = {};
  full.gid = GidAt(device->config, index);
  full.gid_index = index;
  full.port_num = port;
  full.gid_type = IBV_GID_TYPE_ROCE_V2;
  full.ndev_ifindex = 0;  // There is no netdev.
  memset(entry, 0, size);
  memcpy(entry, &full, std::min(size, sizeof(full)));
  return 0;
}

ssize_t _ibv_query_gid_table(ibv_context* context, ibv_gid_entry* entries,
                             size_t max, uint32_t flags, size_t size) {
  if (flags != 0) return -EINVAL;
  size_t count = 0;
  {
    FrontDevice* device = ContextOf(context)->device;
    const std::lock_guard<std::mutex> lock(device->mutex);
    count = GidCount(device->config);
  }
  if (max < count) return -EINVAL;
  for (size_t i = 0; i < count; ++i) {
    auto* at = reinterpret_cast<ibv_gid_entry*>(
        reinterpret_cast<std::byte*>(entries) + i * size);
    _ibv_query_gid_ex(context, 1, static_cast<uint32_t>(i), at, 0, size);
  }
  return static_cast<ssize_t>(count);
}

// Private to rdma-core, and used by ibv_devinfo.
int ibv_query_gid_type(ibv_context* context, uint8_t port, unsigned int index,
                       int* type) {
  ibv_gid gid;
  if (ibv_query_gid(context, port, static_cast<int>(index), &gid) != 0) {
    return -1;
  }
  *type = kGidTypeRoceV2;
  return 0;
}

// Ethernet has one partition, the default one.
int ibv_query_pkey(ibv_context*, uint8_t port, int index, __be16* pkey) {
  if (port != 1 || index != 0) {
    errno = EINVAL;
    return -1;
  }
  *pkey = 0xffff;
  return 0;
}

int ibv_get_pkey_index(ibv_context*, uint8_t port, __be16 pkey) {
  if (port == 1 && pkey == 0xffff) return 0;
  errno = EINVAL;
  return -1;
}

int softnic_configure(const char* text) {
  SetLastError("");
  return ConfigureDevices(text);
}

const char* softnic_last_error(void) { return LastError(); }

int softnic_make_visible(void) {
  if (!AnyLateScatter()) return 0;  // The usual case costs nothing.
  for (FrontDevice* device : AllDevices()) {
    const std::lock_guard<std::mutex> lock(device->mutex);
    if (device->backend == nullptr) continue;
    Command command;
    command.op = Op::kMakeVisible;
    device->backend->Execute(command, -1);
  }
  return 0;
}

int softnic_query_counters(const char* name, softnic_counters* out,
                           size_t size) {
  if (name == nullptr || out == nullptr) return EINVAL;
  FrontDevice* device = FindDevice(name);
  if (device == nullptr) return ENODEV;
  const std::lock_guard<std::mutex> lock(device->mutex);
  if (device->backend == nullptr) return ENODEV;
  const DeviceShared& s = *device->backend->shared();
  softnic_counters c = {};
  for (const CounterRow& row : kCounterRows) {
    c.*row.shown = (s.*row.source).value();
  }
  c.rules = s.rules.load(std::memory_order_relaxed);
  memset(out, 0, size);
  memcpy(out, &c, std::min(size, sizeof(c)));
  return 0;
}

}  // extern "C"
