// The options that an application has set on one socket, in order: what a
// socket of the kernel's needs to be like it.
//
// Threads:  one at a time. Lifetime, cost: a value; copying it is cheap.
#ifndef SOCKETS_PRELOAD_SOCKET_OPTIONS_H_
#define SOCKETS_PRELOAD_SOCKET_OPTIONS_H_

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"

namespace devwire::preload {

class SocketOptions {
 public:
  struct Option {
    int level = 0;
    int name = 0;
    std::string value;
    // The value's first bytes as the int that most options are.
    int AsInt() const;
  };

  // The one set last takes the place of an earlier one.
  void Set(int level, int name, const void* value, socklen_t size);
  void Erase(int level, int name);
  // Null: it was never set.
  const Option* Find(int level, int name) const;
  int Int(int level, int name, int otherwise) const;
  // SO_LINGER: how long close(2) waits; 0: it resets. Empty: neither.
  std::optional<Duration> Linger() const;
  // Sets them all on `fd`; those that it does not take are left out.
  void ApplyTo(int fd) const;

  template <typename F>
  void ForEach(F&& f) const {
    if (set_ == nullptr) return;
    for (const Option& option : *set_) f(option);
  }

 private:
  // Accepted sockets share those of their listener until they set one.
  std::shared_ptr<const std::vector<Option>> set_;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_SOCKET_OPTIONS_H_
