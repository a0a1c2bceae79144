// How the front end reaches a device core: in this process, or in another.
//
// Threads: any; a backend locks what it must.
#ifndef SOFTNIC_BACKEND_H_
#define SOFTNIC_BACKEND_H_

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "softnic/arena.h"
#include "softnic/command.h"
#include "softnic/config.h"

namespace softnic {

class Backend {
 public:
  virtual ~Backend() = default;

  // `fd` (-1: none) is borrowed. EIO in the reply: the device is gone.
  virtual Reply Execute(const Command& command, int fd,
                        std::string_view text = {}) = 0;
  // Work was posted to the send queue of this queue pair. With data_mutex held.
  virtual void OnPost(uint32_t qp_num) = 0;
  // A completion queue was found with fewer entries than asked for: moves the
  // device on, taking at most this many frames. With data_mutex held.
  virtual void OnPoll(uint32_t frames) = 0;
  // A completion queue was armed: the application may be about to sleep.
  virtual void OnArm() {}

  // Guards all queues of the device; null: each queue has a lock of its own,
  // because the device needs none of them.
  virtual std::mutex* data_mutex() = 0;
  virtual Arena* arena() = 0;
  virtual DeviceShared* shared() = 0;
};

// In this process: the device works inside the calls, and nowhere else.
std::unique_ptr<Backend> MakeInlineBackend(const DeviceConfig& config);

// In this process, by the calls and by a thread that sleeps when there is
// nothing to do (mode=thread).
std::unique_ptr<Backend> MakeThreadBackend(const DeviceConfig& config);

// In a process of its own (mode=process). `texts` are the configuration texts
// that made `config`, in order. Null: it could not be started; *error says why.
std::unique_ptr<Backend> MakeProcessBackend(
    const DeviceConfig& config, const std::vector<std::string>& texts,
    std::string* error);

}  // namespace softnic

#endif  // SOFTNIC_BACKEND_H_
