// In steady state a segment costs no system call and no allocation: both are
// made fatal, then 64 MiB cross the cable.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

#include "base/alloc_guard.h"
#include "base/check.h"
#include "bench/cable_pair.h"

namespace devwire {
namespace {

// From here on this thread may only write and exit; anything else is SIGSYS.
// seccomp(2). The stack has no socket: recvmsg(2) is softnic's, which asks once
// a millisecond whether its peer lives when nothing comes from it.
void ForbidSystemCalls() {
  const sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_recvmsg, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = {std::size(program),
                             const_cast<sock_filter*>(program)};
  CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

constexpr uint64_t kWarmUpBytes = 64u << 20;

class SteadyStateAt : public testing::TestWithParam<uint32_t> {};

TEST_P(SteadyStateAt, NoSystemCallAndNoAllocation) {
  const uint32_t mtu = GetParam();
  // A process of its own: the filter cannot be taken off again.
  EXPECT_EXIT(
      {
        CablePair pair = OpenCablePair(mtu);
        Transfer(pair, kWarmUpBytes);
        ForbidSystemCalls();
        {
          AllocFreeze freeze;
          Transfer(pair, 64u << 20);
        }
        _exit(0);
      },
      testing::ExitedWithCode(0), "");
}

// The judge is awake: a system call does end the process.
TEST(SteadyState, AForbiddenCallIsFatal) {
  EXPECT_EXIT(
      {
        ForbidSystemCalls();
        getppid();
        _exit(0);
      },
      testing::KilledBySignal(SIGSYS), "");
}

INSTANTIATE_TEST_SUITE_P(Mtu, SteadyStateAt, testing::Values(1500, 9000));

}  // namespace
}  // namespace devwire
