// For tests whose other end is Linux: a user and network namespace that the
// test program makes for itself, so that nothing of the machine is touched.
// For tests only. Threads: one, and before any other is started.
#ifndef SOFTNIC_LINUX_NAMESPACE_H_
#define SOFTNIC_LINUX_NAMESPACE_H_

#include <string>

namespace softnic {

// Once per process: this program becomes root of namespaces of its own. False:
// the system forbids it (errno).
bool EnterNamespace();

// Runs a command of ip(8); true on success.
bool Shell(const std::string& command);

// Linux's counts in this namespace of bad TCP segments, and of those with bad
// checksums among them: "0 0".
std::string LinuxTcpErrors();

}  // namespace softnic

#endif  // SOFTNIC_LINUX_NAMESPACE_H_
