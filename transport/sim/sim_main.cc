// Runs seeds: `./dev sim --seeds N [--seed FIRST]`. Each is one scenario, of
// one connection or a few (scenario.h).
//
// A failing seed runs again with a capture, and the one command that repeats it
// is printed. Where a CHECK aborted, the process does that by running itself
// anew.
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "transport/sim/scenario.h"
#include "transport/wire/pcapng.h"

namespace devwire {
namespace {

constexpr int kMaxFailures = 10;  // Then the run ends.

struct Flags {
  uint64_t seeds = 1000;
  uint64_t seed = 1;
  std::string capture;         // A file: captures, prints the segments.
  std::string captures = ".";  // Folder for those of failing seeds.
};

struct Totals {
  uint64_t connections = 0;
  uint64_t events = 0;
  uint64_t frames = 0;
  uint64_t lost = 0;
  uint64_t bytes = 0;
  uint64_t forged = 0;
  uint64_t completed = 0;
  uint64_t ended_early = 0;  // Reset, aborted, timed out, died.
  uint64_t failed = 0;
};

std::string RunTcpSeed(uint64_t seed, PcapngWriter* capture, bool is_traced,
                       Totals* totals) {
  TcpScenario scenario = DrawTcpScenario(seed);
  scenario.setup.capture = capture;
  scenario.setup.is_traced = is_traced;
  const TcpSimResult r = RunTcpSim(scenario.setup);
  totals->events += r.events;
  totals->frames += r.up.sent + r.down.sent;
  totals->lost +=
      r.up.lost + r.down.lost + r.up.queue_dropped + r.down.queue_dropped;
  totals->bytes += r.client_read + r.server_read;
  totals->forged += r.attacks;
  for (const TcpHost::Session& s : r.client_sessions) {
    ++totals->connections;
    const bool is_whole = s.error == TcpError::kNone && !s.was_alone;
    ++(is_whole ? totals->completed : totals->ended_early);
  }
  std::string wrong = Judge(scenario, r);
  if (!wrong.empty()) absl::StrAppend(&wrong, "\n  scenario:", scenario.name);
  return wrong;
}

std::string RunEngineSeed(uint64_t seed, PcapngWriter* capture,
                          Totals* totals) {
  EngineSimSetup setup = DrawEngineScenario(seed);
  setup.capture = capture;
  const EngineSimResult r = RunEngineSim(setup);
  totals->connections += setup.streams;
  totals->completed += setup.streams;
  totals->frames += r.client.tx_frames + r.server.tx_frames;
  totals->bytes += setup.streams * (setup.client_bytes + setup.server_bytes);
  return r.failure;
}

std::string RunSeed(uint64_t seed, PcapngWriter* capture, bool is_traced,
                    Totals* totals) {
  return IsEngineSeed(seed) ? RunEngineSeed(seed, capture, totals)
                            : RunTcpSeed(seed, capture, is_traced, totals);
}

std::string CaptureName(const Flags& flags, uint64_t seed) {
  return absl::StrCat(flags.captures, "/sim_seed_", seed, ".pcapng");
}

std::string Command(const Flags& flags, uint64_t seed) {
  return absl::StrCat("./dev sim --seed ", seed, " --capture ",
                      CaptureName(flags, seed));
}

// One seed, told whole.
int RunCaptured(const Flags& flags) {
  auto capture = PcapngWriter::Open({.path = flags.capture,
                                     .ring_bytes = 64u << 20,
                                     .interface_name = "client",
                                     .write_period = 1_ms});
  if (!capture.ok()) {
    std::fprintf(stderr, "sim: %s\n", capture.status().ToString().c_str());
    return 2;
  }
  // The writer is a thread: after an abort it gets a moment for the rest.
  std::signal(SIGABRT, [](int) { usleep(200'000); });
  Totals totals;
  const std::string wrong =
      RunSeed(flags.seed, capture->get(), /*is_traced=*/true, &totals);
  (void)(*capture)->Close();
  std::printf("seed %llu: %s\n", static_cast<unsigned long long>(flags.seed),
              wrong.empty() ? "clean" : wrong.c_str());
  return wrong.empty() ? 0 : 1;
}

// What a CHECK's abort makes of this process; set before each seed.
std::string self, abort_line, abort_seed, abort_capture;

void RunAnewOnAbort(int) {
  (void)!write(STDERR_FILENO, abort_line.data(), abort_line.size());
  const char* argv[] = {self.c_str(),          "--seed",
                        abort_seed.c_str(),    "--capture",
                        abort_capture.c_str(), nullptr};
  execv(self.c_str(), const_cast<char* const*>(argv));
  _exit(134);  // 128 + SIGABRT.
}

int RunAll(const Flags& flags) {
  std::signal(SIGABRT, RunAnewOnAbort);
  Totals t;
  MonotonicClock clock;
  const Instant start = clock.Now();
  for (uint64_t i = 0; i < flags.seeds && t.failed < kMaxFailures; ++i) {
    const uint64_t seed = flags.seed + i;
    abort_seed = std::to_string(seed);
    abort_capture = CaptureName(flags, seed);
    abort_line =
        absl::StrCat("\nsim: aborted; to repeat: ", Command(flags, seed), "\n");
    const std::string wrong = RunSeed(seed, nullptr, false, &t);
    if (wrong.empty()) continue;
    ++t.failed;
    std::printf("FAIL: %s\n  to repeat: %s\n", wrong.c_str(),
                Command(flags, seed).c_str());
    auto capture = PcapngWriter::Open({.path = CaptureName(flags, seed),
                                       .ring_bytes = 64u << 20,
                                       .interface_name = "client"});
    Totals again;
    if (capture.ok()) {
      (void)RunSeed(seed, capture->get(), false, &again);
      (void)(*capture)->Close();
    }
  }
  const double seconds = (clock.Now() - start).seconds();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double core_seconds =
      static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
      static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) /
          1e6;
  std::printf(
      "sim: seeds %llu to %llu: %llu connections (%llu completed, %llu ended "
      "early), %.1f MB read, %llu frames (%llu lost), %llu forged, %llu "
      "failed; %.1f s, %.1f of them on a core: %.0f connections a minute of a "
      "core\n",
      static_cast<unsigned long long>(flags.seed),
      static_cast<unsigned long long>(flags.seed + flags.seeds - 1),
      static_cast<unsigned long long>(t.connections),
      static_cast<unsigned long long>(t.completed),
      static_cast<unsigned long long>(t.ended_early),
      static_cast<double>(t.bytes) / 1e6,
      static_cast<unsigned long long>(t.frames),
      static_cast<unsigned long long>(t.lost),
      static_cast<unsigned long long>(t.forged),
      static_cast<unsigned long long>(t.failed), seconds, core_seconds,
      60 * static_cast<double>(t.connections) / core_seconds);
  return t.failed == 0 ? 0 : 1;
}

int Main(int argc, char** argv) {
  // A run that RunAnewOnAbort started inherits SIGABRT blocked.
  sigset_t abort_signal;
  sigemptyset(&abort_signal);
  sigaddset(&abort_signal, SIGABRT);
  sigprocmask(SIG_UNBLOCK, &abort_signal, nullptr);
  self = argv[0];
  Flags flags;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (flag == "--seeds") {
      flags.seeds = std::strtoull(value, nullptr, 10);
    } else if (flag == "--seed") {
      flags.seed = std::strtoull(value, nullptr, 10);
    } else if (flag == "--capture") {
      flags.capture = value;
    } else if (flag == "--captures") {
      flags.captures = value;
    } else {
      std::fprintf(stderr,
                   "sim [--seeds N] [--seed FIRST] [--captures FOLDER]\n"
                   "sim --seed S --capture FILE\n");
      return 2;
    }
  }
  return flags.capture.empty() ? RunAll(flags) : RunCaptured(flags);
}

}  // namespace
}  // namespace devwire

int main(int argc, char** argv) { return devwire::Main(argc, argv); }
