// Poller: waits until some of many streams and listeners are ready.
//
// Level: reported by every Wait() while it holds; when more hold than `ready`
// has room for, by turns. Edge: reported once when it
// begins to hold, and again only after it ended or (kReadable) more arrived.
//
// Threads:  one Wait() at a time; Add and Remove from any thread when a thread
//           of the library runs the engine, else the polling thread. In
//           kCallerPolls mode Wait() polls the stack.
// Lifetime: borrows the streams: a stream leaves the poller when it is closed.
// Cost:     Wait() allocates nothing when it answers OK.
#ifndef SOCKETS_POLLER_H_
#define SOCKETS_POLLER_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "sockets/listener.h"
#include "sockets/stream.h"

namespace devwire {

// The bits of a readiness set: transport/engine/stream_types.h.
enum class Trigger : uint8_t { kLevel, kEdge };

class Poller {
 public:
  struct Ready {
    uint64_t user_data = 0;
    Readiness what = 0;
  };

  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // AlreadyExists (EEXIST) when it is in a poller, InvalidArgument (EINVAL)
  // when it is of another stack. There is room for all of a stack's streams
  // and listeners.
  absl::Status Add(Stream& stream, Readiness interest, Trigger trigger,
                   uint64_t user_data);
  absl::Status Add(Listener& listener, Trigger trigger, uint64_t user_data);
  // NotFound (ENOENT) when it is not in this poller, EINVAL as Add.
  absl::Status Remove(Stream& stream);
  absl::Status Remove(Listener& listener);

  // A descriptor for an event loop of the caller's: readable when Wait(.., 0)
  // is worth calling; that it has answered 0 is what makes it unreadable. The
  // poller's own; at times it is readable for nothing. softnic raises events
  // in mode=thread and mode=process.
  absl::StatusOr<int> EventFd();

  // Waits until something is ready, at most `timeout` (0: does not wait).
  // Returns how many entries of `ready` were filled: 0 on timeout.
  absl::StatusOr<size_t> Wait(std::span<Ready> ready, Duration timeout);

 private:
  friend class Stack;
  Poller(std::shared_ptr<StackCore> core, uint32_t id);
  // OK when `of`, the stack of `what`, is the poller's own and open.
  absl::Status Usable(const StackCore& of, const char* what) const;

  std::shared_ptr<StackCore> core_;
  uint32_t id_;
  bool has_event_fd_ = false;
};

}  // namespace devwire

#endif  // SOCKETS_POLLER_H_
