// Translates ibv_flow_attr and its specs into a FlowRule, with the refusals of
// the mlx5 driver (drivers/infiniband/hw/mlx5/fs.c) and of ibv_create_flow(3).
#include <endian.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

#include "softnic/flow_table.h"

namespace softnic {
namespace {

// mlx5's kernel driver has 2 * 16 priorities for verbs rules and answers ENOMEM
// beyond them (MLX5_IB_FLOW_LAST_PRIO).
constexpr uint32_t kPriorities = 16;
// Behind every NORMAL rule.
constexpr uint32_t kPriorityDefault = 1u << 20;
constexpr uint16_t kTypeIpv4 = 0x0800, kTypeIpv6 = 0x86dd;

class Translator {
 public:
  Translator(bool is_full, FlowRule* rule) : is_full_(is_full), rule_(rule) {}

  // 0 or an errno. `spec` is of its type's size.
  int Add(const ibv_flow_spec& spec) {
    switch (static_cast<uint32_t>(spec.hdr.type)) {
      case IBV_FLOW_SPEC_ETH:
        return AddEth(spec.eth);
      case IBV_FLOW_SPEC_IPV4:
        return AddIpv4(
            {spec.ipv4.val.src_ip, spec.ipv4.val.dst_ip, 0, 0, 0, 0},
            {spec.ipv4.mask.src_ip, spec.ipv4.mask.dst_ip, 0, 0, 0, 0});
      case IBV_FLOW_SPEC_IPV4_EXT:
        return AddIpv4(spec.ipv4_ext.val, spec.ipv4_ext.mask);
      case IBV_FLOW_SPEC_IPV6:
        return AddIpv6(spec.ipv6);
      case IBV_FLOW_SPEC_TCP:
        return AddPorts(spec.tcp_udp, IPPROTO_TCP);
      case IBV_FLOW_SPEC_UDP:
        return AddPorts(spec.tcp_udp, IPPROTO_UDP);
    }
    return EOPNOTSUPP;
  }

 private:
  int AddEth(const ibv_flow_spec_eth& s) {
    FlowKey& v = rule_->value;
    FlowKey& m = rule_->mask;
    memcpy(v.dst_mac.data(), s.val.dst_mac, 6);
    memcpy(m.dst_mac.data(), s.mask.dst_mac, 6);
    memcpy(v.src_mac.data(), s.val.src_mac, 6);
    memcpy(m.src_mac.data(), s.mask.src_mac, 6);
    if (s.mask.vlan_tag != 0) {
      v.has_vlan = 1;
      m.has_vlan = 0xff;
      v.vlan_tag = s.val.vlan_tag;
      m.vlan_tag = s.mask.vlan_tag;
    }
    if (s.mask.ether_type == 0) return 0;
    if (s.mask.ether_type != 0xffff) return EINVAL;
    return SetEtherType(s.val.ether_type);
  }

  // A spec that says what another has said must say the same.
  int SetEtherType(uint16_t type) {
    FlowKey& v = rule_->value;
    FlowKey& m = rule_->mask;
    if (m.ether_type != 0 && v.ether_type != type) return EINVAL;
    v.ether_type = type;
    m.ether_type = 0xffff;
    return 0;
  }

  int SetVersion(uint8_t version) {
    FlowKey& v = rule_->value;
    if (v.ip_version != 0) return EINVAL;
    v.ip_version = version;
    rule_->mask.ip_version = 0xff;
    return SetEtherType(htobe16(version == 4 ? kTypeIpv4 : kTypeIpv6));
  }

  int SetProtocol(uint8_t value, uint8_t mask) {
    if (mask == 0) return 0;
    FlowKey& v = rule_->value;
    FlowKey& m = rule_->mask;
    if (m.protocol != 0 && ((v.protocol ^ value) & m.protocol & mask) != 0) {
      return EINVAL;
    }
    v.protocol |= value & mask;
    m.protocol |= mask;
    return 0;
  }

  int AddIpv4(const ibv_flow_ipv4_ext_filter& value,
              const ibv_flow_ipv4_ext_filter& mask) {
    if ((mask.ttl != 0 || mask.flags != 0) && !is_full_) return EOPNOTSUPP;
    if (mask.flags != 0) return EOPNOTSUPP;
    if (const int error = SetVersion(4); error != 0) return error;
    FlowKey& v = rule_->value;
    FlowKey& m = rule_->mask;
    memcpy(v.src_ip.data(), &value.src_ip, 4);
    memcpy(m.src_ip.data(), &mask.src_ip, 4);
    memcpy(v.dst_ip.data(), &value.dst_ip, 4);
    memcpy(m.dst_ip.data(), &mask.dst_ip, 4);
    v.traffic_class = value.tos;
    m.traffic_class = mask.tos;
    v.ttl = value.ttl;
    m.ttl = mask.ttl;
    return SetProtocol(value.proto, mask.proto);
  }

