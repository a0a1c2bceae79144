#include "sockets/stack_core.h"

#include <pthread.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/thread.h"
#include "memreg/host_memory.h"
#include "memreg/verbs_library.h"
#include "sockets/errno_map.h"

namespace devwire {
namespace {

// Linear pieces: a header is shorter than the split by 52 bytes at most.
constexpr uint32_t kLinearSlotBytes = 128;
constexpr uint32_t kLinearSlots = 4096;

std::atomic<uint64_t> fork_generation{0};

void CountForks() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, [] { fork_generation.fetch_add(1); });
  });
}

HashKey RandomKey() {
  HashKey key;
  CHECK_EQ(getrandom(&key, sizeof(key), 0), static_cast<ssize_t>(sizeof(key)));
  return key;
}

uint32_t RoundUp(uint32_t value, uint32_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Headers of the stack's one family, with timestamps and without.
constexpr uint32_t kShapesPerPool = 2;

// The payload of a full frame whose header is the shortest that is split off.
uint32_t SmallestSlot(uint32_t mtu) { return mtu + 14 - 54; }

// The smallest usual slot that holds it: see PoolOptions::slot_bytes.
uint32_t UsualSlot(uint32_t mtu) {
  for (const uint32_t bytes : {2048u, 4096u, 8192u}) {
    if (bytes >= SmallestSlot(mtu)) return bytes;
  }
  return 9216;
}

absl::Status CheckOptions(const StackOptions& o) {
  if (o.address == IpAddress() ||
      o.prefix_bits > (o.address.is_v4() ? 32 : 128)) {
    return ErrnoStatus(EINVAL,
                       "StackOptions::address is not set, or prefix_bits is "
                       "beyond it: give the stack an address of its own");
  }
  const uint32_t least_mtu = o.address.is_v4() ? 576 : 1280;  // RFC 8200 5.
  if (o.mtu < least_mtu || o.mtu > 9978) {
    return ErrnoStatus(EINVAL,
                       absl::StrFormat("mtu %u is outside %u to 9978: use the "
                                       "port's",
                                       o.mtu, least_mtu));
  }
  if (o.wake_backstop < 1_ms || o.wake_backstop > 1_s) {
    return ErrnoStatus(EINVAL, "wake_backstop is outside 1 ms to 1 s");
  }
  if (o.max_connections == 0 || o.max_connections > 65535) {
    return ErrnoStatus(
        EINVAL, absl::StrFormat("max_connections %u is outside 1 to 65535: "
                                "choose one within, or open further stacks",
                                o.max_connections));
  }
  if (o.max_receive_pools == 0 ||
      o.max_receive_pools > kMaxPools - static_cast<size_t>(kFirstDevicePool)) {
    return ErrnoStatus(EINVAL, "max_receive_pools is outside 1 to 62");
  }
  if (o.port_block_bits > 15 || o.first_local_port < 1024) {
    return ErrnoStatus(EINVAL,
                       "local ports begin at 1024 or above, in blocks of at "
                       "most 2^15");
  }
  return CheckTcpKnobs(o.tcp);
}

}  // namespace

StackCore::StackCore(const StackOptions& o)
    : options(o),
      poll_set(2 * o.max_connections),
      fork_generation_(fork_generation.load()),
      commands_(o.mode == StackOptions::Mode::kSleepingThread ? &bell_
                                                              : nullptr) {}

absl::StatusOr<std::shared_ptr<StackCore>> StackCore::Open(
    const StackOptions& options) {
  CountForks();
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  if (absl::Status status = LoadVerbsLibrary(options.verbs_library);
      !status.ok()) {
    return status;
  }
  std::shared_ptr<StackCore> core(new StackCore(options));
  if (absl::Status status = core->SetUp(); !status.ok()) return status;
  return core;
}

