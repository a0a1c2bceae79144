// What the tests of softnic share: the library loaded at run time, as Devwire
// loads it, and two devices with queue pairs and memory.
//
// Threads: one. Failures of the set-up are CHECKs: there is no test without it.
#ifndef SOFTNIC_VERBS_FIXTURE_H_
#define SOFTNIC_VERBS_FIXTURE_H_

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "softnic/softnic.h"

namespace softnic {

// The exported functions that are not reached through a context.
struct VerbsTable {
  decltype(&::ibv_get_device_list) get_device_list;
  decltype(&::ibv_free_device_list) free_device_list;
  decltype(&::ibv_get_device_name) get_device_name;
  decltype(&::ibv_open_device) open_device;
  decltype(&::ibv_close_device) close_device;
  decltype(&::ibv_query_device) query_device;
  decltype(&::ibv_query_gid) query_gid;
  decltype(&::ibv_alloc_pd) alloc_pd;
  decltype(&::ibv_dealloc_pd) dealloc_pd;
  ibv_mr* (*reg_mr)(ibv_pd*, void*, size_t, int);
  decltype(&::ibv_reg_mr_iova2) reg_mr_iova2;
  decltype(&::ibv_reg_dmabuf_mr) reg_dmabuf_mr;
  decltype(&::ibv_dereg_mr) dereg_mr;
  decltype(&::ibv_create_cq) create_cq;
  decltype(&::ibv_destroy_cq) destroy_cq;
  decltype(&::ibv_create_qp) create_qp;
  decltype(&::ibv_modify_qp) modify_qp;
  decltype(&::ibv_query_qp) query_qp;
  decltype(&::ibv_destroy_qp) destroy_qp;
  decltype(&::ibv_get_async_event) get_async_event;
  decltype(&::ibv_ack_async_event) ack_async_event;
  decltype(&::ibv_create_comp_channel) create_comp_channel;
  decltype(&::ibv_destroy_comp_channel) destroy_comp_channel;
  decltype(&::ibv_get_cq_event) get_cq_event;
  decltype(&::ibv_ack_cq_events) ack_cq_events;
  decltype(&::softnic_configure) configure;
  decltype(&::softnic_last_error) last_error;
  decltype(&::softnic_make_visible) make_visible;
  decltype(&::softnic_query_counters) query_counters;
};

// Loads libsoftnic.so once.
const VerbsTable& Verbs();
// Where it lies.
std::string LibraryPath();

// A memfd, registered as a dmabuf at an iova that is never mapped. Filled and
// read with pwrite and pread.
struct DeviceBuffer {
  int fd = -1;
  uint64_t iova = 0;
  size_t bytes = 0;
  ibv_mr* mr = nullptr;

  void Write(size_t at, const void* data, size_t n) const;
  std::vector<std::byte> Read(size_t at, size_t n) const;
  ibv_sge Sge(uint64_t at, uint32_t n) const {
    return {iova + at, n, mr->lkey};
  }
};

struct HostBuffer {
  std::vector<std::byte> bytes;
  ibv_mr* mr = nullptr;

  ibv_sge Sge(size_t at, uint32_t n) const {
    return {reinterpret_cast<uint64_t>(bytes.data()) + at, n, mr->lkey};
  }
};

// One device, opened, with a pd and a cq. Everything made through it is
// destroyed with it, in the right order.
class Nic {
 public:
  explicit Nic(const std::string& name);
  ~Nic();
  Nic(const Nic&) = delete;
  Nic& operator=(const Nic&) = delete;

  ibv_context* context() const { return context_; }
  ibv_pd* pd() const { return pd_; }
  ibv_cq* cq() const { return cq_; }
  const std::string& name() const { return name_; }
  // From here on the cq is one with a channel. Before the first queue pair.
  ibv_comp_channel* UseChannel();
  std::vector<uint8_t> mac() const;
  softnic_counters counters() const;
  ibv_port_state PortState() const;

  HostBuffer Host(size_t bytes);
  DeviceBuffer Device(size_t bytes);

  struct QpOptions {
    uint32_t depth = 64;
    uint32_t max_sge = 4;
    uint32_t create_flags = 0;
    uint16_t max_tso_header = 0;
    uint32_t max_inline = 0;
    ibv_qp_state state = IBV_QPS_RTS;
  };
  ibv_qp* Qp(const QpOptions& options);
  ibv_qp* Qp() { return Qp(QpOptions{}); }
  // Null with errno set.
  ibv_qp* TryQp(const QpOptions& options);
  int Modify(ibv_qp* qp, ibv_qp_state state);
  ibv_qp_state StateOf(ibv_qp* qp) const;

  // Takes every frame to this device's address, at `priority`.
  ibv_flow* TakeAll(ibv_qp* qp, uint16_t priority = 3);
  void Remove(ibv_flow* flow);
  void Destroy(ibv_qp* qp);

  int Send(ibv_qp* qp, uint64_t wr_id, std::vector<ibv_sge> sges,
           unsigned flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM);
  int Recv(ibv_qp* qp, uint64_t wr_id, std::vector<ibv_sge> sges);
  // What is there now.
  std::vector<ibv_wc> Poll(int max = 64);
  // Polls until `count` completions are there, ten seconds at most.
  std::vector<ibv_wc> Await(size_t count);

 private:
  const std::string name_;
  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_cq* cq_ = nullptr;
  ibv_comp_channel* channel_ = nullptr;
  std::vector<ibv_qp*> qps_;
  std::vector<ibv_flow*> flows_;
  std::vector<ibv_mr*> mrs_;
  std::vector<int> fds_;
};

// Calls `f` until it is true, ten seconds at most.
bool Eventually(const std::function<bool()>& f);

// A path for a cable that nobody else uses.
std::string CablePath(const std::string& name);

// An Ethernet, IPv4 and UDP or TCP header over `payload` bytes; checksums are
// left to the device.
std::vector<std::byte> MakeHeader(const std::vector<uint8_t>& dst,
                                  const std::vector<uint8_t>& src, bool is_tcp,
                                  uint32_t payload_bytes);

}  // namespace softnic

#endif  // SOFTNIC_VERBS_FIXTURE_H_
