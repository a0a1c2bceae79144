#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace devwire::check_internal {

Failure::~Failure() {
  std::fprintf(stderr, "%s\n", stream_.str().c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace devwire::check_internal
