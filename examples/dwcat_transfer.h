// The two jobs of dwcat. Both run the stack on the calling thread, and neither
// touches a byte of payload: the GPU stand-in does.
#ifndef EXAMPLES_DWCAT_TRANSFER_H_
#define EXAMPLES_DWCAT_TRANSFER_H_

#include "absl/status/status.h"
#include "examples/dwcat_options.h"
#include "examples/stack_flags.h"

namespace devwire::examples {

absl::Status SendFile(const DwcatOptions& options, BoundStack& bound);
absl::Status ReceiveFile(const DwcatOptions& options, BoundStack& bound);

}  // namespace devwire::examples

#endif  // EXAMPLES_DWCAT_TRANSFER_H_
