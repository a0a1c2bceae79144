// A CHECK of the code under test aborts the process: the seed is to be known
// all the same.
#ifndef TRANSPORT_SIM_SEED_ON_ABORT_H_
#define TRANSPORT_SIM_SEED_ON_ABORT_H_

#include <cstdint>

namespace devwire {

// From now on SIGABRT writes "simulation: aborted, seed N" to stderr, unless
// somebody else handles it.
void TellSeedOnAbort(uint64_t seed);

}  // namespace devwire

#endif  // TRANSPORT_SIM_SEED_ON_ABORT_H_
