#include "sockets/preload/netlink_sockets.h"

#include <errno.h>
#include <linux/netlink.h>

#include <algorithm>
#include <cstring>

#include "sockets/preload/devmem_uapi.h"
#include "sockets/preload/real_libc.h"

namespace devwire::preload {
namespace {

// Beyond GENL_MAX_ID: no family of the kernel's has it.
constexpr uint16_t kOwnFamily = 1024;
// Requests for us are shorter, and so is what the kernel acknowledges with.
constexpr size_t kMostBytes = 4096;

std::vector<std::byte> Gather(const msghdr& message) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < message.msg_iovlen; ++i) {
    const auto* from =
        static_cast<const std::byte*>(message.msg_iov[i].iov_base);
    if (bytes.size() + message.msg_iov[i].iov_len > kMostBytes) return {};
    bytes.insert(bytes.end(), from, from + message.msg_iov[i].iov_len);
  }
  return bytes;
}

// As recvmsg(2) hands over a datagram of the kernel's.
ssize_t Scatter(std::span<const std::byte> bytes, msghdr* message, int flags) {
  size_t at = 0;
  for (size_t i = 0; i < message->msg_iovlen && at < bytes.size(); ++i) {
    const iovec& v = message->msg_iov[i];
    const size_t take = std::min(v.iov_len, bytes.size() - at);
    if (take > 0) memcpy(v.iov_base, bytes.data() + at, take);
    at += take;
  }
  if (message->msg_name != nullptr) {
    sockaddr_nl kernel = {};
    kernel.nl_family = AF_NETLINK;
    memcpy(message->msg_name, &kernel,
           std::min<size_t>(message->msg_namelen, sizeof(kernel)));
    message->msg_namelen = sizeof(kernel);
  }
  message->msg_controllen = 0;
  message->msg_flags = at < bytes.size() ? MSG_TRUNC : 0;
  return static_cast<ssize_t>((flags & MSG_TRUNC) != 0 ? bytes.size() : at);
}

uint32_t PortOf(int fd) {
  sockaddr_nl name = {};
  socklen_t size = sizeof(name);
  real().getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size);
  return name.nl_pid;
}

bool IsToKernel(const msghdr& message) {
  if (message.msg_name == nullptr) return true;
  sockaddr_nl to = {};
  memcpy(&to, message.msg_name,
         std::min<size_t>(message.msg_namelen, sizeof(to)));
  return to.nl_pid == 0 && to.nl_groups == 0;
}

}  // namespace

void NetlinkSockets::Add(int fd) {
  const std::lock_guard lock(mutex_);
  sockets_[fd] = std::make_shared<Socket>();
  count_ = sockets_.size();
}

void NetlinkSockets::Alias(int copy, int fd) {
  std::shared_ptr<Socket> socket = Find(fd);
  if (socket == nullptr || copy < 0) return;
  const std::lock_guard lock(mutex_);
  sockets_[copy] = std::move(socket);
  count_ = sockets_.size();
}

void NetlinkSockets::Close(int fd) {
  if (count_ == 0) return;
  std::shared_ptr<Socket> last;
  {
    const std::lock_guard lock(mutex_);
    const auto found = sockets_.find(fd);
    if (found == sockets_.end()) return;
    last = std::move(found->second);
    sockets_.erase(found);
    count_ = sockets_.size();
    for (const auto& [other, socket] : sockets_) {
      if (socket == last) return;
    }
  }
  const std::lock_guard lock(last->mutex);
  for (const uint32_t id : last->bindings) binder_.unbind(id);
}

void NetlinkSockets::CloseBetween(unsigned first, unsigned last) {
  if (count_ == 0) return;
  std::vector<int> descriptors;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [fd, socket] : sockets_) {
      const auto number = static_cast<unsigned>(fd);
      if (number >= first && number <= last) descriptors.push_back(fd);
    }
  }
  for (const int fd : descriptors) Close(fd);
}

std::shared_ptr<NetlinkSockets::Socket> NetlinkSockets::Find(int fd) {
  if (count_ == 0) return nullptr;
  const std::lock_guard lock(mutex_);
  const auto found = sockets_.find(fd);
  return found == sockets_.end() ? nullptr : found->second;
}

bool NetlinkSockets::Has(int fd) { return Find(fd) != nullptr; }

std::optional<uint16_t> NetlinkSockets::FamilyOfKernel() {
  const int fd =
      real().socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) return std::nullopt;
  const std::vector<std::byte> request = MakeFamilyRequest(1);
  std::vector<std::byte> answer(kMostBytes);
  // The kernel answers before send(2) returns.
  ssize_t got = real().send(fd, request.data(), request.size(), 0);
  if (got > 0)
    got = real().recv(fd, answer.data(), answer.size(), MSG_DONTWAIT);
  real().close(fd);
  answer.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return FamilyIn(answer);
}

