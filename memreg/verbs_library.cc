#include "memreg/verbs_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include <atomic>
#include <cstdlib>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"

namespace devwire {
namespace {

constexpr char kDefaultLibrary[] = "libibverbs.so.1";
constexpr char kEnvironment[] = "DEVWIRE_VERBS_LIBRARY";

struct Loaded {
  std::mutex mutex;
  std::string name;  // Written once, under the mutex.
  VerbsTable table{};
  std::atomic<const VerbsTable*> ready{nullptr};
};

// Never destroyed: objects of the library may be closed at exit.
Loaded& loaded() {
  static Loaded* const instance = new Loaded;
  return *instance;
}

// One row per entry point: where its address goes, and its name. dlsym finds
// the default version of each, which is the current ABI.
class Binder {
 public:
  explicit Binder(void* handle) : handle_(handle) {}

  template <typename F>
  void Required(const char* symbol, F** slot) {
    Optional(symbol, slot);
    if (*slot == nullptr && missing_ == nullptr) missing_ = symbol;
  }
  template <typename F>
  void Optional(const char* symbol, F** slot) {
    *slot = reinterpret_cast<F*>(dlsym(handle_, symbol));
  }
  const char* missing() const { return missing_; }

 private:
  void* const handle_;
  const char* missing_ = nullptr;
};

const char* BindAll(void* handle, VerbsTable* t) {
  Binder b(handle);
  b.Required("ibv_get_device_list", &t->get_device_list);
  b.Required("ibv_free_device_list", &t->free_device_list);
  b.Required("ibv_get_device_name", &t->get_device_name);
  b.Required("ibv_open_device", &t->open_device);
  b.Required("ibv_close_device", &t->close_device);
  b.Required("ibv_query_device", &t->query_device);
  b.Required("ibv_query_gid", &t->query_gid);
  b.Required("ibv_alloc_pd", &t->alloc_pd);
  b.Required("ibv_dealloc_pd", &t->dealloc_pd);
  b.Required("ibv_reg_mr", &t->reg_mr);
  b.Required("ibv_reg_dmabuf_mr", &t->reg_dmabuf_mr);
  b.Required("ibv_dereg_mr", &t->dereg_mr);
  b.Required("ibv_create_cq", &t->create_cq);
  b.Required("ibv_destroy_cq", &t->destroy_cq);
  b.Required("ibv_create_comp_channel", &t->create_comp_channel);
  b.Required("ibv_destroy_comp_channel", &t->destroy_comp_channel);
  b.Required("ibv_get_cq_event", &t->get_cq_event);
  b.Required("ibv_ack_cq_events", &t->ack_cq_events);
  b.Required("ibv_create_qp", &t->create_qp);
  b.Required("ibv_modify_qp", &t->modify_qp);
  b.Required("ibv_destroy_qp", &t->destroy_qp);
  b.Required("ibv_get_async_event", &t->get_async_event);
  b.Required("ibv_ack_async_event", &t->ack_async_event);
  b.Required("ibv_wc_status_str", &t->wc_status_str);
  b.Required("ibv_event_type_str", &t->event_type_str);
  b.Optional("_ibv_query_gid_ex", &t->query_gid_ex);
  b.Optional("softnic_configure", &t->softnic_configure);
  b.Optional("softnic_make_visible", &t->softnic_make_visible);
  b.Optional("softnic_last_error", &t->softnic_last_error);
  return b.missing();
}

}  // namespace

absl::Status LoadVerbsLibrary(std::string_view name) {
  Loaded& state = loaded();
  const std::lock_guard lock(state.mutex);
  std::string wanted(name);
  if (state.ready.load() != nullptr) {
    if (wanted.empty() || wanted == state.name) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrFormat(
        "verbs library %s asked for, but this process has already loaded %s: a "
        "process has one; use the same name for every stack",
        wanted, state.name));
  }
  if (wanted.empty()) {
    const char* from_environment = std::getenv(kEnvironment);
    wanted = from_environment != nullptr && *from_environment != '\0'
                 ? from_environment
                 : kDefaultLibrary;
  }
  void* handle = dlopen(wanted.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* why = dlerror();
    return absl::NotFoundError(absl::StrFormat(
        "cannot load verbs library %s: %s. Install libibverbs1, or name "
        "another "
        "one in StackOptions::verbs_library or %s (libsoftnic.so is a NIC in "
        "software)",
        wanted, why != nullptr ? why : "unknown error", kEnvironment));
  }
  VerbsTable table{};
  if (const char* missing = BindAll(handle, &table)) {
    dlclose(handle);
    return absl::UnimplementedError(absl::StrFormat(
        "verbs library %s has no symbol %s: it is no libibverbs, or one older "
        "than rdma-core 34; install a newer one or name another in %s",
        wanted, missing, kEnvironment));
  }
  state.name = wanted;
  state.table = table;
  state.ready.store(&state.table, std::memory_order_release);
  return absl::OkStatus();
}

const VerbsTable* verbs_if_loaded() {
  return loaded().ready.load(std::memory_order_acquire);
}

const VerbsTable& verbs() {
  const VerbsTable* const table = verbs_if_loaded();
  CHECK(table != nullptr) << "LoadVerbsLibrary first";
  return *table;
}

std::string VerbsLibraryName() {
  Loaded& state = loaded();
  const std::lock_guard lock(state.mutex);
  return state.name;
}

std::string VerbsErrorText(int error) {
  const char* const constant = strerrorname_np(error);
  std::string text =
      absl::StrFormat("%s (%s)",
                      strerrordesc_np(error) != nullptr ? strerrordesc_np(error)
                                                        : "unknown error",
                      constant != nullptr ? constant : absl::StrCat(error));
  const VerbsTable* const table = verbs_if_loaded();
  if (table != nullptr && table->softnic_last_error != nullptr) {
    const char* const words = table->softnic_last_error();
    if (words != nullptr && *words != '\0') absl::StrAppend(&text, ": ", words);
  }
  return text;
}

// verbs_get_ctx_op answers null where the context's table is too short for the
// operation, or has none.

int VerbsTable::QueryPort(ibv_context* context, uint8_t port,
                          ibv_port_attr* attr) {
  *attr = {};
  verbs_context* const v = verbs_get_ctx_op(context, query_port);
  return v == nullptr ? EOPNOTSUPP
                      : v->query_port(context, port, attr, sizeof(*attr));
}

int VerbsTable::QueryDeviceEx(ibv_context* context, ibv_device_attr_ex* attr) {
  *attr = {};
  verbs_context* const v = verbs_get_ctx_op(context, query_device_ex);
  return v == nullptr
             ? EOPNOTSUPP
             : v->query_device_ex(context, nullptr, attr, sizeof(*attr));
}

ibv_qp* VerbsTable::CreateQpEx(ibv_context* context,
                               ibv_qp_init_attr_ex* attr) {
  verbs_context* const v = verbs_get_ctx_op(context, create_qp_ex);
  if (v == nullptr) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  return v->create_qp_ex(context, attr);
}

ibv_flow* VerbsTable::CreateFlow(ibv_qp* qp, ibv_flow_attr* attr) {
  verbs_context* const v = verbs_get_ctx_op(qp->context, ibv_create_flow);
  if (v == nullptr) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  return v->ibv_create_flow(qp, attr);
}

int VerbsTable::DestroyFlow(ibv_flow* flow) {
  verbs_context* const v = verbs_get_ctx_op(flow->context, ibv_destroy_flow);
  return v == nullptr ? EOPNOTSUPP : v->ibv_destroy_flow(flow);
}

}  // namespace devwire
