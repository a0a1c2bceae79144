// Bad input, one row each: what the caller gets told, and that nothing is
// leaked: descriptors and threads are counted around each row, and the pools
// check their slots when the stacks go.
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "memreg/verbs_library.h"
#include "sockets/errno_map.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

using ::testing::HasSubstr;

// The message names the trouble, and the errno is right.
void ExpectError(const absl::Status& status, int error,
                 const std::string& words) {
  EXPECT_EQ(ErrnoOf(status), error) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
}

std::set<std::string> Entries(const char* folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().filename());
  }
  return names;
}

class NothingLeaked : public ::testing::Test {
 protected:
  void SetUp() override {
    ConfigureSoftnic("");  // Loads the library, which may keep some.
    // With the first thread, ThreadSanitizer starts one of its own.
    std::thread([] {}).join();
    descriptors_ = Entries("/proc/self/fd");
    threads_ = Entries("/proc/self/task");
  }
  void TearDown() override {
    ConfigureSoftnic("");
    EXPECT_EQ(Entries("/proc/self/fd"), descriptors_);
    // The kernel may still be at work on a thread that was joined, here and
    // when they were listed: those listed may go, others may not stay.
    EXPECT_TRUE(Eventually([&] {
      return std::ranges::includes(threads_, Entries("/proc/self/task"));
    }));
  }

 private:
  std::set<std::string> descriptors_;
  std::set<std::string> threads_;
};
using OpenBadInput = NothingLeaked;
using BindBadInput = NothingLeaked;
using ConnectBadInput = NothingLeaked;
using CongestionBadInput = NothingLeaked;
using SendBadInput = NothingLeaked;

StackOptions One() {
  StackOptions o;
  o.verbs_library = SoftnicPath();
  o.device = "sn0";
  o.address = IpAddress::V4(10, 0, 0, 1);
  return o;
}

// -- opening a stack ----------------------------------------------------------

TEST_F(OpenBadInput, NoDeviceByThatNameListsThoseThereAre) {
  ConfigureSoftnic("dev=sn0;dev=other");
  StackOptions o = One();
  o.device = "nonesuch";
  const absl::Status status = Stack::Open(o).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("sn0"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("other"));
}

TEST_F(OpenBadInput, NoDeviceAtAll) {
  ConfigureSoftnic("");
  const absl::Status status = Stack::Open(One()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("shows no device"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("configure softnic"));
}

// What softnic does not understand it says through ibv_get_device_list(3).
TEST_F(OpenBadInput, SoftnicMisconfigured) {
  struct Row {
    const char* environment;
    const char* words;
  };
  const Row rows[] = {
      {"dev=sn0,banana=1", "banana"},
      {"dev=sn0,mac=02:00:00:00:zz:01", "mac=\"02:00:00:00:zz:01\""},
      {"dev=sn0,port=shm:/c;dev=sn1,port=shm:/c;dev=sn2,port=shm:/c",
       "port=shm:/c is taken"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.environment);
    setenv("SOFTNIC", row.environment, 1);
    ASSERT_EQ(verbs().softnic_configure(nullptr), 0);  // Reads it again.
    const absl::Status status = Stack::Open(One()).status();
    ExpectError(status, ENODEV, row.words);
  }
  unsetenv("SOFTNIC");
}

// Both ends of a cable are held, as by two other processes: their locks.
TEST_F(OpenBadInput, PortTaken) {
  const std::string cable = CablePath();
  const int held =
      open((cable + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  struct flock both_ends = {};
  both_ends.l_type = F_WRLCK;
  both_ends.l_len = 2;
  ASSERT_EQ(fcntl(held, F_OFD_SETLK, &both_ends), 0);
  ConfigureSoftnic("dev=sn0,port=shm:" + cable);
  const absl::Status status = Stack::Open(One()).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("sn0"));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("port taken, both ends of this cable are in use"));
  close(held);
  EXPECT_TRUE(Stack::Open(One()).ok());
}

TEST_F(OpenBadInput, MissingCapabilitiesAreNamed) {
  struct Row {
    const char* nic;
    const char* words;
  };
  const Row rows[] = {{",max_sge=1", "max_sge"},
                      {",rx_csum=0", "checksum"},
                      {",tx_csum=0", "checksum"},
                      {",raw=0", "lacks"}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.nic);
    ConfigureSoftnic(std::string("dev=sn0") + row.nic);
    const absl::Status status = Stack::Open(One()).status();
    ASSERT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()),
                ::testing::ContainsRegex(row.words));
    EXPECT_THAT(std::string(status.message()), HasSubstr("ibv_devinfo"));
  }
}

