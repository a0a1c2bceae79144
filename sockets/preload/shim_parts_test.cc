// The parts of the shim that need no stack.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "gtest/gtest.h"
#include "sockets/preload/fd_table.h"
#include "sockets/preload/kernel_socket.h"
#include "sockets/preload/port_table.h"
#include "sockets/preload/real_libc.h"
#include "sockets/preload/sockaddr.h"
#include "sockets/preload/socket_options.h"
#include "sockets/preload/user_memory.h"
#include "sockets/preload/wait_word.h"

namespace devwire::preload {
namespace {

// -- ports --------------------------------------------------------------------

TEST(PortTable, APortIsInUseUntilItsLastOwnerIsGone) {
  PortTable ports(1);
  auto first = ports.Claim(Port{80}, false, false);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(ports.Claim(Port{80}, false, false), nullptr);
  EXPECT_EQ(ports.Claim(Port{80}, true, true), nullptr);
  const auto accepted = ports.ClaimBeside(*first);
  first.reset();
  EXPECT_EQ(ports.Claim(Port{80}, false, false), nullptr);
}

// socket(7): both must say so, and none may listen.
TEST(PortTable, ReuseOfAddresses) {
  PortTable ports(1);
  const auto first = ports.Claim(Port{80}, true, false);
  EXPECT_EQ(ports.Claim(Port{80}, false, false), nullptr);
  EXPECT_NE(ports.Claim(Port{80}, true, false), nullptr);
  first->is_listening = true;
  EXPECT_EQ(ports.Claim(Port{80}, true, false), nullptr);
  first->reuses_port = true;
  EXPECT_NE(ports.Claim(Port{80}, false, true), nullptr);
}

// All of the range, each once; then there is none.
TEST(PortTable, EphemeralPortsEnd) {
  PortTable ports(7);
  std::vector<std::shared_ptr<PortClaim>> claims;
  std::vector<bool> is_seen(65536);
  for (int i = PortTable::kFirst; i <= PortTable::kLast; ++i) {
    claims.push_back(ports.Claim(Port{}, true, true));
    ASSERT_NE(claims.back(), nullptr);
    const auto port = static_cast<uint16_t>(claims.back()->port);
    ASSERT_GE(port, PortTable::kFirst);
    ASSERT_LE(port, PortTable::kLast);
    ASSERT_FALSE(is_seen[port]);
    is_seen[port] = true;
  }
  EXPECT_EQ(ports.Claim(Port{}, true, true), nullptr);
  claims.pop_back();
  EXPECT_NE(ports.Claim(Port{}, true, true), nullptr);
}

// -- options ------------------------------------------------------------------

TEST(SocketOptions, TheLastOneCounts) {
  SocketOptions options;
  EXPECT_EQ(options.Int(IPPROTO_TCP, TCP_NODELAY, 7), 7);
  for (const int value : {1, 0, 5}) {
    options.Set(IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value));
  }
  const SocketOptions copy = options;
  options.Erase(IPPROTO_TCP, TCP_NODELAY);
  options.Erase(IPPROTO_TCP, TCP_NODELAY);
  EXPECT_EQ(options.Find(IPPROTO_TCP, TCP_NODELAY), nullptr);
  EXPECT_EQ(copy.Int(IPPROTO_TCP, TCP_NODELAY, 7), 5);
  const char byte = 1;  // Shorter than an int.
  options.Set(IPPROTO_IP, IP_TTL, &byte, 1);
  EXPECT_EQ(options.Int(IPPROTO_IP, IP_TTL, 0), 1);
}

// The kernel's socket has them all, and says what is wrong with a value.
TEST(KernelSocket, OptionsAreTheKernels) {
  KernelSocket socket(AF_INET);
  const int on = 1, bad = 99999;
  EXPECT_EQ(socket.Set(IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
  EXPECT_EQ(socket.Set(IPPROTO_TCP, TCP_KEEPIDLE, &bad, sizeof(bad)), -EINVAL);
  EXPECT_EQ(socket.Set(IPPROTO_TCP, TCP_NODELAY, &on, 1), -EINVAL);
  EXPECT_EQ(socket.options().Find(IPPROTO_TCP, TCP_KEEPIDLE), nullptr);
  int value = 0;
  socklen_t size = sizeof(value);
  EXPECT_EQ(socket.Get(IPPROTO_TCP, TCP_NODELAY, &value, &size), 0);
  EXPECT_EQ(value, 1);
  EXPECT_EQ(socket.Get(IPPROTO_TCP, 9999, &value, &size), -ENOPROTOOPT);
  const auto again = socket.MakeAgain();
  ASSERT_GE(again, 0);
  value = 0;
  getsockopt(static_cast<int>(again), IPPROTO_TCP, TCP_NODELAY, &value, &size);
  EXPECT_EQ(value, 1);
  close(static_cast<int>(again));
}

TEST(KernelSocket, NoSuchFamily) {
  KernelSocket socket(AF_MAX);
  const int on = 1;
  EXPECT_EQ(socket.Set(IPPROTO_TCP, TCP_CONGESTION, &on, sizeof(on)),
            -EAFNOSUPPORT);
  EXPECT_EQ(socket.MakeAgain(), -EAFNOSUPPORT);
}

// -- memory -------------------------------------------------------------------

TEST(UserMemory, BadPointersAreFound) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  char* const two =
      static_cast<char*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(two, MAP_FAILED);
  ASSERT_EQ(mprotect(two + page, page, PROT_NONE), 0);
  char bytes[16] = "0123456789abcde";
  for (char* at : {static_cast<char*>(nullptr), two + page, two + page - 8,
                   reinterpret_cast<char*>(~uintptr_t{100})}) {
    EXPECT_FALSE(CopyIn(bytes, at, sizeof(bytes)));
    EXPECT_FALSE(CopyOut(at, bytes, sizeof(bytes)));
  }
  EXPECT_TRUE(CopyIn(bytes, nullptr, 0));
  char* const good = two + page - sizeof(bytes);
  strcpy(bytes, "0123456789abcde");
  EXPECT_TRUE(CopyOut(good, bytes, sizeof(bytes)));
  EXPECT_STREQ(good, "0123456789abcde");
  ASSERT_EQ(mprotect(two, page, PROT_READ), 0);
  EXPECT_FALSE(CopyOut(good, bytes, sizeof(bytes)));
  EXPECT_TRUE(CopyIn(bytes, good, sizeof(bytes)));
  munmap(two, 2 * page);
}

// -- waiting ------------------------------------------------------------------

TEST(WaitWord, WakesAndTimesOut) {
  WaitWord word;
  const uint32_t seen = word.value();
  EXPECT_EQ(word.Wait(seen, 1_ms), ETIMEDOUT);
  EXPECT_EQ(word.Wait(seen, Duration()), ETIMEDOUT);
  word.Wake();
  EXPECT_EQ(word.Wait(seen, std::nullopt), 0);
  const uint32_t now = word.value();
  std::thread waker([&] { word.Wake(); });
  EXPECT_EQ(word.Wait(now, std::nullopt), 0);
  waker.join();
}

// -- descriptors --------------------------------------------------------------

int Readable(int epoll, uint64_t* data) {
  epoll_event event = {};
  const int count = epoll_wait(epoll, &event, 1, 0);
  *data = event.data.u64;
  return count;
}

// A socket with a copy, watched by two epolls, one of which is gone.
TEST(FdTable, ReplacePutsTheNewFileBehindEveryName) {
  FdTable table;
  auto kernel = std::make_shared<KernelSocket>(AF_INET);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  ASSERT_EQ(table.Insert(fd, kernel, nullptr, false), 0);
  const int copy = dup(fd);
  table.Alias(copy, fd, false);
  EXPECT_EQ(table.state(copy), FdTable::State::kTracked);
  const int epoll = epoll_create1(0), gone = epoll_create1(0);
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = 1234}};
  for (const int e : {epoll, gone}) {
    ASSERT_EQ(epoll_ctl(e, EPOLL_CTL_ADD, copy, &event), 0);
    table.OnEpollControl(e, EPOLL_CTL_ADD, copy, &event);
  }
  event.data.u64 = 5678;
  ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_MOD, copy, &event), 0);
  table.OnEpollControl(epoll, EPOLL_CTL_MOD, copy, &event);
  ASSERT_EQ(epoll_ctl(gone, EPOLL_CTL_DEL, copy, nullptr), 0);

  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  ASSERT_EQ(table.Replace(kernel, nullptr, ends[0]), 0);
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  uint64_t data = 0;
  EXPECT_EQ(Readable(epoll, &data), 1);
  EXPECT_EQ(data, 5678u);
  EXPECT_EQ(Readable(gone, &data), 0);
  char byte;
  EXPECT_EQ(read(fd, &byte, 1), 1);
  EXPECT_EQ(read(copy, &byte, 1), -1);
  EXPECT_EQ(errno, EAGAIN);  // O_NONBLOCK is the new file's as well.

  EXPECT_EQ(table.Between(0, ~0u).size(), 2u);
  table.Remove(fd);
  EXPECT_EQ(table.FindKernel(fd), nullptr);
  EXPECT_EQ(table.FindKernel(copy), kernel);
  table.Forget(*kernel);
  EXPECT_EQ(table.state(copy), FdTable::State::kOther);
  for (const int f : {fd, copy, epoll, gone, ends[1]}) close(f);
}

