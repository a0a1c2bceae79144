#include "sockets/preload/devmem_netlink.h"

#include <linux/genetlink.h>
#include <linux/netlink.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "sockets/preload/devmem_uapi.h"

namespace devwire::preload {
namespace {

using Bytes = std::span<const std::byte>;

template <typename T>
std::optional<T> Read(Bytes bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value;
  memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// Calls f(type, payload) for each attribute; false when one is cut.
template <typename F>
bool ForEachAttribute(Bytes bytes, F&& f) {
  while (!bytes.empty()) {
    const auto header = Read<nlattr>(bytes);
    if (!header || header->nla_len < NLA_HDRLEN ||
        header->nla_len > bytes.size()) {
      return false;
    }
    f(static_cast<uint16_t>(header->nla_type & NLA_TYPE_MASK),
      bytes.subspan(NLA_HDRLEN, header->nla_len - NLA_HDRLEN));
    const size_t step = NLA_ALIGN(header->nla_len);
    bytes = bytes.subspan(step < bytes.size() ? step : bytes.size());
  }
  return true;
}

// One message, built from its end to its length.
class Message {
 public:
  Message(uint16_t type, uint16_t flags, uint32_t seq, uint32_t port) {
    nlmsghdr header = {};
    header.nlmsg_type = type;
    header.nlmsg_flags = flags;
    header.nlmsg_seq = seq;
    header.nlmsg_pid = port;
    Add(header);
  }
  template <typename T>
  void Add(const T& value) {
    const auto* from = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), from, from + sizeof(T));
  }
  void AddAttribute(uint16_t type, const void* data, size_t size) {
    Add(nlattr{static_cast<uint16_t>(NLA_HDRLEN + size), type});
    const auto* from = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
    bytes_.resize(NLA_ALIGN(bytes_.size()));
  }
  std::vector<std::byte> Finish() && {
    const auto length = static_cast<uint32_t>(bytes_.size());
    memcpy(bytes_.data(), &length, sizeof(length));
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
};

constexpr uint8_t kNetdevVersion = 1;

}  // namespace

std::optional<GenlRequest> ParseGenl(Bytes datagram) {
  const auto header = Read<nlmsghdr>(datagram);
  constexpr size_t kHeaders = NLMSG_HDRLEN + GENL_HDRLEN;
  // Several in one datagram are the kernel's.
  if (!header || header->nlmsg_len < kHeaders ||
      header->nlmsg_len > datagram.size() ||
      NLMSG_ALIGN(header->nlmsg_len) < datagram.size() ||
      (header->nlmsg_flags & NLM_F_REQUEST) == 0) {
    return std::nullopt;
  }
  const auto genl = *Read<genlmsghdr>(datagram.subspan(NLMSG_HDRLEN));
  return GenlRequest{
      .type = header->nlmsg_type,
      .flags = header->nlmsg_flags,
      .seq = header->nlmsg_seq,
      .command = genl.cmd,
      .attributes = datagram.subspan(kHeaders, header->nlmsg_len - kHeaders)};
}

bool AsksForNetdev(const GenlRequest& request) {
  if (request.type != GENL_ID_CTRL || request.command != CTRL_CMD_GETFAMILY) {
    return false;
  }
  bool is_netdev = false;
  ForEachAttribute(request.attributes, [&](uint16_t type, Bytes value) {
    const std::string_view name(reinterpret_cast<const char*>(value.data()),
                                value.size());
    is_netdev |= type == CTRL_ATTR_FAMILY_NAME &&
                 name.substr(0, name.find('\0')) == kNetdevFamily;
  });
  return is_netdev;
}

int ParseBind(const GenlRequest& request, BindRequest* out) {
  std::optional<uint32_t> ifindex;
  std::optional<uint32_t> fd;
  bool is_good = true;
  const auto take_queue = [&](Bytes nested) {
    std::optional<uint32_t> id;
    std::optional<uint32_t> kind;
    is_good &= ForEachAttribute(nested, [&](uint16_t type, Bytes value) {
      if (type == kQueueId) id = Read<uint32_t>(value);
      if (type == kQueueType) kind = Read<uint32_t>(value);
    });
    is_good &= id.has_value() && kind == kQueueTypeRx;
    if (is_good) out->queues.push_back(*id);
  };
  is_good &=
      ForEachAttribute(request.attributes, [&](uint16_t type, Bytes value) {
        if (type == kDmabufIfindex) ifindex = Read<uint32_t>(value);
        if (type == kDmabufFd) fd = Read<uint32_t>(value);
        if (type == kDmabufQueues) take_queue(value);
      });
  is_good &= ifindex.has_value() && fd.has_value() &&
             (request.command == kNetdevBindTx || !out->queues.empty());
  if (!is_good) return EINVAL;
  out->ifindex = *ifindex;
  out->fd = static_cast<int>(*fd);
  return 0;
}

std::vector<std::byte> MakeBindReply(const GenlRequest& request, uint32_t port,
                                     uint32_t dmabuf_id) {
  Message m(request.type, 0, request.seq, port);
  m.Add(genlmsghdr{request.command, kNetdevVersion, 0});
  m.AddAttribute(kDmabufId, &dmabuf_id, sizeof(dmabuf_id));
  return std::move(m).Finish();
}

std::vector<std::byte> MakeFamilyReply(const GenlRequest& request,
                                       uint32_t port, uint16_t family) {
  Message m(GENL_ID_CTRL, 0, request.seq, port);
  m.Add(genlmsghdr{CTRL_CMD_NEWFAMILY, 2, 0});
  m.AddAttribute(CTRL_ATTR_FAMILY_NAME, kNetdevFamily, sizeof(kNetdevFamily));
  m.AddAttribute(CTRL_ATTR_FAMILY_ID, &family, sizeof(family));
  const uint32_t version = kNetdevVersion;
  const uint32_t header_bytes = 0;
  const uint32_t max_attribute = kDmabufId;
  m.AddAttribute(CTRL_ATTR_VERSION, &version, sizeof(version));
  m.AddAttribute(CTRL_ATTR_HDRSIZE, &header_bytes, sizeof(header_bytes));
  m.AddAttribute(CTRL_ATTR_MAXATTR, &max_attribute, sizeof(max_attribute));
  return std::move(m).Finish();
}

std::vector<std::byte> MakeNoop(const GenlRequest& request) {
  return Message(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, request.seq, 0)
      .Finish();
}

std::optional<uint32_t> AcknowledgedBy(Bytes datagram) {
  const auto header = Read<nlmsghdr>(datagram);
  if (!header || header->nlmsg_type != NLMSG_ERROR) return std::nullopt;
  return header->nlmsg_seq;
}

void RewriteAck(std::span<std::byte> datagram, uint16_t type, int error) {
  if (datagram.size() < NLMSG_HDRLEN + sizeof(nlmsgerr)) return;
  nlmsgerr ack;
  std::byte* const at = datagram.data() + NLMSG_HDRLEN;
  memcpy(&ack, at, sizeof(ack));
  ack.error = -error;
  ack.msg.nlmsg_type = type;
  memcpy(at, &ack, sizeof(ack));
}

std::optional<uint16_t> FamilyIn(Bytes datagram) {
  const auto header = Read<nlmsghdr>(datagram);
  constexpr size_t kHeaders = NLMSG_HDRLEN + GENL_HDRLEN;
  if (!header || header->nlmsg_type != GENL_ID_CTRL ||
      header->nlmsg_len < kHeaders || header->nlmsg_len > datagram.size()) {
    return std::nullopt;
  }
  std::optional<uint16_t> id;
  ForEachAttribute(datagram.subspan(kHeaders, header->nlmsg_len - kHeaders),
                   [&](uint16_t type, Bytes value) {
                     if (type == CTRL_ATTR_FAMILY_ID)
                       id = Read<uint16_t>(value);
                   });
  return id;
}

std::vector<std::byte> MakeFamilyRequest(uint32_t seq) {
  Message m(GENL_ID_CTRL, NLM_F_REQUEST, seq, 0);
  m.Add(genlmsghdr{CTRL_CMD_GETFAMILY, 1, 0});
  m.AddAttribute(CTRL_ATTR_FAMILY_NAME, kNetdevFamily, sizeof(kNetdevFamily));
  return std::move(m).Finish();
}

}  // namespace devwire::preload
