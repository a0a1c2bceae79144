#include "softnic/flow_table.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace softnic {
namespace {

FlowKey::Words WordsOf(const FlowKey& key) {
  return std::bit_cast<FlowKey::Words>(key);
}

bool IsPromiscuous(const FlowRule& rule) {
  return rule.mask.dst_mac == std::array<uint8_t, 6>{} &&
         rule.mask == FlowKey{};
}

}  // namespace

FlowKey KeyOf(const ParsedFrame& f, std::span<const std::byte> head) {
  FlowKey key;
  const std::byte* p = head.data();
  memcpy(key.dst_mac.data(), p, 6);
  memcpy(key.src_mac.data(), p + 6, 6);
  key.is_multicast = key.dst_mac[0] & 1;
  key.ether_type = htobe16(f.ethertype);
  key.has_vlan = f.has_vlan;
  key.vlan_tag = htobe16(f.vlan_tag);
  key.ip_version = f.layout.ip_version;
  key.protocol = f.ip_protocol;
  key.is_fragment = f.is_fragment;
  const std::byte* ip = p + f.layout.l3_offset;
  if (key.ip_version == 4) {
    key.traffic_class = static_cast<uint8_t>(ip[1]);
    key.ttl = static_cast<uint8_t>(ip[8]);
    memcpy(key.src_ip.data(), ip + 12, 4);
    memcpy(key.dst_ip.data(), ip + 16, 4);
  } else if (key.ip_version == 6) {
    const uint32_t word = Load32(ip);
    key.traffic_class = static_cast<uint8_t>(word >> 20);
    key.flow_label = htobe32(word & 0xfffff);
    key.ttl = static_cast<uint8_t>(ip[7]);
    memcpy(key.src_ip.data(), ip + 8, 16);
    memcpy(key.dst_ip.data(), ip + 24, 16);
  }
  if (f.layout.l4_offset > 0) {
    memcpy(&key.src_port, p + f.layout.l4_offset, 2);
    memcpy(&key.dst_port, p + f.layout.l4_offset + 2, 2);
  }
  return key;
}

int FlowTable::Add(const FlowRule& rule, uint32_t* handle) {
  if (rules_.size() >= capacity_) return ENOMEM;
  is_last_valid_ = false;
  FlowRule masked = rule;
  FlowKey::Words mask = WordsOf(rule.mask);
  FlowKey::Words value = WordsOf(rule.value);
  for (size_t i = 0; i < mask.size(); ++i) value[i] &= mask[i];
  masked.value = std::bit_cast<FlowKey>(value);

  auto same = std::find_if(
      groups_.begin(), groups_.end(), [&](const std::unique_ptr<Group>& g) {
        return g->priority == rule.priority && g->continues == rule.continues &&
               g->mask == mask;
      });
  if (same == groups_.end()) {
    // Behind all groups that come no later; DONT_TRAP goes before others of
    // its priority, or it would never see a frame.
    auto at = std::find_if(groups_.begin(), groups_.end(),
                           [&](const std::unique_ptr<Group>& g) {
                             return g->priority > rule.priority ||
                                    (g->priority == rule.priority &&
                                     rule.continues && !g->continues);
                           });
    same = groups_.insert(at, std::make_unique<Group>(Group{
                                  rule.priority, rule.continues, mask, {}}));
  }
  *handle = next_handle_++;
  (*same)->table[value].push_back({*handle, rule.qp_num});
  promiscuous_rules_ += IsPromiscuous(rule);
  rules_.emplace(*handle, masked);
  return 0;
}

int FlowTable::Remove(uint32_t handle) {
  auto it = rules_.find(handle);
  if (it == rules_.end()) return EINVAL;
  const FlowRule rule = it->second;
  is_last_valid_ = false;
  rules_.erase(it);
  promiscuous_rules_ -= IsPromiscuous(rule);
  for (auto g = groups_.begin(); g != groups_.end(); ++g) {
    auto entry = (*g)->table.find(WordsOf(rule.value));
    if (entry == (*g)->table.end()) continue;
    std::vector<Target>& targets = entry->second;
    if (std::erase_if(targets, [handle](const Target& t) {
          return t.handle == handle;
        }) == 0) {
      continue;
    }
    if (targets.empty()) (*g)->table.erase(entry);
    if ((*g)->table.empty()) groups_.erase(g);
    return 0;
  }
  return 0;
}

bool FlowTable::HasRules(uint32_t qp_num) const {
  return std::any_of(rules_.begin(), rules_.end(), [qp_num](const auto& entry) {
    return entry.second.qp_num == qp_num;
  });
}

void FlowTable::Search(const FlowKey& key) {
  const FlowKey::Words words = WordsOf(key);
  last_key_ = key;
  last_count_ = 0;
  is_last_valid_ = true;
  for (const std::unique_ptr<Group>& group : groups_) {
    FlowKey::Words masked;
    for (size_t i = 0; i < masked.size(); ++i) {
      masked[i] = words[i] & group->mask[i];
    }
    auto it = group->table.find(masked);
    if (it == group->table.end()) continue;
    for (const Target& target : it->second) {
      if (last_count_ < kMaxTargets) {
        last_targets_[last_count_++] = target.qp_num;
      }
    }
    if (!group->continues) break;
  }
}

}  // namespace softnic
