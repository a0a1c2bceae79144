// The C ABI: setsockopt and getsockopt. The kernel's own TCP socket checks and
// keeps values (KernelSocket); what follows from them is in option_effects.h.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "sockets/errno_map.h"
#include "sockets/preload/call.h"
#include "sockets/preload/devmem_transfer.h"
#include "sockets/preload/devmem_uapi.h"
#include "sockets/preload/option_effects.h"
#include "sockets/preload/user_memory.h"

namespace devwire::preload {
namespace {

// The longest that any option takes.
constexpr socklen_t kMostOptionBytes = 4096;

// Congestion control of Linux's names; those that Devwire has.
bool HasCongestion(const std::string& name) {
  return name == "cubic" || name == "reno" || name == "dctcp";
}

int64_t SetOption(Taken& taken, int fd, int level, int name, const void* value,
                  socklen_t size) {
  if (IsLacking(level, name)) return -EOPNOTSUPP;
  // Too late: it has a name. do_ipv6_setsockopt() of Linux.
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) return -EINVAL;
  if (static_cast<int>(size) < 0) return -EINVAL;
  std::string bytes(std::min(size, kMostOptionBytes), '\0');
  if (!CopyIn(bytes.data(), value, bytes.size())) return -EFAULT;
  KernelSocket& kernel = *taken.socket->kernel();
  if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
    bytes.resize(strnlen(bytes.c_str(), bytes.size()));
    if (!HasCongestion(bytes)) return -ENOENT;
    kernel.OnSet(level, name, bytes.c_str(),
                 static_cast<socklen_t>(bytes.size() + 1));
    return 0;
  }
  if (IsTimeout(level, name)) {
    if (real().setsockopt(fd, level, name, bytes.data(), size) != 0) {
      return -errno;
    }
    kernel.OnSet(level, name, bytes.data(), size);
    return 0;
  }
  if (int64_t e = kernel.Set(level, name, bytes.data(), size); e != 0) return e;
  const std::lock_guard lock(taken.shim->mutex);
  if (Stream* const stream = taken.socket->stream(); stream != nullptr) {
    ApplyOption(kernel.options(), taken.shim->option_defaults(), level, name,
                *stream);
    taken.socket->OnOptions();
    taken.shim->Push();  // Off goes the cork, out go the bytes.
  }
  if (Listener* const listener = taken.socket->listener();
      listener != nullptr && level == IPPROTO_TCP && name == TCP_DEFER_ACCEPT) {
    (void)listener->SetDeferAccept(DeferAcceptOf(kernel.options()));
  }
  return 0;
}

// What the connection itself knows. Empty: not this option.
std::optional<std::string> OwnAnswer(Taken& taken, int level, int name) {
  TakenSocket& socket = *taken.socket;
  const auto number = [](int value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  if (level == SOL_SOCKET && name == SO_ERROR) {
    return number(socket.TakeError());
  }
  if (level == SOL_SOCKET && name == SO_ACCEPTCONN) {
    return number(socket.is_listener() ? 1 : 0);
  }
  if (level != IPPROTO_TCP) return std::nullopt;
  if (name == TCP_CONGESTION) {
    const SocketOptions set = socket.kernel()->options();
    const auto* const chosen = set.Find(level, name);
    std::string text(16, '\0');  // TCP_CA_NAME_MAX
    const std::string& own = taken.shim->config().stack.tcp.congestion;
    text.replace(0, 0,
                 chosen != nullptr  ? chosen->value.c_str()
                 : own == "newreno" ? "reno"
                                    : own.c_str());
    text.resize(16);
    return text;
  }
  if (socket.is_listener() && name == TCP_INFO) {
    TcpInfo info;
    info.tcpi_state = TCP_LISTEN;
    return std::string(reinterpret_cast<const char*>(&info), sizeof(info));
  }
  if (socket.stream() == nullptr) return std::nullopt;
  const auto info = socket.stream()->tcp_info();
  if (!info.ok()) return std::nullopt;
  if (name == TCP_MAXSEG) return number(static_cast<int>(info->tcpi_snd_mss));
  if (name != TCP_INFO) return std::nullopt;
  return std::string(reinterpret_cast<const char*>(&*info), sizeof(*info));
}

int64_t GetOption(Taken& taken, int fd, int level, int name, void* value,
                  socklen_t* size) {
  socklen_t room = 0;
  if (!CopyIn(&room, size, sizeof(room))) return -EFAULT;
  if (static_cast<int>(room) < 0) return -EINVAL;
  std::string answer;
  if (IsTimeout(level, name)) {
    return real().getsockopt(fd, level, name, value, size) == 0 ? 0 : -errno;
  }
  {
    const std::lock_guard lock(taken.shim->mutex);
    const auto own = OwnAnswer(taken, level, name);
    if (!own) return taken.socket->kernel()->Get(level, name, value, size);
    answer = *own;
  }
  room = std::min(room, static_cast<socklen_t>(answer.size()));
  return CopyOut(size, &room, sizeof(room)) &&
                 CopyOut(value, answer.data(), room)
             ? 0
             : -EFAULT;
}

}  // namespace
}  // namespace devwire::preload

using namespace devwire::preload;  // NOLINT: this file is the C ABI

extern "C" {

int setsockopt(int fd, int level, int option, const void* value,
               socklen_t size) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (taken && level == SOL_SOCKET && option == kSoDevmemDontneed) {
    return Answer(DontNeed(*taken.shim, *taken.socket, value, size));
  }
  if (taken) return Answer(SetOption(taken, fd, level, option, value, size));
  const int result = real().setsockopt(fd, level, option, value, size);
  if (result == 0 && taken.shim != nullptr) {
    if (const auto kernel = taken.shim->table.FindKernel(fd)) {
      kernel->OnSet(level, option, value, size);
    }
  }
  return result;
}
int getsockopt(int fd, int level, int option, void* value, socklen_t* size) {
  Taken taken(fd);
  if (taken.is_parents(fd)) return Answer(-EOWNERDEAD);
  if (taken) return Answer(GetOption(taken, fd, level, option, value, size));
  return real().getsockopt(fd, level, option, value, size);
}

}  // extern "C"
