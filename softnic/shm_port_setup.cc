// The link of a cable: handshake, regions, the death of the other end.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "softnic/shm_port.h"

namespace softnic {

absl::StatusOr<std::unique_ptr<ShmPort>> ShmPort::Create(
    const std::string& path, const devwire::Clock* clock) {
  auto port = std::unique_ptr<ShmPort>(new ShmPort(clock));
  const absl::Status status = port->link_.Plug(path);
  if (!status.ok()) return status;
  port->Look();
  return port;
}

ShmPort::~ShmPort() {
  LoseLink();
  for (auto& [number, region] : own_) {
    if (region.fd >= 0) close(region.fd);
  }
}

void ShmPort::Look() {
  next_look_ = clock_->Now() + kLookPeriod;
  if (!link_.is_connected()) {
    if (!link_.TryConnect()) return;
    before_handshake_ = state_;
    state_ = State::kHandshake;
    handshake_until_ = clock_->Now() + kHandshakeMax;
    if (!link_.is_listener()) link_.Send(ShmMessage(), -1);
  }
  ReadMessages();
}

void ShmPort::ReadMessages() {
  ShmMessage message;
  int fd = -1;
  while (link_.is_connected() && !peer_is_gone_) {
    switch (link_.Receive(&message, &fd)) {
      case ShmLink::Poll::kNothing:
        return;
      case ShmLink::Poll::kMessage:
        OnMessage(message, fd);
        if (fd >= 0) close(fd);
        break;
      case ShmLink::Poll::kLost:
        if (state_ == State::kUp) {
          peer_is_gone_ = true;  // What it has sent is still delivered.
        } else {
          LoseLink();
        }
        return;
    }
  }
}

void ShmPort::OnMessage(const ShmMessage& message, int fd) {
  switch (message.kind) {
    case ShmMessage::Kind::kHello:
      if (state_ == State::kHandshake && link_.is_listener() && !MakeRings()) {
        LoseLink();
      }
      return;
    case ShmMessage::Kind::kWelcome:
      if (state_ == State::kHandshake && !link_.is_listener() &&
          !UseRings(fd)) {
        LoseLink();
      }
      return;
    case ShmMessage::Kind::kRegion:
      ++messages_read_;
      OnRegion(message, fd);
      return;
    case ShmMessage::Kind::kBell:
      ++messages_read_;
      return;
    case ShmMessage::Kind::kForget:
      ++messages_read_;
      if (auto it = peer_.find(message.region); it != peer_.end()) {
        it->second.is_forgotten = true;
        it->second.until = message.frames;
        has_forgotten_ = true;
        UnmapForgotten();
      }
      return;
  }
}

bool ShmPort::MakeRings() {
  const int fd = memfd_create("softnic-cable", MFD_CLOEXEC);
  if (fd < 0) return false;
  ShmMessage welcome;
  welcome.kind = ShmMessage::Kind::kWelcome;
  const bool ok = ftruncate(fd, sizeof(ShmCable)) == 0 &&
                  link_.Send(welcome, fd) && UseRings(fd);
  close(fd);
  return ok;
}

bool ShmPort::UseRings(int fd) {
  if (fd < 0 || lseek(fd, 0, SEEK_END) != sizeof(ShmCable)) return false;
  void* at = mmap(nullptr, sizeof(ShmCable), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_POPULATE, fd, 0);
  if (at == MAP_FAILED) return false;
  cable_ = static_cast<ShmCable*>(at);
  const int mine = link_.is_listener() ? 0 : 1;
  out_ = &cable_->direction[mine];
  in_ = &cable_->direction[1 - mine];
  tail_ = published_ = head_ = in_head_ = 0;
  staging_tail_ = staging_head_ = 0;
  messages_sent_ = messages_read_ = 0;
  state_ = State::kUp;
  is_all_announced_ = own_.empty();
  Announce();
  return true;
}

void ShmPort::AddRegion(uint32_t region, int fd, uint64_t offset,
                        uint64_t length) {
  OwnRegion own;
  own.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  own.offset = offset;
  own.length = length;
  own_[region] = own;
  is_all_announced_ = false;
  Announce();
}

void ShmPort::RemoveRegion(uint32_t region) {
  auto it = own_.find(region);
  if (it == own_.end()) return;
  if (it->second.is_announced) {
    ShmMessage message;
    message.kind = ShmMessage::Kind::kForget;
    message.region = region;
    message.frames = tail_;
    forget_.push_back(message);
    is_all_announced_ = false;
  }
  if (it->second.fd >= 0) close(it->second.fd);
  own_.erase(it);
  Announce();
}

bool ShmPort::Tell(const ShmMessage& message, int fd) {
  if (!link_.Send(message, fd)) return false;
  ++messages_sent_;
  out_->producer.messages.store(messages_sent_, std::memory_order_release);
  return true;
}

void ShmPort::Announce() {
  if (state_ != State::kUp || peer_is_gone_) return;
  while (!forget_.empty()) {
    if (!Tell(forget_.front(), -1)) return;
    forget_.erase(forget_.begin());
  }
  bool all = true;
  for (auto& [number, region] : own_) {
    if (region.is_announced) continue;
    // Without a descriptor of its own it is copied through the ring for good.
    if (region.fd < 0) {
      all = false;
      continue;
    }
    ShmMessage message;
    message.kind = ShmMessage::Kind::kRegion;
    message.region = number;
    message.offset = region.offset;
    message.length = region.length;
    if (!Tell(message, region.fd)) return;
    region.is_announced = true;
  }
  is_all_announced_ = all;
}

void ShmPort::OnRegion(const ShmMessage& message, int fd) {
  PeerRegion region;
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t skip = message.offset % page;
  const off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
  region.length = message.length;
  region.mapping_bytes = message.length + skip;
  if (size > 0 && message.offset <= static_cast<uint64_t>(size) &&
      message.length <= static_cast<uint64_t>(size) - message.offset) {
    void* at = mmap(nullptr, region.mapping_bytes, PROT_READ, MAP_SHARED, fd,
                    static_cast<off_t>(message.offset - skip));
    if (at != MAP_FAILED) {
      region.mapping = at;
      region.base = static_cast<const std::byte*>(at) + skip;
    }
  }
  // Without a mapping its frames are dropped: see Find.
  last_number_ = kNoRegion;
  peer_[message.region] = region;
}

void ShmPort::UnmapForgotten() {
  last_number_ = kNoRegion;
  has_forgotten_ = false;
  for (auto it = peer_.begin(); it != peer_.end();) {
    const PeerRegion& region = it->second;
    const bool is_due = region.is_forgotten &&
                        static_cast<int32_t>(in_head_ - region.until) >= 0;
    if (!is_due) {
      has_forgotten_ |= region.is_forgotten;
      ++it;
      continue;
    }
    if (region.mapping != nullptr) {
      munmap(region.mapping, region.mapping_bytes);
    }
    it = peer_.erase(it);
  }
}

bool ShmPort::PrepareToSleep() {
  Look();
  // Nobody rings for an end that has to knock itself.
  if (state_ != State::kUp) return link_.is_listener() && !is_connecting();
  // Either the sender sees that we sleep, or we see what it has published.
  in_->sleep.is_asleep.exchange(true, std::memory_order_acq_rel);
  const bool is_idle =
      in_->producer.tail.load(std::memory_order_acquire) == in_head_ &&
      in_->producer.messages.load(std::memory_order_acquire) ==
          messages_read_ &&
      is_all_announced_ && !peer_is_gone_;
  if (!is_idle) in_->sleep.is_asleep.store(false, std::memory_order_relaxed);
  return is_idle;
}

void ShmPort::LoseLink() {
  if (cable_ != nullptr) {
    munmap(cable_, sizeof(ShmCable));
    cable_ = nullptr;
    out_ = in_ = nullptr;
    state_ = State::kLost;
  } else if (state_ == State::kHandshake) {
    state_ = before_handshake_;
  }
  peer_is_gone_ = false;
  link_.Disconnect();
  for (auto& [number, region] : peer_) {
    if (region.mapping != nullptr) {
      munmap(region.mapping, region.mapping_bytes);
    }
  }
  peer_.clear();
  last_number_ = kNoRegion;
  forget_.clear();
  for (auto& [number, region] : own_) region.is_announced = false;
}

}  // namespace softnic
