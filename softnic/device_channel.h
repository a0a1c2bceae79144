// The socket between the front end and a device process: one message is a fixed
// struct, text behind it, and at most one file descriptor.
//
//   front end                               device process
//     Start + arena's fd       ------->
//     Command(kConfigure) each text ->      builds the core
//                              <-------     Reply: it runs
//     Command + text + fd      ------->
//                              <-------     Reply
//
// Threads: one at a time on each side.
#ifndef SOFTNIC_DEVICE_CHANNEL_H_
#define SOFTNIC_DEVICE_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace softnic {

struct DeviceStart {
  char device[64] = {};     // whose configuration it is
  uint64_t shared_at = 0;   // DeviceShared in the arena
  uint32_t texts = 0;       // that follow
  int32_t application = 0;  // process id
  uint64_t probe_at = 0;    // address of kProbe in the application
};

// What the device reads from the application first, to see that it may.
inline constexpr uint64_t kDeviceProbe = 0x736f66746e696331;

// False: the other end is gone, or its buffer stays full. `fd` -1: none.
bool SendMessage(int socket, const void* fixed, size_t bytes,
                 std::string_view text, int fd);

enum class Received { kMessage, kNothing, kGone };

// Takes a message of exactly `bytes` fixed bytes and some text. *fd is the
// caller's, -1 when none came. Waits if `waits` (as long as the socket's
// SO_RCVTIMEO allows).
Received ReceiveMessage(int socket, bool waits, void* fixed, size_t bytes,
                        std::string* text, int* fd);

}  // namespace softnic

#endif  // SOFTNIC_DEVICE_CHANNEL_H_
