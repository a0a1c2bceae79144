#include "sockets/preload/real_libc.h"

#include <dlfcn.h>

#include "base/check.h"

namespace devwire::preload {
namespace {

template <typename F>
void LookUp(const char* name, F* out) {
  *out = reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
  CHECK(*out != nullptr) << "libc has no " << name;
}

RealLibc LookUpAll() {
  RealLibc r;
#define DEVWIRE_LOOK_UP(name) LookUp(#name, &r.name);
  DEVWIRE_REAL_LIBC(DEVWIRE_LOOK_UP)
#undef DEVWIRE_LOOK_UP
  return r;
}

}  // namespace

const RealLibc& real() {
  static const RealLibc libc = LookUpAll();
  return libc;
}

}  // namespace devwire::preload
