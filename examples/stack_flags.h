// The flags that every example takes: which device, which address, how much
// device memory.
#ifndef EXAMPLES_STACK_FLAGS_H_
#define EXAMPLES_STACK_FLAGS_H_

#include <getopt.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "memreg/device_memory.h"
#include "memreg/dmabuf.h"
#include "sockets/stack.h"
#include "sockets/stream.h"

namespace devwire::examples {

struct StackFlags {
  StackOptions stack;
  bool has_address = false;
  uint32_t slot_bytes = 0;
  std::string memory = "memfd";  // Its provider.
  uint64_t pool_bytes = 64u << 20;
  std::string capture;  // A pcapng of the headers; empty: none.
};

// Their description, for a usage text.
extern const char kStackFlagsUsage[];

// getopt_long(3)'s table: these flags, then `more`.
std::vector<option> WithStackFlags(std::vector<option> more);
// Codes of `more` begin here.
inline constexpr int kFirstOwnFlag = 512;

// False when `flag` is not one of these, or its value is wrong.
bool ApplyStackFlag(int flag, const char* value, StackFlags* flags);

// "64M"; K, M, G are powers of 1024.
std::optional<uint64_t> ParseBytes(std::string_view text);

// A stack with device memory bound to it.
struct BoundStack {
  std::unique_ptr<DeviceMemory> memory;
  std::optional<DmaBuf> dmabuf;  // The memory, for other processes.
  std::unique_ptr<Stack> stack;  // Dies before the memory.
  PoolId id{};
};

// Opens the stack, allocates and binds the memory, starts the capture. With
// `receives` false no receive slots are cut.
absl::StatusOr<BoundStack> OpenStack(const StackFlags& flags, bool receives);

// Polls the stack until the stream has said its last word (its FIN is
// acknowledged) or a second has passed.
void Linger(Stack& stack, Stream& stream);

}  // namespace devwire::examples

#endif  // EXAMPLES_STACK_FLAGS_H_
