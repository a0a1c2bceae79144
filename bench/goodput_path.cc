// One run of tools/goodput_linux.py: an emulated path between two hosts, and
// those of the two that are ours.
//
//   goodput_path CONFIG QUEUE_FRAMES NAP_US SECONDS
//                [--receive OWN:PORT] [--send OWN PEER:PORT]
//
//   CONFIG        the path's two ports, in softnic's words:
//                 "dev=a,port=tap:ta,vnet=1,rate=200M,delay=5ms,loss=0.01,
//                 fault_side=tx;dev=b,port=shm:/run/cable_b,..."
//                 A device's rate, delay and losses act on what leaves by its
//                 port.
//   QUEUE_FRAMES  wait before each port, at most
//   NAP_US        slept when there is nothing to do: frames are late by that,
//                 at most
//   --receive     a host on the device `b` of the environment's SOFTNIC: counts
//                 what arrives in device memory
//   --send        a host on its device `a`: keeps a stream's send queue full
//
// All of it on one thread: neither a scheduler nor a wake-up is a part of the
// path. Says "ready" on stdout, and, of SECONDS from its first byte on, what
// each host of ours did, a JSON object per line; goes on until stdin ends, and
// then tells the path's counters.
#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "memreg/host_memory.h"
#include "sockets/stack.h"
#include "softnic/config.h"
#include "softnic/make_port.h"
#include "softnic/relay.h"

namespace devwire {
namespace {

constexpr size_t kPoolBytes = 32 << 20;
constexpr uint32_t kSendBytes = 256 << 10;

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "goodput_path: %s\n",
                 value.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(value);
}

void Print(const nlohmann::json& json) {
  std::puts(json.dump().c_str());
  std::fflush(stdout);
}

class Host {
 public:
  virtual ~Host() = default;
  // Looks at the network, does what the application does. False: nothing.
  virtual bool Turn() = 0;

 protected:
  Host(const char* device, IpAddress address, Duration time, bool receives)
      : limit_(time), memory_(OrDie(MemfdMemory::Allocate(kPoolBytes))) {
    StackOptions options;
    options.device = device;
    options.address = address;
    stack = OrDie(Stack::Open(options));
    PoolOptions pool_options;
    if (!receives) pool_options.receive_bytes = 0;
    pool = OrDie(stack->BindMemory(*memory_, pool_options));
  }

  // The time is over; true once.
  bool IsOver() {
    const Instant now = clock_.Now();
    if (!begin_) begin_ = now;
    if (is_told_ || now < *begin_ + limit_) return false;
    is_told_ = true;
    return true;
  }
  Duration limit() const { return limit_; }

  std::unique_ptr<Stack> stack;
  PoolId pool;
  std::unique_ptr<Stream> stream;

 private:
  const MonotonicClock clock_;
  const Duration limit_;
  std::unique_ptr<MemfdMemory> memory_;
  std::optional<Instant> begin_;
  bool is_told_ = false;
};

class ReceivingHost final : public Host {
 public:
  ReceivingHost(const Endpoint& local, Duration time)
      : Host("b", local.ip, time, true),
        listener_(OrDie(stack->Listen(local, {.memory = pool}))) {}

  bool Turn() override {
    stack->Poll();
    if (stream == nullptr) {
      stream = OrDie(listener_->TryAccept());
      return stream != nullptr;
    }
    // Gives them back at once: the device is quick.
    StreamFrag frags[64];
    FragToken tokens[64];
    const auto got = OrDie(stream->ReceiveFrags(frags, UINT64_MAX));
    for (size_t i = 0; i < got.frags; ++i) tokens[i] = frags[i].token;
    CHECK_EQ(stream->ReturnTokens({tokens, got.frags}),
             ReturnResult::kReturned);
    bytes_ += got.bytes;
    if (IsOver()) Print({{"bytes", bytes_}, {"seconds", limit().seconds()}});
    return got.frags > 0;
  }

 private:
  std::unique_ptr<Listener> listener_;
  uint64_t bytes_ = 0;
};

class SendingHost final : public Host {
 public:
  SendingHost(IpAddress own, const Endpoint& peer, Duration time)
      : Host("a", own, time, false) {
    stream = OrDie(stack->StartConnect(peer));
  }

