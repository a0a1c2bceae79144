// Owning handles of verbs objects: unique_ptrs of one pointer's size.
//
// Members of a class stand in the order of creation, so that destruction in
// reverse is right by the rules of the language.
#ifndef TRANSPORT_VERBS_HANDLES_H_
#define TRANSPORT_VERBS_HANDLES_H_

#include <infiniband/verbs.h>

#include <memory>

#include "base/check.h"
#include "memreg/verbs_library.h"

namespace devwire {

struct VerbsDelete {
  void operator()(ibv_context* p) const {
    Done(verbs().close_device(p), "ibv_close_device");
  }
  void operator()(ibv_pd* p) const {
    Done(verbs().dealloc_pd(p), "ibv_dealloc_pd");
  }
  void operator()(ibv_comp_channel* p) const {
    Done(verbs().destroy_comp_channel(p), "ibv_destroy_comp_channel");
  }
  void operator()(ibv_cq* p) const {
    Done(verbs().destroy_cq(p), "ibv_destroy_cq");
  }
  void operator()(ibv_qp* p) const {
    Done(verbs().destroy_qp(p), "ibv_destroy_qp");
  }
  void operator()(ibv_flow* p) const {
    Done(VerbsTable::DestroyFlow(p), "ibv_destroy_flow");
  }

 private:
  static void Done(int rc, const char* call) {
    CHECK(IsDestroyed(rc)) << call << ": " << rc;
  }
};

using UniqueContext = std::unique_ptr<ibv_context, VerbsDelete>;
using UniquePd = std::unique_ptr<ibv_pd, VerbsDelete>;
using UniqueChannel = std::unique_ptr<ibv_comp_channel, VerbsDelete>;
using UniqueCq = std::unique_ptr<ibv_cq, VerbsDelete>;
using UniqueQp = std::unique_ptr<ibv_qp, VerbsDelete>;
using UniqueFlow = std::unique_ptr<ibv_flow, VerbsDelete>;
static_assert(sizeof(UniqueQp) == sizeof(ibv_qp*));

}  // namespace devwire

#endif  // TRANSPORT_VERBS_HANDLES_H_
