// What the front end asks of the device core apart from the data path: plain
// bytes, so that they may cross a process boundary. At most one file descriptor
// goes along (RegisterMr: the dmabuf; OpenContext and OpenChannel: the eventfd
// of their events).
#ifndef SOFTNIC_COMMAND_H_
#define SOFTNIC_COMMAND_H_

#include <cstdint>

#include "softnic/completion_queue.h"
#include "softnic/flow_table.h"
#include "softnic/mr_table.h"
#include "softnic/queue_layout.h"
#include "softnic/queue_pair.h"

namespace softnic {

enum class Op : uint32_t {
  kOpenContext,   // events_at -> object
  kCloseContext,  // object
  kOpenChannel,   // events_at -> object
  kCloseChannel,  // object
  kCreateCq,      // cq -> object
  kDestroyCq,     // object
  kCreateQp,      // qp -> object
  kModifyQp,      // object, state
  kQueryQp,       // object -> value: ibv_qp_state
  kDestroyQp,     // object
  kRegisterMr,    // mr, and a descriptor when it is a dmabuf -> object: lkey
  kDeregisterMr,  // object
  kCreateFlow,    // flow -> object
  kDestroyFlow,   // object
  kQueryPort,     // -> value: the link is up
  kConfigure,     // text_bytes of text follow
  kMakeVisible,
};

struct Command {
  Op op = Op::kQueryPort;
  uint32_t object = 0;
  uint32_t state = 0;
  uint32_t text_bytes = 0;
  uint64_t events_at = 0;  // EventRing
  CqSpec cq;
  QpSpec qp;
  MrSpec mr;
  FlowRule flow;
};

struct Reply {
  int32_t error = 0;  // errno
  uint32_t object = 0;
  uint32_t value = 0;
  char message[192] = {};  // why, when `error` alone does not tell
};

}  // namespace softnic

#endif  // SOFTNIC_COMMAND_H_
