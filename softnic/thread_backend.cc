// mode=thread: the calls do the device's work, as inline; while nobody calls, a
// thread does. It is what raises completion events for an application that
// sleeps.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <ctime>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "base/clock.h"
#include "base/thread.h"
#include "softnic/backend.h"
#include "softnic/device_core.h"

namespace softnic {
namespace {

// While something is under way that rings no bell.
constexpr timespec kShortNap = {0, 100'000};
// While the application polls: it does the work itself.
constexpr timespec kLongNap = {0, 1'000'000};

class ThreadBackend final : public Backend {
 public:
  ThreadBackend(const DeviceConfig& config, std::unique_ptr<Arena> arena,
                int bell)
      : arena_(std::move(arena)),
        shared_at_(arena_->Allocate(sizeof(DeviceShared))),
        bell_(bell),
        core_(config, arena_.get(), shared_at_, /*application=*/0, &clock_),
        thread_(devwire::StartThread([this] { Run(); })) {}

  ~ThreadBackend() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ends_ = true;
      Ring();
    }
    thread_.join();
    close(bell_);
  }

  Reply Execute(const Command& command, int fd,
                std::string_view text) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Reply reply = core_.Execute(command, fd, text);
    Ring();  // The port, or what may be asked of it, is another now.
    return reply;
  }
  void OnPost(uint32_t qp_num) override {
    core_.Send(qp_num);
    if (rest_ == Rest::kSleep && !core_.IsIdle()) Ring();
  }
  void OnPoll(uint32_t frames) override {
    is_polled_ = true;
    core_.Progress(frames);
    if (rest_ == Rest::kSleep && !core_.IsIdle()) Ring();
  }
  void OnArm() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (rest_ == Rest::kNap) Ring();
  }
  std::mutex* data_mutex() override { return &mutex_; }
  Arena* arena() override { return arena_.get(); }
  DeviceShared* shared() override {
    return arena_->At<DeviceShared>(shared_at_);
  }

 private:
  // What the thread does while nothing is to be done.
  enum class Rest {
    kNone,
    kNap,    // the application polls: it does the work
    kSleep,  // until the bell or the port rings
  };

  // With mutex_.
  void Ring() {
    rest_ = Rest::kNone;
    const uint64_t one = 1;
    // An eventfd refuses only when it is full, and then it rings.
    (void)!write(bell_, &one, sizeof(one));
  }

  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!ends_) {
      if (is_polled_ && !core_.IsAnyArmed()) {
        rest_ = Rest::kNap;
        is_polled_ = false;
        Sleep(lock, -1, &kLongNap);
      } else if (core_.Progress(DeviceCore::kBurst)) {
        lock.unlock();  // Somebody may want to post.
        lock.lock();
      } else {
        const bool may_sleep = core_.PrepareToSleep();
        if (may_sleep) rest_ = Rest::kSleep;
        Sleep(lock, core_.wait_fd(), may_sleep ? nullptr : &kShortNap);
      }
      rest_ = Rest::kNone;
    }
  }
  void Sleep(std::unique_lock<std::mutex>& lock, int wait_fd,
             const timespec* nap) {
    lock.unlock();
    pollfd fds[2] = {{bell_, POLLIN, 0}, {wait_fd, POLLIN, 0}};
    ppoll(fds, 2, nap, nullptr);
    lock.lock();
    uint64_t rings = 0;
    if ((fds[0].revents & POLLIN) != 0) {
      CHECK_EQ(read(bell_, &rings, sizeof(rings)), ssize_t{sizeof(rings)});
    }
  }

  const devwire::MonotonicClock clock_;
  std::mutex mutex_;  // all that is not const
  const std::unique_ptr<Arena> arena_;
  const uint64_t shared_at_;
  const int bell_;  // eventfd
  DeviceCore core_;
  Rest rest_ = Rest::kNone;
  bool is_polled_ = false;  // since the thread last looked
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Backend> MakeThreadBackend(const DeviceConfig& config) {
  std::unique_ptr<Arena> arena = Arena::CreatePrivate();
  if (arena == nullptr) return nullptr;
  const int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bell < 0) return nullptr;
  return std::make_unique<ThreadBackend>(config, std::move(arena), bell);
}

}  // namespace softnic
