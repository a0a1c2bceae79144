// What socket options do to a stream of Devwire's. Values are checked and kept
// by a socket of the kernel's (KernelSocket); here they come into force.
//
// Threads:  any; the stream's rules hold.
#ifndef SOCKETS_PRELOAD_OPTION_EFFECTS_H_
#define SOCKETS_PRELOAD_OPTION_EFFECTS_H_

#include "sockets/preload/socket_options.h"
#include "sockets/stream.h"
#include "sockets/tcp_knobs.h"

namespace devwire::preload {

// Options that promise what Devwire does not do: better refused than ignored.
// A socket that has one before connect or listen stays the kernel's.
bool IsLacking(int level, int name);
bool HasLacking(const SocketOptions& set);

// What options that were not set begin with.
struct OptionDefaults {
  StreamKnobs knobs;
  KeepAliveOptions keepalive;
};

// What the application has set before connect or listen.
StreamKnobs KnobsOf(const SocketOptions& set, const OptionDefaults& defaults);

// TCP_DEFER_ACCEPT: what getsockopt(2) answers, the next of Linux's times for
// sending a SYN-ACK again; 0: not set.
Duration DeferAcceptOf(const SocketOptions& set);

// One option of a connected stream, which was just set.
void ApplyOption(const SocketOptions& set, const OptionDefaults& defaults,
                 int level, int name, Stream& stream);
// All that were set, of those that a connected stream takes.
void ApplyOptions(const SocketOptions& set, const OptionDefaults& defaults,
                  Stream& stream);

// SO_RCVTIMEO and SO_SNDTIMEO lie on the descriptor, which waits.
bool IsTimeout(int level, int name);
void ApplyTimeouts(const SocketOptions& set, int fd);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_OPTION_EFFECTS_H_