absl::Status StackCore::SetUp() {
  absl::StatusOr<std::unique_ptr<VerbsDevice>> opened = VerbsDevice::Open(
      {.name = options.device,
       .local = options.device.empty() ? std::optional(options.address)
                                       : std::nullopt,
       .port = options.port});
  if (!opened.ok()) return opened.status();
  device = *std::move(opened);
  if (absl::Status status = SetUpHostMemory(options.mtu); !status.ok()) {
    return status;
  }
  const bool may_sleep = options.mode != StackOptions::Mode::kBusyThread;
  if (const int error = may_sleep ? bell_.Open() : 0; error != 0) {
    return ErrnoStatus(error, "no descriptor for wake-ups: see ulimit -n");
  }
  absl::StatusOr<std::unique_ptr<VerbsPacketIo>> packet_io =
      VerbsPacketIo::Open(
          *device, *control_pool, *control_memory,
          {.mtu = options.mtu,
           .mac = options.mac,
           .control_ring_wrs = options.rx_ring_frames,
           .data_ring_wrs = options.rx_ring_frames,
           .send_ring_wrs = options.tx_ring_frames,
           .max_data_queues = kShapesPerPool * options.max_receive_pools,
           .rx_checksum_ipv6 = options.nic_verifies_ipv6,
           .bell = may_sleep ? &bell_ : nullptr});
  if (!packet_io.ok()) return packet_io.status();
  io = *std::move(packet_io);
  if (may_sleep) {
    auto sleep = EngineSleep::Create(*io, bell_);
    if (!sleep.ok()) return sleep.status();
    sleep_ = *std::move(sleep);
  }

  const EnginePool pools[] = {
      {.pool = control_pool.get(),
       .host_base = control_memory->data(),
       .posted_slots =
           std::min(options.rx_ring_frames, control_pool->slot_count() / 4)},
      {.pool = linear_pool.get(), .host_base = linear_memory->data()}};
  engine = std::make_unique<Engine>(
      MakeEngineOptions(options.mtu), *io, clock, pools,
      HostBuffer{send_memory->data(), send_memory->addr(), send_memory->bytes(),
                 send_memory->lkey()});
  pools_[0].store(control_pool.get(), std::memory_order_release);
  pools_[1].store(linear_pool.get(), std::memory_order_release);
  for (const StaticNeighbor& n : options.neighbors) {
    if (!engine->AddStaticNeighbor(n.ip, n.mac)) {
      return ErrnoStatus(ENOBUFS, "too many static neighbours: 255 at most");
    }
  }
  engine->set_ready_sink(&poll_set);
  engine->set_connection_observer(options.connection_observer);
  if (absl::Status status = AwaitHostRule(); !status.ok()) return status;
  if (options.mode != StackOptions::Mode::kCallerPolls) {
    thread_ = StartThread([this] { Run(); });
  }
  return absl::OkStatus();
}

// Without it nothing is received, not even ARP.
absl::Status StackCore::AwaitHostRule() {
  constexpr Duration kPatience = 5_s;
  const Instant deadline = clock.Now() + kPatience;
  while (!engine->host_rule_error().has_value() && clock.Now() < deadline) {
    engine->Poll();
    std::this_thread::yield();
  }
  const int error = engine->host_rule_error().value_or(ETIMEDOUT);
  if (error == 0) return absl::OkStatus();
  return ErrnoStatus(
      error, absl::StrFormat(
                 "%s: the flow rule for our own address was not "
                 "installed: %s; is CAP_NET_RAW there, and room for rules?",
                 device->name(), VerbsErrorText(error)));
}

absl::Status StackCore::SetUpHostMemory(uint32_t mtu) {
  const uint32_t slot_bytes =
      RoundUp(VerbsPacketIo::ControlSlotBytes(*device, mtu), 64);
  const uint32_t slots =
      static_cast<uint32_t>(options.host_receive_bytes / slot_bytes);
  if (slots < 64 || options.host_send_bytes < SendBuffers::kBufferBytes) {
    return ErrnoStatus(
        EINVAL, absl::StrFormat("host_receive_bytes must hold 64 frames of %u "
                                "bytes, host_send_bytes %u bytes",
                                slot_bytes, SendBuffers::kBufferBytes));
  }
  const auto make = [&](uint64_t bytes, std::optional<HostArena>* out) {
    absl::StatusOr<HostArena> arena = HostArena::Create(device->pd(), bytes);
    if (arena.ok()) out->emplace(*std::move(arena));
    return arena.status();
  };
  absl::Status status = make(uint64_t{slots} * slot_bytes, &control_memory);
  if (status.ok())
    status = make(kLinearSlots * kLinearSlotBytes, &linear_memory);
  if (status.ok()) status = make(options.host_send_bytes, &send_memory);
  if (!status.ok()) return status;
  control_pool = std::make_unique<FragPool>(FragPool::Options{
      .id = kHostPool, .slot_count = slots, .slot_bytes = slot_bytes});
  linear_pool = std::make_unique<FragPool>(
      FragPool::Options{.id = kLinearPool,
                        .slot_count = kLinearSlots,
                        .slot_bytes = kLinearSlotBytes});
  return absl::OkStatus();
}

