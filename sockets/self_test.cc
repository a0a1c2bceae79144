// Connections of a stack to its own address: both ends are ours, and every
// frame goes through the NIC.
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "gtest/gtest.h"
#include "memreg/host_memory.h"
#include "sockets/errno_map.h"
#include "sockets/stack.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

StackOptions OptionsFor(const IpAddress& address) {
  StackOptions options;
  options.device = "self";
  options.address = address;
  options.nic_verifies_ipv6 = true;
  return options;
}

class Self : public testing::TestWithParam<const char*> {
 protected:
  void Open(const std::string& more) {
    ConfigureSoftnic("dev=self,profile=full" + more);
    auto stack = Stack::Open(OptionsFor(*IpAddress::Parse(GetParam())));
    ASSERT_TRUE(stack.ok()) << stack.status();
    stack_ = *std::move(stack);
  }

  bool Until(const std::function<bool()>& done) {
    const MonotonicClock clock;
    const Instant until = clock.Now() + 20_s;
    while (clock.Now() < until) {
      stack_->Poll();
      if (done()) return true;
    }
    return false;
  }

  std::unique_ptr<Stack> stack_;
};

// Host bytes one way, device memory the other.
TEST_P(Self, BothWays) {
  ASSERT_NO_FATAL_FAILURE(Open(""));
  const auto memory = *MemfdMemory::Allocate(1 << 20);
  const PoolId pool = *stack_->BindMemory(*memory, {.receive_bytes = 1 << 19});
  const Endpoint server{stack_->address(), Port{7000}};
  const auto listener = *stack_->Listen(server, {.memory = pool});
  const auto client = *stack_->StartConnect(server);
  std::unique_ptr<Stream> accepted;
  ASSERT_TRUE(Until([&] {
    if (accepted == nullptr) accepted = *listener->TryAccept();
    return accepted != nullptr && client->ConnectStatus().ok();
  }));
  EXPECT_EQ(client->remote().ToString(), accepted->local().ToString());
  EXPECT_EQ(accepted->remote().ToString(), client->local().ToString());

  constexpr size_t kBytes = 1 << 20;
  const std::vector<std::byte> text(kBytes, std::byte{7});
  size_t sent = 0;
  uint64_t received = 0;
  ASSERT_TRUE(Until([&] {
    sent += *client->SendHost(std::span(text).subspan(sent));
    StreamFrag frags[16];
    const Received got = *accepted->ReceiveFrags(frags, UINT64_MAX);
    received += got.bytes;
    for (size_t i = 0; i < got.frags; ++i) {
      accepted->ReturnTokens({&frags[i].token, 1});
    }
    return received == kBytes;
  }));

  const DeviceSpan span{.offset = 1 << 19, .length = 1 << 16};
  ASSERT_TRUE(accepted->SendDevice(pool, {&span, 1}, 1).ok());
  received = 0;
  ASSERT_TRUE(Until([&] {
    std::byte room[4096];
    received += client->Read(room)->bytes;
    return received == span.length;
  }));
}

// Nobody listens.
TEST_P(Self, Refused) {
  ASSERT_NO_FATAL_FAILURE(Open(""));
  const auto client = *stack_->StartConnect({stack_->address(), Port{7000}});
  ASSERT_TRUE(
      Until([&] { return ErrnoOf(client->ConnectStatus()) != EINPROGRESS; }));
  EXPECT_EQ(ErrnoOf(client->ConnectStatus()), ECONNREFUSED);
}

// A NIC that loops nothing back: nobody answers for our address.
TEST_P(Self, ANicThatDoesNotLoop) {
  ASSERT_NO_FATAL_FAILURE(Open(",loopback=0"));
  const auto client = *stack_->StartConnect({stack_->address(), Port{7000}});
  ASSERT_TRUE(
      Until([&] { return ErrnoOf(client->ConnectStatus()) != EINPROGRESS; }));
  EXPECT_EQ(ErrnoOf(client->ConnectStatus()), EHOSTUNREACH);
}

INSTANTIATE_TEST_SUITE_P(Families, Self, testing::Values("10.0.0.1", "fd00::1"),
                         [](const auto& info) {
                           return std::string(info.index == 0 ? "V4" : "V6");
                         });

}  // namespace
}  // namespace devwire
