#include "base/alloc_guard.h"

#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <new>

namespace devwire {
namespace {

thread_local int freeze_depth = 0;
thread_local uint64_t allocations = 0;

void* Allocate(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  if (freeze_depth > 0) {
    static constexpr char kMessage[] =
        "alloc_guard: heap allocation while frozen\n";
    (void)!write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
    std::abort();
  }
  void* p = alignment <= alignof(std::max_align_t)
                ? std::malloc(bytes == 0 ? 1 : bytes)
                : std::aligned_alloc(alignment, (bytes + alignment - 1) /
                                                    alignment * alignment);
  if (p == nullptr) std::abort();
  return p;
}

}  // namespace

AllocFreeze::AllocFreeze() { ++freeze_depth; }
AllocFreeze::~AllocFreeze() { --freeze_depth; }

uint64_t AllocationsOnThisThread() { return allocations; }

}  // namespace devwire

void* operator new(std::size_t n) { return devwire::Allocate(n, 0); }
void* operator new[](std::size_t n) { return devwire::Allocate(n, 0); }
void* operator new(std::size_t n, std::align_val_t a) {
  return devwire::Allocate(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a) {
  return devwire::Allocate(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept {
  std::free(p);
}
