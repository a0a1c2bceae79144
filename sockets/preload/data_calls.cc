// The C ABI: data. read, write, and what a compiler makes of them.
#include <stdlib.h>

#include "sockets/preload/call.h"
#include "sockets/preload/transfer.h"

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

ssize_t recvfrom(int fd, void* data, size_t size, int flags, sockaddr* address,
                 socklen_t* address_size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) {
    return real().recvfrom(fd, data, size, flags, address, address_size);
  }
  if (address_size != nullptr) *address_size = 0;
  const iovec one = One(data, size);
  return AnswerSize(Receive(*taken.shim, fd, *taken.socket, {&one, 1}, flags));
}
ssize_t recv(int fd, void* data, size_t size, int flags) {
  return recvfrom(fd, data, size, flags, nullptr, nullptr);
}
ssize_t read(int fd, void* data, size_t size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().read(fd, data, size);
  const iovec one = One(data, size);
  return AnswerSize(Receive(*taken.shim, fd, *taken.socket, {&one, 1}, 0));
}
ssize_t readv(int fd, const iovec* v, int count) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().readv(fd, v, count);
  return AnswerSize(Receive(*taken.shim, fd, *taken.socket,
                            {v, static_cast<size_t>(count)}, 0));
}

ssize_t sendto(int fd, const void* data, size_t size, int flags,
               const sockaddr* address, socklen_t address_size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken)
    return real().sendto(fd, data, size, flags, address, address_size);
  const iovec one = One(data, size);
  return AnswerSize(Send(*taken.shim, fd, *taken.socket, {&one, 1}, flags));
}
ssize_t send(int fd, const void* data, size_t size, int flags) {
  return sendto(fd, data, size, flags, nullptr, 0);
}
ssize_t write(int fd, const void* data, size_t size) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().write(fd, data, size);
  const iovec one = One(data, size);
  return AnswerSize(Send(*taken.shim, fd, *taken.socket, {&one, 1}, 0));
}
ssize_t writev(int fd, const iovec* v, int count) {
  const Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (!taken) return real().writev(fd, v, count);
  return AnswerSize(
      Send(*taken.shim, fd, *taken.socket, {v, static_cast<size_t>(count)}, 0));
}

// What a compiler makes of the calls above when it knows the buffer's size
// (_FORTIFY_SOURCE). The check is libc's; ours would be the same.
ssize_t __read_chk(int fd, void* data, size_t size, size_t room) {
  if (size > room) abort();
  return read(fd, data, size);
}
ssize_t __recv_chk(int fd, void* data, size_t size, size_t room, int flags) {
  if (size > room) abort();
  return recv(fd, data, size, flags);
}
ssize_t __recvfrom_chk(int fd, void* data, size_t size, size_t room, int flags,
                       sockaddr* address, socklen_t* address_size) {
  if (size > room) abort();
  return recvfrom(fd, data, size, flags, address, address_size);
}

}  // extern "C"
