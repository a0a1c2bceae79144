// What poll(2) says of a taken socket, beside what its calls say.
#include "sockets/preload/taken_socket.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>

#include "gtest/gtest.h"
#include "sockets/two_stacks.h"

namespace devwire::preload {
namespace {

// A connection whose server's end is taken, and whose poller says nothing.
class TakenSocketTest : public testing::Test {
 protected:
  TakenSocketTest() {
    EXPECT_EQ(TakenSocket::Make(std::move(pair_.server),
                                std::make_shared<KernelSocket>(AF_INET),
                                &taken_, &fd_),
              0);
  }
  ~TakenSocketTest() override { close(fd_); }

  // Sends, and polls the engines until the bytes are in the stream.
  bool Arrive(size_t bytes) {
    const std::vector<std::byte> some(bytes);
    const uint64_t before = *taken_->stream()->ReadableBytes();
    EXPECT_EQ(*pair_.client->SendHost(some), bytes);
    return net_.Until(
        [&] { return *taken_->stream()->ReadableBytes() == before + bytes; });
  }
  bool IsReadable() const {
    pollfd p = {fd_, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
  }
  int64_t Receive(size_t bytes, Inbox::How how = {}) {
    std::vector<std::byte> room(bytes);
    const std::array<iovec, 1> out = {iovec{room.data(), room.size()}};
    return taken_->Receive(out, how);
  }

  TwoStacks net_{{}};
  TwoStacks::Pair pair_ = net_.Connect(std::nullopt, std::nullopt);
  std::shared_ptr<TakenSocket> taken_;
  int fd_ = -1;
};

// FIONREAD looks into the stream. Who has been told of bytes by it finds the
// socket readable, whether the poller has been here or not.
TEST_F(TakenSocketTest, BytesThatWereToldOfAreSeenByPoll) {
  ASSERT_TRUE(Arrive(10));
  EXPECT_FALSE(IsReadable());
  EXPECT_EQ(taken_->TellBytesReadable(), 10u);
  EXPECT_TRUE(IsReadable());
}

TEST_F(TakenSocketTest, BytesThatAReadHasLeftAreSeenByPoll) {
  ASSERT_TRUE(Arrive(10));
  EXPECT_EQ(Receive(10, {.peeks = true}), 10);
  EXPECT_TRUE(IsReadable());
  EXPECT_EQ(Receive(10), 10);
  EXPECT_FALSE(IsReadable());
  ASSERT_TRUE(Arrive(10));
  EXPECT_EQ(Receive(4), 4);
  EXPECT_TRUE(IsReadable());
  EXPECT_EQ(Receive(6), 6);
  EXPECT_FALSE(IsReadable());
}

}  // namespace
}  // namespace devwire::preload
