#include "transport/verbs/flow_rule.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/check.h"
#include "memreg/verbs_library.h"

namespace devwire {
namespace {

constexpr MacAddress kWholeMac = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
// IEEE 802 8.2.2: the first bit on the wire; broadcast has it, too.
constexpr MacAddress kGroupBit = {1, 0, 0, 0, 0, 0};

bool IsAny(const IpAddress& ip) {
  return ip.bytes == std::array<uint8_t, 16>{};
}

template <typename T>
void CopyIp(const IpAddress& ip, T* value, T* mask) {
  if (IsAny(ip)) return;
  memcpy(value, ip.bytes.data(), sizeof(T));
  memset(mask, 0xff, sizeof(T));
}

uint16_t Network(Port port) { return htobe16(static_cast<uint16_t>(port)); }

}  // namespace

FlowSpecs::FlowSpecs(uint8_t port, uint16_t priority) {
  ibv_flow_attr& a = *attr();
  a.type = IBV_FLOW_ATTR_NORMAL;
  a.size = sizeof(ibv_flow_attr);
  a.priority = priority;
  a.port = port;
}

template <typename Spec>
void FlowSpecs::Append(Spec spec) {
  spec.size = sizeof(Spec);
  CHECK_LE(attr()->size + sizeof(Spec), bytes_.size());
  memcpy(bytes_.data() + attr()->size, &spec, sizeof(Spec));
  attr()->size = static_cast<uint16_t>(attr()->size + sizeof(Spec));
  ++attr()->num_of_specs;
}

void FlowSpecs::AddMac(const MacAddress& value, const MacAddress& mask) {
  ibv_flow_spec_eth spec = {};
  spec.type = IBV_FLOW_SPEC_ETH;
  memcpy(spec.val.dst_mac, value.data(), value.size());
  memcpy(spec.mask.dst_mac, mask.data(), mask.size());
  Append(spec);
}

void FlowSpecs::AddIp(const IpAddress& local, const IpAddress& remote) {
  // A received frame: we are its destination.
  if (local.is_v4()) {
    ibv_flow_spec_ipv4 spec = {};
    spec.type = IBV_FLOW_SPEC_IPV4;
    CopyIp(local, &spec.val.dst_ip, &spec.mask.dst_ip);
    CopyIp(remote, &spec.val.src_ip, &spec.mask.src_ip);
    Append(spec);
    return;
  }
  ibv_flow_spec_ipv6 spec = {};
  spec.type = IBV_FLOW_SPEC_IPV6;
  CopyIp(local, &spec.val.dst_ip, &spec.mask.dst_ip);
  CopyIp(remote, &spec.val.src_ip, &spec.mask.src_ip);
  Append(spec);
}

void FlowSpecs::AddTcp(Port local, uint16_t local_mask, Port remote) {
  ibv_flow_spec_tcp_udp spec = {};
  spec.type = IBV_FLOW_SPEC_TCP;
  spec.val.dst_port = Network(local) & htobe16(local_mask);
  spec.mask.dst_port = htobe16(local_mask);
  if (remote != Port{}) {
    spec.val.src_port = Network(remote);
    spec.mask.src_port = 0xffff;
  }
  Append(spec);
}

int InstallRule(ibv_qp* qp, uint8_t port, const MacAddress& mac,
                const FlowMatch& match, InstalledFlows* flows) {
  FlowSpecs first(port, FlowPriority(match.kind));
  FlowSpecs second(port, FlowPriority(match.kind));
  const FourTuple& t = match.tuple;
  bool has_second = false;
  first.AddMac(mac, kWholeMac);
  switch (match.kind) {
    case FlowMatch::Kind::kConnection:
      first.AddIp(t.local.ip, t.remote.ip);
      first.AddTcp(t.local.port, 0xffff, t.remote.port);
      break;
    case FlowMatch::Kind::kPortBlock:
      if (match.port_block_bits > 16) return EINVAL;
      first.AddIp(t.local.ip, IpAddress{.family = t.local.ip.family});
      first.AddTcp(t.local.port,
                   static_cast<uint16_t>(0xffffu << match.port_block_bits),
                   Port{});
      break;
    case FlowMatch::Kind::kListener:
      first.AddIp(t.local.ip, IpAddress{.family = t.local.ip.family});
      first.AddTcp(t.local.port, 0xffff, Port{});
      break;
    case FlowMatch::Kind::kOwnedHost:
      second.AddMac(kGroupBit, kGroupBit);
      has_second = true;
      break;
  }
  errno = 0;
  InstalledFlows made;
  made[0].reset(VerbsTable::CreateFlow(qp, first.attr()));
  if (made[0] == nullptr) return errno != 0 ? errno : EINVAL;
  if (has_second) {
    made[1].reset(VerbsTable::CreateFlow(qp, second.attr()));
    if (made[1] == nullptr) return errno != 0 ? errno : EINVAL;
  }
  *flows = std::move(made);
  return 0;
}

}  // namespace devwire