TEST_F(OpenBadInput, OptionsOutOfRange) {
  ConfigureSoftnic("dev=sn0");
  StackOptions o = One();
  o.address = IpAddress();
  ExpectError(Stack::Open(o).status(), EINVAL, "address");
  o = One();
  o.prefix_bits = 33;
  ExpectError(Stack::Open(o).status(), EINVAL, "prefix_bits");
  o = One();
  o.mtu = 100;
  ExpectError(Stack::Open(o).status(), EINVAL, "mtu");
  o = One();
  o.max_connections = 0;
  ExpectError(Stack::Open(o).status(), EINVAL,
              "max_connections 0 is outside 1 to 65535: choose one within");
  o = One();
  o.wake_backstop = Duration();
  ExpectError(Stack::Open(o).status(), EINVAL, "wake_backstop");
  o = One();
  o.max_receive_pools = 63;
  ExpectError(Stack::Open(o).status(), EINVAL, "max_receive_pools");
  o = One();
  o.first_local_port = 80;
  ExpectError(Stack::Open(o).status(), EINVAL, "1024");
  o = One();
  o.host_receive_bytes = 1000;
  ExpectError(Stack::Open(o).status(), EINVAL, "host_receive_bytes");
}

TEST_F(OpenBadInput, BlocksFrom1024OnLeaveAPortToListenOn) {
  ConfigureSoftnic("dev=sn0");
  StackOptions o = One();
  o.first_local_port = 1024;
  const auto stack = *Stack::Open(o);
  const auto listener = stack->Listen({o.address, Port{0}});
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_GE((*listener)->local().port, Port{1024});
}

// Each knob out of its range, at either end: which one, and what to set.
TEST_F(OpenBadInput, TcpKnobsOutOfRange) {
  ConfigureSoftnic("dev=sn0");
  struct Row {
    const char* words;
    std::function<void(TcpKnobs&)> set;
  };
  const Duration kNegative = Duration::Nanoseconds(-1);
  const Row rows[] = {
      {"max_mss is 87: set it to 88 to 65495",
       [](TcpKnobs& k) { k.max_mss = 87; }},
      {"max_mss is 65496", [](TcpKnobs& k) { k.max_mss = 65496; }},
      {"send_budget_bytes", [](TcpKnobs& k) { k.send_budget_bytes = 4095; }},
      {"receive_budget_bytes is 4095: set it to 4096 to 1073741824",
       [](TcpKnobs& k) { k.receive_budget_bytes = 4095; }},
      {"receive_budget_bytes",
       [](TcpKnobs& k) { k.receive_budget_bytes = (1u << 30) + 1; }},
      {"initial_receive_window_bytes is 0: set it to 4096 to 1073741824",
       [](TcpKnobs& k) { k.initial_receive_window_bytes = 0; }},
      {"initial_window_segments is 0: set it to 1 to 1000",
       [](TcpKnobs& k) { k.initial_window_segments = 0; }},
      {"ttl is 0: set it to 1 to 255", [](TcpKnobs& k) { k.ttl = 0; }},
      {"dscp is 64: set it to 0 to 63", [](TcpKnobs& k) { k.dscp = 64; }},
      {"delayed_ack_time is 0.5 s: set it to 0 s to 0.499 s",
       [](TcpKnobs& k) { k.delayed_ack_time = 500_ms; }},
      {"delayed_ack_time",
       [&](TcpKnobs& k) { k.delayed_ack_time = kNegative; }},
      {"rto_min is 0 s", [](TcpKnobs& k) { k.rto_min = Duration(); }},
      {"rto_initial is 0.1 s: set it to 0.2 s to 120 s",
       [](TcpKnobs& k) { k.rto_initial = 100_ms; }},
      {"rto_max is 121 s", [](TcpKnobs& k) { k.rto_max = 121_s; }},
      {"syn_retries is -1: set it to 0 to 127",
       [](TcpKnobs& k) { k.syn_retries = -1; }},
      {"synack_retries is 128", [](TcpKnobs& k) { k.synack_retries = 128; }},
      {"data_retries is 128", [](TcpKnobs& k) { k.data_retries = 128; }},
      {"orphan_retries", [](TcpKnobs& k) { k.orphan_retries = 128; }},
      {"user_timeout is 0 s", [](TcpKnobs& k) { k.user_timeout = Duration(); }},
      {"keepalive.idle", [](TcpKnobs& k) { k.keepalive = {.idle = 32768_s}; }},
      {"keepalive.interval",
       [](TcpKnobs& k) { k.keepalive = {.interval = Duration()}; }},
      {"keepalive.probes is 0: set it to 1 to 127",
       [](TcpKnobs& k) { k.keepalive = {.probes = 0}; }},
      {"time_wait is 601 s", [](TcpKnobs& k) { k.time_wait = 601_s; }},
      {"fin_wait_2", [](TcpKnobs& k) { k.fin_wait_2 = 601_s; }},
      {"max_orphans", [](TcpKnobs& k) { k.max_orphans = 65536; }},
      {"challenge_ack_interval is 11 s: set it to 0 s to 10 s",
       [](TcpKnobs& k) { k.challenge_ack_interval = 11_s; }},
      {"challenge_acks_per_second is 1000001: set it to 0 to 1000000",
       [](TcpKnobs& k) { k.challenge_acks_per_second = 1'000'001; }}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.words);
    StackOptions o = One();
    row.set(o.tcp);
    ExpectError(Stack::Open(o).status(), EINVAL,
                std::string("TcpKnobs::") + row.words);
  }
}