bool NetlinkSockets::IsInKernel() {
  std::call_once(asked_, [&] { kernel_family_ = binder_.find_family(); });
  return kernel_family_.has_value();
}

uint16_t NetlinkSockets::Family() {
  return IsInKernel() ? *kernel_family_ : kOwnFamily;
}

std::optional<NetlinkSockets::Answer> NetlinkSockets::Handle(
    int fd, Socket& socket, std::span<const std::byte> datagram) {
  const auto request = ParseGenl(datagram);
  if (!request) return std::nullopt;
  Answer answer = {.seq = request->seq,
                   .type = request->type,
                   .wants_ack = (request->flags & NLM_F_ACK) != 0};
  if (AsksForNetdev(*request)) {
    if (IsInKernel()) return std::nullopt;
    answer.reply = MakeFamilyReply(*request, PortOf(fd), kOwnFamily);
    return answer;
  }
  const bool is_receive = request->command == kNetdevBindRx;
  if ((!is_receive && request->command != kNetdevBindTx) ||
      request->type != Family()) {
    return std::nullopt;
  }
  BindRequest bind;
  answer.error = ParseBind(*request, &bind);
  if (answer.error != 0) return answer;
  const std::optional<int64_t> bound = binder_.bind(bind, is_receive);
  if (!bound.has_value()) return std::nullopt;
  if (*bound < 0) {
    answer.error = static_cast<int>(-*bound);
    return answer;
  }
  const auto id = static_cast<uint32_t>(*bound);
  socket.bindings.push_back(id);
  answer.reply = MakeBindReply(*request, PortOf(fd), id);
  return answer;
}

ssize_t NetlinkSockets::Send(int fd, const msghdr& message, int flags) {
  const std::shared_ptr<Socket> socket = Find(fd);
  const std::vector<std::byte> datagram =
      IsToKernel(message) ? Gather(message) : std::vector<std::byte>();
  if (socket == nullptr) return real().sendmsg(fd, &message, flags);
  const std::lock_guard lock(socket->mutex);
  std::optional<Answer> answer = Handle(fd, *socket, datagram);
  if (!answer.has_value()) return real().sendmsg(fd, &message, flags);
  const auto request = *ParseGenl(datagram);
  const std::vector<std::byte> noop = MakeNoop(request);
  sockaddr_nl kernel = {};
  kernel.nl_family = AF_NETLINK;
  // The kernel acknowledges before this returns.
  if (real().sendto(fd, noop.data(), noop.size(), flags,
                    reinterpret_cast<sockaddr*>(&kernel), sizeof(kernel)) < 0) {
    return -1;
  }
  socket->answers.push_back(*std::move(answer));
  return static_cast<ssize_t>(datagram.size());
}

ssize_t NetlinkSockets::Receive(int fd, msghdr* message, int flags) {
  const std::shared_ptr<Socket> socket = Find(fd);
  if (socket == nullptr) return real().recvmsg(fd, message, flags);
  {
    const std::lock_guard lock(socket->mutex);
    if (!socket->answers.empty()) {
      const std::optional<ssize_t> result =
          Deliver(fd, *socket, message, flags);
      if (result.has_value()) return *result;
    }
  }
  return real().recvmsg(fd, message, flags);
}

std::optional<ssize_t> NetlinkSockets::Deliver(int fd, Socket& socket,
                                               msghdr* message, int flags) {
  Answer& answer = socket.answers.front();
  const uint32_t answer_seq = answer.seq;
  std::vector<std::byte> datagram(kMostBytes);
  const auto receive = [&](int more) {
    const ssize_t got =
        real().recv(fd, datagram.data(), datagram.size(), MSG_DONTWAIT | more);
    return std::span(datagram).first(got < 0 ? 0 : static_cast<size_t>(got));
  };
  const auto head = receive(MSG_PEEK);
  // Acknowledgements were lost for want of room, and our answers with them, as
  // netlink(7) says of ENOBUFS.
  if (head.empty()) socket.answers.clear();
  // Or something else of the kernel's comes first.
  if (AcknowledgedBy(head) != answer_seq) return std::nullopt;
  const bool is_peek = (flags & MSG_PEEK) != 0;
  if (!answer.reply.empty()) {
    const ssize_t result = Scatter(answer.reply, message, flags);
    if (is_peek) return result;
    answer.reply.clear();
    if (answer.wants_ack) return result;
    receive(0);
    socket.answers.pop_front();
    return result;
  }
  const auto ack = is_peek ? head : receive(0);
  RewriteAck(ack, answer.type, answer.error);
  const ssize_t result = Scatter(ack, message, flags);
  if (!is_peek) socket.answers.pop_front();
  return result;
}

}  // namespace devwire::preload
