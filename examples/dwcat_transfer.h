// The two jobs of dwcat. Both run the stack on the calling thread, and neither
// touches a byte of payload: the GPU stand-in does.
#ifndef EXAMPLES_DWCAT_TRANSFER_H_
#define EXAMPLES_DWCAT_TRANSFER_H_

#include <memory>

#include "absl/status/status.h"
#include "examples/dwcat_options.h"
#include "memreg/device_memory.h"
#include "memreg/dmabuf.h"
#include "sockets/stack.h"

namespace devwire::examples {

// Device memory, exported and bound to a stack.
struct BoundMemory {
  std::unique_ptr<DeviceMemory> memory;
  const DmaBuf* dmabuf = nullptr;
  PoolId id{};
};

absl::Status SendFile(const DwcatOptions& options, Stack& stack,
                      const BoundMemory& memory);
absl::Status ReceiveFile(const DwcatOptions& options, Stack& stack,
                         const BoundMemory& memory);

// Polls the stack until the stream has said its last word (its FIN is
// acknowledged) or a second has passed.
void Linger(Stack& stack, Stream& stream);

}  // namespace devwire::examples

#endif  // EXAMPLES_DWCAT_TRANSFER_H_
