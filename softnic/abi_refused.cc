// Verbs that this device does not have. Each answers with the errno of a
// provider that lacks it, and none pretends.
#include <cerrno>

#include "softnic/front.h"

using namespace softnic;  // NOLINT: this file is the C ABI

extern "C" {

// Address handles belong to UD queue pairs.
ibv_ah* ibv_create_ah(ibv_pd*, ibv_ah_attr*) { return Fail(EOPNOTSUPP); }
int ibv_init_ah_from_wc(ibv_context*, uint8_t, ibv_wc*, ibv_grh*,
                        ibv_ah_attr*) {
  errno = EOPNOTSUPP;
  return -1;
}
ibv_ah* ibv_create_ah_from_wc(ibv_pd*, ibv_wc*, ibv_grh*, uint8_t) {
  return Fail(EOPNOTSUPP);
}
int ibv_destroy_ah(ibv_ah*) { return EINVAL; }
int ibv_resolve_eth_l2_from_gid(ibv_context*, ibv_ah_attr*, uint8_t[6],
                                uint16_t*) {
  errno = EOPNOTSUPP;
  return -1;
}

// Multicast membership is for UD; raw queue pairs use flow rules.
int ibv_attach_mcast(ibv_qp*, const ibv_gid*, uint16_t) { return EINVAL; }
int ibv_detach_mcast(ibv_qp*, const ibv_gid*, uint16_t) { return EINVAL; }

// Shared receive queues do not go with RAW_PACKET.
ibv_srq* ibv_create_srq(ibv_pd*, ibv_srq_init_attr*) {
  return Fail(EOPNOTSUPP);
}
int ibv_modify_srq(ibv_srq*, ibv_srq_attr*, int) { return EOPNOTSUPP; }
int ibv_query_srq(ibv_srq*, ibv_srq_attr*) { return EOPNOTSUPP; }
int ibv_destroy_srq(ibv_srq*) { return EINVAL; }

// Handles of another process.
ibv_context* ibv_import_device(int) { return Fail(EOPNOTSUPP); }
ibv_pd* ibv_import_pd(ibv_context*, uint32_t) { return Fail(EOPNOTSUPP); }
void ibv_unimport_pd(ibv_pd*) {}
ibv_mr* ibv_import_mr(ibv_pd*, uint32_t) { return Fail(EOPNOTSUPP); }
void ibv_unimport_mr(ibv_mr*) {}
ibv_dm* ibv_import_dm(ibv_context*, uint32_t) { return Fail(EOPNOTSUPP); }
void ibv_unimport_dm(ibv_dm*) {}

// Enhanced connection establishment is for connected queue pairs.
int ibv_set_ece(ibv_qp*, ibv_ece*) { return EOPNOTSUPP; }
int ibv_query_ece(ibv_qp*, ibv_ece*) { return EOPNOTSUPP; }

// Nothing of ours minds a fork: queues are shared or private as any memory.
int ibv_fork_init(void) { return 0; }
ibv_fork_status ibv_is_fork_initialized(void) { return IBV_FORK_UNNEEDED; }
int ibv_dontfork_range(void*, size_t) { return 0; }
int ibv_dofork_range(void*, size_t) { return 0; }

// There is no sysfs behind our devices.
int ibv_read_sysfs_file(const char*, const char*, char*, size_t) {
  errno = ENOENT;
  return -1;
}
int ibv_read_ibdev_sysfs_file(char*, size_t, ibv_device*, const char*, ...) {
  errno = ENOENT;
  return -1;
}
const char* ibv_get_sysfs_path(void) { return "/sys"; }

}  // extern "C"
