// RAW_PACKET queue pairs: whole Ethernet frames in and out.
//
// Source:   ibv_create_qp_ex(3), ibv_modify_qp(3). A raw pair needs only
//           IBV_QP_PORT on the way to INIT (kernel, qp_state_table).
// Threads:  any; blocks for the device (milliseconds of firmware).
#ifndef TRANSPORT_VERBS_RAW_QP_H_
#define TRANSPORT_VERBS_RAW_QP_H_

#include <infiniband/verbs.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "transport/verbs/handles.h"

namespace devwire {

struct RawQpOptions {
  ibv_pd* pd = nullptr;
  ibv_cq* cq = nullptr;  // Of both directions.
  uint8_t port = 1;
  uint32_t send_wrs = 0;  // 0: does not send.
  uint32_t send_sges = 0;
  uint32_t recv_wrs = 0;  // 0: does not receive.
  uint32_t recv_sges = 0;
  uint16_t max_tso_header = 0;  // 0: no TSO.
  bool strip_vlan = false;
};

// Makes one and brings it to RTR, or to RTS when it sends. 0, or an errno with
// *failed_call set to what refused.
int CreateRawQp(const RawQpOptions& options, UniqueQp* qp,
                const char** failed_call);

// What such an errno means and what to do: EPERM is a missing CAP_NET_RAW.
absl::Status RawQpStatus(const std::string& device, const char* failed_call,
                         int error);

// Stops it: whatever is posted completes as flushed. 0 or an errno.
int MoveToError(ibv_qp* qp);

}  // namespace devwire

#endif  // TRANSPORT_VERBS_RAW_QP_H_
