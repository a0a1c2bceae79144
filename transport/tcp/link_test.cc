// Two connections over a small lossy link in virtual time: bytes arrive exactly
// and in order, whatever the link does; slots are accounted for; nothing loops
// or stalls. (transport/sim has the full network; this one is for this room.)
//
// A failure names its seed: --gtest_filter='*Random*' with DEVWIRE_SEED=N.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include "base/alloc_guard.h"
#include "base/prng.h"
#include "transport/tcp/trace.h"

namespace devwire {
namespace {

struct LinkOptions {
  double loss = 0;
  double duplication = 0;
  double reordering = 0;
  Duration delay = 1_ms;
  uint32_t linear_bytes = 0;  // So much of each text lies in a second slot.
  double text_drop = 0;       // The engine's pool is at its reserve.
};

struct InFlight {
  TxSegment segment;
  uint32_t from = 0;  // Payload bytes [from, from + bytes) of the send.
  uint32_t bytes = 0;
  bool is_first = true;
  bool is_last = true;
};

// One end: connection, slots with their bytes, an application.
class Host {
 public:
  Host(const Connection::Options& options, Prng& prng)
      : connection_(options, ledger_), prng_(prng) {}

  void Arrive(const InFlight& in, const LinkOptions& link, Instant now) {
    Segment seg;
    seg.seq = in.segment.seq + in.from;
    seg.ack = in.segment.ack;
    seg.wnd = in.segment.wnd;
    seg.flags = in.segment.flags;
    if (!in.is_last) seg.flags &= static_cast<uint8_t>(~(kFin | kPsh));
    seg.options = in.segment.options;
    seg.payload_bytes = in.bytes;
    seg.arrival = now;
    if (in.bytes > 0 && prng_.Chance(link.text_drop)) {
      seg.text_dropped = true;
    } else if (in.bytes > 0) {
      uint32_t first = std::min(link.linear_bytes, in.bytes - 1);
      uint64_t offset = in.segment.stream_offset + in.from;
      if (first > 0) AddFrag(seg, offset, first);
      AddFrag(seg, offset + first, in.bytes - first);
    }
    if (connection_.state() == State::kClosed && !was_opened_) {
      was_opened_ = true;
      (void)connection_.OpenPassive(seg, now);
    } else {
      (void)connection_.OnSegment(seg, now);
    }
    connection_.CheckInvariants();
  }