// Without the rule for its own address a stack hears nothing: it says so.
TEST_F(OpenBadInput, NoRoomForASingleRule) {
  ConfigureSoftnic("dev=sn0,rules=0");
  const absl::Status status = Stack::Open(One()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("flow rule"));
}

TEST_F(OpenBadInput, SecondVerbsLibrary) {
  ConfigureSoftnic("dev=sn0");
  StackOptions o = One();
  o.verbs_library = "libibverbs.so.1";
  EXPECT_EQ(Stack::Open(o).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// -- binding memory -----------------------------------------------------------

struct OneStack {
  explicit OneStack(const std::string& nic = "") {
    ConfigureSoftnic("dev=sn0" + nic);
    memory = *MemfdMemory::Allocate(1 << 20);
    absl::StatusOr<std::unique_ptr<Stack>> opened = Stack::Open(One());
    EXPECT_TRUE(opened.ok()) << opened.status();
    stack = *std::move(opened);
  }
  std::unique_ptr<MemfdMemory> memory;
  std::unique_ptr<Stack> stack;
};

TEST_F(BindBadInput, SlotSmallerThanTheMtusPayload) {
  OneStack one;
  const absl::Status status =
      one.stack->BindMemory(*one.memory, {.slot_bytes = 1024}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("slot"));
  // Nothing was kept: the same memory binds with slots that fit.
  EXPECT_TRUE(one.stack->BindMemory(*one.memory, {.slot_bytes = 2048}).ok());
}

TEST_F(BindBadInput, RegionSmallerThanTheRing) {
  OneStack one;
  const absl::Status status =
      one.stack
          ->BindMemory(*one.memory,
                       {.slot_bytes = 2048, .receive_bytes = 4 * 2048})
          .status();
  ExpectError(status, EINVAL, "smaller than its receive ring");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("at least 64 slots, 131072 bytes"));
  ExpectError(
      one.stack
          ->BindMemory(*one.memory, {.slot_bytes = 2048, .receive_bytes = 100})
          .status(),
      EINVAL, "smaller than its receive ring");
}

// Sizes that a pool cannot number are refused before it is built. The memory
// is a hole in a file: nothing is reserved for it.
TEST_F(BindBadInput, MoreSlotsThanAPoolCanNumber) {
  OneStack one;
  const auto large = *MemfdMemory::Allocate(uint64_t{40} << 30);
  const absl::Status status = one.stack->BindMemory(*large, {}).status();
  ExpectError(status, EINVAL, "20971520 slots of 2048 bytes");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("at most 16777216. Ask for slots of 4096 bytes"));
  // So many that 32 bits cannot count them.
  const auto huge = *MemfdMemory::Allocate(uint64_t{16} << 40);
  ExpectError(one.stack->BindMemory(*huge, {}).status(), EINVAL,
              "8589934592 slots of 2048 bytes");
  ExpectError(one.stack->BindMemory(*large, {.slot_bytes = 1}).status(), EINVAL,
              "slots of 1 bytes cannot hold the payload of MTU 1500");
  // Of the same region a part can be received into.
  EXPECT_TRUE(one.stack->BindMemory(*large, {.receive_bytes = 1 << 20}).ok());
}

