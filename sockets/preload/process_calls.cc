// The C ABI: the end of a process that exit(3) does not see. _exit, _Exit.
#include <sys/syscall.h>
#include <unistd.h>

#include "sockets/preload/shim.h"

using devwire::preload::Shim;

extern "C" {

[[noreturn]] void _exit(int status) {
  if (Shim* const shim = Shim::Existing()) shim->FinishSending();
  while (true) syscall(SYS_exit_group, status);
}
[[noreturn]] void _Exit(int status) noexcept { _exit(status); }

}  // extern "C"
