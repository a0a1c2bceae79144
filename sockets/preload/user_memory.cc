#include "sockets/preload/user_memory.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

namespace devwire::preload {

bool CopyIn(void* to, const void* from, size_t bytes) {
  if (IsPlainlyBad(from, bytes)) return false;
  const iovec local = {to, bytes}, remote = {const_cast<void*>(from), bytes};
  const int saved = errno;
  const ssize_t copied = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
  // A part: the rest is not there.
  const bool is_bad =
      copied < 0 ? errno == EFAULT : copied != static_cast<ssize_t>(bytes);
  errno = saved;
  if (is_bad) return false;
  // Some sandboxes do not allow the call at all.
  if (copied < 0) memcpy(to, from, bytes);
  return true;
}

bool CopyOut(void* to, const void* from, size_t bytes) {
  if (IsPlainlyBad(to, bytes)) return false;
  const iovec local = {const_cast<void*>(from), bytes}, remote = {to, bytes};
  const int saved = errno;
  const ssize_t copied = process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
  // A part: the rest is not there.
  const bool is_bad =
      copied < 0 ? errno == EFAULT : copied != static_cast<ssize_t>(bytes);
  errno = saved;
  if (is_bad) return false;
  if (copied < 0) memcpy(to, from, bytes);
  return true;
}

}  // namespace devwire::preload
