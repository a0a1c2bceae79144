// Processes: where device memory is mapped, who outlives whom, and what the
// steady state costs.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "base/alloc_guard.h"
#include "base/check.h"
#include "softnic/cable_fixture.h"
#include "softnic/verbs_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // gcc
#define SOFTNIC_SANITIZED
#elif defined(__has_feature)  // clang
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SOFTNIC_SANITIZED
#endif
#endif

namespace softnic {
namespace {

INSTANTIATE_TEST_SUITE_P(Modes, Cable,
                         testing::Values("inline", "thread", "process"),
                         ModeName);

// Addresses at which `fd`'s memory is mapped in this process.
std::vector<uint64_t> MappingsOf(int fd) {
  struct stat st;
  EXPECT_EQ(fstat(fd, &st), 0);
  std::vector<uint64_t> out;
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    unsigned long long start = 0;
    unsigned long long inode = 0;
    if (sscanf(line.c_str(), "%llx-%*x %*s %*x %*s %llu", &start, &inode) ==
            2 &&
        inode == st.st_ino && line.find("memfd:device") != line.npos) {
      out.push_back(start);
    }
  }
  return out;
}

std::vector<pid_t> ChildrenOf(pid_t pid) {
  const std::string p = std::to_string(pid);
  std::ifstream in("/proc/" + p + "/task/" + p + "/children");
  std::vector<pid_t> out;
  pid_t child = 0;
  while (in >> child) out.push_back(child);
  return out;
}

bool IsAlive(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string id, name, state;
  return static_cast<bool>(stat >> id >> name >> state) && state != "Z";
}

// A child that runs `f` and leaves; its exit status tells.
template <typename F>
pid_t Fork(F f) {
  fflush(stdout);
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) _exit(f());
  return pid;
}

int Wait(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

// Ends a child, at the latest when the test does.
class Killer {
 public:
  explicit Killer(pid_t pid) : pid_(pid) {}
  ~Killer() { Kill(); }
  void Kill() const {
    if (is_dead_) return;
    is_dead_ = true;
    kill(pid_, SIGKILL);
    Wait(pid_);
  }

 private:
  const pid_t pid_;
  mutable bool is_dead_ = false;
};

// In a device process device memory is mapped there alone, on both ends of the
// cable; inline, softnic maps it, but never at the iova.
TEST_P(Cable, WhereDeviceMemoryIsMapped) {
  Plug("mtu=9000");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer header = b_->Host(54);
  const DeviceBuffer payload = b_->Device(1 << 20);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(b_->Recv(rx, 1, {header.Sge(0, 54), payload.Sge(0, 9000)}), 0);
    ASSERT_EQ(SendFrame(tx, true, Pattern(8000)), 0);
    ASSERT_EQ(b_->Await(1).size(), 1u);
    ASSERT_EQ(a_->Await(1).size(), 1u);
    for (int fd : {payload.fd, device_.back().fd}) {
      const std::vector<uint64_t> at = MappingsOf(fd);
      if (strcmp(GetParam(), "process") == 0) {
        EXPECT_TRUE(at.empty());
      } else {
        // By its owner, and for reading by the other end.
        EXPECT_EQ(at.size(), 2u);
        for (uint64_t address : at) EXPECT_NE(address, payload.iova);
      }
    }
  }
  EXPECT_EQ(payload.Read(0, 8000), Pattern(8000));
}

