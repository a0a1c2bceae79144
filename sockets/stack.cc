#include "sockets/stack.h"

#include <cerrno>
#include <mutex>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "memreg/providers.h"
#include "sockets/errno_map.h"
#include "sockets/stack_core.h"

namespace devwire {
namespace {

// On the engine's thread.
absl::Status OpenErrorStatus(OpenError error, const Endpoint& endpoint,
                             std::optional<PoolId> memory,
                             const StackCore& core) {
  if (error == OpenError::kNone) return absl::OkStatus();
  const std::string what = endpoint.ToString();
  switch (error) {
    case OpenError::kNone:
      return absl::OkStatus();
    case OpenError::kNoRoute:
      return ErrnoStatus(
          ENETUNREACH,
          absl::StrFormat("no route to %s from %s/%u: set "
                          "StackOptions::gateway or a wider prefix_bits",
                          what, core.engine->options().route.address.ToString(),
                          core.engine->options().route.prefix_bits));
    case OpenError::kNeighborsFull:
      return ErrnoStatus(ENOBUFS,
                         "the neighbour table is full of neighbours "
                         "in use: close streams");
    case OpenError::kPortInUse:
      return ErrnoStatus(EADDRINUSE,
                         absl::StrFormat("port in use: %s; take another, or 0 "
                                         "for a free one",
                                         what));
    case OpenError::kNoPort:
      return ErrnoStatus(EADDRINUSE,
                         absl::StrFormat("every local port to %s is in use: "
                                         "close streams, or lower "
                                         "StackOptions::first_local_port",
                                         what));
    case OpenError::kTooMany:
      return ErrnoStatus(ENOBUFS,
                         "too many open at once: raise "
                         "StackOptions::max_connections");
    case OpenError::kWrongFamily:
      return ErrnoStatus(
          EAFNOSUPPORT,
          absl::StrFormat("%s is not of the family of the stack's address %s: "
                          "open a stack of that family",
                          what,
                          core.engine->options().route.address.ToString()));
    case OpenError::kIpv6Unsupported:
      return ErrnoStatus(
          EOPNOTSUPP,
          "IPv6 into device memory: this NIC verifies no IPv6 checksums (no "
          "mlx5 does); use IPv4, or a host stream");
    case OpenError::kDeviceFailed:
      return core.DeviceFailedStatus();
    case OpenError::kMemoryRevoked:
      return StackCore::RevokedStatus(*memory);
    case OpenError::kNoPeer:
      return ErrnoStatus(EADDRNOTAVAIL,
                         absl::StrFormat("%s is no single host: give a unicast "
                                         "address",
                                         what));
  }
  return ErrnoStatus(EIO, "unknown");
}

}  // namespace

Stack::Stack(std::shared_ptr<StackCore> core) : core_(std::move(core)) {}

Stack::~Stack() {
  if (core_->is_in_child()) {
    AbandonInChild(std::move(core_));
  } else {
    core_->Close();
  }
}

absl::StatusOr<std::unique_ptr<Stack>> Stack::Open(
    const StackOptions& options) {
  absl::StatusOr<std::shared_ptr<StackCore>> core = StackCore::Open(options);
  if (!core.ok()) return core.status();
  return std::unique_ptr<Stack>(new Stack(*std::move(core)));
}

absl::StatusOr<PoolId> Stack::BindMemory(const DmaBuf& dmabuf,
                                         const PoolOptions& options) {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  // Host memory can be read through its descriptor: option bytes, never
  // payload.
  absl::StatusOr<DmaBuf> copy = dmabuf.Duplicate();
  if (!copy.ok()) return copy.status();
  absl::StatusOr<std::unique_ptr<DeviceMemory>> adopted =
      AdoptDeviceMemory(*copy);
  if (!adopted.ok()) return adopted.status();
  DeviceMemory* const memory = adopted->get();
  return core_->Bind(dmabuf, memory, *std::move(adopted), options);
}

absl::StatusOr<PoolId> Stack::BindMemory(DeviceMemory& memory,
                                         const PoolOptions& options) {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  absl::StatusOr<DmaBuf> dmabuf = memory.Export();
  if (!dmabuf.ok()) return dmabuf.status();
  return core_->Bind(*dmabuf, &memory, nullptr, options);
}

absl::StatusOr<MemoryUse> Stack::Use(PoolId id) {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  MemoryUse use;
  const FragPool* pool = core_->control_pool.get();
  if (id != kHostPool) {
    const absl::StatusOr<const BoundMemory*> memory = core_->Bound(id);
    if (!memory.ok()) return memory.status();
    pool = (*memory)->pool.get();
    if ((*memory)->is_send_only) return use;
  }
  const absl::Status called = core_->Call([&] {
    use.slot_bytes = pool->slot_bytes();
    use.slots = pool->slot_count();
    use.owners = pool->owners();
    use.slot_fills = core_->engine->slot_fills(id);
    use.min_slot_fills = core_->engine->min_slot_fills(id);
  });
  if (!called.ok()) return called;
  return use;
}

absl::StatusOr<std::unique_ptr<Listener>> Stack::Listen(
    const Endpoint& local, const ListenOptions& options) {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  if (absl::Status status = core_->CheckReceivePool(options.memory);
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<StreamSettings> settings = MakeStreamSettings(
      options.knobs ? *options.knobs : core_->options.tcp, options.congestion);
  if (!settings.ok()) return settings.status();
  if (options.backlog < 1 || options.backlog > 4096) {
    return ErrnoStatus(
        EINVAL, absl::StrFormat("backlog %u is outside 1 to 4096: choose "
                                "ListenOptions::backlog within",
                                options.backlog));
  }
  if (local.ip != core_->options.address) {
    return ErrnoStatus(
        EADDRNOTAVAIL,
        absl::StrFormat("%s is not this stack's address, which is %s",
                        local.ip.ToString(),
                        core_->options.address.ToString()));
  }
  Engine::ListenResult result;
  absl::Status failure;
  const absl::Status called = core_->Call([&] {
    result = core_->engine->Listen({.local = local,
                                    .pool = options.memory,
                                    .backlog = options.backlog,
                                    .shares_port = options.reuse_port,
                                    .settings = &*settings});
    failure = OpenErrorStatus(result.error, local, options.memory, *core_);
  });
  if (!called.ok()) return called;
  if (!failure.ok()) return failure;
  return std::unique_ptr<Listener>(
      new Listener(core_, static_cast<uint32_t>(result.id),
                   Endpoint{local.ip, result.port}));
}

absl::StatusOr<std::unique_ptr<Stream>> Stack::StartConnect(
    const Endpoint& remote, const ConnectOptions& options) {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  if (absl::Status status = core_->CheckReceivePool(options.memory);
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<StreamSettings> settings = MakeStreamSettings(
      options.knobs ? *options.knobs : core_->options.tcp, options.congestion);
  if (!settings.ok()) return settings.status();
  if (remote.port == Port{0}) {
    return ErrnoStatus(EADDRNOTAVAIL,
                       absl::StrFormat("%s cannot be connected to: port 0",
                                       remote.ToString()));
  }
  Engine::ConnectResult result;
  absl::Status failure;
  FourTuple tuple;
  const absl::Status called = core_->Call([&] {
    result = core_->engine->Connect(remote, options.local_port, options.memory,
                                    &*settings);
    if (EngineStream* s = core_->engine->Find(result.id)) tuple = s->tuple;
    failure = OpenErrorStatus(result.error, remote, options.memory, *core_);
  });
  if (!called.ok()) return called;
  if (!failure.ok()) return failure;
  return std::unique_ptr<Stream>(
      new Stream(core_, result.id, tuple, !options.memory.has_value()));
}

absl::StatusOr<std::unique_ptr<Stream>> Stack::Connect(
    const Endpoint& remote, const ConnectOptions& options) {
  absl::StatusOr<std::unique_ptr<Stream>> stream =
      StartConnect(remote, options);
  if (!stream.ok()) return stream;
  const absl::Status status =
      (*stream)->WaitConnected(options.timeout, options.cancel);
  if (status.ok()) return stream;
  (*stream)->Abort("connect given up");
  return status;
}

absl::StatusOr<std::unique_ptr<Poller>> Stack::NewPoller() {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  uint32_t id = 0;
  const absl::Status called =
      core_->Call([&] { id = core_->poll_set.NewPoller(); });
  if (!called.ok()) return called;
  return std::unique_ptr<Poller>(new Poller(core_, id));
}

bool Stack::Poll() {
  if (core_->options.mode != StackOptions::Mode::kCallerPolls) return false;
  return core_->is_in_child() ? false : core_->Poll();
}

absl::StatusOr<StackCounters> Stack::Counters() {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  const EngineCounters& c = core_->engine->counters();
  StackCounters out;
  out.streams_closed = c.connections_closed.value();
  out.streams_opened = c.connections_opened.value();
  out.frames_in = c.frames_in.value();
  out.frames_out = c.frames_out.value();
  out.segments_in = c.segments_in.value();
  out.segments_out = c.segments_out.value();
  out.device_bytes = c.device_bytes.value();
  out.linear_bytes = c.linear_bytes.value();
  out.retransmitted_segments = c.retransmitted_segments.value();
  for (int i = 0; i < DropCode::kCodes; ++i) {
    const uint64_t value = c.drops[static_cast<size_t>(i)].value();
    if (value != 0) out.drops.push_back({DropCode::Name(i), value});
  }
  for (int i = 0; i < static_cast<int>(EngineEvent::kCount); ++i) {
    const auto event = static_cast<EngineEvent>(i);
    if (c.value(event) != 0) {
      out.events.push_back({EngineEventName(event), c.value(event)});
    }
  }
  for (const auto& [name, counter] :
       {std::pair("sleeps", &core_->sleeps),
        std::pair("late wake-ups", &core_->late_wakes)}) {
    if (counter->value() != 0) out.events.push_back({name, counter->value()});
  }
  return out;
}

PayloadBytes Stack::Payload() const {
  if (!core_->Usable().ok()) return {};
  const EngineCounters& c = core_->engine->counters();
  return {.in = c.device_bytes.value() + c.linear_bytes.value() +
                c.host_bytes.value(),
          .out = c.bytes_out.value()};
}

absl::StatusOr<uint64_t> Stack::Undelivered() {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  uint64_t octets = 0;
  const absl::Status called =
      core_->Call([&] { octets = core_->engine->undelivered(); });
  if (!called.ok()) return called;
  return octets;
}

IpAddress Stack::address() const { return core_->options.address; }
uint32_t Stack::mtu() const { return core_->options.mtu; }
MacAddress Stack::mac() const {
  return core_->options.mac.value_or(
      core_->device == nullptr ? MacAddress{} : core_->device->mac());
}

absl::Status Stack::StartCapture(const std::string& path, uint64_t max_bytes) {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  const std::lock_guard lock(core_->set_up_mutex);
  if (core_->capture != nullptr) {
    return ErrnoStatus(EEXIST, "a capture is being written: stop it first");
  }
  absl::StatusOr<std::unique_ptr<PcapngWriter>> writer = PcapngWriter::Open(
      {.path = path,
       .max_file_bytes = max_bytes,
       .interface_name = core_->device->name(),
       .epoch_of_clock_ns =
           UnixNanoseconds() - core_->clock.Now().nanoseconds()});
  if (!writer.ok()) return writer.status();
  core_->capture = *std::move(writer);
  const absl::Status called =
      core_->Call([&] { core_->engine->set_capture(core_->capture.get()); });
  if (!called.ok()) return called;
  return absl::OkStatus();
}

absl::Status Stack::StopCapture() {
  if (absl::Status status = core_->Usable(); !status.ok()) return status;
  const std::lock_guard lock(core_->set_up_mutex);
  if (core_->capture == nullptr) {
    return ErrnoStatus(ENOENT, "no capture is being written");
  }
  const absl::Status called =
      core_->Call([&] { core_->engine->set_capture(nullptr); });
  if (!called.ok()) return called;
  const absl::Status status = core_->capture->Close();
  core_->capture.reset();
  return status;
}

}  // namespace devwire
