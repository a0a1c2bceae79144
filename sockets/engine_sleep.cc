#include "sockets/engine_sleep.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"
#include "sockets/errno_map.h"

namespace devwire {
namespace {

timespec ToTimespec(Duration d) {
  constexpr int64_t kSecond = 1'000'000'000;
  const int64_t ns = std::max<int64_t>(d.nanoseconds(), 0);
  return {static_cast<time_t>(ns / kSecond), static_cast<long>(ns % kSecond)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<EngineSleep>> EngineSleep::Create(PacketIo& io,
                                                                 Bell& bell) {
  std::unique_ptr<EngineSleep> sleep(new EngineSleep(io, bell));
  sleep->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  sleep->timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  for (const int fd : {io.event_fd(), bell.fd(), sleep->timer_}) {
    epoll_event event = {};
    event.events = EPOLLIN;
    if (epoll_ctl(sleep->epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
      return ErrnoStatus(
          errno, "cannot make the descriptors to sleep on: see ulimit -n");
    }
  }
  return sleep;
}

EngineSleep::~EngineSleep() {
  if (timer_ >= 0) close(timer_);
  if (epoll_ >= 0) close(epoll_);
}

int EngineSleep::Prepare() {
  bell_.Arm();
  return io_.ArmEvents();
}

bool EngineSleep::Wait(Duration at_most) {
  const timespec limit = ToTimespec(at_most);
  pollfd wait = {epoll_, POLLIN, 0};
  return ppoll(&wait, 1, &limit, nullptr) > 0;
}

void EngineSleep::SetTimer(Duration after) {
  itimerspec when = {};
  // 0 would switch it off.
  when.it_value = ToTimespec(std::max(after, Duration::Nanoseconds(1)));
  CHECK_EQ(timerfd_settime(timer_, 0, &when, nullptr), 0);
}

}  // namespace devwire
