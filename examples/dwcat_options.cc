#include "examples/dwcat_options.h"

#include <getopt.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace devwire::examples {
namespace {

constexpr char kUsage[] =
    R"(dwcat listen ADDR:PORT -o FILE [options]   receive one stream into FILE
dwcat send   ADDR:PORT FILE    [options]   send FILE

  --address ADDR/BITS  our own address (listen: taken from ADDR, /24)
  --gateway ADDR       where addresses beyond BITS are reached
  --device NAME        the verbs device; needed when there are several
  --verbs-library PATH libibverbs-ABI object (or DEVWIRE_VERBS_LIBRARY)
  --mtu BYTES          longest IP packet (the port's)
  --slot-bytes BYTES   receive slot (the smallest usual one that fits the MTU)
  --pool-bytes BYTES   device memory to use (64M); K, M, G are understood
  --memory NAME        provider of device memory: memfd
  --capture FILE       write headers and drop reasons as pcapng
  --json               print one JSON object at the end
  --quiet              no progress
  --corrupt-at BYTE    send: flip a bit of this byte of the file on the way

Exit status: 0 transferred, 1 failed, 2 wrong usage.
)";

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
  kJson,
  kQuiet,
  kCorruptAt,
  kHelp,
};

constexpr option kFlags[] = {
    {"address", required_argument, nullptr, kAddress},
    {"gateway", required_argument, nullptr, kGateway},
    {"device", required_argument, nullptr, kDevice},
    {"verbs-library", required_argument, nullptr, kVerbsLibrary},
    {"mtu", required_argument, nullptr, kMtu},
    {"slot-bytes", required_argument, nullptr, kSlotBytes},
    {"pool-bytes", required_argument, nullptr, kPoolBytes},
    {"memory", required_argument, nullptr, kMemory},
    {"capture", required_argument, nullptr, kCapture},
    {"json", no_argument, nullptr, kJson},
    {"quiet", no_argument, nullptr, kQuiet},
    {"corrupt-at", required_argument, nullptr, kCorruptAt},
    {"help", no_argument, nullptr, kHelp},
    {},
};

bool ParseBytes(std::string_view text, uint64_t* bytes) {
  const char* end = text.data() + text.size();
  auto [p, ec] = std::from_chars(text.data(), end, *bytes);
  if (ec != std::errc()) return false;
  const std::string_view unit(p, static_cast<size_t>(end - p));
  if (unit == "K") *bytes <<= 10;
  if (unit == "M") *bytes <<= 20;
  if (unit == "G") *bytes <<= 30;
  return unit.empty() || unit == "K" || unit == "M" || unit == "G";
}

bool ParseBytes32(std::string_view text, uint32_t* bytes) {
  uint64_t wide = 0;
  if (!ParseBytes(text, &wide) || wide > UINT32_MAX) return false;
  *bytes = static_cast<uint32_t>(wide);
  return true;
}

// "10.0.0.1/24"
bool ParsePrefix(std::string_view text, StackOptions* stack) {
  const size_t slash = text.find('/');
  auto ip = IpAddress::Parse(text.substr(0, slash));
  uint64_t bits = 0;
  if (!ip || slash == std::string_view::npos ||
      !ParseBytes(text.substr(slash + 1), &bits) ||
      bits > (ip->is_v4() ? 32u : 128u)) {
    return false;
  }
  stack->address = *ip;
  stack->prefix_bits = static_cast<uint8_t>(bits);
  return true;
}

bool ApplyFlag(int flag, const char* value, DwcatOptions* o) {
  switch (flag) {
    case kAddress:
      return ParsePrefix(value, &o->stack);
    case kGateway:
      o->stack.gateway = IpAddress::Parse(value);
      return o->stack.gateway.has_value();
    case kDevice:
      o->stack.device = value;
      return true;
    case kVerbsLibrary:
      o->stack.verbs_library = value;
      return true;
    case kMtu:
      return ParseBytes32(value, &o->stack.mtu) && o->stack.mtu >= 576;
    case kSlotBytes:
      return ParseBytes32(value, &o->slot_bytes) && o->slot_bytes > 0;
    case kPoolBytes:
      return ParseBytes(value, &o->pool_bytes) && o->pool_bytes > 0;
    case kMemory:
      o->memory = value;
      return o->memory == "memfd";
    case kCapture:
      o->capture = value;
      return true;
    case kJson:
      return o->json = true;
    case kQuiet:
      return o->quiet = true;
    case kCorruptAt:
      return ParseBytes(value, &o->corrupt_at.emplace());
    case 'o':
      o->file = value;
      return true;
  }
  return false;
}

std::optional<DwcatOptions> Wrong(const char* what, const char* value) {
  std::fprintf(stderr, "dwcat: %s%s%s\n\n%s", what, *value ? ": " : "", value,
               kUsage);
  return std::nullopt;
}

}  // namespace

std::optional<DwcatOptions> ParseDwcatOptions(int argc, char** argv) {
  DwcatOptions o;
  bool has_address = false;
  int index = 0;
  opterr = 0;
  for (int flag;
       (flag = getopt_long(argc, argv, "o:", kFlags, &index)) != -1;) {
    if (flag == '?') return Wrong("unknown option", argv[optind - 1]);
    if (flag == kHelp) return Wrong("help", "");
    if (!ApplyFlag(flag, optarg, &o)) {
      return Wrong(kFlags[index].name, optarg);
    }
    has_address = has_address || flag == kAddress;
  }
  const int words = argc - optind;
  if (words < 2) return Wrong("listen or send, and ADDR:PORT, are needed", "");
  const std::string_view command = argv[optind];
  o.listen = command == "listen";
  if (!o.listen && command != "send") return Wrong("command", argv[optind]);

  auto endpoint = Endpoint::Parse(argv[optind + 1]);
  if (!endpoint) return Wrong("not ADDR:PORT", argv[optind + 1]);
  o.endpoint = *endpoint;
  if (!o.listen && words == 3) o.file = argv[optind + 2];
  if (words > (o.listen ? 2 : 3)) return Wrong("too many words", "");
  if (o.file.empty()) return Wrong("no FILE", "");
  if (!has_address) {
    if (!o.listen) return Wrong("send needs --address ADDR/BITS", "");
    o.stack.address = endpoint->ip;
  }
  return o;
}

}  // namespace devwire::examples
