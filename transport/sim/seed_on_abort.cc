#include "transport/sim/seed_on_abort.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>

namespace devwire {
namespace {

char line[64] = "";

// write(2) is allowed in a signal handler.
void OnAbort(int) { (void)!write(STDERR_FILENO, line, std::strlen(line)); }

}  // namespace

void TellSeedOnAbort(uint64_t seed) {
  std::snprintf(line, sizeof(line), "\nsimulation: aborted, seed %llu\n",
                static_cast<unsigned long long>(seed));
  const auto before = std::signal(SIGABRT, OnAbort);
  if (before != SIG_DFL && before != OnAbort) std::signal(SIGABRT, before);
}

}  // namespace devwire
