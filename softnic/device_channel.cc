#include "softnic/device_channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "softnic/config.h"

namespace softnic {

bool SendMessage(int socket, const void* fixed, size_t bytes,
                 std::string_view text, int fd) {
  iovec parts[2] = {{const_cast<void*>(fixed), bytes},
                    {const_cast<char*>(text.data()), text.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = parts;
  header.msg_iovlen = 2;
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
  }
  ssize_t n = 0;
  do {
    n = sendmsg(socket, &header, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  return n == static_cast<ssize_t>(bytes + text.size());
}

Received ReceiveMessage(int socket, bool waits, void* fixed, size_t bytes,
                        std::string* text, int* fd) {
  *fd = -1;
  std::string buffer(kMaxConfigBytes, '\0');
  iovec parts[2] = {{fixed, bytes}, {buffer.data(), buffer.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = parts;
  header.msg_iovlen = 2;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t n = 0;
  do {
    n = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | (waits ? 0 : MSG_DONTWAIT));
  } while (n < 0 && errno == EINTR && waits);
  text->clear();
  if (n < 0 && !waits && (errno == EAGAIN || errno == EINTR)) {
    return Received::kNothing;
  }
  for (cmsghdr* c = n < 0 ? nullptr : CMSG_FIRSTHDR(&header); c != nullptr;
       c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
      memcpy(fd, CMSG_DATA(c), sizeof(int));
    }
  }
  if (n < static_cast<ssize_t>(bytes)) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return Received::kGone;
  }
  text->assign(buffer, 0, static_cast<size_t>(n) - bytes);
  return Received::kMessage;
}

}  // namespace softnic
