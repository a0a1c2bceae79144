// A program with many threads on the shim, both ends of every connection its
// own: what ThreadSanitizer and AddressSanitizer are to see. The intercepted
// calls are linked in, as `libdevwire_preload.so` would bring them.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "sockets/preload/shim.h"

namespace devwire::preload {
namespace {

class OnDevwire : public testing::Environment {
  void SetUp() override {
    ASSERT_NE(Shim::Get(), nullptr) << "DEVWIRE_CONFIG is not as in BUILD";
  }
};
const auto* const g_on_devwire =
    testing::AddGlobalTestEnvironment(new OnDevwire);

// shim_program.toml: 192.0.2.1.
sockaddr_in Ours(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(0xc0000201);
  address.sin_port = htons(port);
  return address;
}

int Listen(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in address = Ours(port);
  const auto* const name = reinterpret_cast<const sockaddr*>(&address);
  EXPECT_EQ(bind(fd, name, sizeof(address)), 0) << strerror(errno);
  EXPECT_EQ(listen(fd, 64), 0) << strerror(errno);
  return fd;
}

int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = Ours(port);
  const auto* const name = reinterpret_cast<const sockaddr*>(&address);
  EXPECT_EQ(connect(fd, name, sizeof(address)), 0) << strerror(errno);
  return fd;
}

void SendAll(int fd, const std::vector<char>& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n =
        send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    ASSERT_GT(n, 0) << strerror(errno);
    sent += static_cast<size_t>(n);
  }
}

// Sends back what comes, until its end.
void Echo(int fd) {
  std::vector<char> room(16 << 10);
  while (true) {
    const ssize_t n = read(fd, room.data(), room.size());
    if (n <= 0) break;
    SendAll(fd, {room.begin(), room.begin() + n});
  }
  close(fd);
}

// A message of its own to and fro, with what else may be called meanwhile.
void Exchange(uint16_t port, int number) {
  const int fd = Connect(port);
  const std::vector<char> message(20'000, static_cast<char>(number));
  std::thread sender([&] {
    SendAll(fd, message);
    shutdown(fd, SHUT_WR);
  });
  std::vector<char> got;
  std::vector<char> room(5'000);
  while (true) {
    pollfd wait = {fd, POLLIN, 0};
    EXPECT_EQ(poll(&wait, 1, 20'000), 1);
    int readable = 0;
    EXPECT_EQ(ioctl(fd, FIONREAD, &readable), 0);
    tcp_info info;
    socklen_t size = sizeof(info);
    EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    iovec parts[] = {{room.data(), 1'000}, {room.data() + 1'000, 4'000}};
    const ssize_t n = readv(fd, parts, 2);
    EXPECT_GE(n, 0) << strerror(errno);
    if (n <= 0) break;
    got.insert(got.end(), room.begin(), room.begin() + n);
  }
  sender.join();
  EXPECT_EQ(got, message);
  EXPECT_EQ(close(fd), 0);
}

TEST(ShimProgram, ItsSocketsAreTaken) {
  const int listener = Listen(7000);
  std::thread server([&] { Echo(accept(listener, nullptr, nullptr)); });
  Exchange(7000, 1);
  server.join();
  EXPECT_EQ(Shim::Get()->account().record().taken, 3u);
  close(listener);
}

// Four threads accept from one listener, eight connect.
TEST(ShimProgram, ThreadsThatBlock) {
  constexpr int kServers = 4, kClients = 8, kEach = 6;
  const int listener = Listen(7001);
  std::vector<std::thread> threads;
  for (int i = 0; i < kServers; ++i) {
    threads.emplace_back([&] {
      while (true) {
        const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) break;
        Echo(fd);
      }
    });
  }
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([i] {
      for (int n = 0; n < kEach; ++n) Exchange(7001, i * kEach + n);
    });
  }
  for (auto& thread : clients) thread.join();
  shutdown(listener, SHUT_RDWR);  // accept(2) answers EINVAL.
  for (auto& thread : threads) thread.join();
  close(listener);
}

// One thread serves all by edges, while others connect.
TEST(ShimProgram, OneThreadWithEpoll) {
  const int listener = Listen(7002);
  fcntl(listener, F_SETFL, O_NONBLOCK);
  const int ep = epoll_create1(EPOLL_CLOEXEC);
  std::atomic<bool> stops{false};
  std::thread server([&] {
    const auto watch = [&](int fd) {
      epoll_event event = {};
      event.events = EPOLLIN | EPOLLET;
      event.data.fd = fd;
      EXPECT_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event), 0);
    };
    watch(listener);
    std::vector<char> room(16 << 10);
    while (!stops) {
      epoll_event events[16];
      const int count = epoll_wait(ep, events, 16, 20);
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener) {
          int one;
          while ((one = accept4(fd, nullptr, nullptr, SOCK_NONBLOCK)) >= 0) {
            watch(one);
          }
          continue;
        }
        ssize_t n;
        while ((n = recv(fd, room.data(), room.size(), 0)) > 0) {
          SendAll(fd, {room.begin(), room.begin() + n});
        }
        if (n == 0) close(fd);
      }
    }
  });
  std::vector<std::thread> clients;
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back([i] {
      for (int n = 0; n < 5; ++n) Exchange(7002, i * 5 + n);
    });
  }
  for (auto& thread : clients) thread.join();
  stops = true;
  server.join();
  close(ep);
  close(listener);
}

// close(2) and shutdown(2) by one thread while another waits in a call.
TEST(ShimProgram, EndsWhileAnotherThreadWaits) {
  const int listener = Listen(7003);
  for (int i = 0; i < 40; ++i) {
    const int client = Connect(7003);
    const int server = accept(listener, nullptr, nullptr);
    std::thread waits([&] {
      char byte;
      EXPECT_EQ(recv(server, &byte, 1, 0), 0) << strerror(errno);
    });
    if (i % 2 == 0) {
      shutdown(server, SHUT_RD);
    } else {
      close(client);
    }
    waits.join();
    close(server);
    if (i % 2 == 0) close(client);
  }
  close(listener);
}

// Each thread its own duplicate; the last close ends the connection.
TEST(ShimProgram, DuplicatesInThreads) {
  const int listener = Listen(7004);
  const int client = Connect(7004);
  std::thread server([&] { Echo(accept(listener, nullptr, nullptr)); });
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    const int mine = i % 2 == 0 ? dup(client) : fcntl(client, F_DUPFD, 200);
    threads.emplace_back([mine] {
      SendAll(mine, std::vector<char>(1'000));
      EXPECT_EQ(close(mine), 0);
    });
  }
  for (auto& thread : threads) thread.join();
  std::vector<char> room(4'000);
  EXPECT_EQ(recv(client, room.data(), room.size(), MSG_WAITALL), 4'000);
  close(client);
  server.join();
  close(listener);
}

// A child that only ends, and one that becomes another program, while the
// parent's threads go on.
TEST(ShimProgram, ForksUnderLoad) {
  const int listener = Listen(7005);
  std::atomic<bool> stops{false};
  std::thread server([&] {
    while (true) {
      const int fd = accept(listener, nullptr, nullptr);
      if (fd < 0) break;
      Echo(fd);
    }
  });
  std::thread client([&] {
    while (!stops) Exchange(7005, 7);
  });
  for (int i = 0; i < 10; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      if (i % 2 == 0) _exit(3);
      execl("/bin/sh", "sh", "-c", "exit 3", nullptr);
      _exit(4);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 3);
  }
  stops = true;
  client.join();
  shutdown(listener, SHUT_RDWR);
  server.join();
  close(listener);
}

}  // namespace
}  // namespace devwire::preload
