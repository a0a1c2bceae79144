// The C ABI: from file to socket and between sockets and pipes. sendfile.
#include <algorithm>

#include "sockets/preload/call.h"
#include "sockets/preload/transfer.h"

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

ssize_t sendfile(int out, int in, off_t* offset, size_t size) {
  const Taken taken(out);
  if (!taken) return real().sendfile(out, in, offset, size);
  char bytes[64 << 10];
  const size_t wanted = std::min(size, sizeof(bytes));
  const ssize_t got = offset != nullptr ? pread(in, bytes, wanted, *offset)
                                        : real().read(in, bytes, wanted);
  if (got <= 0) return got;
  const iovec one = One(bytes, static_cast<size_t>(got));
  const int64_t sent = Send(*taken.shim, out, *taken.socket, {&one, 1}, 0);
  const int64_t unsent = got - std::max<int64_t>(sent, 0);
  if (offset != nullptr) {
    *offset += got - unsent;
  } else if (unsent > 0) {
    lseek(in, -unsent, SEEK_CUR);
  }
  return AnswerSize(sent);
}
ssize_t sendfile64(int out, int in, off_t* offset, size_t size) {
  return sendfile(out, in, offset, size);
}

}  // extern "C"
