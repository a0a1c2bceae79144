#include "base/thread.h"

#include <pthread.h>
#include <signal.h>

#include <utility>

#include "base/check.h"

namespace devwire {

std::thread StartThread(std::function<void()> run) {
  sigset_t blocked;
  sigset_t before;
  sigfillset(&blocked);
  for (const int own :
       {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) {
    sigdelset(&blocked, own);
  }
  // A thread begins with the mask of the one that makes it: so nothing can
  // arrive before the new one would have blocked it.
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &blocked, &before), 0);
  std::thread thread(std::move(run));
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &before, nullptr), 0);
  return thread;
}

}  // namespace devwire
