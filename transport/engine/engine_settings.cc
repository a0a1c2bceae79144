// Engine: what the user changes about a stream while it lives, and what a
// stream reports that is not its end (RFC 9293 3.9.1.8).
#include "base/check.h"
#include "transport/engine/engine.h"

namespace devwire {

void Engine::SetNoDelay(EngineStream& s, bool is_on) {
  s.connection.SetNoDelay(is_on);
  MarkDirty(s);  // What Nagle held back goes.
}

void Engine::SetCork(EngineStream& s, bool is_on) {
  s.connection.SetCork(is_on);
  MarkDirty(s);
}

void Engine::SetKeepAlive(EngineStream& s,
                          const std::optional<KeepAlive::Options>& options) {
  now_ = clock_.Now();
  s.connection.SetKeepAlive(options, now_);
  MarkDirty(s);  // Its next deadline.
}

void Engine::SetUserTimeout(EngineStream& s, std::optional<Duration> timeout) {
  now_ = clock_.Now();
  s.connection.SetUserTimeout(timeout, now_);
  MarkDirty(s);  // Its next deadline.
}

// RFC 9293 MUST-48 and SHLD-21. The 6 bits go unchanged into every header.
void Engine::SetDscp(EngineStream& s, uint8_t dscp) {
  s.ip.dscp = dscp;
  MakeHeaders(s);
}

void Engine::SetNotSentLowWater(EngineStream& s, uint64_t bytes) {
  s.notsent_low_water = bytes;
  MarkDirty(s);  // It may be writable now.
}

void Engine::SetDeferAccept(ListenerId listener, Duration most) {
  listeners_[static_cast<uint32_t>(listener)].defer_accept = most;
}

void Engine::MakeHeaders(EngineStream& s) {
  s.headers = HeadersTo(MacAddress{}, s.tuple, s.ip);
  if (s.has_mac) {
    s.headers.set_destination_mac(neighbors_.entry(s.neighbor).mac);
  }
}

void Engine::Report(EngineStream& s, Reports what) {
  s.reports |= what;
  MarkDirty(s);
}

Reports Engine::TakeReports(EngineStream& s) {
  const Reports taken = s.reports;
  s.reports = 0;
  MarkDirty(s);
  return taken;
}

}  // namespace devwire
