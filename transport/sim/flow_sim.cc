#include "transport/sim/flow_sim.h"

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <optional>

#include "base/prng.h"
#include "transport/tcp/connection.h"

namespace devwire {
namespace {

// Ethernet, FCS, preamble and gap (IEEE 802.3); IPv4, TCP, timestamps.
constexpr uint32_t kLinkBytes = 14 + 4 + 8 + 12;
constexpr uint32_t kHeaderBytes = 20 + 20 + 12;
constexpr uint32_t kMaxTsoPayload = 64'000;

struct UnderWay {
  Instant arrival;
  size_t flow = 0;
  Segment segment;
};

// Payload is not there: nothing to free.
class NoMemory final : public FragSink {
 public:
  void Discard(const Frag&) override {}
};

// One FIFO queue in front of a wire.
class Bottleneck {
 public:
  Bottleneck(const FlowSimSetup& setup, uint64_t bdp)
      : setup_(setup),
        queue_limit_(
            static_cast<uint64_t>(setup.queue_bdps * static_cast<double>(bdp))),
        prng_(setup.seed) {}

  // When the last bit of this segment has left; empty: it was dropped.
  std::optional<Instant> Send(Segment* segment, Instant now,
                              FlowSimResult* result) {
    const int64_t now_ps = now.nanoseconds() * 1000;
    const uint64_t waiting =
        free_at_ps_ <= now_ps ? 0 : BytesIn(free_at_ps_ - now_ps);
    const uint64_t bytes = segment->payload_bytes + kHeaderBytes + kLinkBytes;
    ++result->segments;
    queue_sum_ += waiting;
    ++queue_samples_;
    if (waiting + bytes > std::max(queue_limit_, bytes)) {
      ++result->queue_drops;
      return std::nullopt;
    }
    if (setup_.mark_bytes > 0 && waiting >= setup_.mark_bytes &&
        segment->ecn != kEcnNotEct) {
      segment->ecn = kEcnCe;
      ++result->marks;
    }
    // In picoseconds: at 200 Gb/s a nanosecond is half a percent of a segment.
    free_at_ps_ =
        std::max(free_at_ps_, now_ps) +
        static_cast<int64_t>(bytes * 8 * kPicoseconds / setup_.bits_per_second);
    if (prng_.Chance(setup_.loss)) return std::nullopt;
    return Instant::FromNanoseconds((free_at_ps_ + 999) / 1000);
  }
  void ForgetQueue() { queue_sum_ = queue_samples_ = 0; }
  double mean_queue_bytes() const {
    return queue_samples_ == 0 ? 0
                               : static_cast<double>(queue_sum_) /
                                     static_cast<double>(queue_samples_);
  }

 private:
  static constexpr uint64_t kPicoseconds = 1'000'000'000'000;
  uint64_t BytesIn(int64_t ps) const {
    return static_cast<uint64_t>(ps) / 1000 *
           (setup_.bits_per_second / 1'000'000) / 8000;
  }

  const FlowSimSetup& setup_;
  const uint64_t queue_limit_;
  Prng prng_;
  int64_t free_at_ps_ = 0;
  uint64_t queue_sum_ = 0;
  uint64_t queue_samples_ = 0;
};

class FlowSim {
 public:
  explicit FlowSim(const FlowSimSetup& setup)
      : setup_(setup),
        bdp_(std::max<uint64_t>(
            static_cast<uint64_t>(static_cast<double>(setup.bits_per_second) /
                                  8 * setup.rtt.seconds()),
            setup.mtu)),
        bottleneck_(setup, bdp_),
        ack_prng_(setup.seed + 1) {
    for (size_t i = 0; i < setup.congestion.size(); ++i) AddFlow(i);
  }

  FlowSimResult Run() {
    const Instant begin = start_ + setup_.warm_up;
    const Instant end = begin + setup_.measured;
    RunUntil(begin);
    std::vector<uint64_t> received;
    for (const Flow& f : flows_) received.push_back(BytesReceived(f));
    result_.queue_drops = result_.marks = 0;
    bottleneck_.ForgetQueue();
    RunUntil(end);
    for (size_t i = 0; i < flows_.size(); ++i) {
      result_.goodput.push_back(
          static_cast<double>(BytesReceived(flows_[i]) - received[i]) * 8 /
          setup_.measured.seconds());
      result_.total += result_.goodput.back();
      result_.timeouts += flows_[i].sender->stats().timeouts;
    }
    const double payload = setup_.mtu - kHeaderBytes;
    result_.ceiling = static_cast<double>(setup_.bits_per_second) * payload /
                      (payload + kHeaderBytes + kLinkBytes);
    result_.mean_queue_bytes = bottleneck_.mean_queue_bytes();
    return result_;
  }

 private:
  struct Flow {
    Instant begins;
    bool has_begun = false;
    std::unique_ptr<Connection> sender;
    std::unique_ptr<Connection> receiver;
    bool receiver_is_open = false;
  };

