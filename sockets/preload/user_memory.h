// Memory that an application names in a call, which may not be there: a system
// call answers EFAULT then, and so do the calls that use these.
//
// Threads:  any.
// Cost:     a system call each. For addresses and options; payload is copied
//           without, and a bad pointer there is the program's end (but see
//           IsPlainlyBad()).
#ifndef SOCKETS_PRELOAD_USER_MEMORY_H_
#define SOCKETS_PRELOAD_USER_MEMORY_H_

#include <cstddef>
#include <cstdint>

namespace devwire::preload {

// False: some of it cannot be read, or written.
bool CopyIn(void* to, const void* from, size_t bytes);
bool CopyOut(void* to, const void* from, size_t bytes);

// Null, in the first page, or in the kernel's half: tests use such pointers,
// and broken programs.
inline bool IsPlainlyBad(const void* at, size_t bytes) {
  constexpr uintptr_t kFirst = 4096, kEnd = uintptr_t{1} << 47;
  const auto address = reinterpret_cast<uintptr_t>(at);
  return bytes > 0 &&
         (address < kFirst || address >= kEnd || bytes > kEnd - address);
}

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_USER_MEMORY_H_
