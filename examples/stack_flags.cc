#include "examples/stack_flags.h"

#include <charconv>

#include "base/clock.h"
#include "memreg/providers.h"

namespace devwire::examples {
namespace {

enum Flag {
  kAddress = 256,
  kGateway,
  kDevice,
  kVerbsLibrary,
  kMtu,
  kSlotBytes,
  kPoolBytes,
  kMemory,
  kCapture,
  kNoPacing,
};

constexpr uint64_t kCaptureBytes = 1u << 30;

std::optional<uint32_t> ParseBytes32(std::string_view text) {
  const auto bytes = ParseBytes(text);
  if (!bytes || *bytes > UINT32_MAX) return std::nullopt;
  return static_cast<uint32_t>(*bytes);
}

// "10.0.0.1/24"
bool ParsePrefix(std::string_view text, StackOptions* stack) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return false;
  const auto ip = IpAddress::Parse(text.substr(0, slash));
  const auto bits = ParseBytes(text.substr(slash + 1));
  if (!ip || !bits || *bits > (ip->is_v4() ? 32u : 128u)) return false;
  stack->address = *ip;
  stack->prefix_bits = static_cast<uint8_t>(*bits);
  return true;
}

}  // namespace

const char kStackFlagsUsage[] =
    R"(  --address ADDR/BITS  our own address (when listening: ADDR, /24)
  --gateway ADDR       where addresses beyond BITS are reached
  --device NAME        the verbs device; needed when there are several
  --verbs-library PATH libibverbs-ABI object (or DEVWIRE_VERBS_LIBRARY)
  --mtu BYTES          longest IP packet (the port's)
  --slot-bytes BYTES   receive slot (the smallest usual one that fits the MTU)
  --pool-bytes BYTES   device memory to use (64M); K, M, G are understood
  --memory NAME        provider of device memory (memfd): memfd, udmabuf,
                       dma-heap, vgem
  --no-pacing          a window leaves at once, not in bursts
  --capture FILE       write headers and drop reasons as pcapng
)";

std::vector<option> WithStackFlags(std::vector<option> more) {
  std::vector<option> all = {
      {"address", required_argument, nullptr, kAddress},
      {"gateway", required_argument, nullptr, kGateway},
      {"device", required_argument, nullptr, kDevice},
      {"verbs-library", required_argument, nullptr, kVerbsLibrary},
      {"mtu", required_argument, nullptr, kMtu},
      {"slot-bytes", required_argument, nullptr, kSlotBytes},
      {"pool-bytes", required_argument, nullptr, kPoolBytes},
      {"memory", required_argument, nullptr, kMemory},
      {"capture", required_argument, nullptr, kCapture},
      {"no-pacing", no_argument, nullptr, kNoPacing},
  };
  all.insert(all.end(), more.begin(), more.end());
  all.push_back({});
  return all;
}

bool ApplyStackFlag(int flag, const char* value, StackFlags* flags) {
  switch (flag) {
    case kAddress:
      flags->has_address = ParsePrefix(value, &flags->stack);
      return flags->has_address;
    case kGateway:
      flags->stack.gateway = IpAddress::Parse(value);
      return flags->stack.gateway.has_value();
    case kDevice:
      flags->stack.device = value;
      return true;
    case kVerbsLibrary:
      flags->stack.verbs_library = value;
      return true;
    case kMtu:
      flags->stack.mtu = ParseBytes32(value).value_or(0);
      return flags->stack.mtu > 0;
    case kSlotBytes:
      flags->slot_bytes = ParseBytes32(value).value_or(0);
      return flags->slot_bytes > 0;
    case kPoolBytes:
      flags->pool_bytes = ParseBytes(value).value_or(0);
      return flags->pool_bytes > 0;
    case kMemory:
      flags->memory = value;
      return IsMemoryProvider(value);
    case kCapture:
      flags->capture = value;
      return true;
    case kNoPacing:
      flags->stack.tcp.pacing = false;
      return true;
  }
  return false;
}

std::optional<uint64_t> ParseBytes(std::string_view text) {
  uint64_t bytes = 0;
  const char* end = text.data() + text.size();
  auto [p, ec] = std::from_chars(text.data(), end, bytes);
  if (ec != std::errc()) return std::nullopt;
  const std::string_view unit(p, static_cast<size_t>(end - p));
  const int shift = unit.empty()  ? 0
                    : unit == "K" ? 10
                    : unit == "M" ? 20
                    : unit == "G" ? 30
                                  : -1;
  if (shift < 0 || bytes > UINT64_MAX >> shift) return std::nullopt;
  return bytes << shift;
}

absl::StatusOr<BoundStack> OpenStack(const StackFlags& flags, bool receives) {
  BoundStack bound;
  auto memory = AllocateDeviceMemory(flags.memory, flags.pool_bytes);
  if (!memory.ok()) return memory.status();
  bound.memory = std::move(*memory);
  auto dmabuf = bound.memory->Export();
  if (!dmabuf.ok()) return dmabuf.status();
  bound.dmabuf = std::move(*dmabuf);

  auto stack = Stack::Open(flags.stack);
  if (!stack.ok()) return stack.status();
  bound.stack = std::move(*stack);
  PoolOptions pool{.slot_bytes = flags.slot_bytes};
  if (!receives) pool.receive_bytes = 0;
  auto id = bound.stack->BindMemory(*bound.memory, pool);
  if (!id.ok()) return id.status();
  bound.id = *id;
  if (!flags.capture.empty()) {
    absl::Status s = bound.stack->StartCapture(flags.capture, kCaptureBytes);
    if (!s.ok()) return s;
  }
  return bound;
}

void Linger(Stack& stack, Stream& stream) {
  MonotonicClock clock;
  const Instant until = clock.Now() + 1_s;
  while (clock.Now() < until) {
    stack.Poll();
    auto info = stream.Info();
    if (!info.ok() || info->state == "TIME-WAIT" || info->state == "CLOSED") {
      return;
    }
  }
}

}  // namespace devwire::examples
