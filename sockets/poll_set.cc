#include "sockets/poll_set.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "base/check.h"

namespace devwire {

PollSet::PollSet(uint32_t max_entries) { entries_.reserve(max_entries); }

PollSet::~PollSet() {
  for (auto& [key, entry] : entries_) entry->Unlink();
}

uint32_t PollSet::NewPoller() {
  size_t id = 0;
  while (id < pollers_.size() && pollers_[id]->is_used) ++id;
  if (id == pollers_.size())
    pollers_.push_back(std::make_unique<PollerState>());
  pollers_[id]->is_used = true;
  return static_cast<uint32_t>(id);
}

void PollSet::DropPoller(uint32_t poller) {
  absl::erase_if(entries_, [&](auto& item) {
    if (item.second->poller != poller) return false;
    item.second->Unlink();
    return true;
  });
  pollers_[poller]->is_used = false;
}

bool PollSet::Add(uint64_t key, const Entry& from) {
  auto [it, is_new] = entries_.try_emplace(key);
  if (!is_new) return false;
  it->second = std::make_unique<Entry>();
  Entry& entry = *it->second;
  entry.poller = from.poller;
  entry.interest = from.interest;
  entry.is_edge = from.is_edge;
  entry.user_data = from.user_data;
  entry.stream = from.stream;
  return true;
}

bool PollSet::AddStream(StreamId stream, const Entry& entry) {
  if (!Add(KeyOf(stream), entry)) return false;
  Update(*entries_[KeyOf(stream)], entry.ready, /*is_new=*/false);
  return true;
}

bool PollSet::AddListener(ListenerId listener, const Entry& entry) {
  if (!Add(KeyOf(listener), entry)) return false;
  Update(*entries_[KeyOf(listener)], entry.ready, /*is_new=*/false);
  return true;
}

bool PollSet::Remove(uint64_t key, std::optional<uint32_t> poller) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return false;
  if (poller.has_value() && found->second->poller != *poller) return false;
  found->second->Unlink();
  entries_.erase(found);
  return true;
}

bool PollSet::RemoveStream(StreamId stream, std::optional<uint32_t> poller) {
  return Remove(KeyOf(stream), poller);
}

bool PollSet::RemoveListener(ListenerId listener,
                             std::optional<uint32_t> poller) {
  return Remove(KeyOf(listener), poller);
}

void PollSet::Update(Entry& entry, Readiness ready, bool is_new) {
  const Readiness interest = entry.interest | kFailed;
  const Readiness wanted = ready & interest;
  // An edge: something begins to hold, or more arrived.
  is_new = (wanted & ~entry.ready) != 0 || (is_new && (wanted & kReadable));
  entry.ready = ready;
  if (wanted == 0) {
    entry.Unlink();
    entry.edge_owed = false;
    return;
  }
  entry.edge_owed |= is_new;
  if (entry.is_edge && !is_new) return;
  PollerState& p = *pollers_[entry.poller];
  if (!entry.is_linked()) p.ready.PushBack(&entry);
  if (p.bell.is_armed_.exchange(false, std::memory_order_acq_rel)) {
    p.bell.Ring();
  }
}

void PollSet::OnStreamReady(StreamId stream, Readiness now_ready, bool is_new) {
  const auto found = entries_.find(KeyOf(stream));
  if (found != entries_.end()) Update(*found->second, now_ready, is_new);
}

void PollSet::OnListenerReady(ListenerId listener, bool is_ready, bool is_new) {
  const auto found = entries_.find(KeyOf(listener));
  if (found != entries_.end()) {
    Update(*found->second, is_ready ? kAcceptable : 0, is_new);
  }
}

PollSet::Bell::~Bell() {
  if (fd_ >= 0) close(fd_);
}

int PollSet::Bell::OpenFd() {
  if (fd_ >= 0) return fd_;
  fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  // What is ready already is found by looking once.
  if (fd_ >= 0) Ring();
  return fd_;
}

void PollSet::Bell::Ring() {
  {
    const std::lock_guard lock(mutex_);
    is_rung_ = true;
    signal_.notify_one();
  }
  if (fd_ < 0) return;
  const uint64_t one = 1;
  CHECK_EQ(write(fd_, &one, sizeof(one)), ssize_t{sizeof(one)});
  fd_is_readable_ = true;
}

void PollSet::Bell::Silence() {
  if (!fd_is_readable_) return;
  uint64_t rings = 0;
  CHECK_EQ(read(fd_, &rings, sizeof(rings)), ssize_t{sizeof(rings)});
  fd_is_readable_ = false;
}

void PollSet::Bell::Sleep(Duration timeout) {
  std::unique_lock lock(mutex_);
  signal_.wait_for(lock, std::chrono::nanoseconds(timeout.nanoseconds()),
                   [&] { return is_rung_; });
  is_rung_ = false;
}

}  // namespace devwire
