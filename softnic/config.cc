#include "softnic/config.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "softnic/config_key.h"

namespace softnic {
namespace {

// Debian's Abseil has a string_view of its own, so its string functions do not
// take std's: these few do.
std::string Cat(std::initializer_list<std::string_view> parts) {
  std::string out;
  for (std::string_view part : parts) out += part;
  return out;
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// What stands before the next separator; `rest` keeps what stands behind it.
std::string_view Cut(std::string_view* rest, char separator) {
  const size_t at = rest->find(separator);
  const std::string_view part = rest->substr(0, at);
  rest->remove_prefix(at == std::string_view::npos ? rest->size() : at + 1);
  return part;
}

absl::Status Invalid(std::initializer_list<std::string_view> parts) {
  return absl::InvalidArgumentError("SOFTNIC " + Cat(parts));
}

// What a message shows of text that may be long or hold anything.
std::string Shown(std::string_view text) {
  constexpr size_t kMaxShown = 60;
  std::string out = "\"";
  for (char c : text.substr(0, kMaxShown)) {
    char shown[8] = {c};
    if (c < ' ' || c > '~') {
      snprintf(shown, sizeof(shown), "\\x%02x", static_cast<uint8_t>(c));
    }
    out += shown;
  }
  return out + (text.size() > kMaxShown ? "...\"" : "\"");
}

const ConfigKey* Find(std::string_view name) {
  for (const ConfigKey& key : ConfigKeys()) {
    if (name == key.name) return &key;
  }
  return nullptr;
}

// Levenshtein distance; both words are short.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row[b.size()];
}

absl::Status UnknownKey(std::string_view where, std::string_view name) {
  constexpr size_t kTooFar = 3;  // A word further off is no misspelling.
  std::string all;
  std::string perhaps;
  size_t nearest = kTooFar;
  for (const ConfigKey& key : ConfigKeys()) {
    all += Cat({all.empty() ? "" : " ", key.name});
    if (name.empty() || name.size() > 40) continue;
    const size_t distance = Distance(name, key.name);
    if (distance >= nearest) continue;
    nearest = distance;
    perhaps = Cat({", perhaps ", key.name});
  }
  return Invalid(
      {where, ": unknown key ", Shown(name), perhaps, "; keys are: ", all});
}

struct Entry {
  const ConfigKey* key;
  std::string value;
};

// One device as written, before it meets values that exist already.
struct Block {
  std::string name;
  std::vector<Entry> entries;  // without `dev`
};

// `text` is what stands between two separators; all space is no device.
absl::StatusOr<Block> ParseBlock(std::string_view text, size_t number) {
  Block block;
  std::string where = "device " + std::to_string(number);
  std::set<const ConfigKey*> seen;
  DeviceConfig scratch;
  while (!text.empty()) {
    const std::string_view part = Trim(Cut(&text, ','));
    if (part.empty()) continue;
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos) {
      return Invalid({where, ": ", Shown(part), " is not KEY=VALUE"});
    }
    const std::string_view name = Trim(part.substr(0, equals));
    const std::string_view value = Trim(part.substr(equals + 1));
    const ConfigKey* key = Find(name);
    if (key == nullptr) return UnknownKey(where, name);
    const std::string given = Cat({name, "=", Shown(value)});
    const bool is_dev = key == &ConfigKeys().front();
    if (seen.empty() && !is_dev) {
      return Invalid(
          {where, ": begins with ", given, "; dev=NAME must come first"});
    }
    if (!seen.insert(key).second) {
      return Invalid({where, ": ", name, " is given twice, again as ", given});
    }
    if (!key->parse(value, &scratch)) {
      return Invalid({where, ": ", given, "; accepted is ", key->accepts});
    }
    if (is_dev) {
      block.name = value;
      where = Cat({"device ", value});
    } else {
      block.entries.push_back({key, std::string(value)});
    }
  }
  return block;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "re"), fclose);
  std::string text;
  if (file != nullptr) {
    text.resize(kMaxConfigBytes + 1);
    text.resize(fread(text.data(), 1, text.size(), file.get()));
  }
  if (file == nullptr || ferror(file.get()) != 0) {
    return absl::NotFoundError(
        Cat({"SOFTNIC=@", path, ": cannot read it: ", strerror(errno)}));
  }
  return text;
}

// The text itself or the file's, in blocks of one device.
absl::StatusOr<std::vector<Block>> ParseBlocks(std::string_view text) {
  std::string file_text;
  text = Trim(text);
  const bool is_from_file = text.starts_with('@');
  if (is_from_file) {
    absl::StatusOr<std::string> read = ReadFile(std::string(text.substr(1)));
    if (!read.ok()) return read.status();
    file_text = *std::move(read);
    text = file_text;
  }
  if (text.size() > kMaxConfigBytes) {
    return Invalid({"is too long; accepted are up to ",
                    std::to_string(kMaxConfigBytes), " bytes"});
  }
  std::vector<Block> blocks;
  while (!text.empty()) {
    std::string_view line = Cut(&text, '\n');
    if (is_from_file) line = line.substr(0, line.find('#'));
    while (!line.empty()) {
      absl::StatusOr<Block> block =
          ParseBlock(Cut(&line, ';'), blocks.size() + 1);
      if (!block.ok()) return block.status();
      if (!block->name.empty()) blocks.push_back(*std::move(block));
    }
  }
  if (blocks.size() > kMaxDevices) {
    return Invalid({"has ", std::to_string(blocks.size()),
                    " devices; accepted are up to ",
                    std::to_string(kMaxDevices)});
  }
  return blocks;
}

