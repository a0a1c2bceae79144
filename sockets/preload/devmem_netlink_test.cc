// The netlink messages that bind a dmabuf, and those that are not for us.
#include "sockets/preload/devmem_netlink.h"

#include <linux/genetlink.h>
#include <linux/netlink.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "gtest/gtest.h"
#include "sockets/preload/devmem_uapi.h"

namespace devwire::preload {
namespace {

using Datagram = std::vector<std::byte>;

constexpr uint16_t kFamily = 33;

void Append(Datagram* to, const void* data, size_t size) {
  const auto* from = static_cast<const std::byte*>(data);
  to->insert(to->end(), from, from + size);
}

Datagram Attribute(uint16_t type, std::string_view value) {
  const nlattr header = {static_cast<uint16_t>(NLA_HDRLEN + value.size()),
                         type};
  Datagram out;
  Append(&out, &header, sizeof(header));
  Append(&out, value.data(), value.size());
  out.resize(NLA_ALIGN(out.size()));
  return out;
}
Datagram Attribute(uint16_t type, uint32_t value) {
  return Attribute(type, {reinterpret_cast<const char*>(&value), 4});
}
Datagram Attribute(uint16_t type, const Datagram& nested) {
  return Attribute(
      type, {reinterpret_cast<const char*>(nested.data()), nested.size()});
}

Datagram operator+(Datagram a, const Datagram& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Datagram Request(uint16_t type, uint8_t command, const Datagram& attributes,
                 uint16_t flags = NLM_F_REQUEST | NLM_F_ACK) {
  nlmsghdr header = {};
  header.nlmsg_len =
      static_cast<uint32_t>(NLMSG_HDRLEN + GENL_HDRLEN + attributes.size());
  header.nlmsg_type = type;
  header.nlmsg_flags = flags;
  header.nlmsg_seq = 77;
  const genlmsghdr genl = {command, 1, 0};
  Datagram out;
  Append(&out, &header, sizeof(header));
  Append(&out, &genl, sizeof(genl));
  return out + attributes;
}

Datagram Queue(uint32_t id, uint32_t type = kQueueTypeRx) {
  return Attribute(kDmabufQueues | NLA_F_NESTED,
                   Attribute(kQueueId, id) + Attribute(kQueueType, type));
}

TEST(DevmemNetlink, BindRx) {
  const Datagram datagram =
      Request(kFamily, kNetdevBindRx,
              Attribute(kDmabufIfindex, 3u) + Attribute(kDmabufFd, 9u) +
                  Queue(15) + Queue(16));
  const auto request = ParseGenl(datagram);
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->type, kFamily);
  EXPECT_EQ(request->seq, 77u);
  EXPECT_EQ(request->command, kNetdevBindRx);
  EXPECT_FALSE(AsksForNetdev(*request));
  BindRequest bind;
  EXPECT_EQ(ParseBind(*request, &bind), 0);
  EXPECT_EQ(bind.ifindex, 3u);
  EXPECT_EQ(bind.fd, 9);
  EXPECT_EQ(bind.queues, (std::vector<uint32_t>{15, 16}));
  EXPECT_EQ(MakeBindReply(*request, 4711, 5), [] {
    Datagram reply =
        Request(kFamily, kNetdevBindRx, Attribute(kDmabufId, 5u), 0);
    const uint32_t port = 4711;
    memcpy(reply.data() + offsetof(nlmsghdr, nlmsg_pid), &port, 4);
    return reply;
  }());
}

TEST(DevmemNetlink, WhatIsMissing) {
  const Datagram ifindex = Attribute(kDmabufIfindex, 3u);
  const Datagram fd = Attribute(kDmabufFd, 9u);
  const struct {
    const char* what;
    uint8_t command;
    Datagram attributes;
    int error;
  } kCases[] = {
      {"all", kNetdevBindRx, {}, EINVAL},
      {"the interface", kNetdevBindRx, fd + Queue(0), EINVAL},
      {"the dmabuf", kNetdevBindRx, ifindex + Queue(0), EINVAL},
      {"the queue", kNetdevBindRx, ifindex + fd, EINVAL},
      {"the queue's id", kNetdevBindRx,
       ifindex + fd +
           Attribute(kDmabufQueues, Attribute(kQueueType, kQueueTypeRx)),
       EINVAL},
      {"the queue's type", kNetdevBindRx,
       ifindex + fd + Attribute(kDmabufQueues, Attribute(kQueueId, 0u)),
       EINVAL},
      {"a queue that receives", kNetdevBindRx, ifindex + fd + Queue(0, 1),
       EINVAL},
      {"the end of a number", kNetdevBindRx,
       Attribute(kDmabufIfindex, "ab") + fd + Queue(0), EINVAL},
      {"the end of an attribute", kNetdevBindTx,
       ifindex + fd + Datagram{std::byte{9}, std::byte{0}}, EINVAL},
      {"nothing", kNetdevBindTx, ifindex + fd, 0},
  };
  for (const auto& c : kCases) {
    const Datagram datagram = Request(kFamily, c.command, c.attributes);
    const auto request = ParseGenl(datagram);
    ASSERT_TRUE(request.has_value()) << c.what;
    BindRequest bind;
    EXPECT_EQ(ParseBind(*request, &bind), c.error) << c.what;
  }
}

TEST(DevmemNetlink, MessagesForTheKernel) {
  const Datagram good = Request(kFamily, kNetdevBindTx, {});
  EXPECT_TRUE(ParseGenl(good).has_value());
  EXPECT_FALSE(ParseGenl({}).has_value());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(ParseGenl(std::span(good).first(size)).has_value()) << size;
  }
  EXPECT_FALSE(ParseGenl(good + good).has_value()) << "two in one";
  EXPECT_FALSE(ParseGenl(Request(kFamily, 1, {}, NLM_F_ACK)).has_value())
      << "no request";
}

TEST(DevmemNetlink, TheFamily) {
  const auto asks = [](uint16_t type, uint8_t command, std::string_view name) {
    const Datagram d =
        Request(type, command, Attribute(CTRL_ATTR_FAMILY_NAME, name));
    return AsksForNetdev(*ParseGenl(d));
  };
  using namespace std::string_view_literals;
  EXPECT_TRUE(asks(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, "netdev\0"sv));
  EXPECT_TRUE(asks(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, "netdev"));
  EXPECT_FALSE(asks(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, "netdevs\0"sv));
  EXPECT_FALSE(asks(GENL_ID_CTRL, CTRL_CMD_GETOPS, "netdev\0"sv));
  EXPECT_FALSE(asks(kFamily, CTRL_CMD_GETFAMILY, "netdev\0"sv));
  const Datagram request = MakeFamilyRequest(9);
  ASSERT_TRUE(AsksForNetdev(*ParseGenl(request)));
  const Datagram reply = MakeFamilyReply(*ParseGenl(request), 1, 1024);
  EXPECT_EQ(FamilyIn(reply), 1024);
  EXPECT_EQ(FamilyIn(request), std::nullopt);
  EXPECT_EQ(FamilyIn(std::span(reply).first(19)), std::nullopt);
}

TEST(DevmemNetlink, Acknowledgements) {
  const Datagram request = Request(kFamily, kNetdevBindRx, {});
  const Datagram noop = MakeNoop(*ParseGenl(request));
  nlmsghdr header;
  memcpy(&header, noop.data(), sizeof(header));
  EXPECT_EQ(header.nlmsg_len, noop.size());
  EXPECT_EQ(header.nlmsg_type, NLMSG_NOOP);
  EXPECT_EQ(header.nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK);
  EXPECT_EQ(header.nlmsg_seq, 77u);
  EXPECT_EQ(AcknowledgedBy(noop), std::nullopt);

  Datagram ack;
  header.nlmsg_len = NLMSG_HDRLEN + sizeof(nlmsgerr);
  header.nlmsg_type = NLMSG_ERROR;
  Append(&ack, &header, sizeof(header));
  nlmsgerr error = {};
  error.msg.nlmsg_type = NLMSG_NOOP;
  Append(&ack, &error, sizeof(error));
  EXPECT_EQ(AcknowledgedBy(ack), 77u);
  RewriteAck(ack, kFamily, ENODEV);
  memcpy(&error, ack.data() + NLMSG_HDRLEN, sizeof(error));
  EXPECT_EQ(error.error, -ENODEV);
  EXPECT_EQ(error.msg.nlmsg_type, kFamily);
  RewriteAck(std::span(ack).first(20), kFamily, 0);  // Cut: left alone.
  memcpy(&error, ack.data() + NLMSG_HDRLEN, sizeof(error));
  EXPECT_EQ(error.error, -ENODEV);
}

}  // namespace
}  // namespace devwire::preload
