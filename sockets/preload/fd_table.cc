#include "sockets/preload/fd_table.h"

#include <errno.h>
#include <fcntl.h>

#include <utility>

#include "sockets/preload/real_libc.h"

namespace devwire::preload {
namespace {

// Who gets SIGIO and SIGURG. F_SETOWN of fcntl(2)
void MoveOwner(int from, int to) {
  f_owner_ex owner = {};
  if (real().fcntl(from, F_GETOWN_EX, &owner) != 0 || owner.pid == 0) return;
  real().fcntl(to, F_SETOWN_EX, &owner);
  real().fcntl(to, F_SETSIG, real().fcntl(from, F_GETSIG));
}

}  // namespace

std::shared_ptr<TakenSocket> FdTable::FindTaken(int fd) {
  if (state(fd) != State::kTaken) return nullptr;
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(fd);
  return found == entries_.end() ? nullptr : found->second.taken;
}

std::shared_ptr<KernelSocket> FdTable::FindKernel(int fd) {
  if (state(fd) == State::kOther) return nullptr;
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(fd);
  return found == entries_.end() ? nullptr : found->second.kernel;
}

int64_t FdTable::Insert(int fd, std::shared_ptr<KernelSocket> kernel,
                        std::shared_ptr<TakenSocket> taken,
                        bool closes_on_exec) {
  if (static_cast<size_t>(fd) >= kMaxFds) return -EMFILE;
  const std::lock_guard lock(mutex_);
  const State state = taken == nullptr ? State::kTracked : State::kTaken;
  kernel->descriptors.push_back(fd);
  entries_[fd] = {std::move(kernel), std::move(taken), closes_on_exec};
  SetState(fd, state);
  return 0;
}

void FdTable::Alias(int fd, int of, bool closes_on_exec) {
  if (state(of) == State::kOther || static_cast<size_t>(fd) >= kMaxFds) return;
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(of);
  if (found == entries_.end()) return;
  const Entry entry = {found->second.kernel, found->second.taken,
                       closes_on_exec};
  entry.kernel->descriptors.push_back(fd);
  entries_[fd] = entry;
  SetState(fd, state(of));
}

std::shared_ptr<TakenSocket> FdTable::Remove(int fd) {
  if (state(fd) == State::kOther) return nullptr;
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(fd);
  if (found == entries_.end()) return nullptr;
  const Entry entry = std::move(found->second);
  entries_.erase(found);
  SetState(fd, State::kOther);
  KernelSocket& kernel = *entry.kernel;
  std::erase(kernel.descriptors, fd);
  std::erase_if(kernel.watches,
                [&](const KernelSocket::Watch& w) { return w.fd == fd; });
  return kernel.descriptors.empty() ? entry.taken : nullptr;
}

void FdTable::Forget(const KernelSocket& kernel) {
  const std::lock_guard lock(mutex_);
  // Erasing may end the socket itself.
  const std::vector<int> descriptors = kernel.descriptors;
  for (const int fd : descriptors) {
    SetState(fd, State::kOther);
    entries_.erase(fd);
  }
}

int64_t FdTable::Replace(const std::shared_ptr<KernelSocket>& kernel,
                         std::shared_ptr<TakenSocket> taken, int made) {
  int64_t result = 0;
  const std::lock_guard lock(mutex_);
  bool is_first = true;
  for (const int fd : kernel->descriptors) {
    Entry& entry = entries_[fd];
    if (entry.taken == nullptr) {  // The kernel's flag is the application's.
      entry.closes_on_exec = (real().fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
    }
    if (std::exchange(is_first, false)) {
      // O_NONBLOCK is of the open file.
      const int flags = real().fcntl(fd, F_GETFL);
      real().fcntl(made, F_SETFL, flags & (O_NONBLOCK | O_ASYNC));
      MoveOwner(fd, made);
    }
    int error = 0;
    const bool closes = taken != nullptr || entry.closes_on_exec;
    MoveWatches(*kernel, fd, made, closes ? O_CLOEXEC : 0, &error);
    if (error != 0) result = -error;
    entry.taken = taken;
    SetState(fd, taken == nullptr ? State::kTracked : State::kTaken);
  }
  real().close(made);
  return result;
}

// An epoll instance watches open files: it must be told of the new one. One
// that does not have the old one any more (it was closed, and its number may be
// another's) does not get the new one either.
void FdTable::MoveWatches(KernelSocket& kernel, int fd, int made, int flags,
                          int* error) {
  std::erase_if(kernel.watches, [&](const KernelSocket::Watch& w) {
    return w.fd == fd &&
           real().epoll_ctl(w.epoll, EPOLL_CTL_DEL, fd, nullptr) != 0;
  });
  if (real().dup3(made, fd, flags) < 0) *error = errno;
  for (KernelSocket::Watch& w : kernel.watches) {
    if (w.fd == fd) real().epoll_ctl(w.epoll, EPOLL_CTL_ADD, fd, &w.event);
  }
}

void FdTable::OnEpollControl(int epoll, int operation, int fd,
                             const epoll_event* event) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(fd);
  if (found == entries_.end()) return;
  auto& watches = found->second.kernel->watches;
  if (operation == EPOLL_CTL_MOD) {
    for (KernelSocket::Watch& w : watches) {
      if (w.epoll == epoll && w.fd == fd) w.event = *event;
    }
    return;
  }
  // A number that is added anew was another instance's before.
  std::erase_if(watches, [&](const KernelSocket::Watch& w) {
    return w.epoll == epoll && w.fd == fd;
  });
  if (operation == EPOLL_CTL_ADD) watches.push_back({epoll, fd, *event});
}

bool FdTable::ClosesOnExec(int fd) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(fd);
  return found != entries_.end() && found->second.closes_on_exec;
}

void FdTable::SetClosesOnExec(int fd, bool closes) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(fd);
  if (found != entries_.end()) found->second.closes_on_exec = closes;
}

std::vector<std::shared_ptr<TakenSocket>> FdTable::AllTaken() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<TakenSocket>> all;
  for (const auto& [fd, entry] : entries_) {
    if (entry.taken != nullptr) all.push_back(entry.taken);
  }
  return all;
}

std::vector<int> FdTable::Between(unsigned first, unsigned last) {
  const std::lock_guard lock(mutex_);
  std::vector<int> found;
  for (const auto& [fd, entry] : entries_) {
    const auto number = static_cast<unsigned>(fd);
    if (number >= first && number <= last) found.push_back(fd);
  }
  return found;
}

void FdTable::ForgetTaken(int fd) {
  if (state(fd) == State::kTaken) SetState(fd, State::kOther);
}

}  // namespace devwire::preload
