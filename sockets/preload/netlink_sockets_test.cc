// Binds on real sockets of generic netlink, of a kernel that has the family, or
// has not.
#include "sockets/preload/netlink_sockets.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "sockets/preload/devmem_uapi.h"

namespace devwire::preload {
namespace {

// A request with attributes that are one u32 each.
std::vector<std::byte> Request(
    uint16_t family, uint8_t command, uint32_t seq, bool wants_ack,
    const std::vector<std::pair<uint16_t, uint32_t>>& attributes) {
  std::vector<std::byte> out;
  const auto add = [&](const auto& value) {
    const auto* from = reinterpret_cast<const std::byte*>(&value);
    out.insert(out.end(), from, from + sizeof(value));
  };
  nlmsghdr header = {};
  header.nlmsg_len =
      static_cast<uint32_t>(NLMSG_HDRLEN + GENL_HDRLEN + 8 * attributes.size());
  header.nlmsg_type = family;
  header.nlmsg_flags =
      static_cast<uint16_t>(NLM_F_REQUEST | (wants_ack ? NLM_F_ACK : 0));
  header.nlmsg_seq = seq;
  add(header);
  add(genlmsghdr{command, 1, 0});
  for (const auto& [type, value] : attributes) {
    add(nlattr{8, type});
    add(value);
  }
  return out;
}

class NetlinkSocketsTest : public testing::Test {
 protected:
  static constexpr uint16_t kOwnFamily = 1024;

  ~NetlinkSocketsTest() override {
    sockets_.Close(fd_);
    close(fd_);
  }
  int Open() {
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
    sockets_.Add(fd);
    return fd;
  }
  void Send(const std::vector<std::byte>& datagram) {
    iovec one = {const_cast<std::byte*>(datagram.data()), datagram.size()};
    msghdr message = {};
    message.msg_iov = &one;
    message.msg_iovlen = 1;
    ASSERT_EQ(sockets_.Send(fd_, message, 0),
              static_cast<ssize_t>(datagram.size()));
  }
  void SendBind(uint32_t seq, bool wants_ack) {
    Send(Request(kOwnFamily, kNetdevBindTx, seq, wants_ack,
                 {{kDmabufIfindex, 1}, {kDmabufFd, 3}}));
  }
  // What comes next: "reply 5", "error 5 EEXIST"; "nothing".
  std::string Next(int flags = 0, size_t room = 4096) {
    std::vector<std::byte> bytes(room);
    iovec one = {bytes.data(), bytes.size()};
    msghdr message = {};
    message.msg_iov = &one;
    message.msg_iovlen = 1;
    const ssize_t got = sockets_.Receive(fd_, &message, flags | MSG_DONTWAIT);
    if (got < 0) return "nothing";
    if ((message.msg_flags & MSG_TRUNC) != 0) {
      return "cut " + std::to_string(got);
    }
    nlmsghdr header;
    memcpy(&header, bytes.data(), sizeof(header));
    std::string what = "reply " + std::to_string(header.nlmsg_seq);
    if (header.nlmsg_type == NLMSG_ERROR) {
      int error;
      memcpy(&error, bytes.data() + NLMSG_HDRLEN, sizeof(error));
      what = "error " + std::to_string(header.nlmsg_seq) + " " +
             (error == 0 ? "0" : strerrorname_np(-error));
    }
    return what;
  }
  bool IsReadable() const {
    pollfd wait = {fd_, POLLIN, 0};
    return poll(&wait, 1, 0) == 1;
  }

