// Any bytes are a configuration or a clear refusal, never a crash; what was
// accepted stays within its limits, and giving it again changes nothing.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "softnic/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // A file name from random bytes would read whatever file has that name.
  if (text.find('@') != std::string_view::npos) return 0;
  auto devices = softnic::ParseConfig(text);
  if (!devices.ok()) {
    CHECK(std::string(devices.status().message()).starts_with("SOFTNIC"));
    return 0;
  }
  CHECK_LE(devices->size(), softnic::kMaxDevices);
  for (const softnic::DeviceConfig& c : *devices) {
    CHECK(!c.name.empty());
    CHECK(c.mtu >= 68 && c.mtu <= 9978);
    CHECK(c.faults.loss >= 0 && c.faults.loss <= 1);
    CHECK_EQ(c.mac[0] & 1, 0);
    CHECK_GE(c.faults.delay.nanoseconds(), 0);
  }
  auto again = *devices;
  const absl::Status status = softnic::ChangeConfig(
      text, [](std::string_view) { return true; }, &again);
  CHECK(status.ok());
  for (size_t i = 0; i < again.size(); ++i) {
    again[i].faults.seed_given = (*devices)[i].faults.seed_given;
  }
  CHECK(again == *devices);
  return 0;
}
