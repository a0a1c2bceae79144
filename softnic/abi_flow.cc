// Flow steering: ibv_create_flow(3). On a card each rule is a command to the
// firmware, which takes its time: `rule_latency_us`.
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "softnic/front.h"

namespace softnic {
namespace {

// The caller waits, as it would for the firmware; others go on.
void WaitForFirmware(FrontDevice* device) {
  int64_t ns = 0;
  {
    const std::lock_guard<std::mutex> lock(device->mutex);
    ns = device->config.rule_latency.nanoseconds();
  }
  if (ns <= 0) return;
  timespec left = {ns / 1'000'000'000, ns % 1'000'000'000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

}  // namespace

bool HasCapNetRaw() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  return (data[CAP_TO_INDEX(CAP_NET_RAW)].effective &
          CAP_TO_MASK(CAP_NET_RAW)) != 0;
}

ibv_flow* CreateFlow(ibv_qp* handle, ibv_flow_attr* attr) {
  FrontQp* qp = QpOf(handle);
  FrontDevice* device = qp->device;
  if (attr->port != 1) return Fail(EINVAL);
  Command command;
  command.op = Op::kCreateFlow;
  {
    const std::lock_guard<std::mutex> lock(device->mutex);
    if (device->config.require_cap_net_raw && !HasCapNetRaw()) {
      return Fail(EPERM);
    }
    const int error = TranslateFlow(
        *attr, device->config.profile == Profile::kFull, &command.flow);
    if (error != 0) return Fail(error);
  }
  WaitForFirmware(device);
  command.flow.qp_num = qp->number;
  const std::lock_guard<std::mutex> lock(device->mutex);
  const Reply reply = qp->backend->Execute(command, -1);
  if (reply.error != 0) return Fail(reply.error);
  auto* flow = new FrontFlow;
  flow->device = device;
  flow->base.context = handle->context;
  flow->base.handle = reply.object;
  return &flow->base;
}

int DestroyFlow(ibv_flow* handle) {
  FrontFlow* flow = FlowOf(handle);
  WaitForFirmware(flow->device);
  int error = 0;
  {
    const std::lock_guard<std::mutex> lock(flow->device->mutex);
    Command command;
    command.op = Op::kDestroyFlow;
    command.object = handle->handle;
    error = flow->device->backend->Execute(command, -1).error;
    if (!IsDestroyed(error)) return error;
  }
  delete flow;
  return error;
}

}  // namespace softnic
