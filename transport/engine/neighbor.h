// NeighborTable: which MAC address an IP address on the link has.
//
//   [none] --Acquire--> [incomplete] --answer--> [reachable] --60 s-->
//   [probing]
//                            |                        ^                   |
//                            v no answer to 3         +--- answer, or none to
//                         [failed]                         all requests
//
//   [stale]: heard of without having asked (IPv6); after 5 s it is probed
//
// A neighbour that was known and falls silent keeps its address: whether the
// peer is gone is for TCP to say. (RFC 4861 7.3.3 would forget it.)
//
// Sans IO like TCP: it says which requests are owed, the engine sends them:
// three, one second apart.
//   IPv4  ARP, RFC 826; timing after RFC 1122 2.3.2 and Linux. A packet that
//         was not asked for changes an entry that exists, and makes one only
//         when it is a request for our own address (we are about to answer its
//         sender).
//   IPv6  RFC 4861 7.2, 7.3. Probes go to the known MAC, then to the group.
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
    Duration delay_first_probe = 5_s;  // RFC 4861 10.
  };
  enum class State : uint8_t {
    kNone,
    kIncomplete,  // Asked, no answer yet: hold what is to be sent.
    kReachable,
    kStale,    // Known from hearsay: to be asked.
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
      return state == State::kReachable || state == State::kStale ||
             state == State::kProbing || state == State::kStatic;
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
  // A neighbour advertisement about `ip` (RFC 4861 7.2.5), and a solicitation
  // from it (7.2.3), each with the MAC that it names. True when the MAC
  // changed.
  bool OnAdvertisement(const IpAddress& ip,
                       const std::optional<MacAddress>& mac, bool is_solicited,
                       bool overrides, Instant now);
  bool OnSolicitation(const IpAddress& ip, const MacAddress& mac, Instant now);
  // A request that is owed at `now`: for whom, and to which MAC if not to all.
  // Call until empty.
  struct Request {
    IpAddress ip;
    std::optional<MacAddress> mac;
  };
  std::optional<Request> PollRequest(Instant now);
  // An entry that failed since the last call.
  std::optional<IpAddress> PollFailed();
  Instant NextDeadline() const;

 private:
  std::optional<uint32_t> Find(const IpAddress& ip) const;
  std::optional<uint32_t> Take(const IpAddress& ip);
  void Learn(Entry& entry, State state, Instant now);
  uint8_t MostRequests(const Entry& entry) const;

  const Options options_;
  std::vector<Entry> entries_;
  std::vector<bool> failure_owed_;
  uint32_t failures_owed_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_NEIGHBOR_H_
