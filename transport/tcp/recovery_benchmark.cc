// What a segment costs the TCP machines of both ends, clean and in SACK
// recovery. Loss is seeded; time is virtual; no bytes move.
//
//   recovery_benchmark --benchmark_counters_tabular=true
//
// Instructions, exactly (callgrind counts only within OnSegment and PollOwed,
// so not the link below):
//
//   bazel test --config=release //transport/tcp:recovery_instructions_test
#include <benchmark/benchmark.h>

#include <cstdint>
#include <deque>
#include <string>

#include "base/prng.h"
#include "transport/tcp/connection.h"

namespace devwire {
namespace {

constexpr Duration kOneWay = 500_us;
constexpr Duration kPerSegment = 1200_ns;  // 10 Gb/s.
constexpr uint64_t kSegments = 20'000;
constexpr uint32_t kSlotBytes = 2048;

class NoSink final : public FragSink {
 public:
  void Discard(const Frag&) override {}
};

struct OnTheWay {
  Instant arrival;
  Segment segment;
};

class Link {
 public:
  Link(double loss, uint64_t seed) : loss_(loss), prng_(seed) {}

  // Sends what `from` owes, cut as a NIC cuts it.
  void Transmit(Connection& from, Instant now) {
    TxSegment out;
    while (from.PollTransmit(now, {.max_tso_payload = 60'000}, &out)) {
      const uint32_t mss = out.tso_mss != 0 ? out.tso_mss : out.payload_bytes;
      uint32_t at = 0;
      do {
        const uint32_t bytes = std::min(mss, out.payload_bytes - at);
        Send(out, at, bytes, now);
        at += bytes;
      } while (at < out.payload_bytes);
    }
  }
  void Deliver(Connection& to, Instant now) {
    for (; NextArrival() <= now; queue_.pop_front()) {
      (void)to.OnSegment(queue_.front().segment, now);
    }
  }
  Segment TakeFirst() {
    const Segment segment = queue_.front().segment;
    queue_.pop_front();
    return segment;
  }
  Instant NextArrival() const {
    return queue_.empty() ? Instant::Never() : queue_.front().arrival;
  }

 private:
  void Send(const TxSegment& out, uint32_t at, uint32_t bytes, Instant now) {
    if (bytes > 0) free_at_ = std::max(free_at_, now) + kPerSegment;
    if (bytes > 0 && prng_.Chance(loss_)) return;
    OnTheWay& sent = queue_.emplace_back();
    sent.arrival = std::max(free_at_, now) + kOneWay;
    Segment& segment = sent.segment;
    segment.seq = out.seq + at;
    segment.ack = out.ack;
    segment.wnd = out.wnd;
    segment.flags = out.flags;
    segment.options = out.options;
    segment.payload_bytes = bytes;
    segment.arrival = sent.arrival;
    if (bytes == 0) return;
    segment.text[0] = {.slot = SlotIndex{next_slot_++}, .length = bytes};
    segment.text_count = 1;
  }

  double loss_;
  Prng prng_;
  Instant free_at_;
  uint32_t next_slot_ = 0;
  std::deque<OnTheWay> queue_;
};

// Takes out all that is readable, and gives it back.
void Read(Connection& connection) {
  Frag frags[64];
  while (const size_t count = connection.Receive(frags, UINT64_MAX)) {
    for (size_t i = 0; i < count; ++i) {
      connection.OnReleased(frags[i].length, 1);
    }
  }
}

// Per mille of the text segments are lost.
void BM_Transfer(benchmark::State& state) {
  const double loss = static_cast<double>(state.range(0)) / 1000;
  uint64_t segments = 0;
  Connection::Stats stats;
  for (auto _ : state) {
    Connection::Options options;
    options.mss = 1460;
    options.slot_bytes = kSlotBytes;
    options.max_slot_quota = options.receive.slot_quota = 1024;
    NoSink sink;
    Connection sender(options, sink);
    Connection receiver(options, sink);
    Link up(loss, 1);
    Link down(0, 2);
    Instant now = Instant::FromNanoseconds(1'000'000'000);
    sender.OpenActive(now);
    up.Transmit(sender, now);
    now = up.NextArrival();
    (void)receiver.OpenPassive(up.TakeFirst(), now);
    const uint64_t goal = kSegments * 1448;
    while (receiver.stats().bytes_received < goal) {
      up.Deliver(receiver, now);
      Read(receiver);
      down.Transmit(receiver, now);
      down.Deliver(sender, now);
      (void)sender.Send(goal - sender.queued_offset());
      up.Transmit(sender, now);
      now = std::max(
          now, std::min({up.NextArrival(), down.NextArrival(),
                         sender.NextDeadline(), receiver.NextDeadline()}));
    }
    segments += kSegments;
    stats = sender.stats();
  }
  state.counters["segments"] = static_cast<double>(segments);
  state.counters["again"] = static_cast<double>(stats.segments_retransmitted);
  state.counters["timeouts"] = static_cast<double>(stats.timeouts);
  state.counters["ns/segment"] = benchmark::Counter(
      static_cast<double>(segments) * 1e-9,
      benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_Transfer)->Arg(0)->Arg(1)->Arg(10)->Arg(50);

}  // namespace
}  // namespace devwire
