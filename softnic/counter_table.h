// The one list of counters: what softnic.h calls each, and where it lives.
#ifndef SOFTNIC_COUNTER_TABLE_H_
#define SOFTNIC_COUNTER_TABLE_H_

#include "softnic/queue_layout.h"
#include "softnic/softnic.h"

namespace softnic {

struct CounterRow {
  const char* name;
  devwire::Counter DeviceShared::*source;
  uint64_t softnic_counters::*shown;
};

#define SOFTNIC_ROW(name) \
  { #name, &DeviceShared::name, &softnic_counters::name }
inline constexpr CounterRow kCounterRows[] = {
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
    SOFTNIC_ROW(cq_events),
    SOFTNIC_ROW(cq_events_dropped),
    SOFTNIC_ROW(late_scatters),
    SOFTNIC_ROW(wire_tx_lost),
    SOFTNIC_ROW(wire_tx_doubled),
    SOFTNIC_ROW(wire_tx_corrupted),
    SOFTNIC_ROW(wire_tx_overtaken),
    SOFTNIC_ROW(wire_rx_lost),
    SOFTNIC_ROW(wire_rx_doubled),
    SOFTNIC_ROW(wire_rx_corrupted),
    SOFTNIC_ROW(wire_rx_overtaken),
};
#undef SOFTNIC_ROW
// Every counter of softnic.h has a row; `rules` is the one that also falls.
static_assert(sizeof(kCounterRows) / sizeof(CounterRow) + 1 ==
              sizeof(softnic_counters) / sizeof(uint64_t));

}  // namespace softnic

#endif  // SOFTNIC_COUNTER_TABLE_H_