EngineOptions StackCore::MakeEngineOptions(uint32_t mtu) const {
  EngineOptions e;
  e.route = {options.address, options.prefix_bits, options.gateway};
  e.mtu = mtu;
  e.max_connections = options.max_connections;
  e.max_half_open = options.max_half_open;
  e.syn_cookies = options.syn_cookies;
  e.first_local_port = options.first_local_port;
  e.port_block_bits = options.port_block_bits;
  e.rule_wait = options.rule_wait;
  e.secret = RandomKey();
  ApplyTcpKnobs(options.tcp, &e);
  return e;
}

StackCore::~StackCore() { Close(); }

void StackCore::Close() {
  if (is_closed_.exchange(true)) return;
  if (thread_.joinable()) {
    stop_.store(true, std::memory_order_release);
    bell_.Ring();
    thread_.join();
  }
  engine.reset();
  capture.reset();
  sleep_.reset();
  io.reset();
  for (auto& memory : bound) {
    if (memory != nullptr) memory->region.reset();
  }
  send_memory.reset();
  linear_memory.reset();
  control_memory.reset();
  device.reset();
}

bool StackCore::is_in_child() const {
  return fork_generation_ != fork_generation.load(std::memory_order_relaxed);
}

absl::Status StackCore::Usable() const {
  if (is_in_child()) {
    return ErrnoStatus(EOWNERDEAD,
                       "this stack belongs to the parent process: open one "
                       "in the child");
  }
  if (is_closed_.load(std::memory_order_acquire)) {
    return ClosedStatus();
  }
  return absl::OkStatus();
}

absl::Status StackCore::ClosedStatus() {
  return ErrnoStatus(ESHUTDOWN, "the stack is closed: open another");
}

void StackCore::Run() {
  constexpr int kIdlePollsBeforeYield = 64;
  int idle = 0;
  while (!stop_.load(std::memory_order_acquire)) {
    const size_t ran = commands_.RunSome(32);
    const bool worked = engine->Poll();
    idle = worked || ran > 0 ? 0 : idle + 1;
    if (idle < kIdlePollsBeforeYield) continue;
    if (sleep_ != nullptr) {
      Sleep();  // Woken for nothing, it goes back to sleep at once.
    } else {
      std::this_thread::yield();  // Nothing to do: others may run.
      idle = 0;
    }
  }
  commands_.Close();
}

bool StackCore::PrepareToSleep(Duration* at_most) {
  // A NIC that does not take the request is one to poll.
  if (sleep_->Prepare() != 0) return false;
  const bool worked = engine->Poll();
  if (commands_.RunSome(32) > 0 || worked || stop_.load()) return false;
  *at_most =
      std::min(options.wake_backstop, engine->NextDeadline() - clock.Now());
  return *at_most > Duration();
}

void StackCore::Sleep() {
  Duration at_most;
  if (PrepareToSleep(&at_most)) {
    sleeps.Add();
    const bool is_woken = sleep_->Wait(at_most);
    if (!is_woken && at_most == options.wake_backstop && engine->Poll()) {
      late_wakes.Add();
    }
  }
  sleep_->End();
}

void StackCore::RestCaller() {
  sleep_->End();
  Duration at_most;
  const bool may_rest = PrepareToSleep(&at_most);
  if (may_rest) sleeps.Add();
  sleep_->SetTimer(may_rest ? at_most : Duration());
}

void StackCore::PollOrPause() {
  if (options.mode == StackOptions::Mode::kCallerPolls) {
    engine->Poll();
  } else {
    // An engine that sleeps is woken by each look.
    const bool sleeps = options.mode == StackOptions::Mode::kSleepingThread;
    std::this_thread::sleep_for(std::chrono::microseconds(sleeps ? 1000 : 100));
  }
}

