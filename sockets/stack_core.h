// What the handles of one stack share: device, pools, engine, and the thread
// that runs it. Not public.
//
// Threads:  Call() runs a function on the engine's thread: at once with
//           kCallerPolls, else through a bounded ring of commands, whose caller
//           waits. ReturnToken() and Bound() go around it: what they read is
//           published once and stays until the last handle is gone.
// Lifetime: kept alive by its handles; Close() takes down the engine and the
//           device, pools stay until the last handle is gone, so that a token
//           returned too late meets a pool, and is stale.
// Fork:     in a child Usable() says so, and nothing else is touched.
#ifndef SOCKETS_STACK_CORE_H_
#define SOCKETS_STACK_CORE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/bell.h"
#include "base/clock.h"
#include "memreg/device_memory.h"
#include "memreg/frag_pool.h"
#include "memreg/registered_region.h"
#include "sockets/cancel.h"
#include "sockets/command_ring.h"
#include "sockets/engine_sleep.h"
#include "sockets/poll_set.h"
#include "sockets/stack_options.h"
#include "sockets/stream_info.h"
#include "sockets/tcp_info.h"
#include "transport/engine/engine.h"
#include "transport/tcp/congestion.h"
#include "transport/verbs/device.h"
#include "transport/verbs/verbs_packet_io.h"
#include "transport/wire/pcapng.h"

namespace devwire {

// One BindMemory(). Constant once bound, but for `region`, which Close() lets
// go of: other threads read `span` instead.
struct BoundMemory {
  struct Span {
    uint64_t iova = 0;
    uint64_t bytes = 0;
    uint32_t lkey = 0;
  };
  std::unique_ptr<DeviceMemory> adopted;  // Ours, when only a DmaBuf was given.
  std::optional<RegisteredRegion> region;
  Span span;
  std::unique_ptr<FragPool> pool;
  bool is_send_only = false;
};

class StackCore {
 public:
  static absl::StatusOr<std::shared_ptr<StackCore>> Open(
      const StackOptions& options);
  ~StackCore();
  StackCore(const StackCore&) = delete;
  StackCore& operator=(const StackCore&) = delete;

  // OK, or that the stack is closed, or belongs to the parent process.
  absl::Status Usable() const;
  bool is_in_child() const;
  static absl::Status ClosedStatus();
  // Idempotent. Every stream is aborted, every slot recovered.
  void Close();

  // Runs `f` on the engine's thread and waits for it. Usable() was asked; if
  // the stack was closed since, `f` is not run: ESHUTDOWN.
  template <typename F>
  [[nodiscard]] absl::Status Call(F&& f) {
    if (options.mode == StackOptions::Mode::kCallerPolls) {
      f();
      return absl::OkStatus();
    }
    Command command;
    command.run = [](Command* c) { (*static_cast<F*>(c->argument))(); };
    command.argument = const_cast<void*>(static_cast<const void*>(&f));
    return commands_.Execute(&command) ? absl::OkStatus() : ClosedStatus();
  }

  bool Poll() { return engine->Poll(); }
  // kCallerPolls: nothing to do until event_fd() is readable.
  void RestCaller();
  // Of kCallerPolls.
  int event_fd() const { return sleep_->fd(); }

  // Polls, or waits, until `is_done` (asked on the engine's thread) says yes:
  // kReady. Bounded by `timeout`, and by the stack's closing.
  enum class WaitResult : uint8_t { kReady, kTimedOut, kCancelled, kClosed };
  template <typename F>
  WaitResult WaitUntil(F&& is_done, Duration timeout,
                       const CancelFlag* cancel) {
    const Instant deadline = clock.Now() + timeout;
    while (true) {
      bool done = false;
      if (!Call([&] { done = is_done(); }).ok()) return WaitResult::kClosed;
      if (done) return WaitResult::kReady;
      if (cancel != nullptr && cancel->is_cancelled()) {
        return WaitResult::kCancelled;
      }
      if (clock.Now() >= deadline) return WaitResult::kTimedOut;
      PollOrPause();
    }
  }
  // One poll of the caller's, or a short sleep while the thread polls.
  void PollOrPause();

  absl::StatusOr<PoolId> Bind(const DmaBuf& dmabuf, DeviceMemory* memory,
                              std::unique_ptr<DeviceMemory> adopted,
                              const PoolOptions& pool_options);
  // The memory of this id, or why there is none. Any thread.
  absl::StatusOr<const BoundMemory*> Bound(PoolId id);
  // For a stream or listener that receives into it.
  absl::Status CheckReceivePool(const std::optional<PoolId>& id);

  static absl::Status RevokedStatus(PoolId id);
  absl::Status DeviceFailedStatus() const;

  // Engine's thread.
  void FillInfo(const EngineStream& s, StreamInfo* info);
  // That the NIC has failed, or OK.
  absl::Status DeviceFailure() const;
  // Why nothing more can be sent, or OK.
  absl::Status SendFailure(const EngineStream& s);

  ReturnResult ReturnToken(StreamId stream, FragToken token);

  const StackOptions options;
  const MonotonicClock clock;
  PollSet poll_set;

  // In the order in which they are made; destroyed the other way round.
  std::unique_ptr<VerbsDevice> device;
  std::optional<HostArena> control_memory;
  std::optional<HostArena> linear_memory;
  std::optional<HostArena> send_memory;
  std::unique_ptr<FragPool> control_pool;
  std::unique_ptr<FragPool> linear_pool;
  std::array<std::unique_ptr<BoundMemory>, kMaxPools> bound;  // By PoolId.
  std::unique_ptr<VerbsPacketIo> io;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<PcapngWriter> capture;  // Guarded by set_up_mutex.
  // Written by the engine's thread.
  Counter sleeps;
  Counter late_wakes;  // By the backstop, with work to do.
  // Held by calls that set something up, Call() included; never by the
  // engine's thread.
  std::mutex set_up_mutex;

 private:
  explicit StackCore(const StackOptions& o);
  absl::Status SetUp();
  absl::Status SetUpHostMemory(uint32_t mtu);
  absl::Status AwaitHostRule();
  EngineOptions MakeEngineOptions(uint32_t mtu) const;
  void Run();
  // The engine's thread: asks to be woken and looks once more. True: there is
  // nothing to do, for that long.
  bool PrepareToSleep(Duration* at_most);
  void Sleep();

  const uint64_t fork_generation_;
  std::atomic<bool> is_closed_{false};
  // For ReturnToken: pools that any thread may reach.
  std::array<std::atomic<FragPool*>, kMaxPools> pools_{};
  size_t next_pool_ = static_cast<size_t>(kFirstDevicePool);  // set_up_mutex.
  uint32_t receive_pools_ = 0;                                // The same.
  Bell bell_;
  CommandRing commands_;
  std::unique_ptr<EngineSleep> sleep_;  // Not with kBusyThread.
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Of a stream whose path carries IP packets of `mtu` bytes, at `now`.
TcpInfo MakeTcpInfo(const EngineStream& s, uint32_t mtu, Instant now);

// Lets go of a core in a forked child, where nothing of it may be destroyed.
void AbandonInChild(std::shared_ptr<StackCore> core);

}  // namespace devwire

#endif  // SOCKETS_STACK_CORE_H_
