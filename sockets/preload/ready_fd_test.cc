// Every state of a TCP socket, as poll(2) and epoll(7) show it.
#include "sockets/preload/ready_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>

#include "gtest/gtest.h"

namespace devwire::preload {
namespace {

class ReadyFdTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(ready_.Open(&fd_), 0); }
  void TearDown() override { close(fd_); }
  short State() const {
    pollfd wait = {fd_, POLLIN | POLLOUT | POLLRDHUP, 0};
    poll(&wait, 1, 0);
    return wait.revents;
  }

  ReadyFd ready_;
  int fd_ = -1;
};

TEST_F(ReadyFdTest, ReadableAndWritableAreFreeOfEachOther) {
  EXPECT_EQ(State(), 0);
  ready_.SetWritable(true);
  EXPECT_EQ(State(), POLLOUT);
  ready_.OnMore();
  ready_.OnMore();
  EXPECT_EQ(State(), POLLIN | POLLOUT);
  ready_.SetWritable(false);
  EXPECT_EQ(State(), POLLIN);
  ready_.ClearReadable();
  EXPECT_EQ(State(), 0);
  ready_.OnMore();
  EXPECT_EQ(State(), POLLIN);
}

TEST_F(ReadyFdTest, TheEndOfTheStream) {
  ready_.SetWritable(true);
  ready_.OnEndOfStream();
  EXPECT_EQ(State(), POLLIN | POLLOUT | POLLRDHUP);
  ready_.ClearReadable();  // The end stays.
  EXPECT_EQ(State(), POLLIN | POLLOUT | POLLRDHUP);
  ready_.SetWritable(false);
  EXPECT_EQ(State(), POLLIN | POLLRDHUP);
  ready_.OnHangUp();
  EXPECT_EQ(State(), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
}

TEST_F(ReadyFdTest, AnErrorIsEverything) {
  ready_.OnError();
  EXPECT_EQ(State(), POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
  ready_.OnMore();
  ready_.ClearReadable();
  ready_.SetWritable(false);
  ready_.OnError();
  EXPECT_EQ(State(), POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
}

// Who waits for edges gets one for each arrival, and none for what stays.
TEST_F(ReadyFdTest, Edges) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, fd_, &event), 0);
  const auto edges = [&] { return epoll_wait(epoll, &event, 1, 0); };
  EXPECT_EQ(edges(), 0);
  ready_.OnMore();
  EXPECT_EQ(edges(), 1);
  EXPECT_EQ(edges(), 0);
  ready_.OnMore();
  EXPECT_EQ(edges(), 1);
  for (int i = 0; i < 100'000; ++i) ready_.OnMore();  // More than it can hold.
  EXPECT_EQ(State(), POLLIN);
  ready_.ClearReadable();
  EXPECT_EQ(State(), 0);
  close(epoll);
}

// An error queue with something in it, in every state of the rest.
TEST_F(ReadyFdTest, AnErrorQueueIsFreeOfTheRest) {
  for (const bool is_writable : {false, true, false}) {
    for (const bool is_readable : {false, true, false}) {
      ready_.SetWritable(is_writable);
      if (is_readable) ready_.OnMore();
      if (!is_readable) ready_.ClearReadable();
      const int rest = (is_writable ? POLLOUT : 0) | (is_readable ? POLLIN : 0);
      EXPECT_EQ(State(), rest);
      ASSERT_EQ(ready_.SetErrorQueue(true), 0);
      EXPECT_EQ(State(), rest | POLLERR);
      ASSERT_EQ(ready_.SetErrorQueue(true), 0);
      EXPECT_EQ(State(), rest | POLLERR);
      ASSERT_EQ(ready_.SetErrorQueue(false), 0);
      EXPECT_EQ(State(), rest);
    }
  }
}

// It stays while the rest changes, and ends with the connection.
TEST_F(ReadyFdTest, AnErrorQueueStays) {
  ASSERT_EQ(ready_.SetErrorQueue(true), 0);
  ready_.SetWritable(true);
  EXPECT_EQ(State(), POLLOUT | POLLERR);
  for (int i = 0; i < 100; ++i) ready_.OnMore();
  EXPECT_EQ(State(), POLLIN | POLLOUT | POLLERR);
  ready_.SetWritable(false);
  EXPECT_EQ(State(), POLLIN | POLLERR);
  ready_.ClearReadable();
  EXPECT_EQ(State(), POLLERR);
  ready_.OnEndOfStream();
  EXPECT_EQ(State(), POLLIN | POLLRDHUP | POLLERR);
  ASSERT_EQ(ready_.SetErrorQueue(false), 0);
  EXPECT_EQ(State(), POLLIN | POLLRDHUP);
  ASSERT_EQ(ready_.SetErrorQueue(true), 0);
  ready_.OnHangUp();
  EXPECT_EQ(State(), POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
  ASSERT_EQ(ready_.SetErrorQueue(false), 0);
  EXPECT_EQ(State(), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
  ready_.OnError();
  EXPECT_EQ(State(), POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
}

TEST_F(ReadyFdTest, AnErrorQueueMakesEdges) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event = {};
  event.events = EPOLLET;
  ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, fd_, &event), 0);
  const auto edges = [&] { return epoll_wait(epoll, &event, 1, 0); };
  EXPECT_EQ(edges(), 0);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(ready_.SetErrorQueue(true), 0);
    EXPECT_EQ(edges(), 1);
    EXPECT_EQ(event.events, unsigned{EPOLLERR});
    EXPECT_EQ(edges(), 0);
    ASSERT_EQ(ready_.SetErrorQueue(false), 0);
    EXPECT_EQ(edges(), 0);
  }
  close(epoll);
}

// -- SIGURG -------------------------------------------------------------------

std::atomic<int> urgent_signals = 0;

TEST_F(ReadyFdTest, UrgentDataSignalsTheOwner) {
  struct sigaction counts = {};
  struct sigaction before = {};
  counts.sa_handler = [](int) { ++urgent_signals; };
  sigaction(SIGURG, &counts, &before);
  ready_.SignalUrgent();
  EXPECT_EQ(urgent_signals, 0) << "nobody's";
  const f_owner_ex owners[] = {{F_OWNER_TID, gettid()},
                               {F_OWNER_PID, getpid()},
                               {F_OWNER_PGRP, getpgrp()}};
  for (const f_owner_ex& owner : owners) {
    ASSERT_EQ(fcntl(fd_, F_SETOWN_EX, &owner), 0);
    urgent_signals = 0;
    ready_.SignalUrgent();
    EXPECT_EQ(urgent_signals, 1) << owner.type;
  }
  sigaction(SIGURG, &before, nullptr);
}

// Without descriptors it says so, and nothing changes.
TEST_F(ReadyFdTest, NoDescriptorForAnErrorQueue) {
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  rlimit none = before;
  none.rlim_cur = 0;
  setrlimit(RLIMIT_NOFILE, &none);
  EXPECT_EQ(ready_.SetErrorQueue(true), EMFILE);
  none.rlim_cur = 512;  // One, but none where ours are kept.
  setrlimit(RLIMIT_NOFILE, &none);
  EXPECT_NE(ready_.SetErrorQueue(true), 0);
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(State(), 0);
  EXPECT_EQ(ready_.SetErrorQueue(true), 0);
  EXPECT_EQ(State(), POLLERR);
}

}  // namespace
}  // namespace devwire::preload