TEST(FdTable, NumbersThatAreTooHigh) {
  FdTable table;
  auto kernel = std::make_shared<KernelSocket>(AF_INET);
  EXPECT_EQ(table.Insert(1 << 20, kernel, nullptr, false), -EMFILE);
  EXPECT_EQ(table.state(1 << 20), FdTable::State::kOther);
  EXPECT_EQ(table.state(-1), FdTable::State::kOther);
  EXPECT_EQ(table.FindTaken(5), nullptr);
  EXPECT_EQ(table.Remove(5), nullptr);
  table.Alias(6, 5, false);
  EXPECT_EQ(table.state(6), FdTable::State::kOther);
}

// A file that cannot be put there: nothing is lost, and it is said.
TEST(FdTable, ReplaceByNothing) {
  FdTable table;
  auto kernel = std::make_shared<KernelSocket>(AF_INET);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(table.Insert(fd, kernel, nullptr, false), 0);
  EXPECT_EQ(table.Replace(kernel, nullptr, 987654), -EBADF);
  EXPECT_EQ(close(fd), 0);
}

// -- addresses ----------------------------------------------------------------

TEST(SockAddr, OfTheSocketsFamily) {
  sockaddr_in v4 = {};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(80);
  v4.sin_addr.s_addr = htonl(0x0a000001);
  const auto* const a4 = reinterpret_cast<const sockaddr*>(&v4);
  const auto e = ToEndpoint(a4, sizeof(v4), AF_INET);
  ASSERT_TRUE(e.has_value());
  EXPECT_EQ(e->ToString(), "10.0.0.1:80");
  EXPECT_FALSE(ToEndpoint(a4, sizeof(v4), AF_INET6).has_value());
  EXPECT_FALSE(ToEndpoint(a4, sizeof(v4) - 1, AF_INET).has_value());
  EXPECT_FALSE(ToEndpoint(a4, 1000, AF_INET).has_value());
  EXPECT_FALSE(ToEndpoint(nullptr, sizeof(v4), AF_INET).has_value());

  sockaddr_in6 v6 = {};
  socklen_t size = sizeof(v6);
  auto* const a6 = reinterpret_cast<sockaddr*>(&v6);
  EXPECT_EQ(FromEndpoint(*e, AF_INET6, a6, &size), 0);
  EXPECT_EQ(size, sizeof(v6));
  EXPECT_TRUE(IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr));
  EXPECT_EQ(ToEndpoint(a6, size, AF_INET6), e);
  EXPECT_EQ(FromEndpoint({}, AF_INET6, a6, &size), 0);
  EXPECT_TRUE(IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr));
  size = 4;
  EXPECT_EQ(FromEndpoint(*e, AF_INET, a6, &size), 0);
  EXPECT_EQ(size, sizeof(v4));
  size = ~0u;
  EXPECT_EQ(FromEndpoint(*e, AF_INET, a6, &size), -EINVAL);
  size = 16;
  EXPECT_EQ(FromEndpoint(*e, AF_INET, nullptr, &size), -EFAULT);
  EXPECT_EQ(FromEndpoint(*e, AF_INET, a6, nullptr), -EFAULT);
}

}  // namespace
}  // namespace devwire::preload
