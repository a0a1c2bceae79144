// What a user changes about one stream, and asks about it.
#include <cerrno>
#include <utility>

#include "absl/strings/str_format.h"
#include "sockets/errno_map.h"
#include "sockets/stack_core.h"
#include "sockets/stream.h"

namespace devwire {

template <typename F>
absl::Status Stream::OnEngine(F&& f) {
  if (absl::Status status = Usable(); !status.ok()) return status;
  return core_->Call([&] { f(*core_->engine, *core_->engine->Find(id_)); });
}

absl::Status Stream::SetNoDelay(bool is_on) {
  return OnEngine(
      [&](Engine& engine, EngineStream& s) { engine.SetNoDelay(s, is_on); });
}

absl::Status Stream::SetCork(bool is_on) {
  return OnEngine(
      [&](Engine& engine, EngineStream& s) { engine.SetCork(s, is_on); });
}

absl::Status Stream::SetQuickAck(bool is_on) {
  return OnEngine(
      [&](Engine&, EngineStream& s) { s.connection.SetQuickAck(is_on); });
}

absl::Status Stream::SetKeepAlive(
    const std::optional<KeepAliveOptions>& options) {
  if (options) {
    if (absl::Status status = CheckKeepAlive(*options); !status.ok()) {
      return status;
    }
  }
  return OnEngine([&](Engine& engine, EngineStream& s) {
    engine.SetKeepAlive(s, options);
  });
}

absl::Status Stream::SetUserTimeout(std::optional<Duration> timeout) {
  if (timeout) {
    if (absl::Status status = CheckUserTimeout(*timeout); !status.ok()) {
      return status;
    }
  }
  return OnEngine([&](Engine& engine, EngineStream& s) {
    engine.SetUserTimeout(s, timeout);
  });
}

absl::Status Stream::SetDscp(uint8_t dscp) {
  if (dscp > 63) {
    return ErrnoStatus(EINVAL,
                       absl::StrFormat("dscp is %u: set it to 0 to 63", dscp));
  }
  return OnEngine(
      [&](Engine& engine, EngineStream& s) { engine.SetDscp(s, dscp); });
}

absl::Status Stream::SetNotSentLowWater(uint64_t bytes) {
  return OnEngine([&](Engine& engine, EngineStream& s) {
    engine.SetNotSentLowWater(s, bytes == 0 ? UINT64_MAX : bytes);
  });
}

absl::Status Stream::MarkUrgent() {
  return OnEngine([](Engine&, EngineStream& s) { s.connection.MarkUrgent(); });
}

absl::StatusOr<uint64_t> Stream::ReadableBytes() {
  uint64_t bytes = 0;
  const absl::Status status = OnEngine(
      [&](Engine&, EngineStream& s) { bytes = s.connection.readable_bytes(); });
  if (!status.ok()) return status;
  return bytes;
}

absl::StatusOr<uint64_t> Stream::UrgentBytes() {
  uint64_t bytes = 0;
  const absl::Status status = OnEngine(
      [&](Engine&, EngineStream& s) { bytes = s.connection.urgent_bytes(); });
  if (!status.ok()) return status;
  return bytes;
}

absl::StatusOr<Reports> Stream::TakeReports() {
  Reports reports = 0;
  const absl::Status status = OnEngine([&](Engine& engine, EngineStream& s) {
    reports = engine.TakeReports(s);
  });
  if (!status.ok()) return status;
  return reports;
}

absl::StatusOr<StreamInfo> Stream::Info() {
  StreamInfo info;
  const absl::Status status =
      OnEngine([&](Engine&, EngineStream& s) { core_->FillInfo(s, &info); });
  if (!status.ok()) return status;
  return info;
}

absl::StatusOr<TcpInfo> Stream::tcp_info() {
  TcpInfo info;
  const absl::Status status = OnEngine([&](Engine&, EngineStream& s) {
    const uint32_t mtu = core_->engine->path_mtus().Mtu(s.tuple.remote.ip);
    info = MakeTcpInfo(s, mtu, core_->clock.Now());
  });
  if (!status.ok()) return status;
  return info;
}

// SO_LINGER: until what was sent is acknowledged, FIN included, or `patience`
// is over. The stream goes on by itself in any case.
void Stream::Linger(Duration patience) {
  const absl::Status closing = OnEngine([](Engine& engine, EngineStream& s) {
    if (s.error == TcpError::kNone) engine.CloseSend(s);
  });
  if (!closing.ok()) return;
  (void)core_->WaitUntil(
      [&] {
        const EngineStream& s = *core_->engine->Find(id_);
        const State state = s.connection.state();
        return state == State::kFinWait2 || state == State::kTimeWait ||
               state == State::kClosed;
      },
      patience, nullptr);
}

}  // namespace devwire
