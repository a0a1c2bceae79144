#include "transport/engine/neighbor.h"

#include <algorithm>

#include "base/check.h"

namespace devwire {

NeighborTable::NeighborTable(const Options& options)
    : options_(options),
      entries_(options.max_entries),
      failure_owed_(options.max_entries) {
  CHECK_GT(options.max_entries, 0u);
}

std::optional<uint32_t> NeighborTable::Find(const IpAddress& ip) const {
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].state != State::kNone && entries_[i].ip == ip) return i;
  }
  return std::nullopt;
}

std::optional<uint32_t> NeighborTable::Take(const IpAddress& ip) {
  std::optional<uint32_t> taken;
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (entry.state == State::kNone) {
      taken = i;
      break;
    }
    if (entry.state != State::kStatic && entry.users == 0) taken = i;
  }
  if (taken.has_value()) entries_[*taken] = Entry{.ip = ip};
  return taken;
}

bool NeighborTable::AddStatic(const IpAddress& ip, const MacAddress& mac) {
  // One entry stays free for what must be asked.
  const auto is_static = [](const Entry& e) {
    return e.state == State::kStatic;
  };
  const auto statics = static_cast<size_t>(
      std::count_if(entries_.begin(), entries_.end(), is_static));
  if (statics + 1 >= entries_.size()) return false;
  std::optional<uint32_t> index = Find(ip);
  if (!index.has_value()) index = Take(ip);
  if (!index.has_value()) return false;
  Entry& entry = entries_[*index];
  entry.mac = mac;
  entry.state = State::kStatic;
  entry.next_action = Instant::Never();
  return true;
}

std::optional<uint32_t> NeighborTable::Acquire(const IpAddress& ip,
                                               Instant now) {
  std::optional<uint32_t> index = Find(ip);
  if (!index.has_value()) index = Take(ip);
  if (!index.has_value()) return std::nullopt;
  Entry& entry = entries_[*index];
  ++entry.users;
  if (entry.state == State::kNone || entry.state == State::kFailed) {
    entry.state = State::kIncomplete;
    entry.requests_sent = 0;
    entry.next_action = now;
  }
  return index;
}

void NeighborTable::Release(uint32_t index) {
  CHECK_GT(entries_[index].users, 0u);
  --entries_[index].users;
}

bool NeighborTable::OnAnswer(const IpAddress& ip, const MacAddress& mac,
                             bool create, Instant now) {
  std::optional<uint32_t> index = Find(ip);
  if (!index.has_value() && create) index = Take(ip);
  if (!index.has_value()) return false;
  Entry& entry = entries_[*index];
  if (entry.state == State::kStatic) return false;
  const bool changed = !entry.has_mac() || entry.mac != mac;
  entry.mac = mac;
  Learn(entry, State::kReachable, now);
  return changed;
}

void NeighborTable::OnDoubt(uint32_t index, Instant now) {
  Entry& entry = entries_[index];
  if (entry.state == State::kReachable && entry.next_action > now) {
    entry.next_action = now;
  }
}

void NeighborTable::Learn(Entry& entry, State state, Instant now) {
  entry.state = state;
  entry.requests_sent = 0;
  entry.next_action = now + (state == State::kStale ? options_.delay_first_probe
                                                    : options_.reachable_time);
}

bool NeighborTable::OnAdvertisement(const IpAddress& ip,
                                    const std::optional<MacAddress>& mac,
                                    bool is_solicited, bool overrides,
                                    Instant now) {
  const std::optional<uint32_t> index = Find(ip);
  if (!index.has_value()) return false;
  Entry& entry = entries_[*index];
  if (entry.state == State::kStatic) return false;
  if (!entry.has_mac()) {
    if (!mac.has_value()) return false;
    entry.mac = *mac;
    Learn(entry, is_solicited ? State::kReachable : State::kStale, now);
    return true;
  }
  const bool is_other = mac.has_value() && *mac != entry.mac;
  if (is_other && !overrides) {  // Two answer: find out who is right.
    if (entry.state == State::kReachable) Learn(entry, State::kStale, now);
    return false;
  }
  if (is_other) entry.mac = *mac;
  if (is_solicited) {
    Learn(entry, State::kReachable, now);
  } else if (is_other) {
    Learn(entry, State::kStale, now);
  }
  return is_other;
}

bool NeighborTable::OnSolicitation(const IpAddress& ip, const MacAddress& mac,
                                   Instant now) {
  std::optional<uint32_t> index = Find(ip);
  if (!index.has_value()) index = Take(ip);
  if (!index.has_value()) return false;
  Entry& entry = entries_[*index];
  if (entry.state == State::kStatic) return false;
  if (entry.has_mac() && entry.mac == mac) return false;
  entry.mac = mac;
  Learn(entry, State::kStale, now);
  return true;
}

// IPv6 probes the known MAC first, and then asks all as if it knew none.
uint8_t NeighborTable::MostRequests(const Entry& entry) const {
  const bool asks_twice = !entry.ip.is_v4() && entry.state == State::kProbing;
  return static_cast<uint8_t>(options_.max_requests * (asks_twice ? 2 : 1));
}

std::optional<NeighborTable::Request> NeighborTable::PollRequest(Instant now) {
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    if (entry.next_action > now) continue;
    if (entry.state == State::kReachable || entry.state == State::kStale) {
      if (entry.users == 0) {  // Forget; ask again when needed.
        entry = Entry{};
        continue;
      }
      entry.state = State::kProbing;
    }
    if (entry.requests_sent == MostRequests(entry)) {
      entry.requests_sent = 0;
      if (entry.state == State::kProbing) {
        entry.state = State::kReachable;
        entry.next_action = now + options_.reachable_time;
        continue;
      }
      entry.state = State::kFailed;
      entry.next_action = Instant::Never();
      failures_owed_ += failure_owed_[i] ? 0 : 1;
      failure_owed_[i] = true;
      continue;
    }
    ++entry.requests_sent;
    entry.next_action = now + options_.request_interval;
    Request request{.ip = entry.ip, .mac = {}};
    if (entry.state == State::kProbing && !entry.ip.is_v4() &&
        entry.requests_sent <= options_.max_requests) {
      request.mac = entry.mac;
    }
    return request;
  }
  return std::nullopt;
}

std::optional<IpAddress> NeighborTable::PollFailed() {
  if (failures_owed_ == 0) return std::nullopt;
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    if (!failure_owed_[i]) continue;
    failure_owed_[i] = false;
    --failures_owed_;
    if (entries_[i].state == State::kFailed) return entries_[i].ip;
  }
  return std::nullopt;
}

Instant NeighborTable::NextDeadline() const {
  Instant next = Instant::Never();
  for (const Entry& entry : entries_) next = std::min(next, entry.next_action);
  return next;
}

}  // namespace devwire
