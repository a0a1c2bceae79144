// The C ABI: messages. recvmsg, sendmsg.
#include "sockets/preload/call.h"
#include "sockets/preload/transfer.h"

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().recvmsg(fd, message, flags);
  message->msg_namelen = 0;
  message->msg_controllen = 0;
  message->msg_flags = 0;
  return AnswerSize(Receive(*taken.shim, fd, *taken.socket,
                            {message->msg_iov, message->msg_iovlen}, flags));
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().sendmsg(fd, message, flags);
  return AnswerSize(Send(*taken.shim, fd, *taken.socket,
                         {message->msg_iov, message->msg_iovlen}, flags));
}

}  // extern "C"
