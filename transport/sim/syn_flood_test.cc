// A flood of segments from random sources against a listener, in virtual time:
// what is kept of it is bounded, honest peers get in, established streams do
// not notice. RFC 4987.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "base/prng.h"
#include "transport/sim/engine_host.h"
#include "transport/sim/run_clock.h"
#include "transport/wire/frame.h"

namespace devwire {
namespace {

constexpr Port kPort{80};
constexpr MacAddress kServerMac = {2, 0, 0, 0, 0, 2};
constexpr MacAddress kGatewayMac = {2, 0, 0, 0, 0, 254};
// The flood never fills the wire, and the stream's goodput is bound by its
// window and this delay: what it loses, it loses to the engine.
constexpr LinkFaults kWire = {.delay = 15_ms,
                              .bits_per_second = 1'000'000'000,
                              .queue_limit_frames = 5'000};
constexpr int64_t kMostSegmentsPerSecond = 100'000;  // 6 % of the wire.
constexpr Duration kLeastDuration = 3_s;
constexpr Duration kBatch = 200_us;

const IpAddress kServer = IpAddress::V4(10, 0, 0, 2);
const IpAddress kGateway = IpAddress::V4(10, 0, 0, 254);

uint64_t FloodSegments() {
  const char* text = std::getenv("SYN_FLOOD_SEGMENTS");
  return text == nullptr ? 30'000 : std::strtoull(text, nullptr, 10);
}

// Writes segments as Linux would send them, each from somebody else.
class Flooder {
 public:
  explicit Flooder(uint64_t seed) : prng_(seed) {}

  SimFrame Next() {
    TcpHeader tcp;
    tcp.seq = SeqNum(prng_.Next32());
    tcp.wnd = 64240;
    tcp.flags = kSyn;
    if (prng_.Chance(0.1)) {  // What guesses at connections and cookies.
      const uint8_t kFlags[] = {kAck, kRst, kAck | kFin, kAck | kRst};
      tcp.flags = kFlags[prng_.Below(4)];
      tcp.ack = SeqNum(prng_.Next32());
    } else if (prng_.Chance(0.9)) {
      tcp.options.mss = 1460;
      tcp.options.sack_permitted = true;
      tcp.options.timestamps = {prng_.Next32(), 0};
      tcp.options.window_scale = 7;
    }
    const HeaderTemplate headers(
        {.source_mac = kGatewayMac,
         .destination_mac = kServerMac,
         .tuple = {{Source(), Port{static_cast<uint16_t>(prng_.Next32() | 1)}},
                   {kServer, kPort}}});
    SimFrame frame(kMaxTxHeaderBytes);
    const uint32_t bytes = headers.Emit(tcp, {}, frame.data());
    WriteTcpChecksum(frame.data(), headers.l4_offset(), bytes, {});
    frame.resize(std::max(bytes, kMinEthernetFrameBytes));
    return frame;
  }

 private:
  IpAddress Source() {
    const uint32_t r = prng_.Next32();
    // 20.0.0.0 to 219.255.255.255: nobody on the link.
    return IpAddress::V4(
        static_cast<uint8_t>(20 + r % 200), static_cast<uint8_t>(r >> 8),
        static_cast<uint8_t>(r >> 16), static_cast<uint8_t>(r >> 24));
  }
  Prng prng_;
};

struct FloodResult {
  std::string failure;
  uint64_t bytes_while_flooded = 0;  // Read by the server.
  uint32_t most_half_open = 0;
  uint32_t most_streams = 0;
  uint64_t cookies_sent = 0;
  uint64_t cookies_accepted = 0;
  uint64_t rules_installed = 0;
  uint64_t rules_after_pressure = 0;  // Of those, since pressure began.
  size_t rules_left = 0;
  uint64_t frames_out = 0;
  uint64_t honest = 0;
};

class FloodRun {
 public:
  FloodRun(uint64_t segments, uint64_t seed)
      : up_(kWire, seed ^ 0xaaaa),
        down_(kWire, seed ^ 0x5555),
        server_(HostOptions(false, seed), clock_, down_, up_),
        client_(HostOptions(true, seed), clock_, up_, down_),
        flooder_(seed),
        duration_(std::max(kLeastDuration, static_cast<int64_t>(segments) *
                                               (1_s / kMostSegmentsPerSecond))),
        per_batch_(static_cast<int64_t>(segments) * kBatch.nanoseconds() /
                   duration_.nanoseconds()) {}

  FloodResult Run(bool is_flooded) {
    CHECK(server_.engine().AddStaticNeighbor(kGateway, kGatewayMac));
    server_.Listen(kPort);
    // One stream that is there before and stays until after the flood, and an
    // honest peer every 100 ms.
    const auto most = static_cast<uint64_t>(duration_.seconds() * 25e6);
    client_.Connect({kServer, kPort}, most);
    size_t streams = 1;
    const Instant start = clock_.Now() + 500_ms;
    Instant next_flood = is_flooded ? start : Instant::Never();
    Instant next_honest = start;
    const Instant end = start + duration_;
    bool is_counted = false;
    while (true) {
      Settle();
      if (!result_.failure.empty()) break;
      if (clock_.Now() >= end && !is_counted) {
        is_counted = true;
        result_.bytes_while_flooded = server_.bytes_read();
        if (result_.bytes_while_flooded >= most) {
          result_.failure = "the stream was over before the flood";
        }
      }
      if (is_counted && client_.is_done(streams) && server_.is_done(streams)) {
        break;
      }
      Instant next = std::min(client_.NextEvent(), server_.NextEvent());
      if (clock_.Now() < end) next = std::min({next, next_flood, next_honest});
      if (next == Instant::Never() || clock_.Now() > end + 300_s) {
        result_.failure = "does not come to an end";
        break;
      }
      clock_.Set(std::max(next, clock_.Now()));
      if (clock_.Now() >= end) continue;
      while (next_flood <= clock_.Now()) {
        for (int64_t i = 0; i < per_batch_; ++i) {
          up_.Send(flooder_.Next(), clock_.Now());
        }
        next_flood += kBatch;
      }
      if (next_honest <= clock_.Now()) {
        client_.Connect({kServer, kPort}, 5'000);
        ++streams;
        next_honest += 100_ms;
      }
    }
    return Finish(streams);
  }

 private:
  static EngineHost::Options HostOptions(bool is_client, uint64_t seed) {
    EngineHost::Options o;
    o.ip = is_client ? IpAddress::V4(10, 0, 0, 1) : kServer;
    if (!is_client) o.gateway = kGateway;
    o.nic.limits.mac = kServerMac;
    if (is_client) o.nic.limits.mac[5] = 1;
    o.nic.limits.mtu = 1500;
    o.nic.seed = o.seed = seed * 2 + is_client;
    o.device_slots = 1024;
    o.checks_every_turn = false;
    o.tcp.time_wait = 1_s;
    // SYNs time out within a second, and others come under pressure.
    o.tcp.rtt.rto_initial = 200_ms;
    o.tcp.synack_retries = 1;
    o.bytes_per_stream = 0;  // The server's: it only reads.
    return o;
  }

  void Settle() {
    int turns = 0;
    do {
      Engine& engine = server_.engine();
      const bool was_pressed = engine.is_under_syn_pressure();
      const uint64_t rules =
          engine.counters().value(EngineEvent::kRulesInstalled);
      const bool worked = client_.Turn() | server_.Turn();
      if (was_pressed) {
        result_.rules_after_pressure +=
            engine.counters().value(EngineEvent::kRulesInstalled) - rules;
      }
      result_.most_half_open =
          std::max(result_.most_half_open, engine.half_open_streams());
      result_.most_streams =
          std::max(result_.most_streams, engine.stream_count());
      if (!worked) break;
    } while (++turns < 5'000);
    if (turns == 5'000) result_.failure = "busy loop";
    for (const EngineHost* host : {&client_, &server_}) {
      if (!host->failure().empty()) result_.failure = host->failure();
    }
  }

  FloodResult Finish(size_t streams) {
    client_.CheckPools();
    server_.CheckPools();
    const EngineCounters& c = server_.engine().counters();
    result_.cookies_sent = c.value(EngineEvent::kCookiesSent);
    result_.cookies_accepted = c.value(EngineEvent::kCookiesAccepted);
    result_.rules_installed = c.value(EngineEvent::kRulesInstalled);
    result_.frames_out = c.frames_out.value();
    result_.rules_left = server_.nic_rules();
    result_.honest = streams - 1;
    if (!result_.failure.empty()) {
      result_.failure +=
          "\n  " + client_.ToString() + "\n  " + server_.ToString();
    }
    clock_.is_over = true;
    return result_;
  }

  RunClock clock_;
  SimLink up_;
  SimLink down_;
  EngineHost server_;
  EngineHost client_;
  Flooder flooder_;
  const Duration duration_;
  const int64_t per_batch_;
  FloodResult result_;
};

TEST(SynFlood, IsBoundedAndHarmsNobody) {
  constexpr uint64_t kSeed = 1;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  const uint64_t segments = FloodSegments();
  const FloodResult calm = FloodRun(segments, kSeed).Run(false);
  ASSERT_EQ(calm.failure, "");
  const FloodResult flooded = FloodRun(segments, kSeed).Run(true);
  ASSERT_EQ(flooded.failure, "");  // Every byte of every stream was compared.

  std::printf(
      "%llu segments: %llu cookies sent, %llu accepted, at most %u half-open "
      "of %u streams; %.1f MB came through, %.1f MB without the flood\n",
      static_cast<unsigned long long>(segments),
      static_cast<unsigned long long>(flooded.cookies_sent),
      static_cast<unsigned long long>(flooded.cookies_accepted),
      flooded.most_half_open, flooded.most_streams,
      static_cast<double>(flooded.bytes_while_flooded) / 1e6,
      static_cast<double>(calm.bytes_while_flooded) / 1e6);
  // Nothing is kept of a SYN beyond the listener's backlog, which is 64.
  EXPECT_LE(flooded.most_half_open, 64u);
  EXPECT_LE(flooded.most_streams, 64u + 40u) << "with those of honest peers";
  EXPECT_GT(flooded.cookies_sent, segments * 8 / 10);
  EXPECT_GE(flooded.cookies_accepted, flooded.honest * 9 / 10);
  EXPECT_EQ(calm.cookies_sent, 0u);

  // Rules: our host's, the listener's, the first stream's; then those of SYNs
  // before pressure, at most a backlog of them. Afterwards only streams whose
  // handshake is complete.
  EXPECT_LE(flooded.rules_after_pressure, flooded.honest);
  EXPECT_GE(flooded.rules_after_pressure, flooded.honest * 9 / 10);
  EXPECT_LE(flooded.rules_installed - flooded.rules_after_pressure, 3u + 64u);
  EXPECT_EQ(flooded.rules_left, 2u) << "those of SYNs that timed out stay";

  EXPECT_GE(static_cast<double>(flooded.bytes_while_flooded),
            0.9 * static_cast<double>(calm.bytes_while_flooded));
}

}  // namespace
}  // namespace devwire
