// How large a receive window this reader needs: twice what it read in the last
// round trip, and more while that grows, so that the peer's slow start finds
// the window open. It starts small and never shrinks.
//
// Read is what was handed to the application. Whether it has given the memory
// back is another matter: the pool's limits see to that (ReceiveWindow).
//
// Source:   "Dynamic right-sizing" (Fisk and Feng, 2001), in the arithmetic of
//           Linux's tcp_rcv_space_adjust(). The round trip of a pure receiver
//           is the age of the timestamps echoed to it; without them, what the
//           handshake took, or the time that a window of text takes to arrive
//           if that is less: Linux's tcp_rcv_rtt_update().
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation, no clock; one comparison per segment with text.
#ifndef TRANSPORT_TCP_WINDOW_TUNER_H_
#define TRANSPORT_TCP_WINDOW_TUNER_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/time.h"
#include "transport/seq.h"

namespace devwire {

class WindowTuner {
 public:
  // Bytes that a window should hold. mss: of full segments in.
  WindowTuner(uint64_t initial_bytes, uint32_t mss)
      : window_bytes_(initial_bytes), mss_(mss) {}

  uint64_t window_bytes() const { return window_bytes_; }
  // Zero before a sample.
  Duration rtt() const { return rtt_; }
  // Bytes read in the round trip that grew it last.
  uint64_t space() const { return space_; }

  // The handshake is complete; srtt is zero when it gave no sample.
  void Start(Instant now, SeqNum rcv_nxt, uint32_t rcv_wnd, Duration srtt) {
    // The peer's first flight, RFC 6928; at most half of what it was offered,
    // or a peer that fills the first window would never show that it needs
    // more.
    constexpr uint64_t kInitialSegments = 10;
    space_ = std::min<uint64_t>(rcv_wnd / 2, kInitialSegments * mss_);
    rtt_ = srtt;
    round_end_ = now + srtt;
    window_start_ = now;
    window_end_ = rcv_nxt + rcv_wnd;
  }

  // The application took bytes.
  void OnRead(uint64_t bytes) { read_bytes_ += bytes; }

  // Asked for each segment with text in order; when true, EndRound().
  bool IsRoundOver(Instant now) const { return now >= round_end_; }
  struct Round {
    Instant now;
    SeqNum rcv_nxt;
    uint32_t rcv_wnd = 0;
    // Age of the timestamp echoed by a full segment, in whole milliseconds.
    std::optional<uint32_t> echo_ms;
    bool has_timestamps = false;
  };
  // Whether window_bytes() grew.
  bool EndRound(const Round& round) {
    if (round.has_timestamps) {
      if (round.echo_ms) OnEcho(*round.echo_ms);
    } else if (SeqGe(round.rcv_nxt, window_end_)) {
      OnWindow(round.now - window_start_);
      window_start_ = round.now;
      window_end_ = round.rcv_nxt + round.rcv_wnd;
    }
    if (rtt_ == Duration()) return false;
    const uint64_t read = read_bytes_;
    read_bytes_ = 0;
    round_end_ = round.now + rtt_;
    return Grow(read);
  }

 private:
  // A millisecond may be any time below. One that the peer waited for something
  // to send is no round trip: what is far too long counts as twice the usual.
  void OnEcho(uint32_t ms) {
    const Duration sample = (int64_t{ms} + 1) * 1_ms;
    if (rtt_ == Duration()) {
      rtt_ = sample;
    } else if (ms > 1 || sample < rtt_) {
      rtt_ = rtt_ + (std::min(sample, 2 * rtt_) - rtt_) / 8;
    }
  }
  void OnWindow(Duration sample) {
    sample = std::max(sample, 1_us);
    rtt_ = rtt_ == Duration() ? sample : std::min(rtt_, sample);
  }

  bool Grow(uint64_t read) {
    constexpr uint64_t kSpareSegments = 16;      // Linux's.
    constexpr double kMost = uint64_t{1} << 40;  // More than any budget.
    if (read <= space_) return false;
    const double want = static_cast<double>(2 * read + kSpareSegments * mss_);
    // It grew by so much: expect twice that in the next one.
    const double growth = static_cast<double>(read - space_) /
                          static_cast<double>(std::max<uint64_t>(space_, 1));
    space_ = read;
    const auto bytes =
        static_cast<uint64_t>(std::min(want + 2 * growth * want, kMost));
    if (bytes <= window_bytes_) return false;
    window_bytes_ = bytes;
    return true;
  }

  uint64_t window_bytes_;
  uint64_t space_ = 0;
  uint64_t read_bytes_ = 0;  // In this round.
  Duration rtt_;
  Instant round_end_;
  Instant window_start_;
  SeqNum window_end_;
  uint32_t mss_;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_WINDOW_TUNER_H_
