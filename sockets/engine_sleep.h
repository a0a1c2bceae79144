// Where an engine with nothing to do sleeps: on its NIC's completion events, on
// the bell that other threads ring, and on a time.
//
// A completion event may be lost (by the NIC, or its driver): no sleep is
// longer than StackOptions::wake_backstop.
//
// Threads: the engine's.
#ifndef SOCKETS_ENGINE_SLEEP_H_
#define SOCKETS_ENGINE_SLEEP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "base/bell.h"
#include "base/time.h"
#include "transport/packet_io.h"

namespace devwire {

class EngineSleep {
 public:
  // Borrows both; `io` has an event_fd().
  static absl::StatusOr<std::unique_ptr<EngineSleep>> Create(PacketIo& io,
                                                             Bell& bell);
  ~EngineSleep();
  EngineSleep(const EngineSleep&) = delete;
  EngineSleep& operator=(const EngineSleep&) = delete;

  // Asks everybody to wake us. Then look for work once more. 0 or an errno:
  // the NIC does not take the request.
  [[nodiscard]] int Prepare();
  // Sleeps. True: somebody woke us, false: the time is over.
  bool Wait(Duration at_most);
  // Awake again, or never asleep.
  void End() { bell_.Disarm(); }

  // Readable when a sleep would end; for a loop of the caller's.
  int fd() const { return epoll_; }
  // fd() becomes readable after that, too.
  void SetTimer(Duration after);

 private:
  EngineSleep(PacketIo& io, Bell& bell) : io_(io), bell_(bell) {}

  PacketIo& io_;
  Bell& bell_;
  int epoll_ = -1;
  int timer_ = -1;
};

}  // namespace devwire

#endif  // SOCKETS_ENGINE_SLEEP_H_