MacAddress MacFromName(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (char c : name) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  MacAddress mac = {0x02};  // locally administered, IEEE 802 8.4
  for (size_t i = 1; i < mac.size(); ++i) {
    mac[i] = static_cast<uint8_t>(hash >> (8 * i));
  }
  return mac;
}

void Apply(const Block& block, DeviceConfig* config) {
  config->name = block.name;
  config->mac = MacFromName(block.name);
  for (const Entry& entry : block.entries) {
    entry.key->parse(entry.value, config);  // ParseBlock saw it succeed.
  }
}

// The key of `a` whose value `b` has already, where they must differ.
std::string Taken(const DeviceConfig& a, const DeviceConfig& b) {
  if (a.name == b.name) return "dev=" + a.name;
  if (a.mac == b.mac) return "mac=" + MacToString(a.mac);
  const bool both_tap = a.port == PortKind::kTap && b.port == PortKind::kTap;
  if (both_tap && a.port_path == b.port_path) return "port=tap:" + a.port_path;
  return {};
}

// Claims about several keys or devices at once.
absl::Status CheckTogether(const std::vector<DeviceConfig>& devices) {
  std::map<std::string, int> ends_of_cable;
  for (size_t i = 0; i < devices.size(); ++i) {
    const DeviceConfig& a = devices[i];
    if (a.vnet && a.port != PortKind::kTap) {
      return Invalid({"device ", a.name,
                      ": vnet=\"1\" without port=tap:NAME; accepted is 0"});
    }
    if (a.port == PortKind::kShm && ++ends_of_cable[a.port_path] > 2) {
      return Invalid(
          {"device ", a.name, ": port=shm:", a.port_path,
           " is taken; accepted is a cable with a free end, of two"});
    }
    for (size_t j = 0; j < i; ++j) {
      const std::string taken = Taken(a, devices[j]);
      if (taken.empty()) continue;
      return Invalid({"device ", a.name, ": ", taken, " is taken by device ",
                      devices[j].name,
                      "; accepted is one that no other device has"});
    }
  }
  return absl::OkStatus();
}

// Gives the entries to a device that exists.
absl::Status ChangeOne(const Block& block, bool is_open, DeviceConfig* config) {
  for (const Entry& entry : block.entries) {
    DeviceConfig next = *config;
    entry.key->parse(entry.value, &next);  // ParseBlock saw it succeed.
    if (is_open && !entry.key->is_live && next != *config) {
      return absl::FailedPreconditionError(
          Cat({"SOFTNIC device ", block.name, ": ", entry.key->name, "=",
               Shown(entry.value),
               " cannot change while the device is open; close it first"}));
    }
    *config = std::move(next);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<DeviceConfig>> ParseConfig(std::string_view text) {
  absl::StatusOr<std::vector<Block>> blocks = ParseBlocks(text);
  if (!blocks.ok()) return blocks.status();
  std::vector<DeviceConfig> devices;
  for (const Block& block : *blocks) Apply(block, &devices.emplace_back());
  absl::Status together = CheckTogether(devices);
  if (!together.ok()) return together;
  return devices;
}

absl::Status ChangeConfig(std::string_view text,
                          const std::function<bool(std::string_view)>& is_open,
                          std::vector<DeviceConfig>* devices) {
  absl::StatusOr<std::vector<Block>> blocks = ParseBlocks(text);
  if (!blocks.ok()) return blocks.status();
  std::vector<DeviceConfig> changed = *devices;
  std::set<std::string_view> seen;
  for (const Block& block : *blocks) {
    if (!seen.insert(block.name).second) {
      return Invalid({"device ", block.name, ": dev=", block.name,
                      " is given twice; accepted is each device once"});
    }
    auto it = std::find_if(
        changed.begin(), changed.end(),
        [&](const DeviceConfig& c) { return c.name == block.name; });
    if (it == changed.end()) {
      Apply(block, &changed.emplace_back());
      continue;
    }
    absl::Status one = ChangeOne(block, is_open(block.name), &*it);
    if (!one.ok()) return one;
  }
  absl::Status together = CheckTogether(changed);
  if (!together.ok()) return together;
  if (changed.size() > kMaxDevices) {
    return Invalid({"has ", std::to_string(changed.size()),
                    " devices; accepted are up to ",
                    std::to_string(kMaxDevices)});
  }
  *devices = std::move(changed);
  return absl::OkStatus();
}

std::string ConfigHelp() {
  std::string out =
      "| key | what is accepted | default | while open | meaning |\n"
      "|---|---|---|---|---|\n";
  for (const ConfigKey& key : ConfigKeys()) {
    out += Cat({"| `", key.name, "` | ", key.accepts, " | ", key.fallback,
                " | ", key.is_live ? "yes" : "no", " | ", key.meaning, " |\n"});
  }
  return out;
}

std::string MacToString(const MacAddress& mac) {
  char text[18];
  snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1],
           mac[2], mac[3], mac[4], mac[5]);
  return text;
}

}  // namespace softnic
