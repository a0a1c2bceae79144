// Set-up: what the device says of itself, and every refusal with its errno.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "softnic/cable_fixture.h"
#include "softnic/verbs_fixture.h"

namespace softnic {
namespace {

INSTANTIATE_TEST_SUITE_P(Modes, Cable,
                         testing::Values("inline", "thread", "process"),
                         ModeName);

constexpr int kWrite = IBV_ACCESS_LOCAL_WRITE;

ibv_device_attr_ex AttrOf(const Nic& nic) {
  ibv_device_attr_ex attr;
  EXPECT_EQ(verbs_get_ctx(nic.context())
                ->query_device_ex(nic.context(), nullptr, &attr, sizeof(attr)),
            0);
  return attr;
}

// What a device says agrees with how it was configured.
TEST_P(Cable, SaysWhatItCan) {
  Plug("mtu=9000,mac=02:00:00:00:00:0a,ip=10.1.2.3+fd00::1",
       "max_sge=1,rx_csum=0,tx_csum=0,tso=0,vlan_strip=0,max_qp_wr=128");
  const ibv_device_attr_ex a = AttrOf(*a_);
  EXPECT_EQ(a.orig_attr.max_sge, 30);
  EXPECT_EQ(a.orig_attr.phys_port_cnt, 1);
  EXPECT_NE(a.orig_attr.device_cap_flags & IBV_DEVICE_RAW_IP_CSUM, 0u);
  EXPECT_EQ(a.raw_packet_caps, uint32_t{IBV_RAW_PACKET_CAP_IP_CSUM |
                                        IBV_RAW_PACKET_CAP_CVLAN_STRIPPING});
  EXPECT_EQ(a.tso_caps.max_tso, 256u << 10);
  EXPECT_EQ(a.tso_caps.supported_qpts, 1u << IBV_QPT_RAW_PACKET);
  const ibv_device_attr_ex b = AttrOf(*b_);
  EXPECT_EQ(b.orig_attr.max_sge, 1);
  EXPECT_EQ(b.orig_attr.max_qp_wr, 128);
  EXPECT_EQ(b.orig_attr.device_cap_flags, 0u);
  EXPECT_EQ(b.raw_packet_caps, 0u);
  EXPECT_EQ(b.tso_caps.max_tso, 0u);

  ibv_port_attr port;
  verbs_context* v = verbs_get_ctx(a_->context());
  ASSERT_EQ(v->query_port(a_->context(), 1, &port, sizeof(port)), 0);
  EXPECT_EQ(port.state, IBV_PORT_ACTIVE);
  EXPECT_EQ(port.link_layer, IBV_LINK_LAYER_ETHERNET);
  EXPECT_EQ(port.gid_tbl_len, 3);
  EXPECT_EQ(port.active_mtu, IBV_MTU_4096);
  EXPECT_EQ(v->query_port(a_->context(), 2, &port, sizeof(port)), EINVAL);

  ibv_gid gid;
  EXPECT_EQ(a_->mac(), (std::vector<uint8_t>{2, 0, 0, 0, 0, 10}));
  ASSERT_EQ(Verbs().query_gid(a_->context(), 1, 1, &gid), 0);
  const uint8_t mapped[16] = {0, 0, 0,    0,    0,  0, 0, 0,
                              0, 0, 0xff, 0xff, 10, 1, 2, 3};
  EXPECT_EQ(memcmp(gid.raw, mapped, 16), 0);
  EXPECT_NE(Verbs().query_gid(a_->context(), 1, 3, &gid), 0);
  EXPECT_EQ(errno, EINVAL);
}

TEST_P(Cable, RefusesQueuePairsItDoesNotHave) {
  Plug("max_sge=2,max_qp_wr=256", "raw=0,vlan_strip=0,tso=0");
  const auto fails = [](Nic* nic, const Nic::QpOptions& options) {
    errno = 0;
    EXPECT_EQ(nic->TryQp(options), nullptr);
    return errno;
  };
  EXPECT_EQ(fails(a_.get(), {.max_sge = 3}), EINVAL);
  EXPECT_EQ(fails(a_.get(), {.depth = 257, .max_sge = 1}), EINVAL);
  EXPECT_EQ(fails(a_.get(), {.max_sge = 1, .max_inline = 513}), EINVAL);
  EXPECT_EQ(fails(a_.get(), {.max_sge = 1, .max_tso_header = 257}), EINVAL);
  EXPECT_EQ(fails(a_.get(),
                  {.max_sge = 1, .create_flags = IBV_QP_CREATE_SCATTER_FCS}),
            EOPNOTSUPP);
  EXPECT_EQ(fails(b_.get(), {}), EOPNOTSUPP);  // no raw queue pairs at all

  ibv_qp_init_attr attr = {};
  attr.send_cq = attr.recv_cq = a_->cq();
  attr.cap = {1, 1, 1, 1, 0};
  attr.qp_type = IBV_QPT_RC;
  EXPECT_EQ(Verbs().create_qp(a_->pd(), &attr), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  attr.qp_type = IBV_QPT_RAW_PACKET;
  attr.recv_cq = nullptr;
  EXPECT_EQ(Verbs().create_qp(a_->pd(), &attr), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(Verbs().create_cq(a_->context(), 0, nullptr, nullptr, 0), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(Verbs().create_cq(a_->context(), 1, nullptr, nullptr, 1), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST_P(Cable, WithheldOffloadsAreRefusedAtUse) {
  Plug("tx_csum=0,tso=0,vlan_strip=0", "");
  ibv_qp* tx = a_->Qp();
  const HostBuffer from = a_->Host(64);
  EXPECT_EQ(a_->Send(tx, 1, {from.Sge(0, 64)}, IBV_SEND_IP_CSUM), EINVAL);
  EXPECT_EQ(a_->Send(tx, 1, {from.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
  EXPECT_EQ(a_->TryQp({.max_tso_header = 64}), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(a_->TryQp({.create_flags = IBV_QP_CREATE_CVLAN_STRIPPING}),
            nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
}

// CAP_NET_RAW is asked for where the configuration says so.
TEST_P(Cable, AsksForCapNetRaw) {
  Plug("require_cap_net_raw=1");
  const bool has_it = [] {
    std::ifstream status("/proc/self/status");
    std::string word;
    while (status >> word) {
      if (word != "CapEff:") continue;
      status >> word;
      return (std::stoull(word, nullptr, 16) >> 13 & 1) != 0;
    }
    return false;
  }();
  ibv_qp* qp = a_->TryQp({});
  if (has_it) {
    ASSERT_NE(qp, nullptr);
    EXPECT_EQ(Verbs().destroy_qp(qp), 0);
  } else {
    EXPECT_EQ(qp, nullptr);
    EXPECT_EQ(errno, EPERM);
  }
}

TEST_P(Cable, RefusesUnsoundRegions) {
  Plug("", "dmabuf=0");
  const int fd = memfd_create("device", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, 8192), 0);
  const auto reg = [&](Nic* nic, uint64_t offset, size_t length, uint64_t iova,
                       int f, int access) {
    errno = 0;
    EXPECT_EQ(Verbs().reg_dmabuf_mr(nic->pd(), offset, length, iova, f, access),
              nullptr);
    return errno;
  };
  Nic* a = a_.get();
  EXPECT_EQ(reg(a, 0, 8193, 0x1000, fd, kWrite), EINVAL);  // beyond its end
  EXPECT_EQ(reg(a, 4096, 8192, 0x1000, fd, kWrite), EINVAL);
  EXPECT_EQ(reg(a, 0, 0, 0x1000, fd, kWrite), EINVAL);
  EXPECT_EQ(reg(a, 0, 4096, 0x1001, fd, kWrite), EINVAL);  // iova in its page
  EXPECT_EQ(reg(a, 0, 4096, 0x1000, fd, IBV_ACCESS_ON_DEMAND), EOPNOTSUPP);
  EXPECT_EQ(reg(a, 0, 4096, 0x1000, fd, IBV_ACCESS_REMOTE_WRITE), EINVAL);
  EXPECT_EQ(reg(a, 0, 4096, 0x1000, -1, kWrite), EBADF);
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  EXPECT_EQ(reg(a, 0, 4096, 0x1000, pipe_fds[0], kWrite), EINVAL);
  EXPECT_EQ(reg(b_.get(), 0, 4096, 0x1000, fd, kWrite), EOPNOTSUPP);
  Configure("dev=a,dmabuf_refuse=1");
  EXPECT_EQ(reg(a, 0, 4096, 0x1000, fd, kWrite), EINVAL);
  Configure("dev=a,dmabuf_refuse=0");
  // The descriptor may be closed at once; addr is the offset.
  ibv_mr* mr = Verbs().reg_dmabuf_mr(a->pd(), 4096, 4096, 0x7000, fd, kWrite);
  ASSERT_NE(mr, nullptr);
  for (int f : {fd, pipe_fds[0], pipe_fds[1]}) close(f);
  EXPECT_EQ(mr->addr, reinterpret_cast<void*>(4096));
  EXPECT_EQ(Verbs().dereg_mr(mr), 0);

  // Host memory must be there, and be writable if the device may write.
  void* pages =
      mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_EQ(Verbs().reg_mr(a->pd(), pages, 8192, kWrite), nullptr);
  EXPECT_EQ(errno, EFAULT);
  mr = Verbs().reg_mr(a->pd(), pages, 8192, 0);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(Verbs().dereg_mr(mr), 0);
  munmap(pages, 8192);
  EXPECT_EQ(Verbs().reg_mr(a->pd(), pages, 8192, 0), nullptr);
  EXPECT_EQ(errno, EFAULT);
  std::vector<std::byte> memory(64);
  EXPECT_EQ(Verbs().reg_mr(a->pd(), memory.data(), 0, kWrite), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(Verbs().reg_mr(a->pd(), memory.data(), 64, IBV_ACCESS_REMOTE_WRITE),
            nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(Verbs().reg_mr(a->pd(), memory.data(), 64, IBV_ACCESS_ON_DEMAND),
            nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  // Optional access that we do not know is ignored, ibv_reg_mr(3).
  mr = Verbs().reg_mr_iova2(a->pd(), memory.data(), 64, 0x1000,
                            kWrite | (1u << 29) | IBV_ACCESS_RELAXED_ORDERING);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(Verbs().dereg_mr(mr), 0);
}

// What is in use is not destroyed.
TEST_P(Cable, BusyObjectsStay) {
  Plug("");
  ibv_qp* qp = a_->Qp();
  EXPECT_EQ(Verbs().destroy_cq(a_->cq()), EBUSY);
  EXPECT_EQ(Verbs().dealloc_pd(a_->pd()), EBUSY);
  ibv_flow* flow = a_->TakeAll(qp);
  EXPECT_EQ(Verbs().destroy_qp(qp), EBUSY);
  a_->Remove(flow);
}

// The states of a raw queue pair, and what may be posted in each.
TEST_P(Cable, QueuePairStates) {
  Plug("");
  ibv_qp* qp = a_->Qp({.depth = 4, .max_sge = 2, .state = IBV_QPS_RESET});
  const HostBuffer m = a_->Host(64);
  const std::vector<ibv_sge> sge = {m.Sge(0, 64)};
  EXPECT_EQ(a_->Recv(qp, 1, sge), EINVAL);
  EXPECT_EQ(a_->Send(qp, 1, sge), EINVAL);
  EXPECT_EQ(a_->Modify(qp, IBV_QPS_RTR), EINVAL);
  EXPECT_EQ(a_->Modify(qp, IBV_QPS_RTS), EINVAL);
  ibv_qp_attr attr = {};
  attr.qp_state = IBV_QPS_INIT;
  EXPECT_EQ(Verbs().modify_qp(qp, &attr, IBV_QP_STATE), EINVAL);  // no port
  attr.port_num = 2;
  EXPECT_EQ(Verbs().modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PORT), EINVAL);
  attr.port_num = 1;
  EXPECT_EQ(Verbs().modify_qp(qp, &attr,
                              IBV_QP_STATE | IBV_QP_PORT | IBV_QP_PKEY_INDEX),
            EINVAL);
  ASSERT_EQ(a_->Modify(qp, IBV_QPS_INIT), 0);
  EXPECT_EQ(qp->state, IBV_QPS_INIT);
  EXPECT_EQ(a_->Recv(qp, 1, sge), 0);
  EXPECT_EQ(a_->Send(qp, 1, sge, IBV_SEND_SIGNALED), EINVAL);
  EXPECT_EQ(a_->Modify(qp, IBV_QPS_RTS), EINVAL);
  ASSERT_EQ(a_->Modify(qp, IBV_QPS_RTR), 0);
  EXPECT_EQ(a_->Send(qp, 1, sge, IBV_SEND_SIGNALED), EINVAL);
  ASSERT_EQ(a_->Modify(qp, IBV_QPS_RTS), 0);
  EXPECT_EQ(a_->Modify(qp, IBV_QPS_RTR), EINVAL);
  EXPECT_EQ(a_->Modify(qp, IBV_QPS_SQD), EINVAL);
  attr.qp_state = IBV_QPS_RTS;
  attr.rate_limit = 1000;
  EXPECT_EQ(Verbs().modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_RATE_LIMIT),
            EOPNOTSUPP);
  // Too many pieces, too much work.
  EXPECT_EQ(a_->Recv(qp, 1, {m.Sge(0, 1), m.Sge(0, 1), m.Sge(0, 1)}), EINVAL);
  EXPECT_EQ(a_->Send(qp, 1, {m.Sge(0, 1), m.Sge(0, 1), m.Sge(0, 1)}), EINVAL);
  for (uint64_t i = 2; i <= 4; ++i) EXPECT_EQ(a_->Recv(qp, i, sge), 0);
  EXPECT_EQ(a_->Recv(qp, 5, sge), ENOMEM);
  ibv_send_wr wr = {};
  wr.opcode = IBV_WR_RDMA_WRITE;
  ibv_send_wr* bad = nullptr;
  EXPECT_EQ(ibv_post_send(qp, &wr, &bad), EINVAL);
  EXPECT_EQ(bad, &wr);
  // ERR flushes, in order.
  ASSERT_EQ(a_->Modify(qp, IBV_QPS_ERR), 0);
  const std::vector<ibv_wc> got = a_->Await(4);
  ASSERT_EQ(got.size(), 4u);
  for (uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(got[i].wr_id, i + 1);
    EXPECT_EQ(got[i].status, IBV_WC_WR_FLUSH_ERR);
  }
  EXPECT_EQ(a_->Modify(qp, IBV_QPS_INIT), EINVAL);
  ASSERT_EQ(a_->Modify(qp, IBV_QPS_RESET), 0);
}

// RESET and destruction take unpolled completions with them.
TEST_P(Cable, CompletionsGoWithTheirQueuePair) {
  Plug("");
  ibv_qp* first = a_->Qp();
  ibv_qp* second = a_->Qp();
  const HostBuffer m = a_->Host(64);
  for (ibv_qp* qp : {first, second}) {
    ASSERT_EQ(a_->Recv(qp, qp->qp_num, {m.Sge(0, 64)}), 0);
    ASSERT_EQ(a_->Modify(qp, IBV_QPS_ERR), 0);
  }
  const uint32_t number = second->qp_num;
  a_->Destroy(first);
  const std::vector<ibv_wc> got = a_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].qp_num, number);
  ASSERT_EQ(a_->Recv(second, 1, {m.Sge(0, 64)}), 0);
  ASSERT_EQ(a_->Modify(second, IBV_QPS_RESET), 0);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(a_->Poll().empty());
}

// A device opened twice is one device: queues of both contexts work, and each
// context hears of the port.
TEST_P(Cable, TwoContextsOneDevice) {
  Plug("");
  Nic again("a");
  ibv_qp* first = a_->Qp();
  ibv_qp* second = again.Qp();
  EXPECT_NE(first->qp_num, second->qp_num);
  const HostBuffer m1 = a_->Host(64);
  const HostBuffer m2 = again.Host(64);
  ASSERT_EQ(a_->Send(first, 1, {m1.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
  ASSERT_EQ(again.Send(second, 2, {m2.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
  size_t done = 0;
  EXPECT_TRUE(Eventually([&] {
    b_->Poll();
    done += a_->Poll().size() + again.Poll().size();
    return done == 2;
  }));
  // A region of the one context is none of the other's.
  ASSERT_EQ(again.Send(second, 3, {m1.Sge(0, 64)}, IBV_SEND_SIGNALED), 0);
  const std::vector<ibv_wc> got = again.Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].status, IBV_WC_LOC_PROT_ERR);
  Configure("dev=a,link=down");
  for (Nic* nic : {a_.get(), &again}) {
    ibv_async_event event;
    ASSERT_EQ(Verbs().get_async_event(nic->context(), &event), 0);
    EXPECT_EQ(event.event_type, IBV_EVENT_PORT_ERR);
    Verbs().ack_async_event(&event);
  }
}

// A third end of a cable is refused by name.
TEST_P(Cable, ThirdEndIsRefused) {
  Plug("");
  std::string text = "dev=third,mode=";
  text += GetParam();
  text += ",port=shm:" + path_;
  // Three ends in one configuration are refused when it is read.
  EXPECT_EQ(Verbs().configure(text.c_str()), EINVAL);
  EXPECT_NE(strstr(Verbs().last_error(), "taken"), nullptr)
      << Verbs().last_error();
  // An end that another holds, when the device is opened. A cable that was
  // reached by another name is the same cable.
  text = "dev=third,mode=";
  text += GetParam();
  text += ",port=shm:" + CablePath("../") +
          CablePath("").substr(strlen("/tmp/")) + "cable";
  Configure(text);
  int count = 0;
  ibv_device** list = Verbs().get_device_list(&count);
  ASSERT_EQ(count, 3);
  EXPECT_EQ(Verbs().open_device(list[2]), nullptr);
  EXPECT_EQ(errno, EBUSY);
  EXPECT_NE(strstr(Verbs().last_error(), "port taken"), nullptr)
      << Verbs().last_error();
  Verbs().free_device_list(list);
}

// ---- Configuration of a running program.

class Configured : public testing::Test {
 protected:
  void TearDown() override {
    Verbs().configure(nullptr);
    unsetenv("SOFTNIC");
  }
  // The names of the devices, or "-" and errno.
  static std::string Names() {
    int count = 0;
    ibv_device** list = Verbs().get_device_list(&count);
    if (list == nullptr) return "-" + std::to_string(errno);
    std::string out;
    for (int i = 0; i < count; ++i) {
      out += std::string(Verbs().get_device_name(list[i])) + " ";
    }
    Verbs().free_device_list(list);
    return out;
  }
};

TEST_F(Configured, EnvironmentIsReadAtEveryList) {
  EXPECT_EQ(Names(), "");
  setenv("SOFTNIC", "dev=x1;dev=x2", 1);
  EXPECT_EQ(Names(), "x1 x2 ");
  setenv("SOFTNIC", "dev=x3", 1);
  EXPECT_EQ(Names(), "x3 ");
  const std::string file = CablePath("softnic.conf");
  std::ofstream(file) << "# devices\ndev=f1\n";
  setenv("SOFTNIC", ("@" + file).c_str(), 1);
  EXPECT_EQ(Names(), "f1 ");
  std::ofstream(file) << "dev=f1\ndev=f2,mtu=9000\n";
  EXPECT_EQ(Names(), "f1 f2 ");
}

TEST_F(Configured, MistakesAreNamed) {
  const std::pair<const char*, const char*> mistakes[] = {
      {"dev=x,colour=red", "colour"},
      {"dev=x,mac=02:00:00", "mac"},
      {"dev=x,loss=2", "loss"},
      {"@/nonexistent/softnic.conf", "/nonexistent/softnic.conf"},
  };
  for (const auto& [text, word] : mistakes) {
    setenv("SOFTNIC", text, 1);
    EXPECT_EQ(Names()[0], '-') << text;
    EXPECT_NE(strstr(Verbs().last_error(), word), nullptr)
        << Verbs().last_error();
    EXPECT_NE(Verbs().configure(text), 0);
  }
}

TEST_F(Configured, OpenDevicesChangeOnlyWhatMayChange) {
  ASSERT_EQ(Verbs().configure("dev=c1,mtu=9000"), 0);
  Nic nic("c1");
  EXPECT_EQ(nic.PortState(), IBV_PORT_DOWN);  // port=none
  EXPECT_EQ(Verbs().configure("dev=c1,mtu=1500"), EBUSY);
  EXPECT_NE(strstr(Verbs().last_error(), "mtu"), nullptr);
  EXPECT_EQ(Verbs().configure("dev=c1,loss=0.5"), 0);
  EXPECT_EQ(Verbs().configure("dev=c2"), 0);
  EXPECT_EQ(Names(), "c1 c2 ");
  softnic_counters counters;
  EXPECT_EQ(Verbs().query_counters("c2", &counters, sizeof(counters)), ENODEV);
  EXPECT_EQ(Verbs().query_counters("none", &counters, sizeof(counters)),
            ENODEV);
  EXPECT_EQ(Verbs().query_counters(nullptr, &counters, sizeof(counters)),
            EINVAL);
}

// A port that cannot be had is an error of ibv_open_device, in words.
TEST_F(Configured, BadPortsAreRefusedAtOpen) {
  for (const char* mode : {"inline", "process"}) {
    const std::string text = std::string("dev=p-") + mode + ",mode=" + mode +
                             ",port=shm:/nonexistent/folder/cable";
    ASSERT_EQ(Verbs().configure(text.c_str()), 0);
    int count = 0;
    ibv_device** list = Verbs().get_device_list(&count);
    ASSERT_GE(count, 1);
    EXPECT_EQ(Verbs().open_device(list[count - 1]), nullptr);
    EXPECT_EQ(errno, EIO);
    EXPECT_NE(strstr(Verbs().last_error(), "/nonexistent/folder/cable"),
              nullptr)
        << Verbs().last_error();
    Verbs().free_device_list(list);
  }
}

}  // namespace
}  // namespace softnic
