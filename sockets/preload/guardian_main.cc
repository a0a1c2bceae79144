// devwire-guardian: waits for the end of the process that started it, and then
// resets the connections that it left open (docs/decisions/0018).
//
// It knows their addresses and ports, not their sequence numbers, and asks the
// peers for those, as RFC 9293 3.5.1 has it for a host that lost its memory: a
// SYN from the same port, the peer answers with an ACK (RFC 5961 4.2), and that
// ACK with RST:
//
//   guardian                               peer, ESTABLISHED
//     | <SEQ=any><CTL=SYN> ----------------->|
//     |<-------- <SEQ=u><ACK=v><CTL=ACK> ----|
//     | <SEQ=v><CTL=RST> ------------------->| "connection reset by peer"
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "sockets/errno_map.h"
#include "sockets/preload/config.h"
#include "sockets/preload/guardian.h"
#include "sockets/preload/log.h"
#include "sockets/preload/open_stack.h"
#include "sockets/preload/process_record.h"
#include "sockets/stack.h"

namespace devwire::preload {
namespace {

// A peer that answers nothing is asked so often; Linux answers two SYNs within
// 500 ms once (tcp_invalid_ratelimit).
constexpr int kRounds = 3;
constexpr Duration kRound = 300_ms;
constexpr Duration kLook = 5_ms;  // At least so often, however much arrives.
constexpr size_t kAtOnce = 256;
constexpr int kKeptBytes = 256 << 20;
// The process holds the device until the kernel has taken all of it apart.
constexpr Duration kOpenPatience = 2_s;

// The pipe ended, and the process lives: has it another program now, or did it
// close what it did not know?
bool HasExeced(pid_t pid) {
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  for (std::string line; std::getline(maps, line);) {
    if (absl::StrContains(line, "memfd:devwire-record")) return false;
  }
  return true;
}

// Returns when the process is dead, or another program.
void WaitForEnd(pid_t pid) {
  pollfd waits[] = {{kGuardianPidFd, POLLIN, 0}, {kGuardianPipeFd, 0, 0}};
  while (true) {
    if (poll(waits, 2, -1) < 0) continue;
    if (waits[0].revents != 0) return;
    if (waits[1].revents == 0) continue;
    if (HasExeced(pid)) return;
    waits[1].fd = -1;  // Only its death counts from now on.
  }
}

struct Stranded {
  Endpoint local;
  Endpoint remote;
};

std::vector<Stranded> StrandedIn(const ProcessRecord& record) {
  std::vector<Stranded> out;
  for (uint32_t i = 0; i < record.connection_count; ++i) {
    const ProcessRecord::Connection& c = record.connections[i];
    if (c.is_open) out.push_back({c.local, c.remote});
  }
  return out;
}

// Asks all of them once, kAtOnce at a time: a stream is tens of KiB that the
// kernel has to find, and those that have answered make room. Those that did
// not stay in `peers`.
void AskOnce(Stack& stack, std::vector<Stranded>* peers) {
  struct Asked {
    std::unique_ptr<Stream> stream;
    size_t peer;
    Instant until;
  };
  const MonotonicClock clock;
  std::vector<Asked> asked;
  std::vector<Stranded> silent;
  size_t next = 0;
  while (next < peers->size() || !asked.empty()) {
    for (; next < peers->size() && asked.size() < kAtOnce; ++next) {
      const Stranded& peer = (*peers)[next];
      auto stream =
          stack.StartConnect(peer.remote, {.local_port = peer.local.port});
      if (!stream.ok()) continue;  // No route, no room: nothing to do.
      asked.push_back({*std::move(stream), next, clock.Now() + kRound});
      while (stack.Poll()) {
      }
    }
    const Instant look = clock.Now() + kLook;
    while (stack.Poll() && clock.Now() < look) {  // All answers, then a look.
    }
    const size_t ended = std::erase_if(asked, [&](Asked& a) {
      const auto info = a.stream->Info();
      const bool has_answered = !info.ok() || info->segments_in > 0;
      if (!has_answered && clock.Now() < a.until) return false;
      if (!has_answered) silent.push_back((*peers)[a.peer]);
      a.stream->Abort("the process is dead");
      return true;
    });
    const timespec nap = {0, 1'000'000};
    if (ended == 0) nanosleep(&nap, nullptr);
  }
  while (stack.Poll()) {
  }
  *peers = std::move(silent);
}

absl::Status ResetAll(ShimConfig config, const ProcessRecord& record) {
  std::vector<Stranded> peers = StrandedIn(record);
  if (peers.empty()) return absl::OkStatus();
  // What one stream gave back is the next one's: the kernel is not asked again.
  mallopt(M_TRIM_THRESHOLD, kKeptBytes);
  mallopt(M_MMAP_THRESHOLD, kKeptBytes);
  config.stack.max_connections = record.connection_count;
  config.stack.tcp.syn_retries = 0;  // Behind the RST it would open one anew.
  auto stack = OpenStack(config, kOpenPatience);
  if (!stack.ok()) return stack.status();
  for (int round = 0; round < kRounds && !peers.empty(); ++round) {
    AskOnce(**stack, &peers);
  }
  return absl::OkStatus();
}

int Guard() {
  const char* const path = getenv("DEVWIRE_CONFIG");
  const auto config = ReadShimConfig(path == nullptr ? "" : path, environ);
  const auto record = MappedRecord::Map(kGuardianRecordFd);
  if (!config.ok() || !record.ok()) return 2;  // Standard error is closed.
  const Log log(config->log_level, config->log_file);
  WaitForEnd((*record)->pid);
  // The report first: nobody waits longer for it than for the process.
  if (!config->report.empty() && !(*record)->is_reported.exchange(true)) {
    log.Line(ReportLine(**record, "death"), config->report);
  }
  if (const auto status = ResetAll(*config, **record); !status.ok()) {
    log.Say(LogLevel::kError, absl::StrCat("guardian: ", status.message()));
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace devwire::preload

int main() { return devwire::preload::Guard(); }