// The cable does not know whether its ends are in one process: two processes,
// frames both ways, and the death of one.
TEST_P(Cable, TwoProcessesAndADeath) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  path_ = CablePath("two");
  const std::string common = std::string(",mode=") + GetParam() +
                             ",port=shm:" + path_ + ",mac=02:00:00:00:00:0";
  // The child sends every frame back until it is killed.
  const pid_t child = Fork([&] {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK_EQ(Verbs().configure(("dev=b" + common + "b").c_str()), 0);
    Nic b("b");
    ibv_qp* qp = b.Qp();
    b.TakeAll(qp);
    HostBuffer memory = b.Host(4 * 2048);
    const auto post = [&](uint64_t slot) {
      CHECK_EQ(b.Recv(qp, slot, {memory.Sge(slot * 2048, 2048)}), 0);
    };
    for (uint64_t slot = 0; slot < 4; ++slot) post(slot);
    CHECK_EQ(write(ready[1], "r", 1), 1);
    for (;;) {
      for (const ibv_wc& wc : b.Poll()) {
        if (wc.opcode == IBV_WC_SEND) {
          post(wc.wr_id);
          continue;
        }
        auto frame = memory.bytes.begin() + static_cast<long>(wc.wr_id) * 2048;
        std::swap_ranges(frame, frame + 6, frame + 6);
        CHECK_EQ(
            b.Send(qp, wc.wr_id, {memory.Sge(wc.wr_id * 2048, wc.byte_len)}),
            0);
      }
    }
    return 0;
  });
  const Killer killer(child);
  char c = 0;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  Configure("dev=a" + common + "a");
  a_ = std::make_unique<Nic>("a");
  ibv_qp* qp = a_->Qp();
  a_->TakeAll(qp);
  HostBuffer in = a_->Host(2048);
  const std::vector<uint8_t> peer = {2, 0, 0, 0, 0, 0xb};
  const std::vector<std::byte> data = Pattern(900);
  const DeviceBuffer out = a_->Device(4096);
  out.Write(0, data.data(), data.size());
  HostBuffer header = a_->Host(42);
  memcpy(header.bytes.data(), MakeHeader(peer, a_->mac(), false, 900).data(),
         42);
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(a_->Recv(qp, 1, {in.Sge(0, 2048)}), 0);
    ASSERT_EQ(a_->Send(qp, 2, {header.Sge(0, 42), out.Sge(0, 900)}), 0);
    ASSERT_EQ(a_->Await(2).size(), 2u) << i;
    ASSERT_EQ(memcmp(in.bytes.data() + 42, data.data(), 900), 0);
  }
  killer.Kill();
  EXPECT_TRUE(Eventually([&] {
    a_->Poll();
    return a_->PortState() == IBV_PORT_DOWN;
  }));
  // Sends complete all the same, and the free end can be taken again: a stale
  // socket or lock is in nobody's way.
  ASSERT_EQ(a_->Send(qp, 2, {header.Sge(0, 42), out.Sge(0, 900)}), 0);
  EXPECT_EQ(a_->Await(1).size(), 1u);
  Configure("dev=b" + common + "b");
  b_ = std::make_unique<Nic>("b");
  EXPECT_TRUE(Eventually([&] {
    a_->Poll();
    b_->Poll();
    return a_->PortState() == IBV_PORT_ACTIVE;
  }));
  close(ready[0]);
  close(ready[1]);
}

// A forked child's exit disturbs nothing in its parent.
TEST_P(Cable, ForkedChildLeaves) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  EXPECT_EQ(Wait(Fork([] { return 7; })), 7 << 8);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 2048)}), 0);
  ASSERT_EQ(SendFrame(tx, true, Pattern(100)), 0);
  EXPECT_EQ(b_->Await(1).size(), 1u);
  EXPECT_EQ(a_->PortState(), IBV_PORT_ACTIVE);
}

// Beside the system's libibverbs in one process: each answers for itself.
TEST_P(Cable, BesideTheSystemsLibrary) {
  void* system = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_GLOBAL);
  ASSERT_NE(system, nullptr) << dlerror();
  const auto list = reinterpret_cast<decltype(&ibv_get_device_list)>(
      dlsym(system, "ibv_get_device_list"));
  const auto free_list = reinterpret_cast<decltype(&ibv_free_device_list)>(
      dlsym(system, "ibv_free_device_list"));
  Plug("");
  int count = -1;
  ibv_device** devices = list(&count);
  for (int i = 0; i < count; ++i) EXPECT_STRNE(devices[i]->name, "a");
  if (devices != nullptr) free_list(devices);
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 2048)}), 0);
  ASSERT_EQ(SendFrame(tx, true, Pattern(100)), 0);
  EXPECT_EQ(b_->Await(1).size(), 1u);
  devices = list(&count);
  if (devices != nullptr) free_list(devices);
  dlclose(system);
}

