#include "transport/sim/tcp_sim.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "transport/sim/seed_on_abort.h"

namespace devwire {
namespace {

TcpHost::Options HostOptions(const TcpSimSetup& setup, bool is_client) {
  TcpHost::Options o;
  Prng prng(setup.seed * 2 + (is_client ? 1 : 0));
  o.is_client = is_client;
  o.opens_actively = is_client || setup.opens_simultaneously;
  o.sessions = setup.sessions;
  o.session_gap = setup.session_gap;
  o.dies_after = is_client ? setup.client_dies_after : setup.server_dies_after;
  o.returns_after = setup.returns_after;
  const Endpoint client{IpAddress::V4(10, 0, 0, 1), Port{40000}};
  const Endpoint server{IpAddress::V4(10, 0, 0, 2), Port{80}};
  o.addresses.source_mac = {2, 0, 0, 0, 0, 1};
  o.addresses.destination_mac = {2, 0, 0, 0, 0, 2};
  o.addresses.tuple =
      is_client ? FourTuple{client, server} : FourTuple{server, client};
  o.connection = is_client ? setup.connection
                           : setup.server_connection.value_or(setup.connection);
  // Anywhere on the circle, and often just before its end.
  o.connection.iss =
      SeqNum(prng.Chance(0.5) ? 0u - prng.Next32() % 100'000 : prng.Next32());
  o.connection.ts_offset = prng.Next32();
  o.connection.slot_bytes = setup.slot_bytes;
  o.connection.max_slot_quota = setup.slot_count;
  o.connection.receive.slot_quota =
      setup.slot_count - std::min(setup.slot_count / 2, setup.pool_reserve);
  o.app = is_client ? setup.client : setup.server;
  o.slot_count = setup.slot_count;
  o.slot_bytes = setup.slot_bytes;
  o.pool_reserve = setup.pool_reserve;
  o.max_tso_payload = setup.max_tso_payload;
  o.stream_seed = setup.seed;
  o.seed = prng.Next64();
  o.is_traced = setup.is_traced;
  return o;
}

// One direction: the link, and the box at its end.
class Path {
 public:
  using Direction = PcapngWriter::Direction;

  Path(const LinkFaults& faults, const std::optional<Middlebox::Options>& box,
       uint64_t seed, PcapngWriter* capture, Direction direction)
      : capture_(capture), direction_(direction), link_(faults, seed) {
    if (box) box_.emplace(*box, seed ^ 0x3333);
    if (capture == nullptr) return;
    link_.set_observer([this](const SimFrame& frame, Instant now,
                              const char* fate) { Capture(frame, now, fate); });
  }

  SimLink& link() { return link_; }
  Instant NextArrival() const {
    const Instant next = link_.NextArrival();
    return box_ ? std::min(next, box_->NextEvent()) : next;
  }
  // What arrives at `to` now.
  void Deliver(TcpHost& to, Instant now) {
    while (auto frame = link_.Receive(now)) {
      if (box_) {
        box_->Take(*frame, now);
        Drain(to, now);
      } else {
        to.OnFrame(*frame, now);
        to.Finish(now);
      }
    }
    if (box_) Drain(to, now);
  }
  void Capture(const SimFrame& frame, Instant now, const char* comment) {
    if (capture_ == nullptr) return;
    capture_->Add(direction_, now, frame, static_cast<uint32_t>(frame.size()),
                  comment);
  }

 private:
  void Drain(TcpHost& to, Instant now) {
    while (auto frame = box_->Give(now)) {
      Capture(*frame, now, "after the middlebox");
      to.OnFrame(*frame, now);
      to.Finish(now);
    }
  }

  PcapngWriter* const capture_;
  const Direction direction_;
  SimLink link_;
  std::optional<Middlebox> box_;
};

bool IsLive(const TcpHost& host) {
  return host.connection() != nullptr &&
         IsSynchronized(host.connection()->state());
}

class Run {
 public:
  explicit Run(const TcpSimSetup& setup)
      : setup_(setup),
        up_(setup.faults, setup.box_up, setup.seed ^ 0xaaaa, setup.capture,
            PcapngWriter::Direction::kOut),
        down_(setup.faults_down.value_or(setup.faults), setup.box_down,
              setup.seed ^ 0x5555, setup.capture, PcapngWriter::Direction::kIn),
        client_(HostOptions(setup, true), up_.link()),
        server_(HostOptions(setup, false), down_.link()),
        attacker_(setup.seed ^ 0x7777),
        prng_(setup.seed ^ 0x1111) {}

  TcpSimResult ToEnd() {
    client_.Start(now_);
    server_.Start(now_);
    client_.Finish(now_);
    server_.Finish(now_);
    if (setup_.path_ends_after) path_ends_at_ = now_ + *setup_.path_ends_after;
    DrawNextAttack();
    while (failure_.empty() && !is_over_) Step();
    return Result();
  }

 private:
  void Step() {
    const bool is_quiet = up_.NextArrival() == Instant::Never() &&
                          down_.NextArrival() == Instant::Never();
    if (client_.is_done() && server_.is_done() && is_quiet) {
      is_over_ = true;
      return;
    }
    const Instant next = std::min({client_.NextEvent(), server_.NextEvent(),
                                   up_.NextArrival(), down_.NextArrival()});
    if (next == Instant::Never()) return OnNothingPending();
    if (next - start_ > setup_.give_up_after) {
      failure_ = "does not come to an end";
      return;
    }
    now_ = std::max(now_, std::min(next, next_attack_));
    ++result_.events;
    if (path_ends_at_ <= now_) {
      path_ends_at_ = Instant::Never();
      up_.link().set_faults({.loss = 1});
      down_.link().set_faults({.loss = 1});
    }
    if (next_attack_ <= now_) Attack();
    up_.Deliver(server_, now_);
    down_.Deliver(client_, now_);
    client_.OnTime(now_);
    server_.OnTime(now_);
    client_.Finish(now_);
    server_.Finish(now_);
    const uint64_t read = client_.bytes_read() + server_.bytes_read();
    if (read > read_) result_.data_took = now_ - start_;
    read_ = read;
    failure_ =
        !client_.failure().empty() ? client_.failure() : server_.failure();
    if (failure_.empty()) failure_ = CheckDelivery();
  }

  // No deadline, no segment under way: allowed when one end is gone without
  // telling the other, which has nothing to send. Without keepalives it waits
  // until its application gives up.
  void OnNothingPending() {
    const bool client_waits = client_.connection() != nullptr;
    const bool server_waits = server_.connection() != nullptr;
    const auto& gone = client_waits ? server_ : client_;
    const bool ended_badly = !gone.sessions().empty() &&
                             (gone.sessions().back().was_alone ||
                              gone.sessions().back().error != TcpError::kNone);
    if (client_waits == server_waits || !ended_badly) {
      failure_ = "deadlock: nothing is pending";
      return;
    }
    result_.survivor_waited = true;
    client_.GiveUp(now_);
    server_.GiveUp(now_);
  }

  // What one end calls acknowledged, the other has received.
  std::string CheckDelivery() const {
    const Connection* a = client_.connection();
    const Connection* b = server_.connection();
    if (a == nullptr || b == nullptr) return "";
    if (a->tcb().irs != b->tcb().iss || b->tcb().irs != a->tcb().iss) return "";
    if (!IsSynchronized(a->state()) || !IsSynchronized(b->state())) return "";
    if (SeqGt(a->tcb().snd_una, b->tcb().rcv_nxt)) {
      return "the client was acknowledged what the server never got";
    }
    if (SeqGt(b->tcb().snd_una, a->tcb().rcv_nxt)) {
      return "the server was acknowledged what the client never got";
    }
    return "";
  }

  void DrawNextAttack() {
    if (setup_.attack_gap <= Duration()) return;
    next_attack_ =
        now_ +
        Duration::Nanoseconds(static_cast<int64_t>(prng_.Below(
            static_cast<uint64_t>(2 * setup_.attack_gap.nanoseconds()))));
  }

  void Attack() {
    DrawNextAttack();
    // Before the handshake is over other rules hold: a SYN opens.
    if (!IsLive(client_) || !IsLive(server_)) return;
    if (attacker_.guesses() == setup_.attack_limit) {
      next_attack_ = Instant::Never();
      return;
    }
    const bool at_client = prng_.Chance(0.5);
    TcpHost& victim = at_client ? client_ : server_;
    Path& path = at_client ? down_ : up_;
    const SimFrame frame =
        attacker_.Guess(*victim.connection(), victim.tuple());
    path.Capture(frame, now_, "forged");
    victim.OnForgedFrame(frame, now_);
    victim.Finish(now_);
  }

  TcpSimResult Result() {
    TcpSimResult& r = result_;
    r.took = now_ - start_;
    if (failure_.empty()) failure_ = CompareSessions();
    if (!failure_.empty()) {
      r.failure =
          absl::StrCat("seed ", setup_.seed, " at ", r.took.microseconds(),
                       " us: ", failure_, "\n  ", client_.ToString(), "\n  ",
                       server_.ToString(), "\n  up: ", up_.link().StatsString(),
                       "\n  down: ", down_.link().StatsString());
    }
    r.client_sessions = client_.sessions();
    r.server_sessions = server_.sessions();
    for (const auto& s : r.client_sessions) {
      r.client_read += s.bytes_read;
      if (r.client_error == TcpError::kNone) r.client_error = s.error;
    }
    for (const auto& s : r.server_sessions) {
      r.server_read += s.bytes_read;
      if (r.server_error == TcpError::kNone) r.server_error = s.error;
    }
    r.attacks = attacker_.guesses();
    r.attacks_by_kind = attacker_.tally();
    r.client = client_.stats();
    r.server = server_.stats();
    r.up = up_.link().stats();
    r.down = down_.link().stats();
    return r;
  }

  // Who reads to the end has read all that the other wrote.
  std::string CompareSessions() const {
    for (const TcpHost::Session& a : client_.sessions()) {
      for (const TcpHost::Session& b : server_.sessions()) {
        if (a.iss != b.irs || b.iss != a.irs) continue;
        if (a.saw_end && setup_.client.closing != Closing::kWithoutReading &&
            a.bytes_read != b.bytes_written) {
          return "the client saw an end that is not the stream's";
        }
        if (b.saw_end && setup_.server.closing != Closing::kWithoutReading &&
            b.bytes_read != a.bytes_written) {
          return "the server saw an end that is not the stream's";
        }
      }
    }
    return "";
  }

  using Closing = TcpHost::Closing;
  const TcpSimSetup& setup_;
  const Instant start_ = Instant::FromNanoseconds(1'000'000'000);
  Instant now_ = start_;
  Path up_;
  Path down_;
  TcpHost client_;
  TcpHost server_;
  BlindAttacker attacker_;
  Prng prng_;
  Instant next_attack_ = Instant::Never();
  Instant path_ends_at_ = Instant::Never();
  bool is_over_ = false;
  uint64_t read_ = 0;
  std::string failure_;
  TcpSimResult result_;
};

}  // namespace

TcpSimResult RunTcpSim(const TcpSimSetup& setup) {
  TellSeedOnAbort(setup.seed);
  return Run(setup).ToEnd();
}

}  // namespace devwire
