// What to steer to a queue, as the flow specs that the NIC understands.
//
// Source:   ibv_create_flow(3). Few mask shapes, because the hardware has one
//           table group per shape and few groups; per IP family:
//             kConnection  MAC, both addresses, both ports
//             kPortBlock   MAC, local address, local port under a mask
//             kListener    MAC, local address, local port
//             kOwnedHost   MAC alone, and the multicast bit alone
//           Our own MAC is matched always, or a promiscuous port would bring
//           us the traffic of others.
// Threads:  any; blocks for the device (a firmware command each).
#ifndef TRANSPORT_VERBS_FLOW_RULE_H_
#define TRANSPORT_VERBS_FLOW_RULE_H_

#include <infiniband/verbs.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "transport/address.h"
#include "transport/packet_io.h"
#include "transport/verbs/handles.h"

namespace devwire {

// ibv_flow_attr with its specs behind it, without gaps.
class FlowSpecs {
 public:
  FlowSpecs(uint8_t port, uint16_t priority);
  void AddMac(const MacAddress& value, const MacAddress& mask);
  // An address of all zeros matches any.
  void AddIp(const IpAddress& local, const IpAddress& remote);
  // Zero matches any.
  void AddTcp(Port local, uint16_t local_mask, Port remote);

  ibv_flow_attr* attr() {
    return reinterpret_cast<ibv_flow_attr*>(bytes_.data());
  }

 private:
  template <typename Spec>
  void Append(Spec spec);

  // The longest: IPv6 connection.
  alignas(8)
      std::array<std::byte, sizeof(ibv_flow_attr) + sizeof(ibv_flow_spec_eth) +
                                sizeof(ibv_flow_spec_ipv6) +
                                sizeof(ibv_flow_spec_tcp_udp)> bytes_{};
};

// kOwnedHost is two: unicast, and broadcast with multicast.
inline constexpr size_t kMaxFlowsPerRule = 2;
using InstalledFlows = std::array<UniqueFlow, kMaxFlowsPerRule>;

// Installs all flows of one rule, or none. 0 or an errno: ENOMEM no room,
// EPERM no CAP_NET_RAW.
int InstallRule(ibv_qp* qp, uint8_t port, const MacAddress& mac,
                const FlowMatch& match, InstalledFlows* flows);

// The priority of each kind; smaller wins.
constexpr uint16_t FlowPriority(FlowMatch::Kind kind) {
  return static_cast<uint16_t>(kind);
}
static_assert(FlowPriority(FlowMatch::Kind::kConnection) == 0);
static_assert(FlowPriority(FlowMatch::Kind::kOwnedHost) == 3);

}  // namespace devwire

#endif  // TRANSPORT_VERBS_FLOW_RULE_H_