  // The application: sends, reads, gives back, closes; at random.
  void Act(Instant now) {
    while (connection_.PollEvent()) {
    }
    if (offered_ < to_send_ && prng_.Chance(0.5)) {
      uint64_t n = static_cast<uint64_t>(prng_.Between(1, 20'000));
      offered_ += connection_.Send(std::min(n, to_send_ - offered_));
    }
    if (offered_ == to_send_ && !closed_ &&
        connection_.state() > State::kSynSent) {
      closed_ = true;
      connection_.Close(now);
    }
    if (prng_.Chance(read_chance_)) Read();
    if (prng_.Chance(read_chance_)) ReleaseSome();
    connection_.CheckInvariants();
  }

  void Read() {
    std::array<Frag, 8> frags;
    size_t n = connection_.Receive(
        frags, static_cast<uint64_t>(prng_.Between(1, 30'000)));
    for (size_t i = 0; i < n; ++i) {
      ledger_.Lend(frags[i]);
      uint64_t at = offset_of_[static_cast<uint32_t>(frags[i].slot)];
      CHECK_EQ(at + frags[i].offset, received_) << "out of order";
      received_ += frags[i].length;
      lent_.push_back(frags[i]);
    }
  }
  void ReleaseSome() {
    size_t n = prng_.Below(lent_.size() + 1);
    uint64_t bytes = 0;
    uint32_t slots = 0;
    for (size_t i = 0; i < n; ++i) {
      bytes += lent_[i].length;
      slots += ledger_.Return(lent_[i]) ? 1 : 0;
    }
    lent_.erase(lent_.begin(), lent_.begin() + static_cast<std::ptrdiff_t>(n));
    connection_.OnReleased(bytes, slots);
  }

  bool is_done(uint64_t expected) const {
    return received_ == expected && lent_.empty() &&
           (connection_.state() == State::kClosed ||
            connection_.state() == State::kTimeWait);
  }

  SlotLedger ledger_;
  Connection connection_;
  Prng& prng_;
  uint64_t to_send_ = 0;
  uint64_t offered_ = 0;
  uint64_t received_ = 0;
  double read_chance_ = 0.5;
  bool closed_ = false;
  bool was_opened_ = false;
  std::vector<Frag> lent_;

 private:
  void AddFrag(Segment& seg, uint64_t offset, uint32_t bytes) {
    uint32_t slot = next_slot_++;
    ledger_.Arrive(SlotIndex{slot}, bytes);
    offset_of_[slot] = offset;
    seg.text[seg.text_count++] = {.slot = SlotIndex{slot}, .length = bytes};
  }
  uint32_t next_slot_ = 1;
  std::map<uint32_t, uint64_t> offset_of_;  // Slot to stream offset.
};

class Link {
 public:
  Link(const LinkOptions& options, Prng& prng)
      : options_(options), prng_(prng) {}

  // Sends what `from` has to say; large sends are cut as a NIC cuts them.
  void Transmit(Host& from, int to, Instant now, const TxLimits& limits) {
    TxSegment out;
    int count = 0;
    while (from.connection_.PollTransmit(now, limits, &out)) {
      CHECK_LT(++count, 100'000) << "endless";
      uint32_t step = out.tso_mss == 0 ? out.payload_bytes : out.tso_mss;
      uint32_t at = 0;
      do {
        uint32_t bytes = std::min(step, out.payload_bytes - at);
        Offer({out, at, bytes, at == 0, at + bytes == out.payload_bytes}, to,
              now);
        at += bytes;
      } while (at < out.payload_bytes);
    }
    CHECK(from.connection_.NextDeadline() > now) << "busy loop";
    from.connection_.CheckInvariants();
  }

  bool empty() const { return wire_.empty(); }
  Instant next() const {
    return wire_.empty() ? Instant::Never() : wire_.begin()->first;
  }
  std::pair<int, InFlight> Take() {
    auto first = wire_.begin();
    auto taken = first->second;
    wire_.erase(first);
    return taken;
  }

 private:
  void Offer(const InFlight& segment, int to, Instant now) {
    if (prng_.Chance(options_.loss)) return;
    int copies = prng_.Chance(options_.duplication) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      Duration delay = options_.delay;
      if (prng_.Chance(options_.reordering)) delay = 3 * delay;
      wire_.emplace(now + delay, std::pair(to, segment));
    }
  }
  LinkOptions options_;
  Prng& prng_;
  std::multimap<Instant, std::pair<int, InFlight>> wire_;
};

struct Transfer {
  LinkOptions link;
  Connection::Options options;
  uint64_t bytes[2] = {200'000, 200'000};
  uint32_t max_tso_payload = 0;
  double read_chance = 0.5;
};

// Returns the virtual time that it took.
Duration RunToTheEnd(const Transfer& run, uint64_t seed) {
  Prng prng(seed);
  Connection::Options a = run.options;
  Connection::Options b = run.options;
  a.iss = SeqNum(prng.Next32());
  b.iss = SeqNum(prng.Chance(0.5) ? prng.Next32() : 0xffff'0000u);
  b.ts_offset = prng.Next32();
  std::unique_ptr<Host> hosts[2] = {std::make_unique<Host>(a, prng),
                                    std::make_unique<Host>(b, prng)};
  Link link(run.link, prng);
  for (int i = 0; i < 2; ++i) {
    hosts[i]->to_send_ = run.bytes[i];
    hosts[i]->read_chance_ = run.read_chance;
  }
  TxLimits limits{.max_tso_payload = run.max_tso_payload};
  Instant now = Instant::FromNanoseconds(1'000'000'000);
  const Instant start = now;
  hosts[0]->connection_.OpenActive(now);
  hosts[0]->was_opened_ = true;
  int turns = 0;
  while (!hosts[0]->is_done(run.bytes[1]) || !hosts[1]->is_done(run.bytes[0])) {
    CHECK_LT(++turns, 2'000'000) << "no progress, seed " << seed;
    for (int i = 0; i < 2; ++i) {
      CHECK(hosts[i]->connection_.error() == TcpError::kNone)
          << TcpErrorName(hosts[i]->connection_.error()) << ", seed " << seed;
      if (i == 0 || hosts[1]->was_opened_) hosts[i]->Act(now);
      link.Transmit(*hosts[i], 1 - i, now, limits);
    }
    Instant next = std::min({link.next(), hosts[0]->connection_.NextDeadline(),
                             hosts[1]->connection_.NextDeadline(), now + 5_ms});
    now = next;
    while (link.next() <= now) {
      auto [to, segment] = link.Take();
      hosts[to]->Arrive(segment, run.link, now);
    }
    for (auto& host : hosts) {
      if (host->connection_.NextDeadline() <= now) {
        host->connection_.OnDeadline(now);
      }
    }
  }
  for (auto& host : hosts) {
    CHECK_EQ(host->connection_.acked_offset(), host->to_send_)
        << TcpErrorName(host->connection_.error()) << ", seed " << seed;
    CHECK_EQ(host->connection_.stats().held_bytes, 0u);
    CHECK_EQ(host->connection_.stats().held_slots, 0u);
    CHECK_EQ(host->ledger_.slots_in_use(), 0u) << "slots lost, seed " << seed;
  }
  return now - start;
}

TEST(TwoConnections, CleanLink) {
  Transfer run;
  run.bytes[0] = 2'000'000;
  Duration took = RunToTheEnd(run, 1);
  EXPECT_LT(took, 2_s);
}

TEST(TwoConnections, RandomLinks) {
  const char* one = std::getenv("DEVWIRE_SEED");
  const uint64_t first = one == nullptr ? 1 : std::strtoull(one, nullptr, 10);
  const uint64_t last = one == nullptr ? 300 : first;
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed * 1000);
    Transfer run;
    run.link = {.loss = prng.Chance(0.7) ? 0.1 * prng.Chance(0.5) + 0.02 : 0,
                .duplication = prng.Chance(0.5) ? 0.05 : 0,
                .reordering = prng.Chance(0.5) ? 0.1 : 0,
                .delay = prng.Between(10, 20'000) * 1_us,
                .linear_bytes = prng.Chance(0.2) ? 12u : 0u,
                .text_drop = prng.Chance(0.2) ? 0.05 : 0};
    run.options.mss = static_cast<uint16_t>(prng.Between(100, 1460));
    run.options.use_timestamps = prng.Chance(0.5);
    run.options.use_window_scale = prng.Chance(0.5);
    run.options.use_sack = prng.Chance(0.5);
    run.options.nodelay = prng.Chance(0.5);
    run.options.receive = {
        .byte_budget = static_cast<uint64_t>(prng.Between(2'000, 300'000)),
        .slot_quota = static_cast<uint32_t>(prng.Between(4, 400))};
    run.options.send_queue_limit_bytes = 50'000;
    run.options.max_segments_in_flight = prng.Chance(0.2) ? 4 : 256;
    // Longer than any backoff: the last ACKs may be lost many times.
    run.options.time_wait = 600_s;
    run.max_tso_payload = prng.Chance(0.5) ? 16'000 : 0;
    run.read_chance = prng.Chance(0.3) ? 0.02 : 0.5;
    run.bytes[0] = static_cast<uint64_t>(prng.Between(0, 100'000));
    run.bytes[1] = static_cast<uint64_t>(prng.Between(0, 100'000));
    RunToTheEnd(run, seed);
  }
}

// One-byte segments against a window of full ones: slots run out, the reader
// gets on.
TEST(TwoConnections, OneByteSegmentsGetThrough) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Transfer run;
    run.options.nodelay = true;
    run.options.mss = 48;  // The least that we send with.
    run.options.use_timestamps = true;
    run.options.receive = {.byte_budget = 100'000, .slot_quota = 6};
    run.bytes[0] = 5000;
    run.bytes[1] = 0;
    RunToTheEnd(run, seed);
  }
}

// Once opened, nothing allocates.
TEST(TwoConnections, NoAllocationPerSegment) {
  class Nowhere final : public FragSink {
    void Discard(const Frag&) override {}
  } sink;
  Connection::Options options;
  options.use_timestamps = false;
  Connection a(options, sink), b(options, sink);
  Instant now = Instant::FromNanoseconds(1'000'000);
  TxSegment out;
  auto carry = [&](Connection& to) {
    Segment seg;
    seg.seq = out.seq;
    seg.ack = out.ack;
    seg.wnd = out.wnd;
    seg.flags = out.flags;
    seg.options = out.options;
    seg.payload_bytes = out.payload_bytes;
    if (out.payload_bytes > 0) {
      seg.text_count = 1;
      seg.text[0] = {.length = out.payload_bytes};
    }
    seg.arrival = now;
    if (to.state() == State::kClosed) {
      (void)to.OpenPassive(seg, now);
    } else {
      (void)to.OnSegment(seg, now);
    }
  };
  a.OpenActive(now);
  uint64_t received = 0;
  const uint64_t allocations = AllocationsOnThisThread();
  for (int turn = 0; turn < 20'000; ++turn) {
    now += 100_us;
    (void)a.Send(10'000);
    while (a.PollTransmit(now, {}, &out)) {
      if (turn % 100 != 99) carry(b);  // Some are lost.
    }
    std::array<Frag, 16> frags;
    while (size_t n = b.Receive(frags, UINT64_MAX)) {
      uint64_t bytes = 0;
      for (size_t i = 0; i < n; ++i) bytes += frags[i].length;
      received += bytes;
      b.OnReleased(bytes, static_cast<uint32_t>(n));
    }
    while (b.PollTransmit(now, {}, &out)) carry(a);
    while (a.PollEvent()) {
    }
    while (b.PollEvent()) {
    }
  }
  EXPECT_EQ(AllocationsOnThisThread(), allocations);
  EXPECT_GT(received, 1'000'000u);
}

}  // namespace
}  // namespace devwire
