#include "softnic/counter_file.h"

#include <cstdint>
#include <cstdio>

#include "softnic/softnic.h"

namespace softnic {
namespace {

struct Row {
  const char* name;
  devwire::Counter DeviceShared::*counter;
};

#define SOFTNIC_ROW(name) \
  { #name, &DeviceShared::name }
constexpr Row kRows[] = {
    SOFTNIC_ROW(rx_delivered),
    SOFTNIC_ROW(rx_delivered_bytes),
    SOFTNIC_ROW(rx_no_rule),
    SOFTNIC_ROW(rx_no_receive),
    SOFTNIC_ROW(rx_not_ready),
    SOFTNIC_ROW(rx_too_long),
    SOFTNIC_ROW(rx_foreign_mac),
    SOFTNIC_ROW(rx_malformed),
    SOFTNIC_ROW(rx_link_down),
    SOFTNIC_ROW(rx_bad_checksum),
    SOFTNIC_ROW(rx_errors),
    SOFTNIC_ROW(tx_frames),
    SOFTNIC_ROW(tx_bytes),
    SOFTNIC_ROW(tx_looped),
    SOFTNIC_ROW(tx_too_long),
    SOFTNIC_ROW(tx_malformed),
    SOFTNIC_ROW(tx_link_down),
    SOFTNIC_ROW(tx_errors),
    SOFTNIC_ROW(landed_host_bytes),
    SOFTNIC_ROW(landed_dmabuf_bytes),
    SOFTNIC_ROW(gathered_host_bytes),
    SOFTNIC_ROW(gathered_dmabuf_bytes),
    SOFTNIC_ROW(payload_landed_host_bytes),
    SOFTNIC_ROW(payload_landed_dmabuf_bytes),
    SOFTNIC_ROW(payload_gathered_host_bytes),
    SOFTNIC_ROW(payload_gathered_dmabuf_bytes),
    SOFTNIC_ROW(flushed),
    SOFTNIC_ROW(cq_overruns),
    SOFTNIC_ROW(events_lost),
    SOFTNIC_ROW(late_scatters),
};
#undef SOFTNIC_ROW
// Every counter of softnic.h has a row; `rules` is the one that also falls.
static_assert(sizeof(kRows) / sizeof(Row) + 1 ==
              sizeof(softnic_counters) / sizeof(uint64_t));

}  // namespace

void CounterFile::OnProgress(devwire::Instant now) {
  if (now < due_) return;
  due_ = now + kPeriod;
  Write();
}

bool CounterFile::Write() {
  const std::string temporary = path_ + ".new";
  FILE* file = fopen(temporary.c_str(), "we");
  if (file == nullptr) return false;
  for (const Row& row : kRows) {
    fprintf(file, "%s %llu\n", row.name,
            static_cast<unsigned long long>((shared_->*row.counter).value()));
  }
  fprintf(file, "rules %llu\n",
          static_cast<unsigned long long>(
              shared_->rules.load(std::memory_order_relaxed)));
  if (fclose(file) != 0) return false;
  return rename(temporary.c_str(), path_.c_str()) == 0;
}

}  // namespace softnic
