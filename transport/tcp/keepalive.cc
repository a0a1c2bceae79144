// Keep-alives: RFC 9293 3.8.4. The counting is in keepalive.h.
#include "transport/tcp/keepalive.h"

#include "transport/tcp/connection.h"

namespace devwire {

void Connection::SetKeepAlive(const std::optional<KeepAlive::Options>& options,
                              Instant now) {
  keepalive_.reset();
  keepalive_probe_is_due_ = false;
  timers_.Stop(Timer::kKeepAlive);
  UpdatePrediction();
  if (!options || !IsSynchronized(state_) || state_ == State::kTimeWait) {
    return;
  }
  keepalive_.emplace(*options, now);
  timers_.Set(Timer::kKeepAlive, keepalive_->next());
}

void Connection::OnKeepAliveTimer(Instant now) {
  const bool has_data_out = flight_size() > 0 || unsent_bytes() > 0;
  switch (keepalive_->OnTimer(now, last_arrival_, has_data_out)) {
    case KeepAlive::Answer::kWait:
      break;
    case KeepAlive::Answer::kProbe:
      keepalive_probe_is_due_ = true;
      is_plain_ = false;
      break;
    case KeepAlive::Answer::kDead:
      // A peer that only lost its answers learns of it. As Linux.
      Abort(TcpError::kTimedOut);
      return;
  }
  timers_.Set(Timer::kKeepAlive, keepalive_->next());
}

}  // namespace devwire
