#include "sockets/preload/zerocopy.h"

#include <netinet/in.h>
// After netinet/in.h, whose types it uses.
#include <linux/errqueue.h>

#include <algorithm>
#include <cstring>

namespace devwire::preload {

uint32_t ZeroCopySends::Begin() {
  const uint32_t number = next_++;
  open_[number] = {};
  return number;
}

void ZeroCopySends::End(uint32_t number) {
  const auto send = open_.find(number);
  if (!send->second.is_begun && number + 1 == next_) {
    open_.erase(send);
    --next_;
    return;
  }
  send->second.is_whole = true;
  CompleteIfDone(send);
}

void ZeroCopySends::OnPartDone(uint32_t number) {
  const auto send = open_.find(number);
  if (send == open_.end()) return;
  --send->second.parts;
  CompleteIfDone(send);
}

void ZeroCopySends::CompleteIfDone(Sends::iterator send) {
  if (send->second.parts > 0 || !send->second.is_whole) return;
  const uint32_t number = send->first;
  open_.erase(send);
  Notify(number, /*was_copied=*/false);
}

void ZeroCopySends::Notify(uint32_t number, bool was_copied) {
  if (!done_.empty() && done_.back().last + 1 == number &&
      done_.back().was_copied == was_copied) {
    done_.back().last = number;
    return;
  }
  done_.push_back({number, number, was_copied});
}

std::optional<ZeroCopySends::Notification> ZeroCopySends::Take() {
  if (done_.empty()) return std::nullopt;
  const Notification oldest = done_.front();
  done_.pop_front();
  return oldest;
}

void PutNotification(const ZeroCopySends::Notification& notification,
                     bool is_ipv6, msghdr* message) {
  // What ip(7) says of IP_RECVERR: the error, and the address it came from.
  struct {
    sock_extended_err error;
    sockaddr_in6 offender;
  } what = {};
  what.error.ee_origin = SO_EE_ORIGIN_ZEROCOPY;
  what.error.ee_code = notification.was_copied ? SO_EE_CODE_ZEROCOPY_COPIED : 0;
  what.error.ee_info = notification.first;
  what.error.ee_data = notification.last;
  const size_t data_size = sizeof(what.error) + (is_ipv6 ? sizeof(sockaddr_in6)
                                                         : sizeof(sockaddr_in));
  const size_t room =
      message->msg_control == nullptr ? 0 : message->msg_controllen;
  cmsghdr header = {};
  header.cmsg_level = is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP;
  header.cmsg_type = is_ipv6 ? IPV6_RECVERR : IP_RECVERR;
  header.cmsg_len = std::min(room, CMSG_LEN(data_size));
  message->msg_flags = MSG_ERRQUEUE;
  message->msg_controllen = 0;
  if (header.cmsg_len < CMSG_LEN(data_size)) message->msg_flags |= MSG_CTRUNC;
  if (room < sizeof(header)) return;
  char* const at = static_cast<char*>(message->msg_control);
  memcpy(at, &header, sizeof(header));
  if (header.cmsg_len > CMSG_LEN(0)) {
    memcpy(at + CMSG_LEN(0), &what, header.cmsg_len - CMSG_LEN(0));
  }
  message->msg_controllen = std::min(room, CMSG_SPACE(data_size));
}

}  // namespace devwire::preload
