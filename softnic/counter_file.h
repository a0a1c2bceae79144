// Keeps a device's counters in a file, for programs that cannot ask
// softnic_query_counters: one `name value` a line, names as in softnic.h.
//
// The file is replaced as a whole, so that a reader never sees half of it.
//
// Threads:  as the device core: one at a time.
// Cost:     OnProgress compares two times; a write makes a few system calls,
//           ten times a second at most.
// Errors:   a file that cannot be written is left alone.
#ifndef SOFTNIC_COUNTER_FILE_H_
#define SOFTNIC_COUNTER_FILE_H_

#include <string>

#include "base/time.h"
#include "softnic/queue_layout.h"

namespace softnic {

class CounterFile {
 public:
  static constexpr devwire::Duration kPeriod =
      devwire::Duration::Nanoseconds(100'000'000);

  // `shared` outlives this. An empty path: nothing is ever written.
  CounterFile(const std::string& path, const DeviceShared* shared)
      : path_(path), shared_(shared) {}

  bool is_wanted() const { return !path_.empty(); }
  // Writes if the last time was kPeriod ago.
  void OnProgress(devwire::Instant now);
  // False: it could not.
  bool Write();

 private:
  const std::string path_;
  const DeviceShared* const shared_;
  devwire::Instant due_;
};

}  // namespace softnic

#endif  // SOFTNIC_COUNTER_FILE_H_