  int AddIpv6(const ibv_flow_spec_ipv6& s) {
    if (s.mask.hop_limit != 0 && !is_full_) return EOPNOTSUPP;
    if (const int error = SetVersion(6); error != 0) return error;
    FlowKey& v = rule_->value;
    FlowKey& m = rule_->mask;
    memcpy(v.src_ip.data(), s.val.src_ip, 16);
    memcpy(m.src_ip.data(), s.mask.src_ip, 16);
    memcpy(v.dst_ip.data(), s.val.dst_ip, 16);
    memcpy(m.dst_ip.data(), s.mask.dst_ip, 16);
    v.flow_label = s.val.flow_label;
    m.flow_label = s.mask.flow_label;
    v.traffic_class = s.val.traffic_class;
    m.traffic_class = s.mask.traffic_class;
    v.ttl = s.val.hop_limit;
    m.ttl = s.mask.hop_limit;
    return SetProtocol(s.val.next_hdr, s.mask.next_hdr);
  }

  int AddPorts(const ibv_flow_spec_tcp_udp& s, uint8_t protocol) {
    FlowKey& v = rule_->value;
    FlowKey& m = rule_->mask;
    v.src_port = s.val.src_port;
    m.src_port = s.mask.src_port;
    v.dst_port = s.val.dst_port;
    m.dst_port = s.mask.dst_port;
    // A fragment has no ports, not even ports of zero.
    m.is_fragment = 0xff;
    return SetProtocol(protocol, 0xff);
  }

  const bool is_full_;
  FlowRule* rule_;
};

size_t SpecBytes(uint32_t type) {
  switch (type) {
    case IBV_FLOW_SPEC_ETH:
      return sizeof(ibv_flow_spec_eth);
    case IBV_FLOW_SPEC_IPV4:
      return sizeof(ibv_flow_spec_ipv4);
    case IBV_FLOW_SPEC_IPV4_EXT:
      return sizeof(ibv_flow_spec_ipv4_ext);
    case IBV_FLOW_SPEC_IPV6:
      return sizeof(ibv_flow_spec_ipv6);
    case IBV_FLOW_SPEC_TCP:
    case IBV_FLOW_SPEC_UDP:
      return sizeof(ibv_flow_spec_tcp_udp);
  }
  return 0;
}

}  // namespace

int TranslateFlow(const ibv_flow_attr& attr, bool is_full, FlowRule* rule) {
  *rule = FlowRule{};
  constexpr uint32_t kFlags = IBV_FLOW_ATTR_FLAGS_DONT_TRAP;
  if (attr.comp_mask != 0) return EINVAL;
  if ((attr.flags & ~kFlags) != 0) {
    return (attr.flags & IBV_FLOW_ATTR_FLAGS_EGRESS) != 0 ? EOPNOTSUPP : EINVAL;
  }
  rule->continues = (attr.flags & IBV_FLOW_ATTR_FLAGS_DONT_TRAP) != 0;
  switch (static_cast<uint32_t>(attr.type)) {
    case IBV_FLOW_ATTR_NORMAL:
      break;
    case IBV_FLOW_ATTR_ALL_DEFAULT:
    case IBV_FLOW_ATTR_MC_DEFAULT:
      if (rule->continues || attr.num_of_specs != 0) return EINVAL;
      rule->priority = kPriorityDefault;
      if (attr.type == IBV_FLOW_ATTR_MC_DEFAULT) {
        rule->value.is_multicast = 1;
        rule->mask.is_multicast = 0xff;
      }
      return 0;
    case IBV_FLOW_ATTR_SNIFFER:
      return EOPNOTSUPP;  // mlx5 without allow_sniffer_and_nic_rx_shared_tir
    default:
      return EINVAL;
  }
  if (attr.priority >= kPriorities) return ENOMEM;
  rule->priority = attr.priority;

  Translator translator(is_full, rule);
  const auto* at = reinterpret_cast<const std::byte*>(&attr + 1);
  // As in libibverbs the specs' own sizes count, not attr.size.
  for (int i = 0; i < attr.num_of_specs; ++i) {
    ibv_flow_spec spec = {};
    memcpy(&spec.hdr, at, sizeof(spec.hdr));
    const size_t bytes = SpecBytes(spec.hdr.type);
    if (bytes == 0) return EOPNOTSUPP;
    if (spec.hdr.size != bytes) return EINVAL;
    memcpy(&spec, at, bytes);
    if (const int error = translator.Add(spec); error != 0) return error;
    at += bytes;
  }
  return 0;
}

}  // namespace softnic