  std::optional<int64_t> answer_ = 7;
  std::vector<BindRequest> asked_;
  std::vector<uint32_t> unbound_;
  NetlinkSockets sockets_{
      {.bind =
           [this](const BindRequest& request, bool) {
             asked_.push_back(request);
             return answer_;
           },
       .unbind = [this](uint32_t id) { unbound_.push_back(id); },
       .find_family = [] { return std::optional<uint16_t>(); }}};
  int fd_ = Open();
};

TEST_F(NetlinkSocketsTest, AKernelWithoutTheFamily) {
  Send(MakeFamilyRequest(4));
  EXPECT_TRUE(IsReadable());
  EXPECT_EQ(Next(), "reply 4");
  EXPECT_FALSE(IsReadable());
  // Other families are asked for as ever: nlctrl is number 16.
  Send(Request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 5, false,
               {{CTRL_ATTR_FAMILY_ID, GENL_ID_CTRL}}));
  EXPECT_TRUE(asked_.empty());
  EXPECT_NE(Next(), "nothing");
}

TEST_F(NetlinkSocketsTest, AReplyThenTheAcknowledgement) {
  SendBind(5, true);
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_EQ(asked_[0].ifindex, 1u);
  EXPECT_EQ(asked_[0].fd, 3);
  EXPECT_TRUE(IsReadable());
  EXPECT_EQ(Next(MSG_PEEK), "reply 5");
  EXPECT_EQ(Next(), "reply 5");
  EXPECT_TRUE(IsReadable());
  EXPECT_EQ(Next(MSG_PEEK), "error 5 0");
  EXPECT_EQ(Next(), "error 5 0");
  EXPECT_FALSE(IsReadable());
  EXPECT_EQ(Next(), "nothing");
}

TEST_F(NetlinkSocketsTest, WithoutAcknowledgementTheReplyAlone) {
  SendBind(6, false);
  EXPECT_TRUE(IsReadable());
  EXPECT_EQ(Next(0, 20), "cut 20");
  EXPECT_FALSE(IsReadable());
  SendBind(7, false);
  EXPECT_EQ(Next(MSG_TRUNC, 20), "cut 28") << "its real length";
}

TEST_F(NetlinkSocketsTest, ErrorsAreToldInAnyCase) {
  answer_ = -EEXIST;
  SendBind(8, true);
  SendBind(9, false);
  EXPECT_EQ(Next(), "error 8 EEXIST");
  EXPECT_EQ(Next(), "error 9 EEXIST");
  Send(Request(kOwnFamily, kNetdevBindRx, 10, false, {{kDmabufFd, 3}}));
  EXPECT_EQ(Next(), "error 10 EINVAL");
  EXPECT_EQ(asked_.size(), 2u);
  EXPECT_FALSE(IsReadable());
}

// Answers keep their places among the kernel's.
TEST_F(NetlinkSocketsTest, InTheOrderOfTheRequests) {
  const auto ask_kernel = [&](uint32_t seq) {
    Send(Request(kOwnFamily, 1, seq, false, {}));  // DEV_GET of no family.
  };
  ask_kernel(20);
  SendBind(21, true);
  ask_kernel(22);
  SendBind(23, false);
  for (const char* wanted : {"error 20 ENOENT", "reply 21", "error 21 0",
                             "error 22 ENOENT", "reply 23", "nothing"}) {
    EXPECT_EQ(Next(), wanted);
  }
}

TEST_F(NetlinkSocketsTest, WhatIsNotOursIsTheKernels) {
  answer_ = std::nullopt;
  SendBind(30, false);
  EXPECT_EQ(asked_.size(), 1u);
  EXPECT_EQ(Next(), "error 30 ENOENT") << "it has no such family";
}

// The queue was full: the kernel's acknowledgement is lost, ours with it.
TEST_F(NetlinkSocketsTest, LostAcknowledgements) {
  const int least = 1;
  setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
  for (uint32_t i = 0; i < 100; ++i) SendBind(100 + i, true);
  int answers = 0;
  for (std::string next = Next(); answers < 200; next = Next()) {
    if (next == "nothing" && !IsReadable()) break;
    ++answers;
  }
  EXPECT_LT(answers, 100);
  // And what comes after is as it should be.
  SendBind(300, false);
  EXPECT_EQ(Next(), "reply 300");
}

TEST_F(NetlinkSocketsTest, BindingsEndWithTheLastDescriptor) {
  SendBind(1, false);
  answer_ = 8;
  SendBind(2, false);
  sockets_.Alias(1000, fd_);
  sockets_.Alias(1001, 1000);
  sockets_.Alias(-1, fd_);
  sockets_.Alias(1002, 999);  // Of no such socket.
  EXPECT_FALSE(sockets_.Has(1002));
  sockets_.Close(fd_);
  sockets_.CloseBetween(0, 1000);
  EXPECT_TRUE(unbound_.empty());
  EXPECT_TRUE(sockets_.Has(1001));
  sockets_.CloseBetween(1001, ~0u);
  EXPECT_EQ(unbound_, (std::vector<uint32_t>{7, 8}));
  EXPECT_FALSE(sockets_.has_some());
}

}  // namespace
}  // namespace devwire::preload
