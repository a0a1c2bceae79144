// An absl::Status that carries the errno of a system call or verb.
//
// Threads: pure functions. Cost: allocates; never on the data path.
#ifndef BASE_ERRNO_STATUS_H_
#define BASE_ERRNO_STATUS_H_

#include <string_view>

#include "absl/status/status.h"

namespace devwire {

// A status with this errno attached; its code follows from the errno.
absl::Status ErrnoStatus(int error, std::string_view message);

// The errno attached to `status`, else one that fits its code; 0 for OK.
int ErrnoOf(const absl::Status& status);

// `status`, with this errno attached: its code and text stay.
absl::Status WithErrno(int error, absl::Status status);

// "ECONNRESET": for messages.
std::string_view ErrnoName(int error);

}  // namespace devwire

#endif  // BASE_ERRNO_STATUS_H_
