// Threads of the library's own.
//
// The application's signals are not theirs: a handler of the application's
// runs on a thread of the application's, and no system call here is
// interrupted by one.
#ifndef BASE_THREAD_H_
#define BASE_THREAD_H_

#include <functional>
#include <thread>

namespace devwire {

// Starts a thread in which every signal is blocked but those that a thread
// causes itself (SIGSEGV, SIGABRT...): a crash handler still sees them. The
// only place that makes threads.
std::thread StartThread(std::function<void()> run);

}  // namespace devwire

#endif  // BASE_THREAD_H_
