// The dmabufs that the program has bound: each is memory of the stack's, to
// receive into (bind-rx) or to send from (bind-tx).
//
// A binding ends with the netlink socket that made it. What was registered
// stays registered: streams and frags of it live on, and the same memory bound
// again is not registered again.
//
// Threads:  every call with Shim::mutex held; a Binding is constant.
// Lifetime: outlives the stack (it keeps the memory that the stack borrows).
// Limits:   StackOptions::max_receive_pools different dmabufs to receive into,
//           62 in all; then ENOBUFS.
#ifndef SOCKETS_PRELOAD_DEVMEM_BINDINGS_H_
#define SOCKETS_PRELOAD_DEVMEM_BINDINGS_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "memreg/device_memory.h"
#include "sockets/stack.h"

namespace devwire::preload {

struct DevmemBinding {
  uint32_t id = 0;  // what the program calls it; never 0
  PoolId pool{};
  uint64_t bytes = 0;
  bool is_receive = false;
  std::vector<uint32_t> queues;  // of a bind-rx
  // Where it is memory that has to be made visible, else null.
  DeviceMemory* memory = nullptr;
};

class DevmemBindings {
 public:
  // The id, or a negative errno: EBADF, EINVAL (no dmabuf, or one the NIC does
  // not take), EEXIST (a queue is bound), ENOBUFS. `fd` stays the caller's.
  int64_t BindReceive(Stack& stack, int fd, std::vector<uint32_t> queues,
                      const PoolOptions& options);
  int64_t BindSend(Stack& stack, int fd);
  // The id is free; what uses the memory goes on.
  void Unbind(uint32_t id);

  // What streams receive into that are opened now: the newest bind-rx. Null:
  // host memory.
  std::shared_ptr<const DevmemBinding> receive() const;
  // The bind-tx of this id, or null.
  std::shared_ptr<const DevmemBinding> FindSend(uint32_t id) const;

 private:
  struct Registered {
    dev_t device = 0;  // of the file: the same one has the same memory
    ino_t inode = 0;
    uint64_t bytes = 0;
    bool is_receive = false;
    PoolId pool{};
    std::unique_ptr<DeviceMemory> memory;
  };

  int64_t Bind(Stack& stack, int fd, std::vector<uint32_t> queues,
               const PoolOptions& options);
  // 0 or a negative errno.
  int64_t Register(Stack& stack, int fd, const PoolOptions& options,
                   Registered** out);

  std::vector<Registered> registered_;
  std::map<uint32_t, std::shared_ptr<const DevmemBinding>> bindings_;
  uint32_t last_id_ = 0;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_DEVMEM_BINDINGS_H_
