// One end of a bulk transfer for tools/goodput_linux.py: device memory over
// the device sn0 of softnic, for a given time.
//
//   goodput_end receive OWN:PORT SECONDS NAP_US   counts what arrives
//   goodput_end send OWN PEER:PORT SECONDS NAP_US keeps the queue full
//
// Prints one JSON object. An end that has nothing to do naps for NAP_US, so
// that the path is the limit and not the cores that all ends share.
#include <sys/prctl.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/check.h"
#include "base/clock.h"
#include "memreg/host_memory.h"
#include "sockets/stack.h"

namespace devwire {
namespace {

constexpr size_t kPoolBytes = 32 << 20;
constexpr uint32_t kSendBytes = 256 << 10;
// After its time an end goes on for so long: the other's has begun later.
constexpr Duration kMargin = 2_s;

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status().ToString();
  return *std::move(value);
}

class End {
 public:
  End(IpAddress address, long nap_us, bool receives) : nap_{0, 1000 * nap_us} {
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);  // Naps are as short as they say.
    memory_ = OrDie(MemfdMemory::Allocate(kPoolBytes));
    StackOptions options;
    options.device = "sn0";
    options.address = address;
    stack_ = OrDie(Stack::Open(options));
    PoolOptions pool;
    if (!receives) pool.receive_bytes = 0;
    pool_ = OrDie(stack_->BindMemory(*memory_, pool));
  }

  void Receive(const Endpoint& local, Duration time) {
    auto listener = OrDie(stack_->Listen(local, {.memory = pool_}));
    std::puts("listening");
    std::fflush(stdout);
    while (stream_ == nullptr) {
      if (!stack_->Poll()) nanosleep(&nap_, nullptr);
      stream_ = OrDie(listener->TryAccept());
    }
    const Instant begin = clock_.Now();
    uint64_t bytes = 0;
    while (clock_.Now() < begin + time) bytes += TakeFrags();
    Print({{"bytes", bytes}, {"seconds", time.seconds()}});
    while (clock_.Now() < begin + time + kMargin) TakeFrags();
    stream_->Abort("the time is over");
    stack_->Poll();
  }

  void Send(const Endpoint& peer, Duration time) {
    stream_ = OrDie(stack_->StartConnect(peer));
    while (absl::IsUnavailable(stream_->ConnectStatus())) {
      if (!stack_->Poll()) nanosleep(&nap_, nullptr);
    }
    const Instant begin = clock_.Now();
    while (clock_.Now() < begin + time) KeepFull();
    const TcpInfo info = OrDie(stream_->tcp_info());
    Print({{"segments", info.tcpi_data_segs_out},
           {"retransmitted", info.tcpi_total_retrans},
           {"timeouts", info.tcpi_total_rto},
           {"dsacks", info.tcpi_dsack_dups},
           {"rtt_us", info.tcpi_rtt},
           {"cwnd", info.tcpi_snd_cwnd}});
  }

 private:
  // Gives them back at once: the device is quick.
  uint64_t TakeFrags() {
    StreamFrag frags[64];
    FragToken tokens[64];
    stack_->Poll();
    const auto got = OrDie(stream_->ReceiveFrags(frags, UINT64_MAX));
    for (size_t i = 0; i < got.frags; ++i) tokens[i] = frags[i].token;
    CHECK_EQ(stream_->ReturnTokens({tokens, got.frags}),
             ReturnResult::kReturned);
    if (got.frags == 0) nanosleep(&nap_, nullptr);
    return got.bytes;
  }

  // The same bytes again and again: they do not change.
  void KeepFull() {
    stack_->Poll();
    SendCompletion done[16];
    const size_t completed = OrDie(stream_->PollSendCompletions(done));
    const DeviceSpan span{0, kSendBytes};
    while (OrDie(stream_->SendDevice(pool_, {&span, 1}, 0)) ==
           SendOutcome::kQueued) {
    }
    if (completed == 0) nanosleep(&nap_, nullptr);
  }

  static void Print(const nlohmann::json& json) {
    std::puts(json.dump().c_str());
    std::fflush(stdout);
  }

  const MonotonicClock clock_;
  const timespec nap_;
  std::unique_ptr<MemfdMemory> memory_;
  std::unique_ptr<Stack> stack_;
  PoolId pool_;
  std::unique_ptr<Stream> stream_;
};

int Main(int argc, char** argv) {
  const std::string role = argc > 1 ? argv[1] : "";
  const bool receives = role == "receive";
  if (!(receives && argc == 5) && !(role == "send" && argc == 6)) {
    std::fprintf(stderr,
                 "goodput_end receive OWN:PORT SECONDS NAP_US\n"
                 "goodput_end send OWN PEER:PORT SECONDS NAP_US\n");
    return 2;
  }
  const auto endpoint = Endpoint::Parse(argv[argc - 3]);
  const auto own = receives ? std::optional(endpoint.value_or(Endpoint{}).ip)
                            : IpAddress::Parse(argv[2]);
  CHECK(endpoint && own) << "not an address";
  const Duration time = std::atoi(argv[argc - 2]) * 1_s;
  End end(*own, std::atoi(argv[argc - 1]), receives);
  if (receives) {
    end.Receive(*endpoint, time);
  } else {
    end.Send(*endpoint, time);
  }
  return 0;
}

}  // namespace
}  // namespace devwire

int main(int argc, char** argv) { return devwire::Main(argc, argv); }
