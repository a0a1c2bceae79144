// The guardian: a small process that outlives this one and resets what its
// death leaves open, so that no peer waits for a process that is gone
// (docs/decisions/0018).
#ifndef SOCKETS_PRELOAD_GUARDIAN_H_
#define SOCKETS_PRELOAD_GUARDIAN_H_

#include "absl/status/status.h"

namespace devwire::preload {

// Where the guardian finds what it needs.
inline constexpr int kGuardianRecordFd = 3;  // MappedRecord::Map
inline constexpr int kGuardianPidFd = 4;     // Readable: the process is dead.
inline constexpr int kGuardianPipeFd = 5;    // At its end: dead, or exec(3)ed.

// Starts it for this process; `record_fd` is of its record. The guardian is
// nobody's child here: no SIGCHLD, nothing for wait(2) to find. It has no
// descriptor of ours but those above. NotFound: no devwire-guardian beside this
// library; DEVWIRE_GUARDIAN names another place.
absl::Status StartGuardian(int record_fd);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_GUARDIAN_H_
