#include "transport/verbs/verbs_fixture.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <span>

#include "base/check.h"
#include "base/clock.h"
#include "memreg/verbs_library.h"
#include "transport/wire/frame.h"

namespace devwire {
namespace {

using namespace time_literals;

// The pieces of a frame that lie in host memory: none here.
constexpr Duration kPatience = 10_s;

const absl::Status& CheckOk(const absl::Status& status) {
  CHECK(status.ok()) << std::string(status.message());
  return status;
}

template <typename T>
T Take(absl::StatusOr<T> value) {
  CheckOk(value.status());
  return *std::move(value);
}

// Removed when the process ends.
class CableDirectory {
 public:
  CableDirectory() { CHECK(mkdtemp(path_.data()) != nullptr); }
  ~CableDirectory() {
    for (const std::string& file : files_) unlink(file.c_str());
    rmdir(path_.data());
  }
  std::string NewFile() {
    files_.push_back(std::string(path_.data()) + "/cable" +
                     std::to_string(files_.size()));
    return files_.back();
  }

 private:
  std::array<char, 32> path_{"/tmp/devwire-test-XXXXXX"};
  std::vector<std::string> files_;
};

}  // namespace

std::string SoftnicPath() { return "./softnic/libsoftnic.so"; }

void ConfigureSoftnic(const std::string& text) {
  CheckOk(LoadVerbsLibrary(SoftnicPath()));
  CHECK_EQ(verbs().softnic_configure(nullptr), 0);
  CHECK_EQ(verbs().softnic_configure(text.c_str()), 0)
      << verbs().softnic_last_error();
}

void ChangeSoftnic(const std::string& text) {
  CHECK_EQ(verbs().softnic_configure(text.c_str()), 0)
      << verbs().softnic_last_error();
}

std::string CablePath() {
  static CableDirectory directory;
  return directory.NewFile();
}

bool Eventually(const std::function<bool()>& step) {
  const MonotonicClock clock;
  const Instant deadline = clock.Now() + kPatience;
  while (!step()) {
    if (clock.Now() > deadline) return false;
  }
  return true;
}

WithoutNetRaw::WithoutNetRaw() {
  header_ = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  CHECK_EQ(syscall(SYS_capget, &header_, before_), 0);
  __user_cap_data_struct fewer[2] = {before_[0], before_[1]};
  fewer[0].effective &= ~(1u << CAP_NET_RAW);
  CHECK_EQ(syscall(SYS_capset, &header_, fewer), 0);
}

WithoutNetRaw::~WithoutNetRaw() {
  CHECK_EQ(syscall(SYS_capset, &header_, before_), 0);
}

TestHost::TestHost(const HostOptions& options) : options_(options) {
  device_ = Take(VerbsDevice::Open({.name = options.device}));
  const uint32_t control_bytes =
      VerbsPacketIo::ControlSlotBytes(*device_, options.mtu);
  control_memory_.emplace(Take(HostArena::Create(
      device_->pd(), size_t{options.control_slots} * control_bytes)));
  control_pool_ = std::make_unique<FragPool>(
      FragPool::Options{.id = kControlPoolId,
                        .slot_count = options.control_slots,
                        .slot_bytes = control_bytes});
  memory_ = Take(
      MemfdMemory::Allocate(size_t{options.slot_count} * options.slot_bytes));
  const DmaBuf dmabuf = Take(memory_->Export());
  region_.emplace(Take(RegisteredRegion::Register(device_->pd(), dmabuf, {})));
  pool_ = std::make_unique<FragPool>(
      FragPool::Options{.id = kDevicePoolId,
                        .slot_count = options.slot_count,
                        .slot_bytes = options.slot_bytes});
  io_ =
      Take(VerbsPacketIo::Open(*device_, *control_pool_, *control_memory_,
                               {.mtu = options.mtu,
                                .control_ring_wrs = options.ring_wrs,
                                .data_ring_wrs = options.ring_wrs,
                                .send_ring_wrs = 64,
                                .max_data_queues = 4,
                                .max_rules = 64,
                                .rx_checksum_ipv6 = options.rx_checksum_ipv6}));
  CheckOk(io_->AddPool(*pool_, *region_));
}

TestHost::~TestHost() = default;

softnic_counters TestHost::NicCounters() const {
  using Query = int (*)(const char*, softnic_counters*, size_t);
  void* const handle = dlopen(SoftnicPath().c_str(), RTLD_NOW | RTLD_NOLOAD);
  const auto query =
      reinterpret_cast<Query>(dlsym(handle, "softnic_query_counters"));
  softnic_counters counters = {};
  CHECK_EQ(query(options_.device.c_str(), &counters, sizeof(counters)), 0);
  dlclose(handle);
  return counters;
}

std::vector<std::byte> TestHost::ReadSlot(SlotIndex slot,
                                          uint32_t bytes) const {
  std::vector<std::byte> out(bytes);
  CheckOk(memory_->CopyOut(
      uint64_t{static_cast<uint32_t>(slot)} * options_.slot_bytes, out));
  return out;
}

std::optional<uint64_t> TestHost::Send(const Segment& segment) {
  std::byte* const header = io_->TxHeader();
  if (header == nullptr) return std::nullopt;
  const HeaderTemplate headers(
      {.source_mac = device_->mac(),
       .destination_mac = segment.to->device_->mac(),
       .tuple = {{ip(), segment.from_port},
                 {segment.to->ip(), segment.to_port}}});
  TcpHeader tcp;
  tcp.source_port = static_cast<uint16_t>(segment.from_port);
  tcp.destination_port = static_cast<uint16_t>(segment.to_port);
  tcp.seq = SeqNum(segment.seq);
  tcp.flags = kAck;
  if (segment.timestamps) tcp.options.timestamps = Timestamps{1, 2};
  TxFrame frame;
  frame.header_bytes = headers.Emit(
      tcp,
      {.payload_bytes = segment.payload_bytes, .is_tso = segment.tso_mss != 0},
      header);
  frame.tso_mss = segment.tso_mss;
  if (segment.payload_bytes > 0) {
    frame.piece_count = 1;
    frame.pieces[0] = {.addr = region_->iova() + segment.offset,
                       .length = segment.payload_bytes,
                       .lkey = region_->lkey()};
  }
  return io_->TxPost(frame);
}

RuleId TestHost::Steer(const TestHost& from, Port from_port, Port to_port,
                       QueueId to) {
  FlowMatch match;
  match.kind = FlowMatch::Kind::kConnection;
  match.tuple = {{ip(), to_port}, {from.ip(), from_port}};
  return io_->AddRule(match, to);
}

int TestHost::AwaitRule(RuleId rule) {
  int error = -1;
  const bool answered = Eventually([&] {
    RxFrame frames[1];
    CHECK_EQ(io_->RxBurst(frames), 0u);
    io_->Replenish();
    RuleEvent events[1];
    if (io_->PollRules(events) == 0 || events[0].rule != rule) return false;
    error = events[0].error;
    return true;
  });
  return answered ? error : -1;
}

}  // namespace devwire
