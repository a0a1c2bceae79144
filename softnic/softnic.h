/* What libsoftnic.so exports besides the ibv_* symbols. Plain C: it is looked
 * up with dlsym(3) by those who may meet another verbs library.
 *
 * Threads: all calls from any thread. docs/softnic.md has the whole story. */
#ifndef SOFTNIC_SOFTNIC_H_
#define SOFTNIC_SOFTNIC_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Adds devices, and changes those that exist key by key, as the text says (the
 * same grammar as the environment variable SOFTNIC). Faults may change while a
 * device is open; what may not is refused with EBUSY and nothing changes.
 * New devices appear at the next ibv_get_device_list. Once called, SOFTNIC in
 * the environment counts no more. Returns 0 or an errno: EINVAL (see
 * softnic_last_error), EBUSY, ENOENT (no such file). NULL forgets all devices
 * that are not open and returns to the environment. */
int softnic_configure(const char* text);

/* The last refusal of softnic_configure, ibv_get_device_list or
 * ibv_open_device on this thread, in words; "" when there was none. Valid until
 * the next such call on this thread. */
const char* softnic_last_error(void);

/* Whatever a completion polled by now has announced lies in memory when this
 * returns (it matters only with the fault `late_scatter`). Returns 0. */
int softnic_make_visible(void);

/* Counters of one device since it was last opened the first time. All only
 * grow, but for `rules`. */
struct softnic_counters {
  /* Received. A frame counts in one of these; with several queue pairs
   * (rules of equal match) rx_delivered counts each. */
  uint64_t rx_delivered; /* frames that completed a receive in success */
  uint64_t rx_delivered_bytes;
  uint64_t rx_no_rule;      /* dropped: matched no rule */
  uint64_t rx_no_receive;   /* dropped: no receive was posted */
  uint64_t rx_not_ready;    /* dropped: the queue pair was not RTR or RTS */
  uint64_t rx_too_long;     /* dropped: longer than the port's MTU allows */
  uint64_t rx_foreign_mac;  /* dropped: unicast to another address */
  uint64_t rx_malformed;    /* dropped: shorter than an Ethernet header */
  uint64_t rx_link_down;    /* dropped: the link was down by fault */
  uint64_t rx_bad_checksum; /* delivered, IPv4/TCP/UDP checksum was wrong */
  uint64_t rx_errors;       /* receives that completed in error */
  /* Sent. */
  uint64_t tx_frames; /* handed to the port or looped back */
  uint64_t tx_bytes;
  uint64_t tx_looped;    /* of tx_frames, those to our own address */
  uint64_t tx_too_long;  /* dropped: longer than the port's MTU allows */
  uint64_t tx_malformed; /* dropped: shorter than an Ethernet header */
  uint64_t tx_link_down; /* lost: the link was down by fault */
  uint64_t tx_errors;    /* sends that completed in error */
  /* Bytes by the kind of memory region they landed in or came from. Payload
   * is what follows the TCP or UDP header, without Ethernet's padding. */
  uint64_t landed_host_bytes;
  uint64_t landed_dmabuf_bytes;
  uint64_t gathered_host_bytes;
  uint64_t gathered_dmabuf_bytes;
  uint64_t payload_landed_host_bytes;
  uint64_t payload_landed_dmabuf_bytes;
  uint64_t payload_gathered_host_bytes;
  uint64_t payload_gathered_dmabuf_bytes;
  uint64_t flushed;           /* work requests that ended as flushed */
  uint64_t cq_overruns;       /* completion queues that overflowed */
  uint64_t events_lost;       /* asynchronous events nobody fetched in time */
  uint64_t cq_events;         /* raised on completion channels */
  uint64_t cq_events_dropped; /* by the fault `lost_event` */
  uint64_t rules;             /* flow rules installed now */
  uint64_t late_scatters;     /* receives whose payload landed late */
  /* By the faults of the wire; frames sent, and received. */
  uint64_t wire_tx_lost;
  uint64_t wire_tx_doubled;
  uint64_t wire_tx_corrupted;
  uint64_t wire_tx_overtaken;
  uint64_t wire_rx_lost;
  uint64_t wire_rx_doubled;
  uint64_t wire_rx_corrupted;
  uint64_t wire_rx_overtaken;
};

/* Fills the first `size` bytes of *out (sizeof of the caller's struct) with the
 * counters of the device of that name. Returns 0, ENODEV, or EINVAL. */
int softnic_query_counters(const char* device, struct softnic_counters* out,
                           size_t size);

#ifdef __cplusplus
}
#endif

#endif /* SOFTNIC_SOFTNIC_H_ */
