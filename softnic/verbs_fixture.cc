#include "softnic/verbs_fixture.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "base/clock.h"
#include "softnic/packet.h"

namespace softnic {
namespace {

template <typename F>
void Look(void* library, const char* name, F* f) {
  *f = reinterpret_cast<F>(dlsym(library, name));
  CHECK(*f != nullptr) << "libsoftnic.so lacks " << name;
}

}  // namespace

std::string LibraryPath() {
  const char* root = getenv("TEST_SRCDIR");
  return (root == nullptr ? std::string("bazel-bin")
                          : std::string(root) + "/devwire") +
         "/softnic/libsoftnic.so";
}

const VerbsTable& Verbs() {
  static const VerbsTable table = [] {
    void* library = dlopen(LibraryPath().c_str(), RTLD_NOW | RTLD_LOCAL);
    CHECK(library != nullptr) << dlerror();
    VerbsTable t = {};
    Look(library, "ibv_get_device_list", &t.get_device_list);
    Look(library, "ibv_free_device_list", &t.free_device_list);
    Look(library, "ibv_get_device_name", &t.get_device_name);
    Look(library, "ibv_open_device", &t.open_device);
    Look(library, "ibv_close_device", &t.close_device);
    Look(library, "ibv_query_device", &t.query_device);
    Look(library, "ibv_query_gid", &t.query_gid);
    Look(library, "ibv_alloc_pd", &t.alloc_pd);
    Look(library, "ibv_dealloc_pd", &t.dealloc_pd);
    Look(library, "ibv_reg_mr", &t.reg_mr);
    Look(library, "ibv_reg_mr_iova2", &t.reg_mr_iova2);
    Look(library, "ibv_reg_dmabuf_mr", &t.reg_dmabuf_mr);
    Look(library, "ibv_dereg_mr", &t.dereg_mr);
    Look(library, "ibv_create_cq", &t.create_cq);
    Look(library, "ibv_destroy_cq", &t.destroy_cq);
    Look(library, "ibv_create_qp", &t.create_qp);
    Look(library, "ibv_modify_qp", &t.modify_qp);
    Look(library, "ibv_query_qp", &t.query_qp);
    Look(library, "ibv_destroy_qp", &t.destroy_qp);
    Look(library, "ibv_get_async_event", &t.get_async_event);
    Look(library, "ibv_ack_async_event", &t.ack_async_event);
    Look(library, "ibv_create_comp_channel", &t.create_comp_channel);
    Look(library, "ibv_destroy_comp_channel", &t.destroy_comp_channel);
    Look(library, "ibv_get_cq_event", &t.get_cq_event);
    Look(library, "ibv_ack_cq_events", &t.ack_cq_events);
    Look(library, "softnic_configure", &t.configure);
    Look(library, "softnic_last_error", &t.last_error);
    Look(library, "softnic_make_visible", &t.make_visible);
    Look(library, "softnic_query_counters", &t.query_counters);
    return t;
  }();
  return table;
}

void DeviceBuffer::Write(size_t at, const void* data, size_t n) const {
  CHECK_EQ(pwrite(fd, data, n, static_cast<off_t>(at)),
           static_cast<ssize_t>(n));
}

std::vector<std::byte> DeviceBuffer::Read(size_t at, size_t n) const {
  std::vector<std::byte> out(n);
  CHECK_EQ(pread(fd, out.data(), n, static_cast<off_t>(at)),
           static_cast<ssize_t>(n));
  return out;
}

Nic::Nic(const std::string& name) : name_(name) {
  int count = 0;
  ibv_device** list = Verbs().get_device_list(&count);
  CHECK(list != nullptr) << Verbs().last_error();
  for (int i = 0; i < count; ++i) {
    if (name == Verbs().get_device_name(list[i])) {
      context_ = Verbs().open_device(list[i]);
      CHECK(context_ != nullptr) << name << ": " << Verbs().last_error();
    }
  }
  Verbs().free_device_list(list);
  CHECK(context_ != nullptr) << "no device " << name;
  pd_ = Verbs().alloc_pd(context_);
  cq_ = Verbs().create_cq(context_, 8191, nullptr, nullptr, 0);
  CHECK(cq_ != nullptr);
}

Nic::~Nic() {
  for (ibv_flow* flow : flows_) CHECK_EQ(ibv_destroy_flow(flow), 0);
  for (ibv_qp* qp : qps_) CHECK_EQ(Verbs().destroy_qp(qp), 0);
  CHECK_EQ(Verbs().destroy_cq(cq_), 0);
  if (channel_ != nullptr) {
    CHECK_EQ(Verbs().destroy_comp_channel(channel_), 0);
  }
  for (ibv_mr* mr : mrs_) CHECK_EQ(Verbs().dereg_mr(mr), 0);
  CHECK_EQ(Verbs().dealloc_pd(pd_), 0);
  CHECK_EQ(Verbs().close_device(context_), 0);
  for (int fd : fds_) close(fd);
}

ibv_comp_channel* Nic::UseChannel() {
  CHECK(qps_.empty() && channel_ == nullptr);
  CHECK_EQ(Verbs().destroy_cq(cq_), 0);
  channel_ = Verbs().create_comp_channel(context_);
  CHECK(channel_ != nullptr);
  cq_ = Verbs().create_cq(context_, 1024, this, channel_, 0);
  CHECK(cq_ != nullptr);
  return channel_;
}

std::vector<uint8_t> Nic::mac() const {
  ibv_gid gid;
  CHECK_EQ(Verbs().query_gid(context_, 1, 0, &gid), 0);
  const uint8_t* e = gid.raw + 8;
  return {static_cast<uint8_t>(e[0] ^ 2), e[1], e[2], e[5], e[6], e[7]};
}

softnic_counters Nic::counters() const {
  softnic_counters c;
  CHECK_EQ(Verbs().query_counters(name_.c_str(), &c, sizeof(c)), 0);
  return c;
}

ibv_port_state Nic::PortState() const {
  // Not the inline ibv_query_port: it refers to the exported one.
  ibv_port_attr attr;
  CHECK_EQ(
      verbs_get_ctx(context_)->query_port(context_, 1, &attr, sizeof(attr)), 0);
  return attr.state;
}

HostBuffer Nic::Host(size_t bytes) {
  HostBuffer buffer;
  buffer.bytes.resize(bytes);
  buffer.mr =
      Verbs().reg_mr(pd_, buffer.bytes.data(), bytes, IBV_ACCESS_LOCAL_WRITE);
  CHECK(buffer.mr != nullptr) << strerror(errno);
  mrs_.push_back(buffer.mr);
  return buffer;
}

DeviceBuffer Nic::Device(size_t bytes) {
  DeviceBuffer buffer;
  buffer.fd = memfd_create("device", MFD_CLOEXEC);
  CHECK(buffer.fd >= 0);
  CHECK_EQ(ftruncate(buffer.fd, static_cast<off_t>(bytes)), 0);
  buffer.bytes = bytes;
  // Nothing is ever mapped there: a non-canonical address.
  buffer.iova = 0xdead'0000'0000'0000;
  buffer.mr = Verbs().reg_dmabuf_mr(pd_, 0, bytes, buffer.iova, buffer.fd,
                                    IBV_ACCESS_LOCAL_WRITE);
  CHECK(buffer.mr != nullptr) << strerror(errno);
  mrs_.push_back(buffer.mr);
  fds_.push_back(buffer.fd);
  return buffer;
}

ibv_qp* Nic::TryQp(const QpOptions& o) {
  ibv_qp_init_attr_ex attr = {};
  attr.send_cq = attr.recv_cq = cq_;
  attr.cap = {o.depth, o.depth, o.max_sge, o.max_sge, o.max_inline};
  attr.qp_type = IBV_QPT_RAW_PACKET;
  attr.pd = pd_;
  attr.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS;
  attr.create_flags = o.create_flags;
  if (o.max_tso_header > 0) {
    attr.comp_mask |= IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
    attr.max_tso_header = o.max_tso_header;
  }
  // The inline function would refer to the exported ibv_create_qp, which this
  // program is not linked with.
  return verbs_get_ctx(context_)->create_qp_ex(context_, &attr);
}

ibv_qp* Nic::Qp(const QpOptions& options) {
  ibv_qp* qp = TryQp(options);
  CHECK(qp != nullptr) << strerror(errno);
  qps_.push_back(qp);
  for (ibv_qp_state s : {IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
    if (options.state == IBV_QPS_RESET || qp->state == options.state) break;
    CHECK_EQ(Modify(qp, s), 0);
  }
  return qp;
}

int Nic::Modify(ibv_qp* qp, ibv_qp_state state) {
  ibv_qp_attr attr = {};
  attr.qp_state = state;
  attr.port_num = 1;
  const int port = state == IBV_QPS_INIT ? IBV_QP_PORT : 0;
  return Verbs().modify_qp(qp, &attr, IBV_QP_STATE | port);
}

ibv_qp_state Nic::StateOf(ibv_qp* qp) const {
  ibv_qp_attr attr;
  ibv_qp_init_attr init;
  CHECK_EQ(Verbs().query_qp(qp, &attr, IBV_QP_STATE, &init), 0);
  return attr.qp_state;
}

ibv_flow* Nic::TakeAll(ibv_qp* qp, uint16_t priority) {
  struct {
    ibv_flow_attr attr;
    ibv_flow_spec_eth eth;
  } rule = {};
  rule.attr.size = sizeof(rule);
  rule.attr.num_of_specs = 1;
  rule.attr.port = 1;
  rule.attr.priority = priority;
  rule.eth.type = IBV_FLOW_SPEC_ETH;
  rule.eth.size = sizeof(rule.eth);
  memcpy(rule.eth.val.dst_mac, mac().data(), 6);
  memset(rule.eth.mask.dst_mac, 0xff, 6);
  ibv_flow* flow = ibv_create_flow(qp, &rule.attr);
  CHECK(flow != nullptr) << strerror(errno);
  flows_.push_back(flow);
  return flow;
}

void Nic::Remove(ibv_flow* flow) {
  CHECK_EQ(ibv_destroy_flow(flow), 0);
  std::erase(flows_, flow);
}

void Nic::Destroy(ibv_qp* qp) {
  CHECK_EQ(Verbs().destroy_qp(qp), 0);
  std::erase(qps_, qp);
}

int Nic::Send(ibv_qp* qp, uint64_t wr_id, std::vector<ibv_sge> sges,
              unsigned flags) {
  ibv_send_wr wr = {};
  wr.wr_id = wr_id;
  wr.sg_list = sges.data();
  wr.num_sge = static_cast<int>(sges.size());
  wr.opcode = IBV_WR_SEND;
  wr.send_flags = flags;
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, &wr, &bad);
}

int Nic::Recv(ibv_qp* qp, uint64_t wr_id, std::vector<ibv_sge> sges) {
  ibv_recv_wr wr = {};
  wr.wr_id = wr_id;
  wr.sg_list = sges.data();
  wr.num_sge = static_cast<int>(sges.size());
  ibv_recv_wr* bad = nullptr;
  return ibv_post_recv(qp, &wr, &bad);
}

std::vector<ibv_wc> Nic::Poll(int max) {
  std::vector<ibv_wc> wcs(static_cast<size_t>(max));
  const int n = ibv_poll_cq(cq_, max, wcs.data());
  CHECK(n >= 0);
  wcs.resize(static_cast<size_t>(n));
  return wcs;
}

std::vector<ibv_wc> Nic::Await(size_t count) {
  std::vector<ibv_wc> all;
  Eventually([&] {
    for (const ibv_wc& wc : Poll()) all.push_back(wc);
    return all.size() >= count;
  });
  return all;
}

bool Eventually(const std::function<bool()>& f) {
  const devwire::MonotonicClock clock;
  const devwire::Instant until =
      clock.Now() + devwire::Duration::Nanoseconds(10'000'000'000);
  while (!f()) {
    if (clock.Now() > until) return false;
  }
  return true;
}

std::string CablePath(const std::string& name) {
  // Not under TEST_TMPDIR: a socket's path is short, sun_path of unix(7).
  struct Folder {
    Folder() { CHECK(mkdtemp(path) != nullptr); }
    ~Folder() { std::filesystem::remove_all(path); }
    char path[32] = "/tmp/softnic-XXXXXX";
  };
  static const Folder folder;
  return std::string(folder.path) + "/" + name;
}

std::vector<std::byte> MakeHeader(const std::vector<uint8_t>& dst,
                                  const std::vector<uint8_t>& src, bool is_tcp,
                                  uint32_t payload_bytes) {
  const uint32_t l4 = is_tcp ? 20 : 8;
  std::vector<std::byte> h(kEthernetBytes + 20 + l4);
  memcpy(h.data(), dst.data(), 6);
  memcpy(h.data() + 6, src.data(), 6);
  Store16(h.data() + 12, 0x0800);
  std::byte* ip = h.data() + kEthernetBytes;
  ip[0] = std::byte{0x45};
  Store16(ip + 2, static_cast<uint16_t>(20 + l4 + payload_bytes));
  ip[8] = std::byte{64};
  ip[9] = is_tcp ? std::byte{6} : std::byte{17};
  Store32(ip + 12, 0x0a000001);
  Store32(ip + 16, 0x0a000002);
  std::byte* p = ip + 20;
  Store16(p, 1000);
  Store16(p + 2, 2000);
  if (is_tcp) {
    Store32(p + 4, 1);
    Store32(p + 8, 1);
    p[12] = std::byte{0x50};
    p[13] = std::byte{0x18};
    Store16(p + 14, 65535);
  } else {
    Store16(p + 4, static_cast<uint16_t>(8 + payload_bytes));
  }
  return h;
}

}  // namespace softnic
