// Bad input, one row each: what the caller gets told, and that nothing is
// leaked: the pools check their slots when the stacks go.
#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
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

StackOptions One() {
  StackOptions o;
  o.verbs_library = SoftnicPath();
  o.device = "sn0";
  o.address = IpAddress::V4(10, 0, 0, 1);
  return o;
}

// -- opening a stack ----------------------------------------------------------

TEST(OpenBadInput, NoDeviceByThatNameListsThoseThereAre) {
  ConfigureSoftnic("dev=sn0;dev=other");
  StackOptions o = One();
  o.device = "nonesuch";
  const absl::Status status = Stack::Open(o).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("sn0"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("other"));
}

TEST(OpenBadInput, NoDeviceAtAll) {
  ConfigureSoftnic("");
  EXPECT_EQ(Stack::Open(One()).status().code(), absl::StatusCode::kNotFound);
}

TEST(OpenBadInput, MissingCapabilitiesAreNamed) {
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
  }
}

TEST(OpenBadInput, OptionsOutOfRange) {
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
  ExpectError(Stack::Open(o).status(), EINVAL, "max_connections");
  o = One();
  o.first_local_port = 80;
  ExpectError(Stack::Open(o).status(), EINVAL, "1024");
  o = One();
  o.host_receive_bytes = 1000;
  ExpectError(Stack::Open(o).status(), EINVAL, "host_receive_bytes");
}

// Without the rule for its own address a stack hears nothing: it says so.
TEST(OpenBadInput, NoRoomForASingleRule) {
  ConfigureSoftnic("dev=sn0,rules=0");
  const absl::Status status = Stack::Open(One()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("flow rule"));
}

TEST(OpenBadInput, SecondVerbsLibrary) {
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

TEST(BindBadInput, SlotSmallerThanTheMtusPayload) {
  OneStack one;
  const absl::Status status =
      one.stack->BindMemory(*one.memory, {.slot_bytes = 1024}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("slot"));
  // Nothing was kept: the same memory binds with slots that fit.
  EXPECT_TRUE(one.stack->BindMemory(*one.memory, {.slot_bytes = 2048}).ok());
}

TEST(BindBadInput, RegionSmallerThanTheRing) {
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
TEST(BindBadInput, MoreSlotsThanAPoolCanNumber) {
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

TEST(BindBadInput, DmabufUnsupportedAndRefused) {
  for (const char* nic : {",dmabuf=0", ",dmabuf_refuse=1"}) {
    SCOPED_TRACE(nic);
    OneStack one(nic);
    const absl::Status status = one.stack->BindMemory(*one.memory, {}).status();
    ASSERT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr("dmabuf"));
  }
}

TEST(BindBadInput, SendOnlyAndUnknownMemory) {
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

TEST(ConnectBadInput, PortInUse) {
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

TEST(ConnectBadInput, AddressesThatCannotBe) {
  OneStack one;
  ExpectError(
      one.stack->Listen({IpAddress::V4(10, 9, 9, 9), Port{80}}).status(),
      EADDRNOTAVAIL, "10.0.0.1");
  ExpectError(
      one.stack->Connect({IpAddress::V4(192, 168, 0, 1), Port{80}}).status(),
      ENETUNREACH, "no route to 192.168.0.1");
  ExpectError(one.stack->Connect({one.stack->address(), Port{80}}).status(),
              EADDRNOTAVAIL, "own address");
  ExpectError(
      one.stack->Connect({*IpAddress::Parse("fd00::1"), Port{80}}).status(),
      EAFNOSUPPORT, "family");
  ExpectError(
      one.stack->Listen({one.stack->address(), Port{80}}, {.backlog = 0})
          .status(),
      EINVAL, "backlog");
}

TEST(ConnectBadInput, NobodyAnswersArp) {
  OneStack one;
  const absl::Status status =
      one.stack->Connect({IpAddress::V4(10, 0, 0, 9), Port{80}}).status();
  ExpectError(status, EHOSTUNREACH, "no ARP answer from 10.0.0.9");
}

TEST(ConnectBadInput, DeadlineBeforeAnyAnswer) {
  OneStack one;
  ExpectError(
      one.stack
          ->Connect({IpAddress::V4(10, 0, 0, 9), Port{80}}, {.timeout = 20_ms})
          .status(),
      ETIMEDOUT, "0.020 s");
}

TEST(ConnectBadInput, Refused) {
  TwoStacks net({});
  auto stream =
      *net.client().stack->StartConnect({net.server().address, Port{81}}, {});
  ASSERT_TRUE(net.Until(
      [&] { return ErrnoOf(stream->ConnectStatus()) != EINPROGRESS; }));
  ExpectError(stream->ConnectStatus(), ECONNREFUSED, "10.0.0.2:81");
}

TEST(ConnectBadInput, Ipv6IntoDeviceMemoryUnderMlx5) {
  TwoStacks net({.ipv6 = true});
  // The profile mlx5 verifies no IPv6: a stack that is told so refuses.
  StackOptions o = One();
  ConfigureSoftnic("dev=sn0");
  o.address = *IpAddress::Parse("fd00::1");
  o.prefix_bits = 64;
  auto memory = *MemfdMemory::Allocate(1 << 20);
  auto stack = *Stack::Open(o);
  const PoolId pool = *stack->BindMemory(*memory, {});
  ExpectError(stack->Listen({o.address, Port{80}}, {.memory = pool}).status(),
              EOPNOTSUPP, "IPv6");
  EXPECT_TRUE(stack->Listen({o.address, Port{80}}, {}).ok()) << "host stream";
}

// -- congestion control -------------------------------------------------------

TEST(CongestionBadInput, UnknownNamesListThoseThereAre) {
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

TEST(CongestionBadInput, EachStreamHasItsOwn) {
  TwoStacks::Options options;
  options.stack.tcp.initial_window_segments = 4;
  TwoStacks net(options);
  const Endpoint at{net.server().stack->address(), Port{81}};
  auto listener = *net.server().stack->Listen(at, {.congestion = "newreno"});
  auto stream = *net.client().stack->StartConnect(at, {});
  std::unique_ptr<Stream> accepted;
  ASSERT_TRUE(net.Until([&] {
    accepted = *listener->TryAccept();
    return accepted != nullptr && stream->ConnectStatus().ok();
  }));
  EXPECT_EQ(accepted->Info()->congestion, "newreno");
  const StreamInfo info = *stream->Info();
  EXPECT_EQ(info.congestion, "cubic");
  EXPECT_EQ(info.cwnd, 4 * info.snd_mss);
}

// -- sending ------------------------------------------------------------------

TEST(SendBadInput, UnregisteredSpans) {
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

// The link goes down: the user timeout ends the stream, by name.
TEST(SendBadInput, ThePeerVanishes) {
  TwoStacks::Options options;
  options.stack.tcp.user_timeout = 300_ms;
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  ChangeSoftnic("dev=sn1,link=down");
  std::array<std::byte, 100> bytes{};
  ASSERT_TRUE(pair.client->SendHost(bytes).ok());
  absl::Status status;
  ASSERT_TRUE(net.Until([&] {
    status = pair.client->SendHost({}).status();
    return !status.ok();
  }));
  ExpectError(status, ETIMEDOUT, "timed out");
}

}  // namespace
}  // namespace devwire