  void AddFlow(size_t index) {
    const auto window = static_cast<uint64_t>(
        std::max(setup_.window_bdps * static_cast<double>(bdp_), 65'535.0));
    Connection::Options o;
    o.mss = static_cast<uint16_t>(setup_.mtu - 40);
    o.iss = SeqNum(static_cast<uint32_t>(1'000'000 * index));
    o.congestion = FindCongestion(setup_.congestion[index]);
    o.use_pacing = setup_.pacing;
    o.slot_bytes = setup_.mtu;
    o.max_slot_quota =
        static_cast<uint32_t>(4 * window / (setup_.mtu - kHeaderBytes)) + 64;
    o.receive = {.byte_budget = window, .slot_quota = o.max_slot_quota};
    o.max_segments_in_flight = o.max_slot_quota;
    o.send_queue_limit_bytes = 2 * window;
    Flow flow;
    flow.begins = start_ + static_cast<int64_t>(index) * setup_.flow_gap;
    flow.sender = std::make_unique<Connection>(o, memory_);
    o.iss = SeqNum(0xffff'0000u);
    flow.receiver = std::make_unique<Connection>(o, memory_);
    flows_.push_back(std::move(flow));
  }

  static uint64_t BytesReceived(const Flow& f) {
    return f.receiver->stats().bytes_received;
  }

  Instant NextEvent() const {
    Instant next = Instant::Never();
    if (!data_.empty()) next = std::min(next, data_.front().arrival);
    if (!acks_.empty()) next = std::min(next, acks_.front().arrival);
    for (const Flow& f : flows_) {
      next = std::min({next, f.has_begun ? Instant::Never() : f.begins,
                       f.sender->NextDeadline(), f.receiver->NextDeadline()});
    }
    return next;
  }

  void RunUntil(Instant end) {
    while (NextEvent() <= end) {
      now_ = std::max(now_, NextEvent());
      for (size_t i = 0; i < flows_.size(); ++i) {
        Flow& f = flows_[i];
        if (!f.has_begun && f.begins <= now_) {
          f.has_begun = true;
          f.sender->OpenActive(now_);
        }
        if (f.has_begun && f.sender->NextDeadline() <= now_) {
          f.sender->OnDeadline(now_);
        }
        if (f.receiver->NextDeadline() <= now_) f.receiver->OnDeadline(now_);
        PollSender(i);
        PollReceiver(i);
      }
      while (!data_.empty() && data_.front().arrival <= now_) ArriveData();
      while (!acks_.empty() && acks_.front().arrival <= now_) ArriveAck();
    }
    now_ = end;
  }

  void ArriveData() {
    UnderWay next = std::move(data_.front());
    data_.pop_front();
    Flow& f = flows_[next.flow];
    Segment& seg = next.segment;
    seg.arrival = now_;
    if (!f.receiver_is_open) {
      if (!seg.has_syn()) return;
      f.receiver_is_open = true;
      (void)f.receiver->OpenPassive(seg, now_);
    } else {
      (void)f.receiver->OnSegment(seg, now_);
    }
    std::array<Frag, 64> frags;
    size_t count;
    while ((count = f.receiver->Receive(frags, UINT64_MAX)) > 0) {
      uint64_t bytes = 0;
      for (size_t i = 0; i < count; ++i) bytes += frags[i].length;
      f.receiver->OnReleased(bytes, static_cast<uint32_t>(count));
    }
    PollReceiver(next.flow);
  }

  void ArriveAck() {
    UnderWay next = std::move(acks_.front());
    acks_.pop_front();
    next.segment.arrival = now_;
    (void)flows_[next.flow].sender->OnSegment(next.segment, now_);
    PollSender(next.flow);
  }

  static Segment ToSegment(const TxSegment& out, uint32_t at, uint32_t bytes) {
    Segment seg;
    seg.seq = out.seq + at;
    seg.ack = out.ack;
    seg.wnd = out.wnd;
    seg.flags = out.flags;
    seg.options = out.options;
    seg.ecn = out.ecn;
    seg.payload_bytes = bytes;
    if (bytes > 0) {
      seg.text_count = 1;
      seg.text[0].length = bytes;
    }
    return seg;
  }

  void PollSender(size_t index) {
    Connection& sender = *flows_[index].sender;
    (void)sender.Send(UINT32_MAX);  // As much as it takes.
    TxSegment out;
    while (
        sender.PollTransmit(now_, {.max_tso_payload = kMaxTsoPayload}, &out)) {
      const uint32_t piece =
          out.tso_mss != 0 ? out.tso_mss : std::max(out.payload_bytes, 1u);
      uint32_t at = 0;
      do {
        const uint32_t bytes = std::min(piece, out.payload_bytes - at);
        Segment seg = ToSegment(out, at, bytes);
        at += bytes;
        if (const auto left = bottleneck_.Send(&seg, now_, &result_)) {
          data_.push_back({*left + setup_.rtt / 2, index, seg});
        }
      } while (at < out.payload_bytes);
    }
    while (sender.PollEvent()) continue;
  }

  void PollReceiver(size_t index) {
    Connection& receiver = *flows_[index].receiver;
    TxSegment out;
    while (receiver.PollTransmit(now_, {}, &out)) {
      if (ack_prng_.Chance(setup_.ack_loss)) continue;
      acks_.push_back(
          {now_ + (setup_.rtt - setup_.rtt / 2), index, ToSegment(out, 0, 0)});
    }
    while (receiver.PollEvent()) continue;
  }

  const FlowSimSetup setup_;
  const uint64_t bdp_;
  Bottleneck bottleneck_;
  Prng ack_prng_;
  NoMemory memory_;
  std::vector<Flow> flows_;
  std::deque<UnderWay> data_;  // In order of arrival, both.
  std::deque<UnderWay> acks_;
  const Instant start_ = Instant::FromNanoseconds(1'000'000);
  Instant now_ = start_;
  FlowSimResult result_;
};

}  // namespace

FlowSimResult RunFlowSim(const FlowSimSetup& setup) {
  return FlowSim(setup).Run();
}

}  // namespace devwire