TEST_F(BindBadInput, DmabufUnsupportedAndRefused) {
  for (const char* nic : {",dmabuf=0", ",dmabuf_refuse=1"}) {
    SCOPED_TRACE(nic);
    OneStack one(nic);
    const absl::Status status = one.stack->BindMemory(*one.memory, {}).status();
    ASSERT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr("dmabuf"));
  }
}

TEST_F(BindBadInput, SendOnlyAndUnknownMemory) {
  OneStack one;
  const PoolId send_only =
      *one.stack->BindMemory(*one.memory, {.receive_bytes = 0});
  const Endpoint local{one.stack->address(), Port{80}};
  ExpectError(one.stack->Listen(local, {.memory = send_only}).status(), EINVAL,
              "sending only");
  ExpectError(one.stack->Listen(local, {.memory = PoolId{40}}).status(), EFAULT,
              "not bound");
  ExpectError(one.stack->Use(PoolId{40}).status(), EFAULT, "not bound");
}

// -- addresses and ports ------------------------------------------------------

TEST_F(ConnectBadInput, PortInUse) {
  OneStack one;
  const Endpoint local{one.stack->address(), Port{80}};
  const auto first = *one.stack->Listen(local, {});
  ExpectError(one.stack->Listen(local, {}).status(), EADDRINUSE, "10.0.0.1:80");
  ExpectError(one.stack
                  ->StartConnect({IpAddress::V4(10, 0, 0, 2), Port{1}},
                                 {.local_port = Port{80}})
                  .status(),
              EADDRINUSE, "port in use");
}

TEST_F(ConnectBadInput, AddressesThatCannotBe) {
  OneStack one;
  ExpectError(
      one.stack->Listen({IpAddress::V4(10, 9, 9, 9), Port{80}}).status(),
      EADDRNOTAVAIL, "10.0.0.1");
  ExpectError(
      one.stack->Connect({IpAddress::V4(192, 168, 0, 1), Port{80}}).status(),
      ENETUNREACH, "no route to 192.168.0.1");
  ExpectError(one.stack->Connect({one.stack->address(), Port{0}}).status(),
              EADDRNOTAVAIL, "port 0");
  ExpectError(
      one.stack->Connect({*IpAddress::Parse("fd00::1"), Port{80}}).status(),
      EAFNOSUPPORT, "family");
  for (const char* ip : {"224.0.0.1", "255.255.255.255", "10.0.0.255"}) {
    SCOPED_TRACE(ip);  // RFC 9293 MUST-46.
    ExpectError(one.stack->Connect({*IpAddress::Parse(ip), Port{80}}).status(),
                EADDRNOTAVAIL, "no single host");
  }
  ExpectError(
      one.stack->Listen({one.stack->address(), Port{80}}, {.backlog = 0})
          .status(),
      EINVAL, "backlog 0 is outside 1 to 4096: choose");
}

TEST_F(ConnectBadInput, NobodyAnswersArp) {
  OneStack one;
  const absl::Status status =
      one.stack->Connect({IpAddress::V4(10, 0, 0, 9), Port{80}}).status();
  ExpectError(status, EHOSTUNREACH, "no ARP answer from 10.0.0.9");
}

TEST_F(ConnectBadInput, DeadlineBeforeAnyAnswer) {
  OneStack one;
  ExpectError(
      one.stack
          ->Connect({IpAddress::V4(10, 0, 0, 9), Port{80}}, {.timeout = 20_ms})
          .status(),
      ETIMEDOUT, "0.020 s");
}

