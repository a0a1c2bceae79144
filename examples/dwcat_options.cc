#include "examples/dwcat_options.h"

#include <getopt.h>

#include <cstdio>
#include <string>
#include <string_view>

namespace devwire::examples {
namespace {

constexpr char kUsage[] =
    R"(dwcat listen ADDR:PORT -o FILE [options]   receive one stream into FILE
dwcat send   ADDR:PORT FILE    [options]   send FILE

)";
constexpr char kOwnUsage[] =
    R"(  --json               print one JSON object at the end
  --quiet              no progress
  --corrupt-at BYTE    send: flip a bit of this byte of the file on the way

Exit status: 0 transferred, 1 failed, 2 wrong usage.
)";

enum Flag { kJson = kFirstOwnFlag, kQuiet, kCorruptAt };

bool ApplyFlag(int flag, const char* value, DwcatOptions* o) {
  switch (flag) {
    case kJson:
      return o->json = true;
    case kQuiet:
      return o->quiet = true;
    case kCorruptAt:
      o->corrupt_at = ParseBytes(value);
      return o->corrupt_at.has_value();
    case 'o':
      o->file = value;
      return true;
  }
  return ApplyStackFlag(flag, value, &o->flags);
}

std::optional<DwcatOptions> Wrong(const std::string& what) {
  std::fprintf(stderr, "dwcat: %s\n\n%s%s%s", what.c_str(), kUsage,
               kStackFlagsUsage, kOwnUsage);
  return std::nullopt;
}

}  // namespace

std::optional<DwcatOptions> ParseDwcatOptions(int argc, char** argv) {
  static const std::vector<option> flags = WithStackFlags({
      {"json", no_argument, nullptr, kJson},
      {"quiet", no_argument, nullptr, kQuiet},
      {"corrupt-at", required_argument, nullptr, kCorruptAt},
  });
  DwcatOptions o;
  opterr = 0;
  int flag;
  while ((flag = getopt_long(argc, argv, "o:", flags.data(), nullptr)) != -1) {
    if (flag == '?')
      return Wrong(std::string("unknown or incomplete: ") + argv[optind - 1]);
    if (!ApplyFlag(flag, optarg, &o))
      return Wrong(std::string("wrong value: ") + optarg);
  }
  const int words = argc - optind;
  if (words < 2) return Wrong("listen or send, and ADDR:PORT, are needed");
  const std::string_view command = argv[optind];
  o.listen = command == "listen";
  if (!o.listen && command != "send")
    return Wrong(std::string("no command: ") + argv[optind]);

  auto endpoint = Endpoint::Parse(argv[optind + 1]);
  if (!endpoint)
    return Wrong(std::string("not ADDR:PORT: ") + argv[optind + 1]);
  o.endpoint = *endpoint;
  if (!o.listen && words == 3) o.file = argv[optind + 2];
  if (words > (o.listen ? 2 : 3)) return Wrong("too many words");
  if (o.file.empty()) return Wrong("no FILE");
  if (!o.flags.has_address) {
    if (!o.listen) return Wrong("send needs --address ADDR/BITS");
    o.flags.stack.address = endpoint->ip;
  }
  return o;
}

}  // namespace devwire::examples
