#include "sockets/preload/option_effects.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "sockets/preload/real_libc.h"

namespace devwire::preload {
namespace {

constexpr Duration Seconds(int64_t n) {
  return Duration::Nanoseconds(n * 1'000'000'000);
}

std::optional<KeepAliveOptions> KeepAliveOf(const SocketOptions& set,
                                            const OptionDefaults& defaults) {
  if (set.Int(SOL_SOCKET, SO_KEEPALIVE, 0) == 0) return std::nullopt;
  KeepAliveOptions options = defaults.keepalive;
  if (const int idle = set.Int(IPPROTO_TCP, TCP_KEEPIDLE, 0); idle > 0) {
    options.idle = Seconds(idle);
  }
  if (const int interval = set.Int(IPPROTO_TCP, TCP_KEEPINTVL, 0);
      interval > 0) {
    options.interval = Seconds(interval);
  }
  options.probes = set.Int(IPPROTO_TCP, TCP_KEEPCNT, options.probes);
  return options;
}

// TCP_USER_TIMEOUT, milliseconds; 0: the stack's own.
std::optional<Duration> UserTimeoutOf(const SocketOptions& set) {
  const int ms = set.Int(IPPROTO_TCP, TCP_USER_TIMEOUT, 0);
  constexpr int64_t kMost = 86'400'000;
  if (ms <= 0) return std::nullopt;
  return Duration::Nanoseconds(std::min<int64_t>(ms, kMost) * 1'000'000);
}

// The traffic class: its upper six bits. RFC 2474.
std::optional<uint8_t> DscpOf(const SocketOptions& set) {
  for (const auto& [level, name] :
       {std::pair(IPPROTO_IP, IP_TOS), std::pair(IPPROTO_IPV6, IPV6_TCLASS)}) {
    const SocketOptions::Option* const found = set.Find(level, name);
    if (found != nullptr) {
      return static_cast<uint8_t>((found->AsInt() & 0xff) >> 2);
    }
  }
  return std::nullopt;
}

// What an application asks for is payload; Linux doubles it, for the overhead
// that we do not have. socket(7)
uint64_t BufferOf(const SocketOptions& set, int name, int forced,
                  uint64_t otherwise, uint64_t most) {
  const int wanted = set.Int(SOL_SOCKET, forced, set.Int(SOL_SOCKET, name, 0));
  if (wanted <= 0) return otherwise;
  return std::clamp<uint64_t>(static_cast<uint64_t>(wanted), 4096, most);
}

void ApplyBuffers(const SocketOptions& set, StreamKnobs* knobs) {
  knobs->send_budget_bytes =
      BufferOf(set, SO_SNDBUF, SO_SNDBUFFORCE, knobs->send_budget_bytes,
               uint64_t{1} << 40);
  knobs->receive_budget_bytes =
      BufferOf(set, SO_RCVBUF, SO_RCVBUFFORCE, knobs->receive_budget_bytes,
               uint64_t{1} << 30);
  const int clamp = set.Int(IPPROTO_TCP, TCP_WINDOW_CLAMP, 0);
  if (clamp > 0) {
    knobs->receive_budget_bytes = std::clamp<uint64_t>(
        static_cast<uint64_t>(clamp), 4096, knobs->receive_budget_bytes);
  }
  knobs->initial_receive_window_bytes = std::min(
      knobs->initial_receive_window_bytes, knobs->receive_budget_bytes);
}

}  // namespace

bool IsLacking(int level, int name) {
  if (level == SOL_SOCKET) {
    return name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF;
  }
  if (level != IPPROTO_TCP) return false;
  return name == TCP_MD5SIG || name == TCP_MD5SIG_EXT || name == TCP_REPAIR ||
         name == TCP_ULP || name == TCP_FASTOPEN_CONNECT ||
         name == TCP_ZEROCOPY_RECEIVE;
}

bool HasLacking(const SocketOptions& set) {
  bool has = false;
  set.ForEach([&](const SocketOptions::Option& o) {
    has |= IsLacking(o.level, o.name);
  });
  return has;
}

StreamKnobs KnobsOf(const SocketOptions& set, const OptionDefaults& defaults) {
  StreamKnobs knobs = defaults.knobs;
  knobs.no_delay =
      set.Int(IPPROTO_TCP, TCP_NODELAY, knobs.no_delay ? 1 : 0) != 0;
  const int mss = set.Int(IPPROTO_TCP, TCP_MAXSEG, 0);
  if (mss >= 88) knobs.max_mss = static_cast<uint16_t>(std::min(mss, 65495));
  knobs.syn_retries =
      std::clamp(set.Int(IPPROTO_TCP, TCP_SYNCNT, knobs.syn_retries), 0, 127);
  if (const int linger = set.Int(IPPROTO_TCP, TCP_LINGER2, 0); linger != 0) {
    knobs.fin_wait_2 = Seconds(std::clamp(linger, 0, 600));
  }
  if (const auto timeout = UserTimeoutOf(set)) knobs.user_timeout = *timeout;
  if (const auto keepalive = KeepAliveOf(set, defaults))
    knobs.keepalive = keepalive;
  if (const auto dscp = DscpOf(set)) knobs.dscp = *dscp;
  const int ttl =
      set.Int(IPPROTO_IP, IP_TTL, set.Int(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 0));
  if (ttl >= 1 && ttl <= 255) knobs.ttl = static_cast<uint8_t>(ttl);
  if (const auto* name = set.Find(IPPROTO_TCP, TCP_CONGESTION)) {
    const std::string_view text(name->value.c_str());
    if (text == "reno") knobs.congestion = "newreno";
    if (text == "cubic" || text == "dctcp") knobs.congestion = text;
  }
  ApplyBuffers(set, &knobs);
  return knobs;
}

// secs_to_retrans() of Linux.
Duration DeferAcceptOf(const SocketOptions& set) {
  const int wanted = set.Int(IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
  if (wanted <= 0) return Duration();
  int seconds = 1;
  int step = 1;
  for (int i = 1; seconds < wanted && i < 255; ++i) {
    step = std::min(2 * step, 120);
    seconds += step;
  }
  return Seconds(seconds);
}

void ApplyOption(const SocketOptions& set, const OptionDefaults& defaults,
                 int level, int name, Stream& stream) {
  const int value = set.Int(level, name, 0);
  if (level == SOL_SOCKET && name == SO_KEEPALIVE) {
    (void)stream.SetKeepAlive(KeepAliveOf(set, defaults));
  }
  if (level == IPPROTO_IP || level == IPPROTO_IPV6) {
    if (const auto dscp = DscpOf(set)) (void)stream.SetDscp(*dscp);
  }
  if (level != IPPROTO_TCP) return;
  switch (name) {
    case TCP_NODELAY:
      (void)stream.SetNoDelay(value != 0);
      break;
    case TCP_CORK:
      (void)stream.SetCork(value != 0);
      break;
    case TCP_QUICKACK:
      (void)stream.SetQuickAck(value != 0);
      break;
    case TCP_KEEPIDLE:
    case TCP_KEEPINTVL:
    case TCP_KEEPCNT:
      (void)stream.SetKeepAlive(KeepAliveOf(set, defaults));
      break;
    case TCP_NOTSENT_LOWAT:
      (void)stream.SetNotSentLowWater(static_cast<uint32_t>(value));
      break;
    case TCP_USER_TIMEOUT:
      (void)stream.SetUserTimeout(UserTimeoutOf(set));
      break;
    default:
      break;
  }
}

void ApplyOptions(const SocketOptions& set, const OptionDefaults& defaults,
                  Stream& stream) {
  set.ForEach([&](const SocketOptions::Option& o) {
    ApplyOption(set, defaults, o.level, o.name, stream);
  });
}

bool IsTimeout(int level, int name) {
  return level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO);
}

void ApplyTimeouts(const SocketOptions& set, int fd) {
  set.ForEach([&](const SocketOptions::Option& o) {
    if (!IsTimeout(o.level, o.name)) return;
    (void)real().setsockopt(fd, o.level, o.name, o.value.data(),
                            static_cast<socklen_t>(o.value.size()));
  });
}

}  // namespace devwire::preload