// Two threads on each device, each with a queue pair of its own and one
// completion queue for both. (Under TSan this is the test of the locks.)
// A frame is sent only when a receive waits for it: a device process would
// otherwise outrun receivers that are not scheduled, and drop as a card does.
TEST_P(Cable, ThreadsShareADevice) {
  Plug("");
  constexpr uint64_t kFrames = 2000;
  constexpr uint64_t kReceives = 1000;
  ibv_qp* rx = b_->Qp({.depth = 1024});
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  for (uint64_t i = 0; i < kReceives; ++i) {
    ASSERT_EQ(b_->Recv(rx, i, {to.Sge(0, 2048)}), 0);
  }
  const std::vector<std::byte> frame =
      MakeHeader(b_->mac(), a_->mac(), false, 22);
  std::atomic<uint64_t> posted{0};
  std::atomic<uint64_t> sent{0};
  std::atomic<uint64_t> arrived{0};  // And its receive posted again.
  std::atomic<bool> is_over{false};
  const auto send = [&](ibv_qp* qp, HostBuffer* from) {
    for (uint64_t i = 0; i < kFrames && !is_over; ++i) {
      const uint64_t nth = posted++;
      while (nth >= arrived + kReceives && !is_over) std::this_thread::yield();
      while (a_->Send(qp, i, {from->Sge(0, 64)}, IBV_SEND_SIGNALED) == ENOMEM) {
        sent += a_->Poll().size();
        if (is_over) return;
      }
    }
  };
  const auto receive = [&] {
    while (!is_over) {
      for (const ibv_wc& wc : b_->Poll()) {
        EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
        EXPECT_EQ(b_->Recv(rx, wc.wr_id, {to.Sge(0, 2048)}), 0);
        ++arrived;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    HostBuffer& from = host_.emplace_back(a_->Host(64));
    memcpy(from.bytes.data(), frame.data(), frame.size());
    threads.emplace_back(send, a_->Qp({.depth = 128}), &from);
    threads.emplace_back(receive);
  }
  EXPECT_TRUE(Eventually([&] {
    sent += a_->Poll().size();
    return sent == 2 * kFrames && arrived == 2 * kFrames;
  })) << sent
      << " sent, " << arrived << " arrived";
  is_over = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(b_->counters().rx_no_receive, 0u);
}

class DeviceProcess : public Cable {};
INSTANTIATE_TEST_SUITE_P(Modes, DeviceProcess, testing::Values("process"),
                         ModeName);

// The application dies without a word: its devices end.
TEST_P(DeviceProcess, EndsWithItsApplication) {
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const pid_t app = Fork([&] {
    CHECK_EQ(Verbs().configure("dev=lonely,mode=process"), 0);
    Nic nic("lonely");
    const std::vector<pid_t> children = ChildrenOf(getpid());
    CHECK_EQ(children.size(), 1u);
    CHECK_EQ(write(pipe_fds[1], children.data(), sizeof(pid_t)),
             static_cast<ssize_t>(sizeof(pid_t)));
    for (;;) pause();
    return 0;
  });
  pid_t device = 0;
  ASSERT_EQ(read(pipe_fds[0], &device, sizeof(device)),
            static_cast<ssize_t>(sizeof(device)));
  EXPECT_TRUE(IsAlive(device));
  kill(app, SIGKILL);
  Wait(app);
  EXPECT_TRUE(Eventually([&] { return !IsAlive(device); }));
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

// The thread that opened the device leaves: the device stays.
TEST_P(DeviceProcess, OutlivesTheThreadThatOpenedIt) {
  std::thread([&] { Plug(""); }).join();
  ibv_qp* tx = a_->Qp();
  ibv_qp* rx = b_->Qp();
  b_->TakeAll(rx);
  HostBuffer to = b_->Host(2048);
  ASSERT_EQ(b_->Recv(rx, 1, {to.Sge(0, 2048)}), 0);
  ASSERT_EQ(SendFrame(tx, true, Pattern(100)), 0);
  EXPECT_EQ(b_->Await(1).size(), 1u);
}

// The device dies: every command says so, nothing hangs. In a child, which
// leaves without destroying what it cannot.
TEST_P(DeviceProcess, DeathIsAnErrorNotAHang) {
  const int status = Wait(Fork([] {
    CHECK_EQ(Verbs().configure("dev=mortal,mode=process"), 0);
    Nic* nic = new Nic("mortal");
    const std::vector<pid_t> children = ChildrenOf(getpid());
    CHECK_EQ(children.size(), 1u);
    kill(children[0], SIGKILL);
    CHECK(Eventually([&] { return !IsAlive(children[0]); }));
    std::vector<std::byte> memory(64);
    errno = 0;
    CHECK(Verbs().reg_mr(nic->pd(), memory.data(), 64, 0) == nullptr);
    CHECK_EQ(errno, EIO);
    CHECK(nic->TryQp({}) == nullptr);
    CHECK_EQ(errno, EIO);
    CHECK(nic->Poll().empty());
    return 0;
  }));
  EXPECT_EQ(status, 0);
}

// Who only polls hears of it by an event. What is destroyed then is gone, but
// for the answer.
TEST_P(DeviceProcess, DeathIsAnEventForWhoOnlyPolls) {
  const int status = Wait(Fork([] {
    CHECK_EQ(Verbs().configure("dev=mortal,mode=process"), 0);
    Nic* nic = new Nic("mortal");
    std::vector<std::byte> memory(64);
    ibv_mr* mr = Verbs().reg_mr(nic->pd(), memory.data(), 64, 0);
    ibv_pd* pd = Verbs().alloc_pd(nic->context());
    ibv_mr* other = Verbs().reg_mr(pd, memory.data(), 64, 0);
    ibv_qp* qp = nic->Qp();
    kill(ChildrenOf(getpid()).at(0), SIGKILL);
    const int fd = nic->context()->async_fd;
    CHECK_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
    ibv_async_event event;
    CHECK(Eventually([&] {
      nic->Poll();
      return Verbs().get_async_event(nic->context(), &event) == 0;
    }));
    CHECK(event.event_type == IBV_EVENT_DEVICE_FATAL);
    Verbs().ack_async_event(&event);
    CHECK_EQ(Verbs().dereg_mr(mr), EIO);
    CHECK_EQ(Verbs().destroy_qp(qp), EIO);
    CHECK_EQ(Verbs().dereg_mr(other), EIO);
    CHECK_EQ(Verbs().dealloc_pd(pd), 0);
    return 0;
  }));
  EXPECT_EQ(status, 0);
}

// A device program that is not there is an error of ibv_open_device.
TEST_P(DeviceProcess, MissingProgramIsNamed) {
  setenv("SOFTNIC_DEVICE", "/nonexistent/softnic_device", 1);
  Configure("dev=a,mode=process");
  int count = 0;
  ibv_device** list = Verbs().get_device_list(&count);
  ASSERT_EQ(count, 1);
  EXPECT_EQ(Verbs().open_device(list[0]), nullptr);
  EXPECT_EQ(errno, EIO);
  EXPECT_NE(strstr(Verbs().last_error(), "/nonexistent/softnic_device"),
            nullptr);
  Verbs().free_device_list(list);
  unsetenv("SOFTNIC_DEVICE");
}

class SteadyState : public Cable {};
INSTANTIATE_TEST_SUITE_P(Modes, SteadyState, testing::Values("inline"),
                         ModeName);

// From here on any system call but write and exit kills the process.
void ForbidSystemCalls() {
  const auto allow = [](uint32_t number, uint8_t skip) {
    return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, skip, 0);
  };
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      allow(SYS_write, 2),
      allow(SYS_exit_group, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
  CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

// 100,000 frames, both ends inline in one process: no system call, no
// allocation.
TEST_P(SteadyState, NoSystemCallsNoAllocations) {
#ifdef SOFTNIC_SANITIZED
  GTEST_SKIP() << "SKIP: sanitizers make system calls of their own";
#endif
  const int status = Wait(Fork([&] {
    Plug("mtu=9000");
    constexpr uint32_t kBurst = 32;
    ibv_qp* tx = a_->Qp({.depth = 64});
    ibv_qp* rx = b_->Qp({.depth = 64});
    b_->TakeAll(rx);
    HostBuffer headers = b_->Host(64 * 64);
    DeviceBuffer slots = b_->Device(64 * 9216);
    HostBuffer out_header = a_->Host(54);
    memcpy(out_header.bytes.data(),
           MakeHeader(b_->mac(), a_->mac(), true, 8946).data(), 54);
    DeviceBuffer out = a_->Device(1 << 20);
    ibv_sge recv_sge[64][2];
    ibv_recv_wr recv[64] = {};
    for (uint32_t i = 0; i < 64; ++i) {
      recv_sge[i][0] = headers.Sge(i * 64, 54);
      recv_sge[i][1] = slots.Sge(i * 9216, 9216);
      recv[i].wr_id = i;
      recv[i].sg_list = recv_sge[i];
      recv[i].num_sge = 2;
      ibv_recv_wr* bad = nullptr;
      CHECK_EQ(ibv_post_recv(rx, &recv[i], &bad), 0);
    }
    ibv_sge sge[2] = {out_header.Sge(0, 54), out.Sge(4096, 8946)};
    ibv_send_wr send[kBurst] = {};
    for (uint32_t i = 0; i < kBurst; ++i) {
      send[i].next = i + 1 < kBurst ? &send[i + 1] : nullptr;
      send[i].sg_list = sge;
      send[i].num_sge = 2;
      send[i].opcode = IBV_WR_SEND;
      send[i].send_flags =
          IBV_SEND_IP_CSUM | (i + 1 == kBurst ? IBV_SEND_SIGNALED : 0);
    }
    const auto run = [&](int rounds) {
      for (int round = 0; round < rounds; ++round) {
        ibv_send_wr* bad_send = nullptr;
        CHECK_EQ(ibv_post_send(tx, send, &bad_send), 0);
        uint32_t got = 0;
        bool is_sent = false;
        while (got < kBurst || !is_sent) {
          ibv_wc wc[kBurst];
          int n = ibv_poll_cq(b_->cq(), kBurst, wc);
          for (int i = 0; i < n; ++i) {
            CHECK_EQ(wc[i].status, IBV_WC_SUCCESS);
            ibv_recv_wr* bad = nullptr;
            CHECK_EQ(ibv_post_recv(rx, &recv[wc[i].wr_id], &bad), 0);
            ++got;
          }
          is_sent |= ibv_poll_cq(a_->cq(), kBurst, wc) > 0;
        }
      }
    };
    run(10);
    ForbidSystemCalls();
    const devwire::AllocFreeze freeze;
    run(100'000 / kBurst);
    return 0;
  }));
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace softnic
