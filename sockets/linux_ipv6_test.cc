// IPv6 against Linux, through a TAP port in a namespace of the test's own:
// neighbour discovery both ways, host streams both ways, both roles.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "gtest/gtest.h"
#include "sockets/stack.h"
#include "sockets/two_stacks.h"
#include "softnic/linux_namespace.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

constexpr uint16_t kPort = 7007;
constexpr size_t kBytes = 2'000'000;

sockaddr_in6 Address(const char* text) {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(kPort);
  EXPECT_EQ(inet_pton(AF_INET6, text, &address.sin6_addr), 1);
  return address;
}

int NewSocket() {
  const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
  EXPECT_GE(fd, 0);
  return fd;
}

std::vector<std::byte> Pattern(uint64_t stream) {
  std::vector<std::byte> bytes(kBytes);
  for (size_t i = 0; i < kBytes; ++i) bytes[i] = PatternByte(stream, i);
  return bytes;
}

class LinuxIpv6 : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!softnic::EnterNamespace()) {
      GTEST_SKIP() << "no namespace may be made: " << strerror(errno);
    }
    // nodad: nobody else is there, and the address is to be usable at once.
    ASSERT_TRUE(softnic::Shell(
        "ip link del dw0 2>/dev/null; ip tuntap add dev dw0 mode tap && "
        "ip link set dw0 address 02:00:00:00:01:01 up && "
        "ip -6 addr add fd00::1/64 dev dw0 nodad"));
    ConfigureSoftnic("dev=sn0,port=tap:dw0,mac=02:00:00:00:01:02,mtu=1500");
    StackOptions o;
    o.verbs_library = SoftnicPath();
    o.device = "sn0";
    o.address = *IpAddress::Parse("fd00::2");
    o.prefix_bits = 64;
    stack_ = *Stack::Open(o);
  }

  bool Until(const std::function<bool()>& step) {
    const MonotonicClock clock;
    const Instant deadline = clock.Now() + 30_s;
    while (clock.Now() < deadline) {
      stack_->Poll();
      if (step()) return true;
    }
    return false;
  }

  // Both directions at once, to their ends, and every byte compared.
  void Exchange(Stream& ours, int fd) {
    const std::vector<std::byte> out = Pattern(1);
    const std::vector<std::byte> back = Pattern(2);
    std::vector<std::byte> at_linux(kBytes);
    std::vector<std::byte> at_ours(kBytes);
    size_t sent = 0, linux_sent = 0, linux_got = 0, got = 0;
    bool our_end = false, linux_end = false;
    ASSERT_TRUE(Until([&] {
      if (sent < kBytes) {
        sent += *ours.SendHost(std::span(out).subspan(sent));
        if (sent == kBytes) {
          EXPECT_TRUE(ours.CloseSend().ok());
        }
      }
      const auto read = ours.Read(std::span(at_ours).subspan(got));
      got += read->bytes;
      our_end = our_end || read->end_of_stream;
      if (linux_sent < kBytes) {
        const ssize_t n = send(fd, back.data() + linux_sent,
                               kBytes - linux_sent, MSG_NOSIGNAL);
        if (n > 0) linux_sent += static_cast<size_t>(n);
        if (linux_sent == kBytes) shutdown(fd, SHUT_WR);
      }
      const ssize_t n =
          recv(fd, at_linux.data() + linux_got, kBytes - linux_got, 0);
      if (n > 0) linux_got += static_cast<size_t>(n);
      if (n == 0 && linux_got == kBytes) linux_end = true;
      return our_end && linux_end;
    })) << "sent "
        << sent << " got " << got << " Linux sent " << linux_sent << " got "
        << linux_got;
    EXPECT_TRUE(at_linux == out);
    EXPECT_TRUE(at_ours == back);
    close(fd);
  }

  uint64_t Counted(const std::string& name) {
    const auto counters = stack_->Counters();
    for (const auto& event : counters->events) {
      if (event.name == name) return event.value;
    }
    return 0;
  }

  std::unique_ptr<Stack> stack_;
};

TEST_F(LinuxIpv6, LinuxConnectsToAHostStream) {
  auto listener =
      *stack_->Listen({*IpAddress::Parse("fd00::2"), Port{kPort}}, {});
  const int fd = NewSocket();
  const sockaddr_in6 to = Address("fd00::2");
  connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  std::unique_ptr<Stream> stream;
  ASSERT_TRUE(Until([&] {
    stream = *listener->TryAccept();
    return stream != nullptr;
  }));
  EXPECT_GE(Counted("kAdvertisementsSent"), 1u) << "Linux had to ask";
  Exchange(*stream, fd);
  EXPECT_EQ(softnic::LinuxTcpErrors(), "0 0");
}

TEST_F(LinuxIpv6, AHostStreamConnectsToLinux) {
  const int listening = NewSocket();
  const sockaddr_in6 at = Address("fd00::1");
  const int on = 1;
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  ASSERT_EQ(bind(listening, reinterpret_cast<const sockaddr*>(&at), sizeof(at)),
            0);
  ASSERT_EQ(listen(listening, 1), 0);
  auto stream =
      *stack_->StartConnect({*IpAddress::Parse("fd00::1"), Port{kPort}}, {});
  int fd = -1;
  ASSERT_TRUE(Until([&] {
    if (fd < 0) fd = accept4(listening, nullptr, nullptr, SOCK_NONBLOCK);
    return fd >= 0 && stream->ConnectStatus().ok();
  })) << std::string(stream->ConnectStatus().message());
  EXPECT_GE(Counted("kSolicitationsSent"), 1u) << "we had to ask";
  Exchange(*stream, fd);
  close(listening);
}

}  // namespace
}  // namespace devwire
