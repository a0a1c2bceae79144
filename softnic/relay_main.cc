// softnic_relay: a wire between the ports of two devices, with the faults of
// both, in a process of its own.
//
//   softnic_relay "dev=a,port=tap:ta,vnet=1,rate=200M,delay=5ms,loss=0.01,
//                  fault_side=tx;dev=b,port=shm:/run/cable,..."
//                 QUEUE_FRAMES NAP_US
//
// A device's `rate`, `delay` and losses act on what leaves by its port when
// fault_side=tx. QUEUE_FRAMES wait before each port, at most. An idle relay
// naps for NAP_US: frames are late by that, at most. Says "ready" on stdout,
// and runs until stdin ends; then one line of counters per direction: frames,
// bytes, dropped by the queue, lost by `loss`, lost for want of hold_frames.
#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "softnic/config.h"
#include "softnic/make_port.h"
#include "softnic/relay.h"

namespace softnic {
namespace {

int Fail(const absl::Status& status) {
  fprintf(stderr, "softnic_relay: %s\n", status.ToString().c_str());
  return 1;
}

void Print(const char* name, const Relay::Counters& c, const FaultyPort& port) {
  printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
         name, c.frames.value(), c.bytes.value(), c.dropped.value(),
         port.tx_counters().lost.value(), port.tx_counters().no_slot.value());
}

int Main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: softnic_relay CONFIG QUEUE_FRAMES NAP_US\n");
    return 2;
  }
  auto devices = ParseConfig(argv[1]);
  if (!devices.ok()) return Fail(devices.status());
  if (devices->size() != 2) {
    return Fail(absl::InvalidArgumentError("two devices are needed"));
  }
  const int queue_frames = atoi(argv[2]);
  if (queue_frames < 1) {
    return Fail(absl::InvalidArgumentError("QUEUE_FRAMES is a number from 1"));
  }
  const devwire::MonotonicClock clock;
  auto a = MakePort(devices->front(), &clock);
  if (!a.ok()) return Fail(a.status());
  auto b = MakePort(devices->back(), &clock);
  if (!b.ok()) return Fail(b.status());
  Relay relay(a->port.get(), b->port.get(),
              {.queue_frames = static_cast<uint32_t>(queue_frames)});

  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);  // Naps are as short as they say.
  puts("ready");
  fflush(stdout);
  pollfd end = {STDIN_FILENO, POLLIN, 0};
  const timespec nap = {0, 1000L * atoi(argv[3])};
  const timespec none = {0, 0};
  do {
    ppoll(&end, 1, relay.Turn() ? &none : &nap, nullptr);
  } while (end.revents == 0);
  Print("a_to_b", relay.a_to_b(), *b->port);
  Print("b_to_a", relay.b_to_a(), *a->port);
  return 0;
}

}  // namespace
}  // namespace softnic

int main(int argc, char** argv) { return softnic::Main(argc, argv); }