TEST_F(ConnectBadInput, Refused) {
  TwoStacks net({});
  auto stream =
      *net.client().stack->StartConnect({net.server().address, Port{81}}, {});
  ASSERT_TRUE(net.Until(
      [&] { return ErrnoOf(stream->ConnectStatus()) != EINPROGRESS; }));
  ExpectError(stream->ConnectStatus(), ECONNREFUSED, "10.0.0.2:81");
}

// No mlx5 verifies TCP checksums of IPv6, and the stack may not look at the
// payload. That cannot be asked of a device: it is told, and the default is no.
TEST_F(ConnectBadInput, Ipv6IntoDeviceMemoryUnderMlx5) {
  ConfigureSoftnic("dev=sn0,profile=mlx5");
  StackOptions o = One();
  o.address = *IpAddress::Parse("fd00::1");
  o.prefix_bits = 64;
  const Endpoint remote{*IpAddress::Parse("fd00::2"), Port{80}};
  o.neighbors = {{remote.ip, {2, 0, 0, 0, 0, 2}}};
  auto memory = *MemfdMemory::Allocate(1 << 20);
  auto stack = *Stack::Open(o);
  const PoolId pool = *stack->BindMemory(*memory, {});
  const Endpoint local{o.address, Port{80}};
  const absl::Status listen = stack->Listen(local, {.memory = pool}).status();
  ExpectError(listen, EOPNOTSUPP, "verifies no IPv6 checksums");
  EXPECT_THAT(std::string(listen.message()), HasSubstr("use IPv4"));
  ExpectError(stack->Connect(remote, {.memory = pool}).status(), EOPNOTSUPP,
              "verifies no IPv6 checksums");
  EXPECT_TRUE(stack->Listen(local).ok()) << "host stream";
  EXPECT_TRUE(stack->StartConnect(remote).ok()) << "host stream";
}

// And where it is told wrongly, unverified payload is dropped by name, not
// delivered.
TEST_F(ConnectBadInput, Ipv6ThatMlx5IsWronglySaidToVerify) {
  TwoStacks net({.nic = ",profile=mlx5", .ipv6 = true});
  TwoStacks::Pair pair = net.Connect();
  const DeviceSpan span{2 << 20, 1000};
  ASSERT_EQ(*pair.client->SendDevice(net.client().pool, {&span, 1}, 1),
            SendOutcome::kQueued);
  EXPECT_TRUE(net.Until([&] {
    const StackCounters counters = *net.server().stack->Counters();
    for (const StackCounters::Named& drop : counters.drops) {
      if (drop.name == "kNoChecksumFlag") return true;
    }
    return false;
  }));
  std::array<StreamFrag, 1> frags;
  EXPECT_EQ(pair.server->ReceiveFrags(frags, UINT64_MAX)->frags, 0u);
  EXPECT_EQ(net.SlotsHeld(), 0u);
}

// -- congestion control -------------------------------------------------------

TEST_F(CongestionBadInput, UnknownNamesListThoseThereAre) {
  ConfigureSoftnic("dev=sn0");
  StackOptions o = One();
  o.tcp.congestion = "vegas";
  ExpectError(Stack::Open(o).status(), EINVAL, "vegas");
  ExpectError(Stack::Open(o).status(), EINVAL, "newreno");
  auto stack = *Stack::Open(One());
  ExpectError(
      stack->Listen({o.address, Port{80}}, {.congestion = "Vegas"}).status(),
      EINVAL, "Vegas");
  ExpectError(stack
                  ->StartConnect({IpAddress::V4(10, 0, 0, 2), Port{80}},
                                 {.congestion = "bbr"})
                  .status(),
              EINVAL, "bbr");
}

