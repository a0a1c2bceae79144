#include "transport/engine/port_table.h"

#include <utility>

#include "base/check.h"
#include "base/prng.h"

namespace devwire {
namespace {

constexpr uint32_t kPorts = 65536;

}  // namespace

PortTable::PortTable(uint16_t first, uint8_t block_bits, const HashKey& secret)
    : block_bits_(block_bits), secret_(secret) {
  CHECK_LE(block_bits, 15);
  const uint32_t size = 1u << block_bits;
  first_block_ = (first + size - 1) / size * size;
  for (uint32_t start = first_block_; start < kPorts; start += size) {
    blocks_.push_back(start);
  }
  // Fisher and Yates's shuffle; its numbers leave here only as this order.
  Prng prng(secret.k0 ^ secret.k1);
  for (size_t i = blocks_.size(); i > 1; --i) {
    std::swap(blocks_[i - 1], blocks_[prng.Below(i)]);
  }
}

bool PortTable::AddListener(Port port, uint32_t listener, bool shares) {
  Listeners& there = listeners_[port];
  if (!there.members.empty() && !(shares && there.shares)) return false;
  there.shares = shares;
  there.members.push_back(listener);
  return true;
}

void PortTable::RemoveListener(Port port, uint32_t listener) {
  const auto found = listeners_.find(port);
  CHECK(found != listeners_.end());
  CHECK_EQ(std::erase(found->second.members, listener), 1u);
  if (found->second.members.empty()) listeners_.erase(found);
}

std::optional<uint32_t> PortTable::FindListener(const FourTuple& tuple) const {
  const auto found = listeners_.find(tuple.local.port);
  if (found == listeners_.end()) return std::nullopt;
  const std::vector<uint32_t>& members = found->second.members;
  if (members.size() == 1) return members.front();
  return members[PortHash(tuple, secret_) % members.size()];
}

std::optional<uint32_t> PortTable::FirstListener(Port port) const {
  const auto found = listeners_.find(port);
  if (found == listeners_.end()) return std::nullopt;
  return found->second.members.front();
}

std::optional<Port> PortTable::FreeListenPort() const {
  constexpr uint32_t kFirstUserPort = 1024;  // RFC 6335 6.
  // Below the blocks where there is room, so that a block's rule does not
  // cover it; else any: both rules lead to the control queue.
  for (const uint32_t end : {first_block_, kPorts}) {
    for (uint32_t port = end - 1; port >= kFirstUserPort; --port) {
      const Port free{static_cast<uint16_t>(port)};
      if (!FirstListener(free)) return free;
    }
  }
  return std::nullopt;
}

// The walk goes on in the new block, the one whose ports were never used.
bool PortTable::OpenBlock(uint32_t offset, Round* round) {
  if (open_blocks_ == blocks_.size()) return false;
  const uint32_t start = open_ports();
  ++open_blocks_;
  const uint32_t in_block = offset & ((1u << block_bits_) - 1);
  round->next = start + in_block - offset % open_ports();
  return true;
}

std::optional<Port> PortTable::Walk(uint32_t offset, Round* round,
                                    const std::function<bool(Port)>& is_taken) {
  for (uint32_t i = 0; i < open_ports(); ++i) {
    const uint32_t at = (offset % open_ports() + round->next++) % open_ports();
    ++round->tries;
    const uint32_t number =
        blocks_[at >> block_bits_] + (at & ((1u << block_bits_) - 1));
    const Port port{static_cast<uint16_t>(number)};
    if (number != 0 && !FirstListener(port) && !is_taken(port)) return port;
  }
  return std::nullopt;
}

std::optional<PortTable::Choice> PortTable::Choose(
    const FourTuple& tuple, Instant now,
    const std::function<bool(Port)>& is_taken) {
  const uint64_t hash = PortHash(tuple, secret_);
  const auto offset = static_cast<uint32_t>(hash);
  Round& round = rounds_[(hash >> 32) % kCounters];
  bool opened = false;
  if (round.tries >= open_ports()) {
    const bool is_soon = now - round.began < kReuseAfter;
    if (open_blocks_ == 0 || is_soon) opened = OpenBlock(offset, &round);
    round.tries = 0;
    round.began = now;
  }
  auto port = Walk(offset, &round, is_taken);
  if (!port.has_value() && !opened) {
    opened = OpenBlock(offset, &round);
    if (opened) port = Walk(offset, &round, is_taken);
  }
  if (!port.has_value()) return std::nullopt;
  const uint32_t number = static_cast<uint16_t>(*port);
  const uint32_t start = number & ~((1u << block_bits_) - 1);
  return Choice{*port, opened, Port{static_cast<uint16_t>(start)}};
}

}  // namespace devwire
