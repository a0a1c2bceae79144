#include "transport/verbs/verbs_fixture.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <span>

#include "base/check.h"
#include "base/clock.h"
#include "memreg/verbs_library.h"

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

// Ethernet, IPv4 and TCP, RFC 894, 791, 9293; the NIC fills in checksums.
uint32_t TestHost::EmitHeader(const Segment& segment, std::byte* at) const {
  const uint32_t tcp_bytes = segment.timestamps ? 32 : 20;
  const uint32_t bytes = 14 + 20 + tcp_bytes;
  const auto put = [&at](uint64_t value, int width) {
    for (int i = width - 1; i >= 0; --i) {
      *at++ = static_cast<std::byte>(value >> (8 * i));
    }
  };
  const auto put_bytes = [&at](const auto& from, size_t n) {
    memcpy(at, from.data(), n);
    at += n;
  };
  put_bytes(segment.to->device_->mac(), 6);
  put_bytes(device_->mac(), 6);
  put(0x0800, 2);
  put(0x4500, 2);
  // Of the whole, for TSO: the NIC writes each segment's.
  put(20 + tcp_bytes + segment.payload_bytes, 2);
  put(0, 2);
  put(0x4000, 2);  // Don't fragment.
  put(0x4006, 2);  // TTL 64, TCP.
  put(0, 2);
  put_bytes(ip().bytes, 4);
  put_bytes(segment.to->ip().bytes, 4);
  put(static_cast<uint16_t>(segment.from_port), 2);
  put(static_cast<uint16_t>(segment.to_port), 2);
  put(segment.seq, 4);
  put(0, 4);
  put(((tcp_bytes / 4) << 12) | 0x10, 2);  // ACK.
  put(0xffff, 2);
  put(0, 4);
  if (segment.timestamps) {  // RFC 7323 appendix A.
    put(0x0101080a, 4);
    put(1, 4);
    put(2, 4);
  }
  return bytes;
}

std::optional<uint64_t> TestHost::Send(const Segment& segment) {
  std::byte* const header = io_->TxHeader();
  if (header == nullptr) return std::nullopt;
  TxFrame frame;
  frame.header_bytes = EmitHeader(segment, header);
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