TEST_F(CongestionBadInput, EachStreamHasItsOwn) {
  TwoStacks::Options options;
  options.stack.tcp.initial_window_segments = 4;
  TwoStacks net(options);
  const Endpoint at{net.server().stack->address(), Port{81}};
  auto listener = *net.server().stack->Listen(at, {.congestion = "newreno"});
  std::unique_ptr<Stream> accepted;
  const auto connect = [&](const ConnectOptions& o) {
    auto stream = *net.client().stack->StartConnect(at, o);
    EXPECT_TRUE(net.Until([&] {
      auto next = *listener->TryAccept();
      if (next != nullptr) accepted = std::move(next);
      return stream->ConnectStatus().ok() && accepted != nullptr;
    }));
    return *stream->Info();
  };
  const StreamInfo plain = connect({});
  EXPECT_EQ(plain.congestion, "cubic");
  EXPECT_FALSE(plain.ecn);
  EXPECT_EQ(accepted->Info()->congestion, "newreno");
  accepted.reset();
  const StreamInfo info = connect({.congestion = "dctcp"});
  EXPECT_EQ(info.congestion, "dctcp");
  EXPECT_TRUE(info.ecn);
  EXPECT_EQ(info.cwnd, 4 * info.snd_mss);
}

// -- sending ------------------------------------------------------------------

TEST_F(SendBadInput, UnregisteredSpans) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  const uint64_t size = net.client().memory->bytes();
  const auto send = [&](PoolId memory, std::vector<DeviceSpan> spans) {
    return pair.client->SendDevice(memory, spans, 1).status();
  };
  const PoolId pool = net.client().pool;
  ExpectError(send(pool, {{size, 1}}), EFAULT, "registered");
  ExpectError(send(pool, {{size - 10, 11}}), EFAULT, "registered");
  ExpectError(send(pool, {{UINT64_MAX - 4, 8}}), EFAULT, "registered");
  ExpectError(send(pool, {{0, 0}}), EFAULT, "empty");
  ExpectError(send(PoolId{60}, {{0, 1}}), EFAULT, "not bound");
  ExpectError(send(pool, {}), EINVAL, "1 to 64");
  ExpectError(send(pool, std::vector<DeviceSpan>(65, {0, 1})), EINVAL,
              "1 to 64");
  EXPECT_TRUE(send(pool, {{size - 10, 10}}).ok());
  std::array<std::byte, 8> bytes;
  ExpectError(pair.server->Read(bytes).status(), EINVAL, "ReceiveFrags");
}

// The link goes down: the user timeout ends the stream, by name. What was
// under way completes as not delivered, and no slot is kept.
TEST_F(SendBadInput, ThePeerVanishes) {
  TwoStacks::Options options;
  options.stack.tcp.user_timeout = 300_ms;
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  const DeviceSpan span{2 << 20, 1000};
  const auto send = [&](uint64_t cookie) {
    ASSERT_EQ(*pair.client->SendDevice(net.client().pool, {&span, 1}, cookie),
              SendOutcome::kQueued);
  };
  std::vector<SendCompletion> done;
  const auto await_completion = [&] {
    return net.Until([&] {
      SendCompletion one;
      if (*pair.client->PollSendCompletions({&one, 1}) == 0) return false;
      done.push_back(one);
      return true;
    });
  };
  send(41);  // Arrives, and is not read.
  ASSERT_TRUE(await_completion());
  EXPECT_EQ(net.SlotsHeld(), 1u);
  ChangeSoftnic("dev=sn1,link=down");
  send(42);
  absl::Status status;
  ASSERT_TRUE(net.Until([&] {
    status = pair.client->SendHost({}).status();
    return !status.ok();
  }));
  ExpectError(status, ETIMEDOUT, "10.0.0.2:");
  EXPECT_THAT(std::string(status.message()), HasSubstr("timed out"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("is the peer up"));
  ASSERT_TRUE(await_completion());
  EXPECT_EQ(done[0].cookie, 41u);
  EXPECT_TRUE(done[0].delivered);
  EXPECT_EQ(done[1].cookie, 42u);
  EXPECT_FALSE(done[1].delivered);
  pair.client.reset();
  pair.server.reset();
  EXPECT_TRUE(net.Until([&] { return net.SlotsHeld() == 0; }));
  for (TwoStacks::Side* side : {&net.client(), &net.server()}) {
    const MemoryUse use = *side->stack->Use(side->pool);
    EXPECT_EQ(use.owners.free + use.owners.posted, use.slots);
  }
}

}  // namespace
}  // namespace devwire
