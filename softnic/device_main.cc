// The device of mode=process. Started by libsoftnic.so with the socket to its
// application as descriptor 3; ends with it.
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "softnic/device_channel.h"
#include "softnic/device_core.h"

namespace softnic {
namespace {

constexpr int kSocket = 3;
// How a device that has nothing to do goes to rest: it looks again this often
// at once, then gives way to others, then naps. A nap is short, since nobody
// rings a bell when work is posted.
constexpr uint32_t kSpins = 64;
constexpr uint32_t kYields = 512;
constexpr long kNapNanoseconds = 50'000;
// A busy device looks at its socket once in so many rounds.
constexpr uint32_t kRoundsPerLook = 64;

class Device {
 public:
  // False: there is nothing to run; the application has been told why.
  bool Start() {
    // Naps are as short as they say. prctl(2)
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    DeviceStart start;
    std::string text;
    int fd = -1;
    if (ReceiveMessage(kSocket, true, &start, sizeof(start), &text, &fd) !=
        Received::kMessage) {
      return false;
    }
    arena_ = Arena::Attach(fd);
    application_ =
        static_cast<int>(syscall(SYS_pidfd_open, start.application, 0));
    std::vector<DeviceConfig> configs;
    for (uint32_t i = 0; i < start.texts; ++i) {
      Command command;
      int none = -1;
      if (ReceiveMessage(kSocket, true, &command, sizeof(command), &text,
                         &none) != Received::kMessage) {
        return false;
      }
      // The front end has accepted it; what it refused did not get here.
      ChangeConfig(
          text, [](std::string_view) { return false; }, &configs)
          .IgnoreError();
    }
    const DeviceConfig* config = nullptr;
    for (const DeviceConfig& c : configs) {
      if (c.name == start.device) config = &c;
    }
    Reply reply;
    if (arena_ == nullptr || config == nullptr) {
      Say(&reply, EINVAL, "its process did not understand its configuration");
    } else if (!CanReach(start)) {
      Say(&reply, EPERM,
          "its process may not reach the application's memory "
          "(process_vm_readv): is the program set-uid or has it file "
          "capabilities?");
    } else {
      core_.emplace(*config, arena_.get(), start.shared_at, start.application,
                    &clock_);
    }
    return SendMessage(kSocket, &reply, sizeof(reply), {}, -1) &&
           core_.has_value();
  }

  void Run() {
    uint32_t idle = 0;
    for (uint32_t round = 0;; ++round) {
      const bool moved = core_->Progress(DeviceCore::kBurst);
      idle = moved ? 0 : idle + 1;
      if (moved ? round % kRoundsPerLook == 0 : idle >= kSpins) {
        bool got = true;
        while (got) {
          if (!ServeOne(&got)) return;
          if (got) idle = 0;
        }
        if (!moved && idle > 0 && !Rest(idle)) return;
      }
    }
  }

 private:
  static void Say(Reply* reply, int error, const char* why) {
    reply->error = error;
    snprintf(reply->message, sizeof(reply->message), "%s", why);
  }

  static bool CanReach(const DeviceStart& start) {
    uint64_t probe = 0;
    const iovec local = {&probe, sizeof(probe)};
    const iovec remote = {reinterpret_cast<void*>(start.probe_at),
                          sizeof(probe)};
    return process_vm_readv(start.application, &local, 1, &remote, 1, 0) ==
               sizeof(probe) &&
           probe == kDeviceProbe;
  }

  // False: the application is gone.
  bool ServeOne(bool* got) {
    Command command;
    int fd = -1;
    const Received received =
        ReceiveMessage(kSocket, false, &command, sizeof(command), &text_, &fd);
    *got = received == Received::kMessage;
    if (received == Received::kGone) return false;
    if (received == Received::kNothing) return true;
    const Reply reply = core_->Execute(command, fd, text_);
    if (fd >= 0) close(fd);
    return SendMessage(kSocket, &reply, sizeof(reply), {}, -1);
  }

  // False: the application is gone.
  bool Rest(uint32_t idle) {
    if (idle < kSpins + kYields) {
      sched_yield();
      return true;
    }
    pollfd fds[3] = {{kSocket, POLLIN, 0},
                     {application_, POLLIN, 0},
                     {core_->wait_fd(), POLLIN, 0}};
    const timespec nap = {0, kNapNanoseconds};
    ppoll(fds, 3, &nap, nullptr);
    // A child that the application has forked may hold the socket open.
    return (fds[1].revents & POLLIN) == 0;
  }

  const devwire::MonotonicClock clock_;
  std::unique_ptr<Arena> arena_;
  std::optional<DeviceCore> core_;
  int application_ = -1;  // pidfd
  std::string text_;
};

}  // namespace
}  // namespace softnic

int main() {
  softnic::Device device;
  if (!device.Start()) return 1;
  device.Run();
  return 0;
}
