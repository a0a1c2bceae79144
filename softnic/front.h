// The handles that applications hold, and the devices behind them.
//
// Every handle begins with the struct that verbs.h shows, so that a pointer to
// the one is a pointer to the other. Some are larger than verbs.h says: a cq is
// always an ibv_cq_ex and a qp an ibv_qp_ex, as in libibverbs.
//
// Threads:  control calls take FrontDevice::mutex; data calls the queue's
//           (see Backend::data_mutex).
// Lifetime: FrontDevices live as long as the process; the others from create to
//           destroy.
#ifndef SOFTNIC_FRONT_H_
#define SOFTNIC_FRONT_H_

#include <infiniband/verbs.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "softnic/backend.h"
#include "softnic/config.h"
#include "softnic/device_core.h"
#include "softnic/queue_layout.h"

namespace softnic {

struct FrontQp;
struct FrontCq;

struct FrontDevice {
  ibv_device base = {};
  // libmlx5 and others look at what rdma-core's private verbs_device has
  // behind ibv_device, to see whose it is: zeros say "not yours".
  uint64_t private_part[32] = {};

  std::mutex mutex;  // all below but qps
  DeviceConfig config;
  std::vector<std::string> texts;  // the configuration texts, in order
  bool is_listed = true;           // by the configuration of now
  int open_contexts = 0;
  std::unique_ptr<Backend> backend;  // while open
  std::atomic<int64_t> late_gather_ns{0};
  // By number; read by ibv_poll_cq without `mutex`.
  std::array<std::atomic<FrontQp*>, DeviceCore::kMaxQps> qps = {};
  std::map<uint32_t, FrontCq*> cqs;  // by number
};

struct FrontContext {
  verbs_context base = {};
  FrontDevice* device = nullptr;
  uint32_t object = 0;  // of the core
  uint64_t events_at = 0;
};

struct FrontChannel {
  ibv_comp_channel base = {};
  FrontDevice* device = nullptr;
  uint32_t object = 0;  // of the core
  uint64_t events_at = 0;
};

struct FrontPd {
  ibv_pd base = {};
  FrontDevice* device = nullptr;
  uint32_t number = 0;
  int users = 0;  // mrs and qps
};

struct FrontMr {
  ibv_mr base = {};
  FrontDevice* device = nullptr;
};

struct FrontCq {
  ibv_cq_ex base = {};
  FrontDevice* device = nullptr;
  Backend* backend = nullptr;
  std::mutex own_mutex;
  std::mutex* mutex = nullptr;
  uint32_t number = 0;
  CqLayout layout;
  CqHead* head = nullptr;
  Cqe* slots = nullptr;
  uint32_t mask = 0;
  uint32_t consumed = 0;
  // Guarded by EventMutex(), as the counts of verbs.h are.
  uint32_t events_acked = 0;       // async events
  uint32_t comp_events_given = 0;  // by ibv_get_cq_event

  ibv_cq* cq() { return reinterpret_cast<ibv_cq*>(&base); }
};

// One direction of a queue pair, as the front end keeps it.
struct FrontQueue {
  WorkQueueLayout layout;
  uint64_t bytes = 0;
  QueueHead* head = nullptr;
  std::byte* slots = nullptr;
  uint32_t produced = 0;
  std::atomic<uint32_t> retired{0};  // slots below it are free again

  bool is_full() const {
    return produced - retired.load(std::memory_order_acquire) >= layout.depth;
  }
  template <typename T>
  T* Next() const {
    return reinterpret_cast<T*>(
        slots +
        static_cast<size_t>(produced & (layout.depth - 1)) * layout.slot_bytes);
  }
  void Publish() { head->produced.store(produced, std::memory_order_release); }
};

struct FrontQp {
  ibv_qp_ex base = {};
  FrontDevice* device = nullptr;
  FrontContext* context = nullptr;
  Backend* backend = nullptr;
  FrontCq* send_cq = nullptr;
  FrontCq* recv_cq = nullptr;
  FrontPd* pd = nullptr;
  std::mutex own_send_mutex;
  std::mutex own_recv_mutex;
  std::mutex* send_mutex = nullptr;
  std::mutex* recv_mutex = nullptr;
  uint32_t number = 0;
  FrontQueue send;
  FrontQueue recv;
  ibv_qp_cap cap = {};
  uint16_t max_tso_header = 0;
  bool signals_all = false;
  // What mlx5 learns when the port is set (IBV_QP_PORT in ibv_modify_qp).
  bool has_checksum = false;
  bool has_tso = false;
  uint8_t port = 0;
  uint32_t events_acked = 0;  // async events; guarded by event_mutex

  ibv_qp* qp() { return &base.qp_base; }
};

struct FrontFlow {
  ibv_flow base = {};
  FrontDevice* device = nullptr;
};

inline FrontDevice* DeviceOf(ibv_device* d) {
  return reinterpret_cast<FrontDevice*>(d);
}
inline FrontContext* ContextOf(ibv_context* c) {
  return reinterpret_cast<FrontContext*>(reinterpret_cast<std::byte*>(c) -
                                         offsetof(verbs_context, context));
}
inline FrontPd* PdOf(ibv_pd* p) { return reinterpret_cast<FrontPd*>(p); }
inline FrontMr* MrOf(ibv_mr* m) { return reinterpret_cast<FrontMr*>(m); }
inline FrontCq* CqOf(ibv_cq* c) { return reinterpret_cast<FrontCq*>(c); }
inline FrontChannel* ChannelOf(ibv_comp_channel* c) {
  return reinterpret_cast<FrontChannel*>(c);
}
inline FrontQp* QpOf(ibv_qp* q) { return reinterpret_cast<FrontQp*>(q); }
inline FrontFlow* FlowOf(ibv_flow* f) {
  return reinterpret_cast<FrontFlow*>(f);
}

// Fails a call that returns a pointer.
inline std::nullptr_t Fail(int error) {
  errno = error;
  return nullptr;
}

// Whether a handle goes after its destroying command was answered so: with EIO
// the device is gone, and what it had with it.
constexpr bool IsDestroyed(int error) { return error == 0 || error == EIO; }

// abi_post.cc
int PostSend(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** bad);
int PostRecv(ibv_qp* qp, ibv_recv_wr* wr, ibv_recv_wr** bad);
// abi_cq.cc
int PollCq(ibv_cq* cq, int count, ibv_wc* wc);
int ReqNotifyCq(ibv_cq* cq, int solicited_only);
// Makes the entries of this queue pair invisible.
void CleanCq(FrontCq* cq, uint32_t qp_num);
// abi_qp.cc
ibv_qp* CreateQpEx(ibv_context* context, ibv_qp_init_attr_ex* attr);
// abi_flow.cc
ibv_flow* CreateFlow(ibv_qp* qp, ibv_flow_attr* attr);
int DestroyFlow(ibv_flow* flow);
// abi_device.cc
int QueryDeviceEx(ibv_context* context, const ibv_query_device_ex_input* input,
                  ibv_device_attr_ex* attr, size_t attr_size);
int QueryPort(ibv_context* context, uint8_t port, ibv_port_attr* attr,
              size_t attr_bytes);
// abi_event.cc: waits until the application has acknowledged every event of the
// object that it was given.
void WaitForAcks(const uint32_t* acked, const uint32_t* given);
// An object's count of acknowledged events has grown.
void OnAck();
// Guards the counts of events given and acknowledged.
std::mutex& EventMutex();

// The process holds CAP_NET_RAW (capabilities(7)).
bool HasCapNetRaw();

}  // namespace softnic

#endif  // SOFTNIC_FRONT_H_
