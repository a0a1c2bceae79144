// The one verbs library of this process: the system's libibverbs.so.1, or any
// shared object with the same ABI (softnic), loaded at run time.
//
// This is the only file of the project that calls it. Exported functions go
// through a table filled with dlsym(3); those that <infiniband/verbs.h> has as
// inlines go through the context's own tables of operations. No object of ours
// imports or exports an ibv_* symbol, because UCX, RCCL or torch may live in
// the same process with a libibverbs of their own.
//
// Threads:  LoadVerbsLibrary from any thread; the table is immutable after.
// Lifetime: never unloaded: objects of the library may outlive any scope.
// Cost:     an indirect call; the data path (PollCq, PostSend, PostRecv) makes
//           the same one that the inlines of verbs.h make.
// Errors:   a Status that names the library or the symbol and the next step.
#ifndef MEMREG_VERBS_LIBRARY_H_
#define MEMREG_VERBS_LIBRARY_H_

#include <infiniband/verbs.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace devwire {

// Entry points; each member is named as its ibv_ function, man page
// ibv_NAME(3). The optional ones are null where the library has none.
struct VerbsTable {
  ibv_device** (*get_device_list)(int* num_devices);
  void (*free_device_list)(ibv_device** list);
  const char* (*get_device_name)(ibv_device* device);
  ibv_context* (*open_device)(ibv_device* device);
  int (*close_device)(ibv_context* context);
  int (*query_device)(ibv_context* context, ibv_device_attr* attr);
  int (*query_gid)(ibv_context* context, uint8_t port, int index, ibv_gid* gid);
  ibv_pd* (*alloc_pd)(ibv_context* context);
  int (*dealloc_pd)(ibv_pd* pd);
  ibv_mr* (*reg_mr)(ibv_pd* pd, void* addr, size_t length, int access);
  ibv_mr* (*reg_dmabuf_mr)(ibv_pd* pd, uint64_t offset, size_t length,
                           uint64_t iova, int fd, int access);
  int (*dereg_mr)(ibv_mr* mr);
  ibv_cq* (*create_cq)(ibv_context* context, int cqe, void* cq_context,
                       ibv_comp_channel* channel, int comp_vector);
  int (*destroy_cq)(ibv_cq* cq);
  ibv_comp_channel* (*create_comp_channel)(ibv_context* context);
  int (*destroy_comp_channel)(ibv_comp_channel* channel);
  int (*get_cq_event)(ibv_comp_channel* channel, ibv_cq** cq,
                      void** cq_context);
  void (*ack_cq_events)(ibv_cq* cq, unsigned int count);
  ibv_qp* (*create_qp)(ibv_pd* pd, ibv_qp_init_attr* attr);
  int (*modify_qp)(ibv_qp* qp, ibv_qp_attr* attr, int attr_mask);
  int (*destroy_qp)(ibv_qp* qp);
  int (*get_async_event)(ibv_context* context, ibv_async_event* event);
  void (*ack_async_event)(ibv_async_event* event);
  const char* (*wc_status_str)(ibv_wc_status status);
  const char* (*event_type_str)(ibv_event_type event);

  // Optional.
  int (*query_gid_ex)(ibv_context* context, uint32_t port, uint32_t index,
                      ibv_gid_entry* entry, uint32_t flags, size_t entry_size);
  int (*softnic_configure)(const char* text);
  int (*softnic_make_visible)();
  const char* (*softnic_last_error)();

  // Those that verbs.h has as inlines, through the context's own tables. Where
  // the provider has no such operation: EOPNOTSUPP (null, with errno set).
  static int QueryPort(ibv_context* context, uint8_t port, ibv_port_attr* attr);
  static int QueryDeviceEx(ibv_context* context, ibv_device_attr_ex* attr);
  static ibv_qp* CreateQpEx(ibv_context* context, ibv_qp_init_attr_ex* attr);
  static ibv_flow* CreateFlow(ibv_qp* qp, ibv_flow_attr* attr);
  static int DestroyFlow(ibv_flow* flow);

  // Data path.
  static int PollCq(ibv_cq* cq, int max, ibv_wc* wc) {
    return cq->context->ops.poll_cq(cq, max, wc);
  }
  static int ReqNotifyCq(ibv_cq* cq) {
    return cq->context->ops.req_notify_cq(cq, /*solicited_only=*/0);
  }
  static int PostSend(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** bad_wr) {
    return qp->context->ops.post_send(qp, wr, bad_wr);
  }
  static int PostRecv(ibv_qp* qp, ibv_recv_wr* wr, ibv_recv_wr** bad_wr) {
    return qp->context->ops.post_recv(qp, wr, bad_wr);
  }
};

// What a destroying call answered: it is done, or the device has gone (EIO) and
// its objects with it. Anything else is a bug of ours: something still uses it.
constexpr bool IsDestroyed(int rc) { return rc == 0 || rc == EIO; }

// Loads `name`, else what DEVWIRE_VERBS_LIBRARY names, else libibverbs.so.1,
// with RTLD_LOCAL. A second call with the same name, or with none, is a no-op.
// NotFound: no such library; Unimplemented: it lacks a symbol;
// FailedPrecondition: this process has already loaded another.
absl::Status LoadVerbsLibrary(std::string_view name = {});

// The loaded library's entry points. CHECKs that there is one.
const VerbsTable& verbs();

// Null before LoadVerbsLibrary has succeeded: for what works without a NIC.
const VerbsTable* verbs_if_loaded();

// The name it was loaded by; empty before.
std::string VerbsLibraryName();

// "Operation not supported (EOPNOTSUPP)", plus the library's own words for it
// where it has them. For messages about a call that failed just now.
std::string VerbsErrorText(int error);

}  // namespace devwire

#endif  // MEMREG_VERBS_LIBRARY_H_