absl::StatusOr<PoolId> StackCore::Bind(const DmaBuf& dmabuf,
                                       DeviceMemory* memory,
                                       std::unique_ptr<DeviceMemory> adopted,
                                       const PoolOptions& pool_options) {
  const std::lock_guard lock(set_up_mutex);
  absl::Status failure;
  if (absl::Status called = Call([&] { failure = DeviceFailure(); });
      !called.ok()) {
    return called;
  }
  if (!failure.ok()) return failure;
  const size_t index = next_pool_;
  if (index >= kMaxPools) {
    return ErrnoStatus(ENOBUFS, absl::StrFormat("%u regions are bound: one "
                                                "stack takes no more",
                                                kMaxPools - 2));
  }
  const uint32_t slot_bytes = pool_options.slot_bytes != 0
                                  ? pool_options.slot_bytes
                                  : UsualSlot(options.mtu);
  const uint64_t receive = std::min<uint64_t>(
      pool_options.receive_bytes.value_or(dmabuf.bytes()), dmabuf.bytes());
  const bool is_send_only = receive == 0;
  const uint64_t slots = is_send_only ? 1 : receive / slot_bytes;
  if (!is_send_only && receive_pools_ == options.max_receive_pools) {
    return ErrnoStatus(
        ENOBUFS,
        absl::StrFormat("%u regions are bound to receive into: open the stack "
                        "with more StackOptions::max_receive_pools, or bind "
                        "this one to send from (receive_bytes 0)",
                        receive_pools_));
  }
  // Before anything is registered or allocated for it.
  if (!is_send_only) {
    if (absl::Status status = io->CheckPool({.slot_count = slots,
                                             .slot_bytes = slot_bytes,
                                             .region_bytes = receive});
        !status.ok()) {
      return status;
    }
  }
  auto made = std::make_unique<BoundMemory>();
  made->adopted = std::move(adopted);
  made->is_send_only = is_send_only;
  absl::StatusOr<RegisteredRegion> region = RegisteredRegion::Register(
      device->pd(), dmabuf,
      {.relaxed_ordering = pool_options.relaxed_ordering});
  if (!region.ok()) return region.status();
  made->region.emplace(*std::move(region));
  made->span = {made->region->iova(), made->region->bytes(),
                made->region->lkey()};
  const PoolId id{static_cast<uint16_t>(index)};
  made->pool = std::make_unique<FragPool>(
      FragPool::Options{.id = id,
                        .slot_count = static_cast<uint32_t>(slots),
                        .slot_bytes = slot_bytes});
  absl::Status status;
  const absl::Status called = Call([&] {
    if (!made->is_send_only) status = io->AddPool(*made->pool, *made->region);
    if (!status.ok()) return;
    engine->AddPool({.pool = made->pool.get(),
                     .memory = memory,
                     .lkey = made->span.lkey,
                     .posted_slots = std::min(options.rx_ring_frames,
                                              made->pool->slot_count() / 4)});
  });
  if (!called.ok()) return called;
  if (!status.ok()) return status;
  if (!is_send_only) ++receive_pools_;
  bound[index] = std::move(made);
  ++next_pool_;
  pools_[index].store(bound[index]->pool.get(), std::memory_order_release);
  return id;
}

absl::StatusOr<const BoundMemory*> StackCore::Bound(PoolId id) {
  const size_t index = static_cast<size_t>(id);
  if (index < static_cast<size_t>(kFirstDevicePool) || index >= kMaxPools ||
      pools_[index].load(std::memory_order_acquire) == nullptr) {
    return ErrnoStatus(EFAULT,
                       absl::StrFormat("memory %u is not bound to this stack: "
                                       "give a BindMemory() result",
                                       static_cast<unsigned>(id)));
  }
  return bound[index].get();
}

absl::Status StackCore::CheckReceivePool(const std::optional<PoolId>& id) {
  if (!id.has_value()) return absl::OkStatus();
  const absl::StatusOr<const BoundMemory*> memory = Bound(*id);
  if (!memory.ok()) return memory.status();
  if ((*memory)->is_send_only) {
    return ErrnoStatus(EINVAL,
                       "this memory was bound for sending only "
                       "(receive_bytes 0): bind some to receive into");
  }
  return absl::OkStatus();
}

absl::Status StackCore::RevokedStatus(PoolId id) {
  return ErrnoStatus(
      EIO, absl::StrFormat("memory %u was revoked by its owner, and the NIC "
                           "may not reach it any more: bind it again, or "
                           "other memory, and use the new id",
                           static_cast<unsigned>(id)));
}

absl::Status StackCore::DeviceFailedStatus() const {
  return ErrnoStatus(EIO, absl::StrFormat("%s has failed: close the stack and "
                                          "open another",
                                          device->name()));
}

absl::Status StackCore::DeviceFailure() const {
  return engine->device_error() == 0 ? absl::OkStatus() : DeviceFailedStatus();
}

ReturnResult StackCore::ReturnToken(StreamId stream, FragToken token) {
  const size_t index = static_cast<size_t>(FragPool::PoolOf(token));
  FragPool* pool = index < kMaxPools
                       ? pools_[index].load(std::memory_order_acquire)
                       : nullptr;
  if (pool == nullptr) return ReturnResult::kUnknown;
  const ReturnResult result = pool->Return(token, stream);
  if (options.mode == StackOptions::Mode::kSleepingThread) bell_.Ring();
  return result;
}

void AbandonInChild(std::shared_ptr<StackCore> core) {
  static auto* abandoned = new std::vector<std::shared_ptr<StackCore>>;
  abandoned->push_back(std::move(core));
}

}  // namespace devwire
