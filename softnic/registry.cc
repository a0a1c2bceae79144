#include "softnic/registry.h"

#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "softnic/packet.h"

namespace softnic {
namespace {

thread_local std::string g_last_error;
std::atomic<bool> g_any_late_scatter{false};

struct Registry {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<FrontDevice>, std::less<>> devices;
  std::vector<DeviceConfig> configs;  // in order
  std::string environment;            // SOFTNIC as last read
  bool is_read = false;
  bool is_taken_over = false;  // softnic_configure was called
};

void LockForFork();
void UnlockAfterFork();

// Never destroyed: handles may be in use while the process exits.
Registry& TheRegistry() {
  static Registry* registry = [] {
    pthread_atfork(LockForFork, UnlockAfterFork, UnlockAfterFork);
    return new Registry;
  }();
  return *registry;
}

// fork(2) copies a lock as it is: had another thread taken it, the child would
// wait for ever. So a fork waits for every lock that a child's own devices
// need, in the order in which the calls take them.
void LockForFork() {
  Registry& registry = TheRegistry();
  registry.mutex.lock();
  for (auto& [name, device] : registry.devices) {
    device->mutex.lock();
    if (device->backend == nullptr) continue;
    std::mutex* const data = device->backend->data_mutex();
    if (data != nullptr) data->lock();
  }
  EventMutex().lock();
}

void UnlockAfterFork() {
  Registry& registry = TheRegistry();
  EventMutex().unlock();
  for (auto& [name, device] : registry.devices) {
    if (device->backend != nullptr) {
      std::mutex* const data = device->backend->data_mutex();
      if (data != nullptr) data->unlock();
    }
    device->mutex.unlock();
  }
  registry.mutex.unlock();
}

FrontDevice* MakeDevice(const std::string& name) {
  auto* device = new FrontDevice;
  device->base.node_type = IBV_NODE_CA;
  device->base.transport_type = IBV_TRANSPORT_IB;
  snprintf(device->base.name, sizeof(device->base.name), "%s", name.c_str());
  snprintf(device->base.dev_name, sizeof(device->base.dev_name), "%s",
           name.c_str());
  return device;
}

bool IsOpen(Registry& registry, std::string_view name) {
  auto it = registry.devices.find(name);
  if (it == registry.devices.end()) return false;
  const std::lock_guard<std::mutex> lock(it->second->mutex);
  return it->second->open_contexts > 0;
}

// Makes the devices what `configs` says. `text` is what has changed them last;
// `is_whole`: it says everything, older texts count no more.
void Adopt(Registry& registry, const std::vector<DeviceConfig>& configs,
           const std::string& text, bool is_whole) {
  for (auto& [name, device] : registry.devices) {
    const std::lock_guard<std::mutex> lock(device->mutex);
    device->is_listed = false;
  }
  for (const DeviceConfig& config : configs) {
    auto& device = registry.devices[config.name];
    if (device == nullptr) device.reset(MakeDevice(config.name));
    const std::lock_guard<std::mutex> lock(device->mutex);
    device->is_listed = true;
    device->config = config;
    device->late_gather_ns = config.faults.late_gather.nanoseconds();
    if (config.faults.late_scatter > devwire::Duration()) {
      g_any_late_scatter = true;
    }
    if (device->backend == nullptr && is_whole) device->texts.clear();
    device->texts.push_back(text);
    if (device->backend == nullptr) continue;
    Command command;
    command.op = Op::kConfigure;
    command.text_bytes = static_cast<uint32_t>(text.size());
    device->backend->Execute(command, -1, text);
  }
  registry.configs = configs;
}

int Refuse(const absl::Status& status) {
  const absl::string_view why = status.message();
  SetLastError({why.data(), why.size()});
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return ENOENT;
    case absl::StatusCode::kFailedPrecondition:
      return EBUSY;
    default:
      return EINVAL;
  }
}

// Reads what the environment says, if it says something new.
int ReadEnvironment(Registry& registry) {
  const char* value = getenv("SOFTNIC");
  const std::string text = value == nullptr ? "" : value;
  const bool is_file = text.starts_with('@');
  if (registry.is_read && !is_file && text == registry.environment) return 0;
  absl::StatusOr<std::vector<DeviceConfig>> configs = ParseConfig(text);
  if (!configs.ok()) return Refuse(configs.status());
  if (registry.is_read && text == registry.environment &&
      *configs == registry.configs) {
    return 0;  // The file says what it said.
  }
  for (const DeviceConfig& config : *configs) {
    if (!IsOpen(registry, config.name)) continue;
    // An open device changes key by key, and only what may change.
    std::vector<DeviceConfig> now = {
        registry.devices.find(config.name)->second->config};
    const absl::Status status = ChangeConfig(
        text, [&](std::string_view name) { return name == config.name; }, &now);
    if (!status.ok()) return Refuse(status);
  }
  Adopt(registry, *configs, text, /*is_whole=*/true);
  registry.environment = text;
  registry.is_read = true;
  return 0;
}

}  // namespace

bool AnyLateScatter() {
  return g_any_late_scatter.load(std::memory_order_acquire);
}

void SetLastError(std::string_view message) { g_last_error = message; }
const char* LastError() { return g_last_error.c_str(); }

int ListDevices(std::vector<FrontDevice*>* devices) {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  if (!registry.is_taken_over) {
    if (const int error = ReadEnvironment(registry); error != 0) return error;
  }
  for (const DeviceConfig& config : registry.configs) {
    devices->push_back(registry.devices.find(config.name)->second.get());
  }
  return 0;
}

int ConfigureDevices(const char* text) {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  if (text == nullptr) {
    std::erase_if(registry.configs, [&](const DeviceConfig& config) {
      return !IsOpen(registry, config.name);
    });
    for (auto& [name, device] : registry.devices) {
      const std::lock_guard<std::mutex> device_lock(device->mutex);
      if (device->open_contexts > 0) continue;
      device->is_listed = false;
      device->texts.clear();
    }
    registry.is_taken_over = false;
    registry.is_read = false;
    return 0;
  }
  if (!registry.is_taken_over && !registry.is_read) registry.configs.clear();
  std::vector<DeviceConfig> configs = registry.configs;
  const absl::Status status = ChangeConfig(
      text, [&](std::string_view name) { return IsOpen(registry, name); },
      &configs);
  if (!status.ok()) return Refuse(status);
  Adopt(registry, configs, text, /*is_whole=*/false);
  registry.is_taken_over = true;
  return 0;
}

FrontDevice* FindDevice(std::string_view name) {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  auto it = registry.devices.find(name);
  return it == registry.devices.end() ? nullptr : it->second.get();
}

std::vector<FrontDevice*> AllDevices() {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  std::vector<FrontDevice*> all;
  for (auto& [name, device] : registry.devices) all.push_back(device.get());
  return all;
}

}  // namespace softnic
