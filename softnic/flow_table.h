// Which queue pairs a frame goes to.
//
// Rules stand in groups of equal (priority, mask); a group is a hash table of
// the masked fields. A frame goes to the first group that matches, in order of
// priority (0 first) and then of the group's age, and there to every rule of
// equal match: as on mlx5, whose flow tables hold one group per mask shape, and
// which delivers to all the destinations of one match. A DONT_TRAP rule
// delivers and lets the frame go on (ibv_create_flow(3)).
//
// Threads:  those of the device core.
// Cost:     Match: 64 bytes compared for a frame of the same flow as the last,
//           else one hash per group; no allocation. Add may allocate.
#ifndef SOFTNIC_FLOW_TABLE_H_
#define SOFTNIC_FLOW_TABLE_H_

#include <infiniband/verbs.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "softnic/packet.h"

namespace softnic {

// The fields that rules can name, packed for comparing. Bytes in network order
// as they stand in the frame; what a frame lacks is zero.
struct FlowKey {
  std::array<uint8_t, 6> dst_mac = {};
  std::array<uint8_t, 6> src_mac = {};
  uint16_t ether_type = 0;
  uint16_t vlan_tag = 0;
  std::array<uint8_t, 16> src_ip = {};  // IPv4: the first four bytes
  std::array<uint8_t, 16> dst_ip = {};
  uint32_t flow_label = 0;
  uint16_t src_port = 0;
  uint16_t dst_port = 0;
  uint8_t ip_version = 0;
  uint8_t protocol = 0;
  uint8_t traffic_class = 0;  // IPv4: tos
  uint8_t ttl = 0;            // IPv6: hop limit
  uint8_t has_vlan = 0;
  uint8_t is_fragment = 0;
  uint8_t is_multicast = 0;
  uint8_t reserved = 0;

  static constexpr size_t kWords = 8;
  using Words = std::array<uint64_t, kWords>;
  bool operator==(const FlowKey& other) const {
    return memcmp(this, &other, sizeof(*this)) == 0;  // no padding, see below
  }
};
static_assert(sizeof(FlowKey) == FlowKey::kWords * sizeof(uint64_t));

// A rule as the front end has checked and translated it.
struct FlowRule {
  FlowKey value;
  FlowKey mask;
  uint32_t priority = 0;  // 0 first
  uint32_t qp_num = 0;
  bool continues = false;  // IBV_FLOW_ATTR_FLAGS_DONT_TRAP
};

// Translates what ibv_create_flow is given. 0 or the errno that mlx5 has for
// it: EINVAL, EOPNOTSUPP, ENOMEM (priority out of range). `is_full`: profile
// `full`, which also matches ttl, flags and hop limit.
int TranslateFlow(const ibv_flow_attr& attr, bool is_full, FlowRule* rule);

FlowKey KeyOf(const ParsedFrame& frame, std::span<const std::byte> head);

class FlowTable {
 public:
  static constexpr size_t kMaxTargets =
      64;  // queue pairs that one frame goes to

  explicit FlowTable(uint32_t capacity) : capacity_(capacity) {}

  // 0, or ENOMEM: no room.
  int Add(const FlowRule& rule, uint32_t* handle);
  // 0, or EINVAL.
  int Remove(uint32_t handle);
  bool HasRules(uint32_t qp_num) const;

  // The QP numbers that a frame of these fields goes to; valid until the next
  // call of anything here.
  std::span<const uint32_t> Match(const FlowKey& key) {
    if (!(key == last_key_) || !is_last_valid_) Search(key);
    return {last_targets_.data(), last_count_};
  }

  size_t size() const { return rules_.size(); }
  void set_capacity(uint32_t capacity) { capacity_ = capacity; }
  // Rules that take unicast frames for any address: the port is promiscuous.
  bool is_promiscuous() const { return promiscuous_rules_ > 0; }

 private:
  struct Target {
    uint32_t handle;
    uint32_t qp_num;
  };
  struct Group {
    uint32_t priority;
    bool continues;
    FlowKey::Words mask;
    absl::flat_hash_map<FlowKey::Words, std::vector<Target>> table;
  };

  // Fills last_*.
  void Search(const FlowKey& key);

  // What the last frame's fields matched; any change of the rules voids it.
  FlowKey last_key_;
  bool is_last_valid_ = false;
  size_t last_count_ = 0;
  std::array<uint32_t, kMaxTargets> last_targets_;

  uint32_t capacity_;
  uint32_t next_handle_ = 1;
  uint32_t promiscuous_rules_ = 0;
  absl::flat_hash_map<uint32_t, FlowRule> rules_;  // by handle
  std::vector<std::unique_ptr<Group>> groups_;     // in matching order
};

}  // namespace softnic

#endif  // SOFTNIC_FLOW_TABLE_H_
