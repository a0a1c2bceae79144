#include "examples/dwcat_report.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "softnic/softnic.h"

namespace devwire::examples {
namespace {

constexpr Duration kStandstill = 10_s;

// softnic's counters of this device, when softnic is the NIC.
bool QuerySoftnic(const DwcatOptions& options, softnic_counters* counters) {
  std::string library = options.flags.stack.verbs_library;
  const char* from_environment = std::getenv("DEVWIRE_VERBS_LIBRARY");
  if (library.empty() && from_environment) library = from_environment;
  void* handle = dlopen(library.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (library.empty() || handle == nullptr) return false;
  auto* query = reinterpret_cast<decltype(&softnic_query_counters)>(
      dlsym(handle, "softnic_query_counters"));
  const bool found =
      query != nullptr && query(options.flags.stack.device.c_str(), counters,
                                sizeof(*counters)) == 0;
  dlclose(handle);
  return found;
}

double GigabitsPerSecond(uint64_t bytes, Duration time) {
  return time > 0_ns ? 8e-9 * static_cast<double>(bytes) / time.seconds() : 0;
}

}  // namespace

Progress::Progress(uint64_t total, bool quiet)
    : total_(total),
      quiet_(quiet),
      last_moved_(clock_.Now()),
      last_shown_(last_moved_) {}

void Progress::Start() {
  if (!started_) started_ = clock_.Now();
}

void Progress::Add(uint64_t bytes) {
  if (bytes == 0) return;
  Start();
  last_moved_ = clock_.Now();
  bytes_ += bytes;
}

bool Progress::Tick() {
  const Instant now = clock_.Now();
  if (now - last_moved_ > kStandstill) {
    std::fprintf(stderr, "dwcat: nothing moved for %.0f s\n",
                 kStandstill.seconds());
    return false;
  }
  if (quiet_ || now - last_shown_ < 1_s) return true;
  const double rate = static_cast<double>(bytes_ - shown_bytes_) /
                      (now - last_shown_).seconds();
  std::fprintf(stderr, "dwcat: %" PRIu64 " MiB, %.0f MiB/s", bytes_ >> 20,
               rate / (1 << 20));
  if (total_ > bytes_ && rate > 0) {
    std::fprintf(stderr, ", %.0f s left",
                 static_cast<double>(total_ - bytes_) / rate);
  }
  std::fputc('\n', stderr);
  last_shown_ = now;
  shown_bytes_ = bytes_;
  return true;
}

MappingWatch::MappingWatch(int fd) {
  struct stat s {};
  fstat(fd, &s);
  device_ = s.st_dev;
  inode_ = s.st_ino;
}

void MappingWatch::LookAsBytesGrow(uint64_t bytes) {
  if (bytes < next_look_bytes_) return;
  Look();
  next_look_bytes_ = 2 * bytes;
}

void MappingWatch::Look() {
  ++looks_;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned major_number = 0, minor_number = 0;
    uint64_t inode = 0;
    if (std::sscanf(line.c_str(), "%*s %*s %*s %x:%x %" SCNu64, &major_number,
                    &minor_number, &inode) == 3 &&
        inode == inode_ && makedev(major_number, minor_number) == device_) {
      ++mappings_;
    }
  }
}

void Report(const DwcatOptions& options, Stack& stack, Stream& stream,
            PoolId memory, const Progress& progress, const MappingWatch& watch,
            const Outcome& outcome) {
  const uint64_t bytes = progress.bytes();
  const Duration time = bytes > 0 ? progress.elapsed() : 0_ns;
  if (!options.json) {
    std::printf("%s %" PRIu64 " bytes in %.3f s, %.2f Gb/s%s%s\n",
                options.listen ? "received" : "sent", bytes, time.seconds(),
                GigabitsPerSecond(bytes, time),
                outcome.sha256.empty() ? "" : ", sha256 ",
                outcome.sha256.c_str());
    return;
  }
  nlohmann::json out = {
      {"role", options.listen ? "listen" : "send"},
      {"bytes", bytes},
      {"seconds", time.seconds()},
      {"gigabits_per_second", GigabitsPerSecond(bytes, time)},
      {"sha256", outcome.sha256},
      {"slots_missing", outcome.slots_missing},
      {"maps_looks", watch.looks()},
      {"maps_of_device_memory", watch.mappings()},
  };
  if (auto counters = stack.Counters(); counters.ok()) {
    out["segments_in"] = counters->segments_in;
    out["segments_out"] = counters->segments_out;
    out["device_bytes"] = counters->device_bytes;
    out["linear_bytes"] = counters->linear_bytes;
    out["retransmitted_segments"] = counters->retransmitted_segments;
    out["drops"] = nlohmann::json::object();
    for (const auto& drop : counters->drops) {
      out["drops"][drop.name] = drop.value;
    }
    for (const auto& event : counters->events) {
      out["events"][event.name] = event.value;
    }
  }
  if (auto info = stream.Info(); info.ok()) {
    out["state"] = info->state;
    out["steering"] = info->steering;
  }
  if (auto use = stack.Use(memory); use.ok()) {
    out["slots"] = use->slots;
    out["slot_bytes"] = use->slot_bytes;
    out["slot_fills"] = use->slot_fills;
    out["min_slot_fills"] = use->min_slot_fills;
  }
  softnic_counters nic{};
  if (QuerySoftnic(options, &nic)) {
    out["nic_payload_landed_host_bytes"] = nic.payload_landed_host_bytes;
    out["nic_payload_landed_device_bytes"] = nic.payload_landed_dmabuf_bytes;
    out["nic_payload_gathered_host_bytes"] = nic.payload_gathered_host_bytes;
    out["nic_payload_gathered_device_bytes"] =
        nic.payload_gathered_dmabuf_bytes;
    out["nic_frames_without_receive"] = nic.rx_no_receive;
  }
  std::printf("%s\n", out.dump().c_str());
}

}  // namespace devwire::examples
