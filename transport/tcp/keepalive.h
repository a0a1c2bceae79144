// Whether an idle peer is still there: when to probe it, when to give it up.
//
//   last arrival        probe       probe               dead
//        |----- idle -----|- interval -|- interval - ... -|
//
// Source:   RFC 9293 3.8.4 (RFC 1122 4.2.3.6); idle, interval and probes are
//           Linux's TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT, tcp(7).
// Differs:  from Linux: the user timeout does not cut it short. It would end a
//           connection over one lost probe, against MUST-29.
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation, no clock. The timer fires once in `idle` on a busy
//           connection; an arrival only stores its time.
#ifndef TRANSPORT_TCP_KEEPALIVE_H_
#define TRANSPORT_TCP_KEEPALIVE_H_

#include "base/check.h"
#include "base/time.h"

namespace devwire {

class KeepAlive {
 public:
  struct Options {
    Duration idle = 7200_s;  // MUST-28: two hours at least, by default.
    Duration interval = 75_s;
    int probes = 9;  // Unanswered in a row: one alone proves nothing, MUST-29.
  };

  // 0 < idle, interval; 1 <= probes.
  KeepAlive(const Options& options, Instant now)
      : options_(options), next_(now + options.idle) {
    CHECK(options.idle > Duration() && options.interval > Duration());
    CHECK_GE(options.probes, 1);
  }

  // When to call OnTimer().
  Instant next() const { return next_; }

  enum class Answer { kWait, kProbe, kDead };
  // next() passed. `has_data_out`: sent and not acknowledged, or waiting to be
  // sent; the retransmission timer sees to that peer, MUST-26.
  Answer OnTimer(Instant now, Instant last_arrival, bool has_data_out) {
    if (probes_out_ > 0 && last_arrival >= last_probe_) probes_out_ = 0;
    if (has_data_out) {
      probes_out_ = 0;
      next_ = now + options_.idle;
      return Answer::kWait;
    }
    if (probes_out_ == 0 && now - last_arrival < options_.idle) {
      next_ = last_arrival + options_.idle;
      return Answer::kWait;
    }
    if (probes_out_ >= options_.probes) return Answer::kDead;
    ++probes_out_;
    last_probe_ = now;
    next_ = now + options_.interval;
    return Answer::kProbe;
  }

 private:
  Options options_;
  Instant next_;
  Instant last_probe_;
  int probes_out_ = 0;  // Since the last arrival.
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_KEEPALIVE_H_
