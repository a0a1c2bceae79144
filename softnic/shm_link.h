// The control side of a cable: who its two ends are, and how they find each
// other. The frames themselves go through shared memory (shm_port.h).
//
// PATH.lock tells whose the ends are: byte 0 is locked by the end that listens
// on the socket PATH, byte 1 by the end that connects; a third finds both
// locked. Locks go away with their process, so a cable whose ends died is free
// again, and a stale socket is replaced. (Open file description locks,
// fcntl(2): two devices of one process are two ends too.)
//
//   connecting end                       listening end
//     connect, kHello          ------->  accept
//                              <-------  kWelcome + memfd of the rings
//     kRegion + fd, kForget    <------>  the same, whenever a region comes or
//                                        goes; a message says how many frames
//                                        were sent before it
//     kBell                    <------>  frames for an end that sleeps
//
// Threads: as Port. Blocking: never.
#ifndef SOFTNIC_SHM_LINK_H_
#define SOFTNIC_SHM_LINK_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace softnic {

struct ShmMessage {
  enum class Kind : uint32_t { kHello, kWelcome, kRegion, kForget, kBell };
  static constexpr uint32_t kMagic = 0x73776e32;  // changes with the layout

  uint32_t magic = kMagic;
  Kind kind = Kind::kHello;
  uint32_t region = 0;
  uint32_t frames = 0;  // sent before this message, as an index of descriptors
  uint64_t offset = 0;
  uint64_t length = 0;
};

class ShmLink {
 public:
  enum class Poll { kNothing, kMessage, kLost };

  ShmLink() = default;
  ~ShmLink();
  ShmLink(const ShmLink&) = delete;
  ShmLink& operator=(const ShmLink&) = delete;

  // Takes an end of the cable. AlreadyExists: both are taken.
  absl::Status Plug(const std::string& path);
  bool is_listener() const { return is_listener_; }

  // Tries to reach the other end; true when there is a connection now.
  bool TryConnect();
  bool is_connected() const { return socket_ >= 0; }
  void Disconnect();

  // False: no room in the socket now. `fd` (-1: none) is borrowed. A
  // connection that is gone swallows it: Receive will tell.
  bool Send(const ShmMessage& message, int fd);
  // *fd is the caller's, -1 when none came.
  Poll Receive(ShmMessage* message, int* fd);

  // Becomes readable when a peer connects or has sent a message.
  int wait_fd() const { return is_connected() ? socket_ : listen_; }

 private:
  absl::Status Listen();

  std::string path_;
  bool is_listener_ = false;
  int lock_ = -1;
  int listen_ = -1;
  int socket_ = -1;
};

}  // namespace softnic

#endif  // SOFTNIC_SHM_LINK_H_
