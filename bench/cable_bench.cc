// One sender and one receiver, both stacks on this thread, a softnic cable
// between them: goodput and time per segment, beside a memcpy of chunks of the
// same size between buffers of the same size, interleaved.
//
//   cable_bench [--mtu N] [--bytes N] [--rounds N]
//
// Prints one JSON object. Under callgrind, --toggle-collect='PollReceiver*' or
// 'PollSender*' counts one end; tools/bench.py does that and leaves the
// software NIC's share out. Steady state is measured: a warm-up goes first.
#include <getopt.h>
#include <sys/mman.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/alloc_guard.h"
#include "base/check.h"
#include "base/clock.h"
#include "bench/cable_pair.h"

namespace devwire {
namespace {

constexpr uint32_t kTcpAndIpHeaderBytes = 52;  // IPv4, TCP, timestamps.

struct Settings {
  uint32_t mtu = 9000;
  uint64_t bytes = 1u << 30;
  int rounds = 5;
};

// Nanoseconds to copy `bytes` in chunks between two buffers of kCablePoolBytes.
int64_t Memcpy(const Clock& clock, std::byte* to, const std::byte* from,
               uint64_t bytes, uint32_t chunk) {
  const Instant begin = clock.Now();
  uint64_t at = 0;
  for (uint64_t left = bytes; left >= chunk; left -= chunk) {
    if (at + chunk > kCablePoolBytes) at = 0;
    std::memcpy(to + at, from + at, chunk);
    asm volatile("" : : "r"(to + at) : "memory");  // The copy is not dead.
    at += chunk;
  }
  return (clock.Now() - begin).nanoseconds();
}

nlohmann::json Spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {{"min", values.front()},
          {"median", values[values.size() / 2]},
          {"max", values.back()}};
}

std::byte* Buffer() {
  void* p = mmap(nullptr, kCablePoolBytes, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  CHECK(p != MAP_FAILED);
  return static_cast<std::byte*>(p);
}

uint64_t SegmentsIn(End& end) { return end.stack->Counters()->segments_in; }
uint64_t SegmentsOut(End& end) { return end.stack->Counters()->segments_out; }

int Run(const Settings& settings) {
  CablePair pair = OpenCablePair(settings.mtu);
  End& receiver = pair.receiver;
  Transfer(pair, 64u << 20);  // Warm-up.

  const uint32_t payload = settings.mtu - kTcpAndIpHeaderBytes;
  std::byte* from = Buffer();
  std::byte* to = Buffer();
  MonotonicClock clock;
  std::vector<double> goodput, copy, ns_per_segment, ratio;
  const uint64_t data_before = SegmentsIn(receiver);
  const uint64_t acks_before = SegmentsOut(receiver);
  uint64_t allocations = 0;
  for (int round = 0; round < settings.rounds; ++round) {
    const uint64_t before = AllocationsOnThisThread();
    const Instant begin = clock.Now();
    Transfer(pair, settings.bytes);
    const int64_t ns = (clock.Now() - begin).nanoseconds();
    allocations += AllocationsOnThisThread() - before;
    const int64_t copy_ns = Memcpy(clock, to, from, settings.bytes, payload);
    const double bytes = static_cast<double>(settings.bytes);
    goodput.push_back(8 * bytes / static_cast<double>(ns));
    copy.push_back(8 * bytes / static_cast<double>(copy_ns));
    ns_per_segment.push_back(static_cast<double>(ns) / (bytes / payload));
    ratio.push_back(goodput.back() / copy.back());
  }
  const nlohmann::json out = {
      {"mtu", settings.mtu},
      {"bytes", settings.bytes * static_cast<uint64_t>(settings.rounds)},
      {"segments_received", SegmentsIn(receiver) - data_before},
      {"acks_sent", SegmentsOut(receiver) - acks_before},
      {"segments_received_with_warm_up", SegmentsIn(receiver)},
      {"goodput_gbps", Spread(goodput)},
      {"memcpy_gbps", Spread(copy)},
      {"goodput_over_memcpy", Spread(ratio)},
      {"ns_per_segment_both_ends_and_nic", Spread(ns_per_segment)},
      {"allocations", allocations},
  };
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace devwire

int main(int argc, char** argv) {
  devwire::Settings settings;
  const option flags[] = {{"mtu", required_argument, nullptr, 'm'},
                          {"bytes", required_argument, nullptr, 'b'},
                          {"rounds", required_argument, nullptr, 'r'},
                          {}};
  for (int flag; (flag = getopt_long(argc, argv, "", flags, nullptr)) != -1;) {
    const uint64_t value =
        optarg ? std::strtoull(optarg, nullptr, 10) : uint64_t{0};
    if (value == 0) {
      std::fprintf(stderr, "cable_bench: wrong argument\n");
      return 2;
    }
    if (flag == 'm') settings.mtu = static_cast<uint32_t>(value);
    if (flag == 'b') settings.bytes = value;
    if (flag == 'r') settings.rounds = static_cast<int>(value);
  }
  return devwire::Run(settings);
}
