// Messages of the generic-netlink family "netdev" that bind a dmabuf: what a
// request asks, and what answers it.
//
// Source:   netlink(7); Linux Documentation/netlink/specs/netdev.yaml, the
//           operations bind-rx and bind-tx; genetlink's CTRL_CMD_GETFAMILY.
// Threads:  plain functions.
// Errors:   a malformed message is nobody's: the kernel gets it, and answers.
#ifndef SOCKETS_PRELOAD_DEVMEM_NETLINK_H_
#define SOCKETS_PRELOAD_DEVMEM_NETLINK_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace devwire::preload {

// A request of generic netlink, alone in its datagram.
struct GenlRequest {
  uint16_t type = 0;  // the family
  uint16_t flags = 0;
  uint32_t seq = 0;
  uint8_t command = 0;
  std::span<const std::byte> attributes;  // of the datagram
};
std::optional<GenlRequest> ParseGenl(std::span<const std::byte> datagram);

// CTRL_CMD_GETFAMILY of "netdev" by its name.
bool AsksForNetdev(const GenlRequest& request);

// bind-rx (and then `queues`) or bind-tx.
struct BindRequest {
  uint32_t ifindex = 0;
  int fd = -1;
  std::vector<uint32_t> queues;
};
// 0, or EINVAL: something is missing, or a queue does not receive.
int ParseBind(const GenlRequest& request, BindRequest* out);

// Answers, each a whole datagram.
std::vector<std::byte> MakeBindReply(const GenlRequest& request, uint32_t port,
                                     uint32_t dmabuf_id);
std::vector<std::byte> MakeFamilyReply(const GenlRequest& request,
                                       uint32_t port, uint16_t family);

// A message to the kernel that does nothing and is acknowledged, with the
// sequence number of `request`.
std::vector<std::byte> MakeNoop(const GenlRequest& request);
// The sequence number that a datagram of the kernel's acknowledges.
std::optional<uint32_t> AcknowledgedBy(std::span<const std::byte> datagram);
// Makes the acknowledgement of a MakeNoop() that of `type`, with this errno.
void RewriteAck(std::span<std::byte> datagram, uint16_t type, int error);

// The id in a reply to CTRL_CMD_GETFAMILY; empty: there is no such family.
std::optional<uint16_t> FamilyIn(std::span<const std::byte> datagram);
// CTRL_CMD_GETFAMILY of "netdev".
std::vector<std::byte> MakeFamilyRequest(uint32_t seq);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_DEVMEM_NETLINK_H_