  bool Turn() override {
    stack->Poll();
    const absl::Status status = stream->ConnectStatus();
    if (absl::IsUnavailable(status)) return false;
    SendCompletion done[16];
    const size_t completed = OrDie(stream->PollSendCompletions(done));
    // The same bytes again and again: they do not change.
    const DeviceSpan span{0, kSendBytes};
    while (OrDie(stream->SendDevice(pool, {&span, 1}, 0)) ==
           SendOutcome::kQueued) {
    }
    if (IsOver()) PrintInfo();
    return completed > 0;
  }

 private:
  void PrintInfo() {
    const TcpInfo info = OrDie(stream->tcp_info());
    Print({{"segments", info.tcpi_data_segs_out},
           {"retransmitted", info.tcpi_total_retrans},
           {"timeouts", info.tcpi_total_rto},
           {"dsacks", info.tcpi_dsack_dups},
           {"rtt_us", info.tcpi_rtt},
           {"cwnd", info.tcpi_snd_cwnd}});
  }
};

nlohmann::json CountersOf(const softnic::Relay::Counters& c,
                          const softnic::FaultyPort& port) {
  return {{"frames", c.frames.value()},
          {"bytes", c.bytes.value()},
          {"dropped", c.dropped.value()},
          {"lost", port.tx_counters().lost.value()},
          {"no_slot", port.tx_counters().no_slot.value()}};
}

int Usage() {
  std::fprintf(stderr,
               "goodput_path CONFIG QUEUE_FRAMES NAP_US SECONDS\n"
               "             [--receive OWN:PORT] [--send OWN PEER:PORT]\n");
  return 2;
}

std::unique_ptr<Host> MakeHost(int argc, char** argv, int* at, Duration time) {
  const std::string_view role = argv[(*at)++];
  const int words = role == "--receive" ? 1 : role == "--send" ? 2 : argc;
  if (*at + words > argc) return nullptr;
  const auto endpoint = Endpoint::Parse(argv[*at + words - 1]);
  const auto own = IpAddress::Parse(argv[*at]);
  *at += words;
  if (!endpoint) return nullptr;
  if (words == 1) return std::make_unique<ReceivingHost>(*endpoint, time);
  if (!own) return nullptr;
  return std::make_unique<SendingHost>(*own, *endpoint, time);
}

int Main(int argc, char** argv) {
  if (argc < 5) return Usage();
  const auto devices = OrDie(softnic::ParseConfig(argv[1]));
  const int queue_frames = std::atoi(argv[2]);
  const Duration time = std::atoi(argv[4]) * 1_s;
  if (devices.size() != 2 || queue_frames < 1) return Usage();
  const MonotonicClock clock;
  const auto a = OrDie(softnic::MakePort(devices.front(), &clock));
  const auto b = OrDie(softnic::MakePort(devices.back(), &clock));
  softnic::Relay relay(a.port.get(), b.port.get(),
                       {.queue_frames = static_cast<uint32_t>(queue_frames)});
  std::vector<std::unique_ptr<Host>> hosts;
  for (int at = 5; at < argc;) {
    hosts.push_back(MakeHost(argc, argv, &at, time));
    if (hosts.back() == nullptr) return Usage();
  }

  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);  // Naps are as short as they say.
  std::puts("ready");
  std::fflush(stdout);
  pollfd end = {STDIN_FILENO, POLLIN, 0};
  const timespec nap = {0, 1000L * std::atoi(argv[3])};
  for (bool moved = true; end.revents == 0;) {
    // What waits for nothing looks at stdin now and then only.
    const timespec none = {0, 0};
    ppoll(&end, 1, moved ? &none : &nap, nullptr);
    moved = false;
    for (const auto& host : hosts) moved |= host->Turn();
    moved |= relay.Turn();
  }
  Print({{"a_to_b", CountersOf(relay.a_to_b(), *b.port)},
         {"b_to_a", CountersOf(relay.b_to_a(), *a.port)}});
  return 0;
}

}  // namespace
}  // namespace devwire

int main(int argc, char** argv) { return devwire::Main(argc, argv); }
