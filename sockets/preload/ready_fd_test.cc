// Every state of a TCP socket, as poll(2) and epoll(7) show it.
#include "sockets/preload/ready_fd.h"

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

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

}  // namespace
}  // namespace devwire::preload
