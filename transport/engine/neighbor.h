// NeighborTable: which MAC address an IP address on the link has.
//
//   [none] --Acquire--> [incomplete] --answer--> [reachable] --60 s-->
//   [probing]
//                            |                        ^                   |
//                            v no answer to 3         +--- answer, or none to 3
//                         [failed]
//
// A neighbour that was known and falls silent keeps its address: whether the
// peer is gone is for TCP to say.
//
// Sans IO like TCP: it says which requests are owed, the engine sends them.
// IPv4 by ARP (RFC 826; timing after RFC 1122 2.3.2 and Linux: three requests,
// one second apart); IPv6 through static entries only. An ARP packet that was
// not asked for changes an entry that exists, and makes one only when it is a
// request for our own address (we are about to answer its sender).
//
// Threads: none of its own. Cost: linear search in a small table, done when a
// stream's next hop changes, not per packet; no allocation.
#ifndef TRANSPORT_ENGINE_NEIGHBOR_H_
#define TRANSPORT_ENGINE_NEIGHBOR_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"
#include "transport/address.h"

namespace devwire {

class NeighborTable {
 public:
  struct Options {
    uint32_t max_entries = 256;  // At the limit an unused one goes.
    uint8_t max_requests = 3;
    Duration request_interval = 1_s;
    Duration reachable_time = 60_s;
  };
  enum class State : uint8_t {
    kNone,
    kIncomplete,  // Asked, no answer yet: hold what is to be sent.
    kReachable,
    kProbing,  // Known, and being asked again.
    kStatic,
    kFailed,  // Nobody answered.
  };
  struct Entry {
    IpAddress ip;
    MacAddress mac{};
    State state = State::kNone;
    uint8_t requests_sent = 0;
    uint32_t users = 0;  // Streams that hold the index.
    Instant next_action = Instant::Never();
    bool has_mac() const {
      return state == State::kReachable || state == State::kProbing ||
             state == State::kStatic;
    }
  };

  explicit NeighborTable(const Options& options);

  // A neighbour that never changes. False when the table is full.
  bool AddStatic(const IpAddress& ip, const MacAddress& mac);
  // The entry of `ip`, asked for when it is new or has failed. The index is
  // valid until Release(). Empty when the table is full of entries in use.
  std::optional<uint32_t> Acquire(const IpAddress& ip, Instant now);
  void Release(uint32_t index);
  const Entry& entry(uint32_t index) const { return entries_[index]; }

  // An ARP packet named `ip` at `mac`. True when an entry changed.
  bool OnAnswer(const IpAddress& ip, const MacAddress& mac, bool create,
                Instant now);
  // TCP doubts that the next hop is there (RFC 1122 3.3.1.4, "negative
  // advice"): it is asked again at once. It keeps its address meanwhile.
  void OnDoubt(uint32_t index, Instant now);
  // A request that is owed at `now`: for whom. Call until empty.
  std::optional<IpAddress> PollRequest(Instant now);
  // An entry that failed since the last call.
  std::optional<IpAddress> PollFailed();
  Instant NextDeadline() const;

 private:
  std::optional<uint32_t> Find(const IpAddress& ip) const;
  std::optional<uint32_t> Take(const IpAddress& ip);

  const Options options_;
  std::vector<Entry> entries_;
  std::vector<bool> failure_owed_;
  uint32_t failures_owed_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_NEIGHBOR_H_
