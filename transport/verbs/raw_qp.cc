#include "transport/verbs/raw_qp.h"

#include <errno.h>

#include "absl/strings/str_format.h"
#include "memreg/verbs_library.h"

namespace devwire {
namespace {

int Move(ibv_qp* qp, ibv_qp_state to, uint8_t port) {
  ibv_qp_attr attr = {};
  attr.qp_state = to;
  attr.port_num = port;
  const int mask =
      to == IBV_QPS_INIT ? IBV_QP_STATE | IBV_QP_PORT : IBV_QP_STATE;
  return verbs().modify_qp(qp, &attr, mask);
}

ibv_qp* Create(const RawQpOptions& options) {
  ibv_qp_init_attr_ex attr = {};
  attr.send_cq = options.cq;
  attr.recv_cq = options.cq;
  attr.qp_type = IBV_QPT_RAW_PACKET;
  attr.cap.max_send_wr = options.send_wrs;
  attr.cap.max_send_sge = options.send_sges;
  attr.cap.max_recv_wr = options.recv_wrs;
  attr.cap.max_recv_sge = options.recv_sges;
  attr.comp_mask = IBV_QP_INIT_ATTR_PD;
  attr.pd = options.pd;
  if (options.max_tso_header > 0) {
    attr.comp_mask |= IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
    attr.max_tso_header = options.max_tso_header;
  }
  if (options.strip_vlan && options.recv_wrs > 0) {
    attr.comp_mask |= IBV_QP_INIT_ATTR_CREATE_FLAGS;
    attr.create_flags |= IBV_QP_CREATE_CVLAN_STRIPPING;
  }
  errno = 0;
  if (attr.comp_mask != IBV_QP_INIT_ATTR_PD) {
    return VerbsTable::CreateQpEx(options.pd->context, &attr);
  }
  // A provider need not have create_qp_ex for the plain case.
  ibv_qp_init_attr plain = {};
  plain.send_cq = attr.send_cq;
  plain.recv_cq = attr.recv_cq;
  plain.cap = attr.cap;
  plain.qp_type = attr.qp_type;
  return verbs().create_qp(options.pd, &plain);
}

}  // namespace

int CreateRawQp(const RawQpOptions& options, UniqueQp* qp,
                const char** failed_call) {
  *failed_call = "ibv_create_qp";
  UniqueQp made(Create(options));
  if (made == nullptr) return errno != 0 ? errno : EINVAL;
  *failed_call = "ibv_modify_qp to INIT";
  if (int e = Move(made.get(), IBV_QPS_INIT, options.port)) return e;
  *failed_call = "ibv_modify_qp to RTR";
  if (int e = Move(made.get(), IBV_QPS_RTR, options.port)) return e;
  if (options.send_wrs > 0) {
    *failed_call = "ibv_modify_qp to RTS";
    if (int e = Move(made.get(), IBV_QPS_RTS, options.port)) return e;
  }
  *qp = std::move(made);
  *failed_call = nullptr;
  return 0;
}

absl::Status RawQpStatus(const std::string& device, const char* failed_call,
                         int error) {
  const std::string what =
      absl::StrFormat("%s: %s of a raw packet queue: %s", device, failed_call,
                      VerbsErrorText(error));
  switch (error) {
    case EPERM:
    case EACCES:
      return absl::PermissionDeniedError(
          what +
          ". It needs CAP_NET_RAW: run as root, or setcap cap_net_raw=ep on "
          "the program (before Linux 6.17 not inside a user namespace)");
    case EOPNOTSUPP:
    case ENOSYS:
      return absl::UnimplementedError(
          what +
          ". The device has no raw packet queues; mlx5, mlx4, mana and newer "
          "bnxt_re have");
    case ENOMEM:
      return absl::ResourceExhaustedError(
          what + ". Ask for shorter rings, or raise ulimit -l");
    default:
      return absl::InternalError(what);
  }
}

int MoveToError(ibv_qp* qp) { return Move(qp, IBV_QPS_ERR, 0); }

}  // namespace devwire
