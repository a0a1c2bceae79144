// Which sends are complete, and how an error queue tells it.
#include "sockets/preload/zerocopy.h"

#include <netinet/in.h>
// After netinet/in.h, whose types it uses.
#include <linux/errqueue.h>

#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace devwire::preload {
namespace {

// "0-2 3c": what the queue tells, oldest first; c: copied.
std::string Told(ZeroCopySends* sends) {
  std::string all;
  while (const auto n = sends->Take()) {
    all += (all.empty() ? "" : " ") + std::to_string(n->first);
    if (n->last != n->first) all += "-" + std::to_string(n->last);
    if (n->was_copied) all += "c";
  }
  return all;
}

// A send of one part.
uint32_t Send(ZeroCopySends* sends) {
  const uint32_t number = sends->Begin();
  sends->AddPart(number);
  sends->End(number);
  return number;
}

TEST(ZeroCopySends, WhatFollowsOneAnotherBecomesOne) {
  ZeroCopySends sends;
  for (int i = 0; i < 5; ++i) Send(&sends);
  EXPECT_FALSE(sends.has_notification());
  sends.OnPartDone(0);
  sends.OnPartDone(1);
  EXPECT_TRUE(sends.has_notification());
  EXPECT_EQ(Told(&sends), "0-1");
  EXPECT_FALSE(sends.has_notification());
  sends.OnPartDone(3);
  sends.OnPartDone(2);
  sends.OnPartDone(4);
  EXPECT_EQ(Told(&sends), "3 2 4");
}

TEST(ZeroCopySends, CopiesAreCompleteAtOnce) {
  ZeroCopySends sends;
  Send(&sends);
  sends.AddCopied();
  sends.AddCopied();
  sends.OnPartDone(0);
  Send(&sends);
  sends.OnPartDone(3);
  EXPECT_EQ(Told(&sends), "1-2c 0 3");
}

TEST(ZeroCopySends, ASendIsCompleteWithItsLastPart) {
  ZeroCopySends sends;
  const uint32_t number = sends.Begin();
  sends.AddPart(number);
  sends.OnPartDone(number);
  EXPECT_FALSE(sends.has_notification()) << "more may follow";
  sends.AddPart(number);
  sends.AddPart(number);
  sends.OnPartDone(number);
  sends.End(number);
  EXPECT_FALSE(sends.has_notification());
  sends.OnPartDone(number);
  EXPECT_EQ(Told(&sends), "0");
  sends.OnPartDone(number);  // Of no send.
  EXPECT_FALSE(sends.has_notification());
}

TEST(ZeroCopySends, ASendThatWasNoneHasNoNumber) {
  ZeroCopySends sends;
  sends.End(sends.Begin());
  EXPECT_EQ(Send(&sends), 0u);
  // Another thread's came in between: then it is told, and no number is
  // missing.
  const uint32_t none = sends.Begin();
  Send(&sends);
  sends.End(none);
  sends.OnPartDone(0);
  sends.OnPartDone(2);
  EXPECT_EQ(Told(&sends), "1 0 2");
}

TEST(PutNotification, InWhateverRoomThereIs) {
  for (const bool is_ipv6 : {false, true}) {
    const size_t bytes = sizeof(sock_extended_err) +
                         (is_ipv6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
    for (size_t room = 0; room <= CMSG_SPACE(bytes) + 8; ++room) {
      // On the heap, so that a sanitizer sees what is written behind it.
      std::vector<char> control(room);
      msghdr message = {};
      message.msg_control = room == 0 ? nullptr : control.data();
      message.msg_controllen = room;
      PutNotification({.first = 3, .last = 9, .was_copied = true}, is_ipv6,
                      &message);
      const bool is_whole = room >= CMSG_LEN(bytes);
      EXPECT_EQ(message.msg_flags, MSG_ERRQUEUE | (is_whole ? 0 : MSG_CTRUNC))
          << room;
      if (room < sizeof(cmsghdr)) {
        EXPECT_EQ(message.msg_controllen, 0u);
        continue;
      }
      EXPECT_EQ(message.msg_controllen, std::min(room, CMSG_SPACE(bytes)));
      cmsghdr header;
      memcpy(&header, control.data(), sizeof(header));
      EXPECT_EQ(header.cmsg_len, std::min(room, CMSG_LEN(bytes)));
      EXPECT_EQ(header.cmsg_level, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP);
      EXPECT_EQ(header.cmsg_type, is_ipv6 ? IPV6_RECVERR : IP_RECVERR);
      if (!is_whole) continue;
      sock_extended_err error;
      memcpy(&error, control.data() + CMSG_LEN(0), sizeof(error));
      EXPECT_EQ(error.ee_errno, 0u);
      EXPECT_EQ(error.ee_origin, SO_EE_ORIGIN_ZEROCOPY);
      EXPECT_EQ(error.ee_code, SO_EE_CODE_ZEROCOPY_COPIED);
      EXPECT_EQ(error.ee_info, 3u);
      EXPECT_EQ(error.ee_data, 9u);
    }
  }
}

}  // namespace
}  // namespace devwire::preload
