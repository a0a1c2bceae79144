// The table of configuration keys: one row is all there is to say about a key.
//
// Threads: constant data. Cost: set-up path only.
#ifndef SOFTNIC_CONFIG_KEY_H_
#define SOFTNIC_CONFIG_KEY_H_

#include <span>
#include <string_view>

#include "softnic/config.h"

namespace softnic {

struct ConfigKey {
  const char* name;
  // Writes the value, or returns false and leaves the configuration alone.
  bool (*parse)(std::string_view value, DeviceConfig* config);
  const char* accepts;
  const char* fallback;  // the default, in words
  bool is_live;          // may change while the device is open
  const char* meaning;
};

// `dev` is the first.
std::span<const ConfigKey> ConfigKeys();

}  // namespace softnic

#endif  // SOFTNIC_CONFIG_KEY_H_
